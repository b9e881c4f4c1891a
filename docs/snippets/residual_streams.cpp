#include <cmath>
#include <cstdint>
#include <cstdio>
#include <tuple>
#include <utility>
#include <vector>

#include <guild/guild.hpp>

// [begin]
struct StreamSpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 32, .hidden = 32, .layers = 3, .context = 64};
  static constexpr guild::MlaConfig attention = {
      .heads = 2, .latent_rank = 16, .nope_dim = 8, .rope_dim = 8, .value_dim = 16};
  static constexpr guild::HyperConfig hyper = {.streams = 4, .sinkhorn_rounds = 20};
  static constexpr guild::DenseConfig dense = {.hidden = 48, .layers = 0};
  static constexpr guild::TopKConfig routing = {
      .experts = 8, .top_k = 2, .scoring = guild::Scoring::sqrt_softplus, .scale = 1.5};
  static constexpr guild::ExpertConfig experts = {.hidden = 16};
  template <class S, class Router>
  using Layer = guild::Block<S, guild::Mla<S>, guild::Moe<S, Router>, guild::HyperConnections<S>>;
  template <class S>
  using Layers = guild::Streams<S, guild::Stack<guild::Segment<Layer<S, guild::HashRouter<S>>, 1>,
                                                guild::Segment<Layer<S, guild::TopKRouter<S>>, 2>>>;
};
using Model = guild::Transformer<StreamSpec>;
// [end]

int main() {
  // Trained: a sequence that it can learn by heart.
  guild::Cpu device({.threads = 2});
  Model::Weights<guild::Dense<float>> first;
  guild::initialize<Model>(first, {.seed = 1, .deviation = 0.1});
  guild::HashRouter<StreamSpec>::deal_experts(std::get<0>(first.layers.layers.parts).layers[0].feed_forward.router.table);
  guild::Trainer<Model> trainer(device, std::move(first), {.optimizer = guild::AdamW{.lr = 1e-2}});
  std::vector<std::int32_t> tokens, targets;
  for (std::int32_t i = 0; i < 24; ++i) tokens.push_back(i * 7 % 32), targets.push_back((i + 1) * 7 % 32);
  guild::TrainingBatch batch;
  batch.append(tokens, targets);
  double before = 0.0, after = 0.0;
  for (int step = 0; step < 40; ++step) {
    after = trainer.step(batch).losses.loss();
    if (step == 0) before = after;
  }
  std::printf("loss %.2f, then %.2f\n", before, after);

  // Used: one token after the other.
  Model::Cache cache;
  Model::Cache* caches[] = {&cache};
  int right = 0;
  for (std::int32_t i = 0; i < 24; ++i) {
    const guild::Chunk chunk{0, 0, 1, i};
    guild::Buffer<float> state(32), logits(32);
    const guild::Batch next{{&tokens[static_cast<std::size_t>(i)], 1}, {&i, 1}, {&chunk, 1}};
    Model::forward(guild::Pass{.device = device, .batch = next}, trainer.weights(), caches, state.view(1, 32));
    Model::logits(device, trainer.weights(), state.view(1, 32), logits.view(1, 32));
    std::int32_t best = 0;
    for (std::int32_t token = 1; token < 32; ++token)
      if (logits[token] > logits[best]) best = token;
    right += best == targets[static_cast<std::size_t>(i)] ? 1 : 0;
  }
  std::printf("%d of 24 tokens decoded right\n", right);
  return after < 0.5 * before && right >= 20 ? 0 : 1;
}
