// A model of two kinds of attention: five layers that see a window of 8 tokens, with sinks, then one that sees all and
// decides for each head and token how much what lies beyond the window counts. It learns to repeat what it read 24
// tokens ago, and its caches are compared with those of a model whose layers all see everything.
#include <algorithm>
#include <cstdio>
#include <span>
#include <vector>

#include <guild/guild.hpp>

struct AllGlobal : guild::LlamaDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 32, .hidden = 48, .layers = 6, .context = 131072};
  static constexpr guild::GqaConfig attention = {.heads = 3, .key_heads = 3, .head_dim = 16, .sinks = true};
  static constexpr guild::DenseConfig dense = {.hidden = 96, .layers = 6};
};
struct Hybrid : AllGlobal {
  static constexpr auto kinds = guild::every<6>(6, 0, 1);  // five of kind 0, then one of kind 1
  template <class S>
  using Near = guild::Block<S, guild::Local<guild::Gqa<S>, 8>, guild::DenseFeedForward<S>>;
  template <class S>
  using Far = guild::Block<S, guild::Gated<guild::Gqa<S>, guild::FarBiasGate<8>>, guild::DenseFeedForward<S>>;
  template <class S>
  using Layers = guild::LayerList<S::kinds, Near<S>, Far<S>>;
};
using Model = guild::Transformer<Hybrid>;

/// 24 random tokens, and the same again.
std::vector<std::int32_t> twice(guild::Random& random) {
  std::vector<std::int32_t> tokens(48);
  for (std::size_t i = 0; i < 24; ++i) tokens[i + 24] = tokens[i] = static_cast<std::int32_t>(random.uniform() * 32);
  return tokens;
}

int main() {
  const auto mib = [](guild::Index bytes) { return static_cast<double>(bytes) / (1 << 20); };
  using Dense = guild::Transformer<AllGlobal>;
  for (const guild::Index tokens : {1024, 131072})
    std::printf("caches of %lld tokens: %.2f MiB, %.2f MiB if all layers saw all\n", static_cast<long long>(tokens),
                mib(Model::Cache::bytes(tokens)), mib(Dense::Cache::bytes(tokens)));
  try {
    guild::Cpu device({.threads = 2});
    Model::Weights<guild::Dense<float>> weights;
    guild::initialize<Model>(weights, {.seed = 1, .deviation = 0.05});
    guild::Trainer<Model> trainer(device, std::move(weights), {.optimizer = guild::AdamW{.lr = 3e-3}});
    guild::Random random(1, 2);
    guild::TrainingBatch batch;
    for (int step = 0; step < 200; ++step) {
      batch.clear();
      for (int i = 0; i < 16; ++i) {
        const auto tokens = twice(random);
        std::vector<std::int32_t> targets(tokens.begin() + 1, tokens.end());
        targets.push_back(tokens[24]);
        std::fill_n(targets.begin(), 24, guild::TrainingBatch::ignored);
        batch.append(tokens, targets);
      }
      const double loss = trainer.step(batch).losses.loss();
      if (step % 50 == 0 || step == 199) std::printf("step %3d: loss %.3f\n", step, loss);
    }
    // The prompt at once, then token by token.
    const auto tokens = twice(random);
    auto session = guild::session_of<Model>(device, trainer.weights());
    const auto said = guild::greedy_tokens(session, std::span(tokens).first(25), 23);
    int right = 0;
    for (std::size_t i = 0; i < said.size(); ++i) right += said[i] == tokens[25 + i];
    std::printf("%d of 23 tokens repeated\n", right);
  } catch (const guild::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
