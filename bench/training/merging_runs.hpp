// What the experiments on merged tokens share beside what all do: a budget whose numbers are chosen at run time, and
// the policies of arms.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <type_traits>

#include <guild/core/refuse.hpp>
#include <guild/cpu.hpp>
#include <guild/modules/merge_references.hpp>
#include <guild/modules/merge_span.hpp>
#include <guild/modules/weighted_keys.hpp>
#include <guild/training/initialize.hpp>
#include <guild/training/trainer.hpp>

#include "runs.hpp"

namespace merging_runs {

using namespace runs;

/// TokenBucket with numbers of the running program: Num / Den of the tokens, bursts of Burst, groups of up to G.
struct RunBucket {
  static constexpr Index longest = 8;
  static constexpr bool causal = true, prefix_stable = true;
  static inline Index num = 1, den = 2, burst = 4;
  static constexpr double ratio = 0.5;  // what the ratio loss aims at

  static double share() { return static_cast<double>(num) / static_cast<double>(den); }
  /// Of the running program's numbers; a compiler, which knows none, takes any.
  static constexpr Index max_slots(Index tokens) {
    if (tokens <= 0) return 0;
    return std::is_constant_evaluated() ? tokens : std::min(tokens, burst + num * (tokens - 1) / den);
  }
  static bool step(guild::MergeState& state, bool wanted) {
    const bool first = state.tokens == 0;
    state.credit = first ? burst * den : std::min(state.credit + num, burst * den);
    const bool closes = first || (state.credit >= den && (wanted || state.length + 1 >= longest));
    if (closes) state.credit -= den;
    return state.take(closes);
  }
  static bool grant(guild::MergeState& state, bool wanted) { return guild::Unbounded<longest>::step(state, wanted); }
};
/// The default policy but for a rank that fits small models, and budget and threshold of the running program.
struct RunMerging : guild::DefaultMerging {
  using Novelty = guild::CosineNovelty<32>;
  using Budget = RunBucket;
  static inline float threshold = 0.5f;
};
/// Brings merging in slowly: its strength rises from 0 to 1 between two shares of the steps, said as 0.2-0.7; "0-0" is
/// all of it at once.
class Annealing {
 public:
  Annealing(const std::string& shares, Index steps) {
    const std::size_t dash = shares.find('-');
    if (dash == std::string::npos)
      guild::detail::refuse(guild::ErrorCode::op_argument, {"--anneal is two shares as 0.2-0.7, and not ", shares});
    from_ = std::atof(shares.c_str()) * static_cast<double>(steps);
    to_ = std::atof(shares.c_str() + dash + 1) * static_cast<double>(steps);
  }
  [[nodiscard]] double strength(Index step) const {
    const auto now = static_cast<double>(step);
    return now >= to_ ? 1.0 : std::max(0.0, (now - from_) / (to_ - from_));
  }

 private:
  double from_ = 0, to_ = 0;
};
template <class PoolType>
struct PoolBy : RunMerging {
  using Pool = PoolType;
};
template <class NoveltyType, class Policy = RunMerging>
struct NoveltyBy : Policy {
  using Novelty = NoveltyType;
};
/// A policy whose novelty is to be trained towards one half.
template <class Policy>
struct ToHalf : Policy {
  static constexpr double ratio = 0.5;
};
/// Attention on slots, which weighs them where a policy says so.
template <class Attention, class Policy>
using OnSlots = typename std::conditional_t<Policy::proportional, std::type_identity<guild::Weighted<Attention>>,
                                            std::type_identity<Attention>>::type;

template <Index Gate, Index Detail, bool Smooths = true>
struct Inflated : guild::DefaultInflation {
  static constexpr bool smooths = Smooths;
  static constexpr Index gate_rank = Gate, detail_rank = Detail;
};

/// Muon, over a cosine that ends at a fiftieth of `lr`.
inline guild::TrainerOptions training(double lr, double weight_decay, Index warmup, Index steps, double merge_weight) {
  return {.optimizer =
              guild::Muon{.lr = lr, .weight_decay = weight_decay, .rest = {.lr = lr, .beta2 = 0.98, .weight_decay = 0}},
          .schedule = guild::Schedule::warmup_cosine(std::min(warmup, steps - 1), steps, 0.02),
          .objective = {.merge_weight = merge_weight}};
}

/// Inflation that repeats what became of a slot: y = slot + d, with nothing of the token's own row.
template <class S, class PolicyType = Inflated<0, 0>>
struct RepeatSlots {
  using Policy = PolicyType;
  static constexpr Index hidden = S::config.hidden;
  static constexpr bool has_gate = false, has_detail = true, reads_lost = true;
  template <class Store>
  struct Weights {};
  template <class... A>
  static void visit(A&&...) {}
  template <class Real>
  struct Made {
    guild::DeviceView<Real, 2> gate{}, detail{};
  };
  template <class Device, class Store, class Real, class Memory>
  static Made<Real> make(Device& device, const Weights<Store>&, guild::DeviceView<const Real, 2> r, Memory& memory) {
    Made<Real> made;
    made.detail = memory.template take<Real>(r.rows, r.cols);  // x + detail is the slot
    for_each_row(device, r.rows, r.cols, Negative<Real>{r, made.detail});
    return made;
  }
  template <class Device, class Store, class Gradients, class Real>
  static void backward(Device& device, const Weights<Store>&, guild::DeviceView<const std::type_identity_t<Real>, 2>,
                       const Made<Real>&, guild::DeviceView<const std::type_identity_t<Real>, 2>,
                       guild::DeviceView<const std::type_identity_t<Real>, 2> ddetail, guild::DeviceView<Real, 2> dr,
                       Weights<Gradients>&) {
    for_each_row(device, dr.rows, dr.cols, Negative<Real>{ddetail, dr});
  }

 private:
  template <class Real>
  struct Negative {
    guild::View<const Real, 2> from;
    guild::View<Real, 2> to;
    template <guild::Team T>
    void operator()(T team, Index row) const {
      team.for_each(to.cols, [&](Index i) { to(row, i) = -from(row, i); });
    }
  };
};

}  // namespace merging_runs
