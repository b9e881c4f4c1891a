// What routers cost, of one layer with experts of DeepSeek-R1.
//   router_bench [--tokens N,N...] [--rounds N] [--threads N] [--only NAME]
// A layer of R1's width with 16 of its 256 experts in bf16, which is as much work for a token, and routers for 256
// experts, in turns: medians of rounds, processor time. Gate is the product x W^T that every router has, and its two in
// backward; policy is all else that a router does, the second gate of noisy top-k too. A layer's backward is taken for
// twice its forward; layers whose tokens have fewer experts count for what they multiply. Dropped are choices that
// found no room, of these random rows.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/expert_buffering.hpp>
#include <guild/modules/expert_choice_router.hpp>
#include <guild/modules/gshard_router.hpp>
#include <guild/modules/gumbel_choice.hpp>
#include <guild/modules/hash_router.hpp>
#include <guild/modules/jittered.hpp>
#include <guild/modules/noisy_top_k_router.hpp>
#include <guild/modules/sinkhorn_router.hpp>
#include <guild/modules/switch_router.hpp>

#include "../ceilings.hpp"
#include "../random_weights.hpp"
#include "../training/runs.hpp"

namespace {

using namespace guild;
using namespace guild_bench;

struct R1Spec : SpecDefaults {
  static constexpr TrunkConfig config = {.vocab = 32000, .hidden = 7168, .layers = 61, .context = 32768};
  static constexpr MlaConfig attention = {
      .heads = 128, .query_rank = 1536, .latent_rank = 512, .nope_dim = 128, .rope_dim = 64, .value_dim = 128};
  static constexpr TopKConfig routing = {.experts = 256, .top_k = 8, .groups = 8, .top_groups = 4, .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 2048, .shared = 1};
};
struct LayerSpec : R1Spec {
  static constexpr TopKConfig routing = {.experts = 16, .top_k = 8, .scale = 2.5};
};
template <int TopK, bool Normalize>
struct SoftmaxSpec : R1Spec {
  static constexpr TopKConfig routing = {.experts = 256,
                                         .top_k = TopK,
                                         .scoring = Scoring::softmax,
                                         .selection = Selection::greedy,
                                         .normalize = Normalize};
  static constexpr Capacity capacity = {.factor = TopK == 8 ? 8.0 : 1.25};  // 8: of experts that choose
};
using Soft = SoftmaxSpec<8, true>;
using Plain = SoftmaxSpec<8, false>;
struct Whole : Plain {  // sequences that are seen whole
  static constexpr AttentionMask mask = AttentionMask::bidirectional;
};
constexpr Capacity position{.order = DropOrder::position}, by_choice{.order = DropOrder::choice},
    probability{.order = DropOrder::probability}, prioritized{.order = DropOrder::prioritized}, tight{.factor = 1.0};

/// A pass over one sequence whose experts may see all of it.
struct Sequence {
  Buffer<std::int32_t> tokens, positions;
  Chunk chunk;
  explicit Sequence(Index count) : tokens(count), positions(count), chunk{0, 0, count, 0} {
    for (Index i = 0; i < count; ++i) {
      tokens[i] = static_cast<std::int32_t>(i * 7919 % 32000);
      positions[i] = static_cast<std::int32_t>(i);
    }
  }
  [[nodiscard]] Pass<Cpu> pass(Cpu& device) const {
    return {.device = device,
            .batch = {tokens.view(), positions.view(), {&chunk, 1}},
            .mask = AttentionMask::bidirectional,
            .noise = {.on = true, .seed = 1}};
  }
};

struct Times {
  double forward = 0, backward = 0, dropped = 0;  ///< seconds, and the share of choices without room
};
double timed(const auto& work) {
  const double begin = runs::processor_seconds();
  work();
  return runs::processor_seconds() - begin;
}

/// One of the arms: seconds of its forward and backward over x.
struct Arm {
  std::string name;
  int top_k;
  std::function<Times(Cpu&, const Sequence&, DeviceView<const float, 2>)> run;
};
template <class Router>
Arm arm(const char* name, int top_k = 8) {
  using Weights = typename Router::template Weights<Dense<float>>;
  auto both = std::make_shared<std::pair<Weights, Weights>>();
  Router::visit(FillDense{}, Path(), both->first);
  allocate<Router>(both->second);
  if constexpr (requires { Router::deal_experts(both->first.table); }) Router::deal_experts(both->first.table);
  return {
      name, top_k, [both](Cpu& device, const Sequence& sequence, DeviceView<const float, 2> x) -> Times {
        constexpr Index choices = guild::detail::choices_of<Router>(Router::config.top_k);
        auto scratch = device.scratch();
        static Arena arena;
        Arena::Frame memory(arena);
        const auto pass = sequence.pass(device).with(memory);
        const Routing<float> routing{scratch.take<std::int32_t>(x.rows, choices), scratch.take<float>(x.rows, choices)};
        const auto dweights = scratch.take<float>(x.rows, choices), dx = scratch.take<float>(x.rows, x.cols);
        fill_uniform({dweights.data, x.rows * choices}, 1.0, 5);
        typename Router::template Saved<float> saved;
        const auto& [weights, unused] = *both;
        Times times;
        times.forward = timed([&] { Router::forward(pass, weights, x, routing, &saved); });
        times.backward = timed([&] { Router::backward(pass, weights, x, saved, routing, dweights, dx, both->second); });
        for (Index i = 0; i < x.rows * choices; ++i)
          if (const auto e = routing.experts.data[i]; e < 0 && e != no_expert) times.dropped += 1.0;
        times.dropped /= static_cast<double>(x.rows * choices);
        return times;
      }};
}
/// The products that every router has.
Times run_gate(Cpu& device, const DenseMatrix<float>& weight, DenseMatrix<float>& gradient,
               DeviceView<const float, 2> x) {
  auto scratch = device.scratch();
  const auto logits = scratch.take<float>(x.rows, weight.rows), dx = scratch.take<float>(x.rows, x.cols);
  Times times;
  times.forward = timed([&] { linear(device, weight.view(), x, logits); });
  times.backward = timed([&] {
    const WeightGradientJob<float> job{x.rows, logits, x, gradient.matrix()};
    weight_gradient(device, std::span<const WeightGradientJob<float>>(&job, 1));
    input_gradient(device, weight.view(), logits, dx);
  });
  return times;
}

/// What tokens with so many experts multiply, of what those with eight do: weights alone, without pairs of attention.
double share_of_layer(int top_k) {
  constexpr MlaConfig a = R1Spec::attention;
  constexpr double width = R1Spec::config.hidden, heads = a.heads, expert = 3.0 * width * R1Spec::experts.hidden;
  const double attention = width * (a.query_rank + a.latent_rank + a.rope_dim) + a.query_rank * heads * a.query_dim() +
                           a.latent_rank * heads * (a.nope_dim + a.value_dim) + heads * a.value_dim * width;
  return (attention + (top_k + 1) * expert) / (attention + 9 * expert);
}

void measure_time(Cpu& device, const std::vector<Arm>& arms, Index tokens, int rounds) {
  using Layer = Block<LayerSpec, Mla<LayerSpec>, Moe<LayerSpec>>;
  static Layer::Weights<Published> layer = [&] {
    Layer::Weights<Published> weights;
    FillRandom random(device, DType::bf16);
    Layer::visit(random, Path(), weights);
    return weights;
  }();
  DenseMatrix<float> weight, gradient;
  FillDense{}(Path(), MatrixShape{R1Spec::routing.experts, R1Spec::config.hidden}, weight);
  Allocate{}(Path(), MatrixShape{weight.rows, weight.cols}, gradient);
  const Sequence sequence(tokens);
  Buffer<float> x(tokens * weight.cols), y(x.size());
  fill_uniform(x.view(), 1.7, 4);  // a deviation of about 1, as behind a norm
  const auto rows = DeviceView<const float, 2>(x.view(tokens, weight.cols));
  std::vector<double> layers, gates[2], dropped(arms.size());
  std::vector<std::vector<double>> forward(arms.size()), backward(arms.size());  // without the gate
  for (int round = 0; round <= rounds; ++round) {
    layers.push_back(timed([&] {
      Layer::forward(sequence.pass(device), layer, Caches<Layer::Cache>(), rows,
                     DeviceView<float, 2>(y.view(tokens, weight.cols)));
    }));
    for (Index turn = 0; turn < std::clamp<Index>(2048 / tokens, 1, 16); ++turn)
      for (std::size_t i = 0; i < arms.size(); ++i) {
        const Times gate = run_gate(device, weight, gradient, rows), all = arms[i].run(device, sequence, rows);
        gates[0].push_back(gate.forward), gates[1].push_back(gate.backward), dropped[i] = all.dropped;
        forward[i].push_back(all.forward - gate.forward), backward[i].push_back(all.backward - gate.backward);
      }
    if (round == 0) layers.clear();  // memory was taken for the first time; of routers the median does without it
  }
  const double whole = median(layers);
  std::printf("\n%lld tokens: a layer %.2f s; gate %.4f s, back %.4f s: %.2f %%, %.2f %% of it\n",
              static_cast<long long>(tokens), whole, median(gates[0]), median(gates[1]), 100 * median(gates[0]) / whole,
              50 * median(gates[1]) / whole);
  std::printf("%-34s %21s %21s %9s %9s\n", "policy", "forward", "backward", "both", "dropped");
  for (std::size_t i = 0; i < arms.size(); ++i) {
    const double ahead = median(forward[i]), back = median(backward[i]);
    const double percent = 100 / (whole * share_of_layer(arms[i].top_k));
    std::printf("%-34s %9.2f ms %6.3f %% %9.2f ms %6.3f %% %7.3f %% %7.2f %%\n", arms[i].name.c_str(), ahead * 1e3,
                ahead * percent, back * 1e3, back * percent / 2, (ahead + back) * percent / 3, 100 * dropped[i]);
  }
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const runs::Options options({{"tokens", "512,4096"}, {"rounds", "5"}, {"threads", "1"}, {"only", ""}}, argc, argv);
    Cpu device({.threads = static_cast<int>(options.integer("threads"))});
    std::vector<Arm> arms = {
        arm<TopKRouter<Soft>>("softmax top-k"),
        arm<TopKRouter<R1Spec>>("sigmoid, 4 of 8 groups, bias"),
        arm<NoisyTopKRouter<Soft>>("noisy top-k (a second gate)"),
        arm<Jittered<TopKRouter<Soft>>>("jitter"),
        arm<GumbelChoice<TopKRouter<Soft>>>("Gumbel"),
        arm<SwitchRouter<SoftmaxSpec<1, false>>>("Switch, of 1 expert", 1),
        arm<GShardRouter<SoftmaxSpec<2, true>>>("GShard, of 2 experts", 2),
        arm<Capped<TopKRouter<Soft>, position>>("capacity 1.25, by position"),
        arm<Capped<TopKRouter<Soft>, by_choice>>("capacity 1.25, by choice"),
        arm<Capped<TopKRouter<Soft>, probability>>("capacity 1.25, by probability"),
        arm<Capped<TopKRouter<Soft>, prioritized>>("capacity 1.25, batch-prioritized"),
        arm<Capped<TopKRouter<Soft>, tight>>("capacity 1, by position"),
        arm<SinkhornRouter<Plain>>("Sinkhorn"),
        arm<ExpertChoiceRouter<Whole>>("expert choice, 8 in the mean"),
        arm<HashRouter<Soft>>("hash"),
        arm<ExpertBuffering<TopKRouter<R1Spec>>>("buffering of the second"),
    };
    if (!options["only"].empty()) std::erase_if(arms, [&](const Arm& arm) { return arm.name != options["only"]; });
    for (const std::string& tokens : options.list("tokens"))
      measure_time(device, arms, std::atoll(tokens.c_str()), static_cast<int>(options.integer("rounds")));
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
