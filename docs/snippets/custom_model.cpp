#include <cstdint>
#include <cstdio>
#include <vector>

#include <guild/guild.hpp>

// [begin]
template <class Real>
struct Fill {  // the work on one token, by a team of threads: written once for CPU and GPU
  guild::View<Real, 2> to;
  Real value;
  template <guild::Team T>
  GUILD_HD void operator()(T team, guild::Index token) const {
    team.for_each(to.cols, [*this, token](guild::Index k) { to.data[token * to.pitch + k] = value; });
  }
};
template <class S>
struct EqualShares : guild::TopKRouter<S> {  // chooses experts as DeepSeek-R1 does, but weighs the chosen ones equally
  using Base = guild::TopKRouter<S>;
  template <class Device, class Weights, class Real, class Saved>
  static void forward(const guild::Pass<Device>& pass, const Weights& weights, guild::DeviceView<const Real, 2> x,
                      const guild::Routing<Real>& routing, Saved* keep) {
    Base::forward(pass, weights, x, routing, keep);
    const auto share = static_cast<Real>(S::routing.scale / S::routing.top_k);
    guild::for_each_row(pass.device, x.rows, routing.weights.cols, Fill<Real>{routing.weights, share});
  }
  template <class Device, class Weights, class Real, class Saved, class Gradients>
  static void backward(const guild::Pass<Device>& pass, const Weights& weights, guild::DeviceView<const Real, 2> x,
                       const Saved& saved, const guild::Routing<Real>& routing, guild::DeviceView<Real, 2> dweights,
                       guild::DeviceView<Real, 2> dx, Gradients& gradients) {
    guild::for_each_row(pass.device, x.rows, dweights.cols, Fill<Real>{dweights, Real(0)});  // constants have none
    Base::backward(pass, weights, x, saved, routing, dweights, dx, gradients);  // but balancing losses have gradients
  }
};
struct MySpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 32000, .hidden = 1024, .layers = 12};
  static constexpr guild::TopKConfig routing = {.experts = 32, .top_k = 4, .groups = 4, .top_groups = 2};
  template <class S> using Router = EqualShares<S>;
};
using MyModel = guild::Transformer<MySpec>;
// [end]

template guild::LanguageModel<MyModel, guild::Cpu> guild::load<MyModel, guild::Cpu>(const guild::Cpu&, const std::string&,
                                                                                    const guild::LoadOptions&);

struct SmallSpec : MySpec {  // the same router in a model small enough to be trained here
  static constexpr guild::TrunkConfig config = {.vocab = 32, .hidden = 16, .layers = 2, .context = 64};
  static constexpr guild::MlaConfig attention = {
      .heads = 2, .latent_rank = 8, .nope_dim = 4, .rope_dim = 4, .value_dim = 4};
  static constexpr guild::DenseConfig dense = {.hidden = 16};
  static constexpr guild::TopKConfig routing = {.experts = 8, .top_k = 2, .groups = 4, .top_groups = 2, .scale = 2.5};
  static constexpr guild::ExpertConfig experts = {.hidden = 8};
};
using Small = guild::Transformer<SmallSpec>;

struct EveryShareIsEqual final : guild::Observer {
  bool equal = true;
  int seen = 0;
  void on_routing(int, guild::View<const std::int32_t, 2>, guild::View<const float, 2> weights) override {
    ++seen;
    for (guild::Index t = 0; t < weights.rows; ++t)
      for (const float weight : weights.row(t)) equal = equal && weight == 1.25f;
  }
};

int main() {
  const guild::ParameterCount count = guild::parameter_count(guild::config_of<MySpec>);
  std::printf("%lld parameters, %lld active\n", static_cast<long long>(count.total), static_cast<long long>(count.active));

  // Trained: a sequence that it can learn by heart.
  guild::Cpu device({.threads = 2});
  Small::Weights<guild::Dense<float>> first;
  guild::initialize<Small>(first, {.seed = 1, .deviation = 0.1});
  guild::Trainer<Small> trainer(device, std::move(first), {.optimizer = guild::AdamW{.lr = 1e-2}});
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

  // Used: every token weighs its experts equally.
  Small::Cache cache;
  Small::Cache* caches[] = {&cache};
  std::vector<std::int32_t> positions(tokens.size());
  for (std::size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<std::int32_t>(i);
  const guild::Index rows = batch.size();
  const guild::Chunk chunk{0, 0, rows, 0};
  guild::Buffer<float> states(rows * 16);
  EveryShareIsEqual watch;
  const guild::Batch prompt{{tokens.data(), rows}, {positions.data(), rows}, {&chunk, 1}};
  Small::forward(guild::Pass{.device = device, .batch = prompt, .observer = &watch}, trainer.weights(), caches,
                 states.view(rows, 16));
  return after < 0.5 * before && watch.equal && watch.seen == 1 ? 0 : 1;
}
