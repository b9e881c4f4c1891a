// GShard's router: two experts for a token, the second one by chance, of limited capacity.
#pragma once

#include <type_traits>

#include <guild/core/config.hpp>
#include <guild/modules/capped.hpp>
#include <guild/modules/noise.hpp>
#include <guild/modules/router.hpp>

namespace guild {
inline namespace v1 {

/// Below it mesh's second gates count less than certain: `moe_second_threshold_train`.
inline constexpr double mesh_second_threshold = 0.2;
/// That of the paper's algorithm 1, which keeps the second expert if 2 g2 is above a uniform number.
inline constexpr double gshard_second_threshold = 0.5;

/// Two experts, of which the second one is kept with probability min(1, g2 / Threshold) in passes with noise
/// (`Pass::noise`), and always in others; balancing losses count first choices alone.
template <class S, const double& Threshold>
struct ChanceOfSecondRouter : TopKRouter<S> {
  using Base = TopKRouter<S>;
  /// Of first choices, or of logits.
  static constexpr BalanceSupport balance = {.importance = false, .load = false, .sequence = false};
  static constexpr bool choose_by_logits = false;  // a decorator around it would pass over what it drops
  static_assert(Threshold > 0.0, "GShardRouter: the threshold of the second expert's weight must be above 0");

  template <class Device, class Weights, class Real, class Saved>
  static void forward(const Pass<Device>& pass, const Weights& weights, DeviceView<const Real, 2> x,
                      const Routing<Real>& routing, Saved* keep) {
    Base::forward(pass, weights, x, routing, keep);
    if (routing.choice == Choice::made && pass.noise.on)
      drop_second_by_chance(pass.device, pass.noise.draws(pass.layer, NoisePurpose::second_expert), Threshold,
                            DeviceView<const Real, 2>(routing.weights), routing.experts);
  }

  template <class Device, class Weights, class Real, class Saved, class Gradients>
  static void backward(const Pass<Device>& pass, const Weights& weights,
                       DeviceView<const std::type_identity_t<Real>, 2> x, const Saved& saved,
                       Routing<std::type_identity_t<Real>> routing, DeviceView<std::type_identity_t<Real>, 2> dweights,
                       DeviceView<Real, 2> dx, Gradients& gradients) {
    routing.counted = routing.experts.middle_cols(0, 1);
    Pass<Device> balanced = pass;
    balanced.balance = balance.only(pass.balance);
    Base::backward(balanced, weights, x, saved, routing, dweights, dx, gradients);
  }
};

/// The two most probable experts, weighed by their shares of both probabilities (Lepikhin et al., arXiv 2006.16668,
/// algorithm 1), the second one by chance, with `S::capacity`: published are `.rounding = CapacityRounding::down` and
/// `.order = DropOrder::choice`, with factors 2 of T / E. Weights are shares before anything is dropped. The auxiliary
/// loss is E sum_i f_i P_i, f_i of the first choices of all tokens.
template <class S, const double& Threshold = mesh_second_threshold>
struct GShardRouter : Capped<ChanceOfSecondRouter<S, Threshold>, S::capacity> {
  static_assert(S::routing.top_k == 2 && S::routing.scoring == Scoring::softmax &&
                    S::routing.selection == Selection::greedy && S::routing.normalize,
                "GShardRouter: routing must have top_k 2, softmax scores, greedy selection and normalised weights");
};

}  // namespace v1
}  // namespace guild
