#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <type_traits>
#include <vector>

#include <guild/guild.hpp>

// [begin]
/// y = silu(gate x) * A(x): any kind of attention behind a gate of its own.
template <class S, class A>
struct OutputGate {
  static constexpr guild::Index hidden = S::config.hidden;
  using Gate = guild::Linear<hidden, hidden>;
  using Cache = typename A::Cache;  // what decoding keeps: as the attention inside

  template <class Store>
  struct Weights {  // with any store: stored, trained, gradients, moments
    typename A::template Weights<Store> attention;
    typename Gate::template Weights<Store> gate;
  };
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const guild::Path& path, W&... weights) {
    A::visit(visitor, path, weights.attention...);
    Gate::visit(visitor, path / "output_gate", weights.gate...);  // in files ...self_attn.output_gate.weight
  }
  template <class Real>
  struct Saved {  // what backward needs besides x
    typename A::template Saved<Real> attention;
    guild::DeviceView<Real, 2> attended, gate;  // [T, hidden]
  };

  template <class Device, class Store, class Real>
  static void forward(const guild::Pass<Device>& pass, const Weights<Store>& weights, guild::Caches<Cache> caches,
                      guild::DeviceView<const std::type_identity_t<Real>, 2> x, guild::DeviceView<Real, 2> y,
                      Saved<std::type_identity_t<Real>>* keep = nullptr) {
    auto room = pass.room(keep);  // `keep`: until backward; `take`: for this call
    const auto attended = room.template keep<Real>(x.rows, hidden), gate = room.template keep<Real>(x.rows, hidden);
    if (keep != nullptr) keep->attended = attended, keep->gate = gate;
    A::forward(pass, weights.attention, caches, x, attended, guild::part_of(keep, &Saved<Real>::attention));
    Gate::forward(pass.device, weights.gate, x, gate);
    guild::swiglu(pass.device, gate, attended, y);
  }

  template <class Device, class Store, class Gradients, class Real>
  static void backward(const guild::Pass<Device>& pass, const Weights<Store>& weights,
                       guild::DeviceView<const std::type_identity_t<Real>, 2> x,
                       const Saved<std::type_identity_t<Real>>& saved,
                       guild::DeviceView<const std::type_identity_t<Real>, 2> dy, guild::DeviceView<Real, 2> dx,
                       Weights<Gradients>& gradients) {
    guild::swiglu_backward(pass.device, saved.gate, saved.attended, dy, {});  // both become their gradients
    A::backward(pass, weights.attention, x, saved.attention, saved.attended, dx, gradients.attention);
    Gate::backward(pass.device, weights.gate, x, saved.gate, dx, gradients.gate, guild::Update::add);
  }
};

struct GatedSpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 32, .hidden = 32, .layers = 2, .context = 64};
  static constexpr guild::MlaConfig attention = {
      .heads = 2, .latent_rank = 16, .nope_dim = 8, .rope_dim = 8, .value_dim = 16};
  static constexpr guild::DenseConfig dense = {.hidden = 48, .layers = 1};
  static constexpr guild::TopKConfig routing = {.experts = 8, .top_k = 2, .groups = 4, .top_groups = 2};
  static constexpr guild::ExpertConfig experts = {.hidden = 16};
  template <class S> using Mixer = OutputGate<S, guild::Local<guild::Mla<S>, 8>>;
};
using Model = guild::Transformer<GatedSpec>;
// [end]

namespace {

/// States of tokens [begin, end): appended to the cache if there is one.
guild::Buffer<float> run(guild::Cpu& device, const Model::Weights<guild::Dense<float>>& weights,
                         const std::vector<std::int32_t>& tokens, guild::Index begin, guild::Index end,
                         Model::Cache* cache) {
  std::vector<std::int32_t> positions;
  for (guild::Index i = begin; i < end; ++i) positions.push_back(static_cast<std::int32_t>(i));
  const guild::Chunk chunk{0, 0, end - begin, begin};
  guild::Buffer<float> states((end - begin) * GatedSpec::config.hidden);
  const guild::Batch batch{{tokens.data() + begin, end - begin}, {positions.data(), end - begin}, {&chunk, 1}};
  Model::forward(guild::Pass{.device = device, .batch = batch}, weights,
                 cache != nullptr ? std::span<Model::Cache* const>(&cache, 1) : std::span<Model::Cache* const>(),
                 states.view(end - begin, GatedSpec::config.hidden));
  return states;
}

}  // namespace

int main() {
  guild::Cpu device({.threads = 2});
  Model::Weights<guild::Dense<float>> first;
  guild::initialize<Model>(first, {.seed = 1, .deviation = 0.1});
  guild::Trainer<Model> trainer(device, std::move(first), {.optimizer = guild::AdamW{.lr = 1e-2}});
  std::vector<std::int32_t> tokens, targets;
  for (std::int32_t i = 0; i < 24; ++i) tokens.push_back(i * 7 % 32), targets.push_back((i + 1) * 7 % 32);
  guild::TrainingBatch batch;
  batch.append(tokens, targets);
  double before = 0.0, after = 0.0;
  for (int step = 0; step < 60; ++step) {
    after = trainer.step(batch).losses.loss();
    if (step == 0) before = after;
  }
  std::printf("loss %.2f, then %.2f\n", before, after);

  // Decoded one by one, in bf16 rows of a ring, it says what it says of the whole.
  const guild::Buffer<float> whole = run(device, trainer.weights(), tokens, 0, batch.size(), nullptr);
  Model::Cache cache;
  cache.reserve(batch.size());
  float most = 0.0f;
  for (guild::Index t = 0; t < batch.size(); ++t) {
    const guild::Buffer<float> one = run(device, trainer.weights(), tokens, t, t + 1, &cache);
    for (guild::Index i = 0; i < one.size(); ++i) most = std::max(most, std::abs(one[i] - whole[t * one.size() + i]));
  }
  std::printf("decoded token by token the states differ by at most %.3f\n", static_cast<double>(most));
  return after < 0.3 * before && most < 0.1f ? 0 : 1;
}
