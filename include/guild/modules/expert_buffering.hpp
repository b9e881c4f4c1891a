// Balance without a loss and without a bias: experts that served too much rest until the others have caught up.
#pragma once

#include <type_traits>

#include <guild/core/config.hpp>
#include <guild/modules/module.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/route/buffering.hpp>

namespace guild {
inline namespace v1 {

/// What ExpertBuffering takes unless told otherwise: derive from it and replace what differs.
struct DefaultBuffering {
  static constexpr double slack = 0.5;   ///< h: blocked above (1 + h) of the mean load, released below (1 + h / 2)
  static constexpr double decay = 0.9;   ///< of the moving average of loads, a step of the optimizer each
  static constexpr int most_steps = 20;  ///< that an expert is blocked in a row
  static constexpr bool at_inference = false;  ///< passes that keep nothing for backward heed the blocks too
};

/// A router whose overloaded experts are not chosen for some steps; the weights of those that are do not change. The
/// state of a layer (`update_buffering` has the rule) is constant within a step of training, updated by the trainer
/// behind the optimizer, and saved with the weights. It goes around a router, or any decorator of one; a choice that is
/// given is taken as it is.
template <class Router, class Policy = DefaultBuffering>
struct ExpertBuffering : Router {
  static constexpr TopKConfig config = Router::config;
  static constexpr bool choose_by_logits = false;  // a decorator inside of GumbelChoice would be passed over
  static constexpr Index groups = config.selection == Selection::greedy ? 1 : config.groups;
  static_assert(
      requires { requires Router::heeds_shift; },
      "ExpertBuffering: its router does not choose by scores, so no expert can be blocked");
  static_assert(config.identities == 0, "ExpertBuffering: experts that give their input do not rest");
  static_assert(config.experts / groups >= config.top_k + 2,
                "ExpertBuffering: top_k + 1 experts of each group stay open, so groups need top_k + 2 for any to rest");
  static_assert(Policy::slack > 0.0 && Policy::decay >= 0.0 && Policy::decay < 1.0 && Policy::most_steps >= 1,
                "ExpertBuffering: slack must be above 0, decay in [0, 1), most_steps at least 1");
  static constexpr BufferingRule rule{Policy::slack, Policy::decay, Policy::most_steps, config.top_k, groups};

  template <class Store>
  struct Weights : Router::template Weights<Store> {
    typename Store::Vector buffering;  ///< [2 experts]: excess of the average load, steps of being blocked
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    Router::visit(visitor, path, weights...);
    visitor(path / "buffering",
            VectorShape{.size = 2 * Index{config.experts}, .role = TensorRole::state, .buffering = &rule},
            weights.buffering...);
  }

  /// As Router's.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, DeviceView<const Real, 2> x,
                      const Routing<std::type_identity_t<Real>>& routing,
                      typename Router::template Saved<Real>* keep = nullptr) {
    if (routing.choice == Choice::given || (keep == nullptr && !Policy::at_inference))
      return Router::forward(pass, weights, x, routing, keep);
    auto scratch = pass.device.scratch();
    auto shifted = routing;
    shifted.shift = scratch.template take<Real>(config.experts);
    DeviceView<const Real> bias;
    if constexpr (Router::has_selection_bias) bias = weights.selection_bias.view();
    blocked_shift(pass.device, weights.buffering.view(), bias, shifted.shift);
    Router::forward(pass, weights, x, shifted, keep);
  }
};

}  // namespace v1
}  // namespace guild
