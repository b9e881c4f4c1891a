// What a capacity of experts drops and saves: a layer of train_bench's `moe25` in training, forward and back.
//   capacity_bench [--tokens N]
// Of routers without a capacity and with factors of 1.25, 1 and 0.5, over random tokens whose choices are about even,
// and with a selection bias that favours some experts: the slots of the layer, the bytes that forward keeps for
// backward and the most that modules hold beside them, counted; the share of choices that are dropped
// (RoutingStatistics::dropped); the busiest expert's load over the mean. Then the slots of a dispatch that is padded to
// [experts, capacity, hidden], and what would be kept with it: rows sent, gate and up of each slot. Without a capacity
// it is padded to the busiest expert's load.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include <guild/cpu.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/capped.hpp>

#include "../random_weights.hpp"
#include "runs.hpp"

namespace {

using namespace guild;
using namespace guild_bench;

constexpr Capacity wide{.factor = 1.25}, tight{.factor = 1.0}, half{.factor = 0.5};

/// The CPU, with scratch of modules whose most is known.
class Counted : public Cpu {
 public:
  using Cpu::Cpu;
  [[nodiscard]] Arena::Frame scratch() { return Arena::Frame(arena_); }
  [[nodiscard]] Index most_scratch() const { return arena_.most_taken(); }

 private:
  Arena arena_;
};

struct MoeSpec : SpecDefaults {
  static constexpr TrunkConfig config = {.vocab = 8192, .hidden = 384, .layers = 1, .context = 4096};
  static constexpr TopKConfig routing = {.experts = 16, .top_k = 4, .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 96, .shared = 1};
};

/// One line of the table.
template <class Router>
void measure_memory(const char* name, Index tokens, double factor, float skew) {
  using Layer = Moe<MoeSpec, Router>;
  constexpr Index hidden = MoeSpec::config.hidden, experts = MoeSpec::routing.experts;
  typename Layer::template Weights<Dense<float>> weights, gradients;
  Layer::visit(FillDense{}, Path(), weights);
  allocate<Layer>(gradients);
  for (Index e = 0; e < experts; ++e) weights.router.selection_bias.data[e] = skew * std::exp(-float(e) / 4);
  Buffer<float> x(tokens * hidden), y(x.size()), dx(x.size());
  fill_uniform(x.view(), 1.7, 4);
  Counted device({.threads = 1});
  RoutingStatistics statistics(1, experts);
  Arena arena;
  Arena::Frame memory(arena);
  const Pass<Counted> pass{.device = device, .memory = &memory, .counts = statistics.view()};
  typename Layer::template Saved<float> saved;
  Layer::forward(pass, weights, x.view(tokens, hidden), DeviceView<float, 2>(y.view(tokens, hidden)), &saved);
  Layer::backward(pass, weights, x.view(tokens, hidden), saved, x.view(tokens, hidden),
                  DeviceView<float, 2>(dx.view(tokens, hidden)), gradients);
  double busiest = 0;
  for (const double load : statistics.load(0)) busiest = std::max(busiest, load);
  const double slots = static_cast<double>(saved.assignment.slots()), choices = static_cast<double>(tokens) * 4;
  const double padded = factor > 0 ? std::ceil(choices * factor / experts) * experts : busiest * experts;
  constexpr double mib = 1 << 20, inner = 2.0 * MoeSpec::experts.hidden * 4;  // gate and up of a slot
  const auto kept = static_cast<double>(arena.most_taken());
  std::printf("%-10s %-9s %7.0f %9.1f %9.1f %8.2f %% %8.2f %9.0f %9.1f\n", name, skew > 0 ? "skewed" : "balanced",
              slots, kept / mib, static_cast<double>(device.most_scratch()) / mib,
              100 * statistics.dropped(0) / choices, statistics.max_over_mean(0), padded,
              (kept + padded * (hidden * 4 + inner) - slots * inner) / mib);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const Index tokens = runs::Options({{"tokens", "4096"}}, argc, argv).integer("tokens");
    std::printf("%-10s %-9s %7s %9s %9s %10s %8s %9s %9s\n", "capacity", "routing", "slots", "kept MiB", "scratch",
                "dropped", "busiest", "padded", "kept MiB");
    for (const float skew : {0.0f, 0.2f}) {
      measure_memory<TopKRouter<MoeSpec>>("none", tokens, 0, skew);
      measure_memory<Capped<TopKRouter<MoeSpec>, wide>>("1.25", tokens, 1.25, skew);
      measure_memory<Capped<TopKRouter<MoeSpec>, tight>>("1", tokens, 1.0, skew);
      measure_memory<Capped<TopKRouter<MoeSpec>, half>>("0.5", tokens, 0.5, skew);
    }
  } catch (const Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
