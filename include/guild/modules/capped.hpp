// A router whose experts serve no more than so many tokens: the others are dropped.
#pragma once

#include <cstdint>
#include <type_traits>

#include <guild/core/config/capacity.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/routing.hpp>
#include <guild/ops/route/capacity.hpp>

namespace guild {
inline namespace v1 {

/// The router `RouterType`, any that chooses experts for tokens, with a capacity of its experts:
///
///   static constexpr Capacity capacity = {.factor = 1.25};
///   template <class S> using Router = Capped<TopKRouter<S>, S::capacity>;
///
/// Experts, gates and balancing losses are those of RouterType over all choices: gates are normalised before anything
/// is dropped, and never again, so a token that loses a choice gets less. One that loses all gets the shared experts
/// alone, and the residual. Capacity bounds the slots, and so the memory of a step. In training, and at inference if
/// the capacity says so; passes over few tokens, as in decoding, then drop nobody unless many tokens of the pass want
/// one expert. Choices that are given are taken with what was dropped from them: a layer that is computed again drops
/// the same. Counts of served tokens, which `update_selection_bias` heeds, are of those that were not dropped.
template <class RouterType, const Capacity& Config>
struct Capped : RouterType {
  using Base = RouterType;
  static_assert(
      requires { Base::config.experts + Base::config.top_k; },
      "Capped: takes a router that chooses experts for tokens and says how many: a static config with experts and "
      "top_k, as TopKRouter has");
  static_assert(
      !requires { Base::choices; }, "Capped: a router whose experts choose their tokens has a capacity already");
  static_assert(Config.factor > 0.0,
                "Capped: the capacity factor must be above 0; a router without Capped drops nobody");
  static_assert(Config.inference_factor >= 0.0,
                "Capped: the capacity factor at inference must not be negative; 0 drops nobody");
  static_assert(detail::identities_of<Base> == 0, "Capped: experts that give their input have no capacity");
  static constexpr Capacity capacity = Config;
  static constexpr bool choose_by_logits = false;  // a decorator around it would pass over what it drops

  /// How many slots the experts have together, of a pass over so many tokens.
  template <class Device>
  static Index slots(const Pass<Device>&, Index tokens, Phase phase) {
    const Index all = tokens * Base::config.top_k, of_expert = of_each(tokens, phase);
    return of_expert < tokens && of_expert * Base::config.experts < all ? of_expert * Base::config.experts : all;
  }

  /// As the base's; what is dropped is ~expert.
  template <class Device, class Weights, class Real, class Saved>
  static void forward(const Pass<Device>& pass, const Weights& weights, DeviceView<const Real, 2> x,
                      const Routing<Real>& routing, Saved* keep) {
    if (routing.choice == Choice::given) {
      auto scratch = pass.device.scratch();
      return Base::forward(pass, weights, x, undropped(pass.device, routing, scratch), keep);
    }
    Base::forward(pass, weights, x, routing, keep);
    const auto phase = keep != nullptr ? Phase::training : Phase::inference;
    drop_over_capacity(pass.device, Config.order, Base::config.experts, of_each(x.rows, phase),
                       DeviceView<const Real, 2>(routing.weights), routing.experts);
  }

  /// As the base's, of the choices before any was dropped; those that were have no gradient.
  template <class Device, class Weights, class Real, class Saved, class Gradients>
  static void backward(const Pass<Device>& pass, const Weights& weights,
                       DeviceView<const std::type_identity_t<Real>, 2> x, const Saved& saved,
                       const Routing<std::type_identity_t<Real>>& routing,
                       DeviceView<std::type_identity_t<Real>, 2> dweights, DeviceView<Real, 2> dx,
                       Gradients& gradients) {
    auto scratch = pass.device.scratch();
    Base::backward(pass, weights, x, saved, undropped(pass.device, routing, scratch), dweights, dx, gradients);
  }

 private:
  static constexpr Index of_each(Index tokens, Phase phase) {
    const double factor = phase == Phase::training ? Config.factor : Config.inference_factor;
    if (factor == 0.0) return tokens > 0 ? tokens : 1;
    const Index most = expert_capacity(Config.rounding, factor, tokens, Base::config.top_k, Base::config.experts);
    return most > 0 ? most : 1;
  }
  template <class Device, class Real, class Memory>
  static Routing<Real> undropped(Device& device, Routing<Real> routing, Memory& memory) {
    const auto wanted = memory.template take<std::int32_t>(routing.experts.rows, routing.experts.cols);
    undrop(device, routing.experts, wanted);
    routing.experts = wanted;
    return routing;
  }
};

}  // namespace v1
}  // namespace guild
