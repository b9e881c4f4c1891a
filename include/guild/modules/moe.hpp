// Mixture of experts: y = sum over chosen experts of weight * expert(x), plus the shared experts (DeepSeek-V3, eq. 12).
#pragma once

#include <array>

#include <guild/modules/dispatch.hpp>
#include <guild/modules/expert_pool.hpp>
#include <guild/modules/mlp.hpp>
#include <guild/modules/router.hpp>
#include <guild/ops/combine.hpp>

namespace guild::inline v1 {

template <class S>
struct Moe {
  static constexpr MoeConfig config = S::config.moe;
  static constexpr bool has_shared = config.shared_experts > 0;
  using Router = typename S::template Router<S>;
  using Experts = typename S::template Experts<S>;
  using Ways = typename S::template Dispatch<S>;         ///< to the experts and back
  static constexpr Index chosen_experts = config.top_k;  ///< of each token: what a pass that replays must bring
  using Shared = Mlp<S::config.hidden, Index{config.shared_experts} * config.hidden>;
  static_assert(Module<Router>, "Moe: Spec::Router needs a nested Weights<Store> and a static visit(visitor, path, "
                                "weights...), see guild/modules/module.hpp");
  static_assert(Module<Experts>, "Moe: Spec::Experts needs a nested Weights<Store> and a static visit(visitor, path, "
                                 "weights...), see guild/modules/module.hpp");
  static_assert(Dispatch<Ways>,
                "Moe: Spec::Dispatch needs a nested Route with an assignment, and static route, send, "
                "send_slots, collect and collect_slots, see guild/modules/dispatch.hpp");
  static_assert(config.top_k > 0 && config.top_k <= config.experts, "Moe: moe.top_k must be in [1, moe.experts]");

  template <class Store>
  struct Weights {
    typename Router::template Weights<Store> router;
    typename Experts::template Weights<Store> experts;
    typename Shared::template Weights<Store> shared;  ///< empty without shared experts
  };

  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    Router::visit(visitor, path / "router", weights.router...);
    Experts::visit(visitor, path / "experts", weights.experts...);
    if constexpr (has_shared) Shared::visit(visitor, path / "shared", weights.shared...);
  }

  /// x and y [T, hidden]
  template <class Device, class Store, class Observer>
  static void forward(Device& device, const Weights<Store>& weights, View<const float, 2> x, View<float, 2> y,
                      int layer, Observer& observer) {
    auto scratch = device.scratch();
    const Index tokens = x.rows;

    const auto chosen = scratch.template take<std::int32_t>(tokens, config.top_k);
    const auto weights_tk = scratch.template take<float>(tokens, config.top_k);
    using Forgotten = typename Router::template Saved<float>;
    static_assert(
        requires(Forgotten f) { Router::forward(device, weights.router, x, Routing<float>{}, f, scratch); },
        "Moe: Spec::Router needs a static forward(device, weights, x, routing, saved, memory) as TopKRouter "
        "has");
    Forgotten forgotten;
    Router::forward(device, weights.router, x, Routing<float>{chosen, weights_tk}, forgotten, scratch);
    observer.on_routing(layer, chosen, weights_tk);

    const Assignment assignment = Assignment::take(scratch, tokens, config.top_k, config.experts);
    assign_experts(device, chosen, assignment);
    const auto route = Ways::route(device, assignment, scratch);
    const View<const float, 2> x_sent = Ways::send(device, route, x, scratch);

    const auto y_sent = scratch.template take<float>(route.assignment.slots(), S::config.hidden);
    std::array<GatedJob, has_shared ? 1 : 0> gated;
    std::array<LinearJob, has_shared ? 1 : 0> down;
    if constexpr (has_shared) {  // the shared experts run beside the routed ones
      const auto h_shared = scratch.template take<float>(tokens, Index{config.shared_experts} * config.hidden);
      gated[0] = {weights.shared.gate.weight.view(), weights.shared.up.weight.view(), x, h_shared};
      down[0] = {weights.shared.down.weight.view(), h_shared, y};
    }
    static_assert(
        requires { Experts::forward(device, weights.experts, route.assignment, x_sent, y_sent, gated, down); },
        "Moe: Spec::Experts needs a static forward(device, weights, assignment, x, y, gated, down) as "
        "ExpertPool has");
    Experts::forward(device, weights.experts, route.assignment, x_sent, y_sent, gated, down);
    const View<const float, 2> shared = has_shared ? View<const float, 2>(y) : View<const float, 2>();
    combine_experts(device, Ways::collect(device, route, y_sent, scratch), assignment.slot_tk, weights_tk, shared, y);
  }

  template <class Real>
  struct Saved {
    typename Router::template Saved<Real> router;
    View<std::int32_t, 2> chosen;  ///< [T, K]: choices are kept, never made a second time
    View<Real, 2> weights_tk;      ///< [T, K]
    Assignment assignment;
    typename Ways::Route route;
    typename Experts::template Saved<Real> experts;
    typename Shared::template Saved<Real> shared;
  };

  /// x and y [T, hidden]; keeps what backward needs in `memory`.
  template <class Device, class Store, class Real, class Memory>
  static void forward(Device& device, const Weights<Store>& weights, const TrainingPass& pass,
                      View<const std::type_identity_t<Real>, 2> x, View<Real, 2> y, Saved<Real>& saved,
                      Memory& memory) {
    const Index tokens = x.rows;
    saved.chosen = pass.choice.experts;
    if (saved.chosen.data == nullptr) saved.chosen = memory.template take<std::int32_t>(tokens, config.top_k);
    saved.weights_tk = memory.template take<Real>(tokens, config.top_k);
    saved.assignment = Assignment::take(memory, tokens, config.top_k, config.experts);
    Router::forward(device, weights.router, x, Routing<Real>{saved.chosen, saved.weights_tk, pass.choice.choice},
                    saved.router, memory);
    assign_experts(device, saved.chosen, saved.assignment);
    saved.route = Ways::route(device, saved.assignment, memory);

    auto scratch = device.scratch();
    const auto y_sent = scratch.template take<Real>(saved.route.assignment.slots(), S::config.hidden);
    Experts::forward(device, weights.experts, saved.route.assignment, Ways::send(device, saved.route, x, scratch),
                     y_sent, saved.experts, memory);
    if constexpr (has_shared) Shared::forward(device, weights.shared, x, y, saved.shared, memory);
    combine_experts(device, Ways::collect(device, saved.route, y_sent, scratch), saved.assignment.slot_tk,
                    saved.weights_tk, has_shared ? View<const Real, 2>(y) : View<const Real, 2>(), y);
  }

  /// dy and dx [T, hidden]; dx is overwritten and must not be dy. `saved` is used up.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(Device& device, const Weights<Store>& weights, const TrainingPass& pass,
                       View<const std::type_identity_t<Real>, 2> x, const Saved<std::type_identity_t<Real>>& saved,
                       View<const std::type_identity_t<Real>, 2> dy, View<Real, 2> dx, Weights<Gradients>& gradients) {
    auto scratch = device.scratch();
    const Index tokens = x.rows, slots = tokens * config.top_k;
    const auto weight_s = scratch.template take<Real>(slots);
    slot_weights(device, saved.assignment.slot_tk, saved.weights_tk, weight_s);
    const auto& route = saved.route;
    const Index slots_sent = route.assignment.slots();
    const auto dx_sent = scratch.template take<Real>(slots_sent, S::config.hidden);
    const auto dweight_sent = scratch.template take<Real>(slots_sent);
    Experts::backward(device, weights.experts, route.assignment, Ways::send(device, route, x, scratch), saved.experts,
                      Ways::send(device, route, dy, scratch), Ways::send_slots(device, route, weight_s, scratch),
                      dweight_sent, dx_sent, gradients.experts);
    if constexpr (has_shared) Shared::backward(device, weights.shared, x, saved.shared, dy, dx, gradients.shared);

    const auto ones = scratch.template take<Real>(tokens, config.top_k);
    for_each_row(device, tokens, config.top_k, FillRow<Real>{ones, Real(1)});
    combine_experts(device, Ways::collect(device, route, dx_sent, scratch), saved.assignment.slot_tk, ones,
                    has_shared ? View<const Real, 2>(dx) : View<const Real, 2>(), dx);

    const auto dweights_tk = scratch.template take<Real>(tokens, config.top_k);
    gather_slots(device, saved.assignment.slot_tk, Ways::collect_slots(device, route, dweight_sent, scratch),
                 dweights_tk);
    const auto dx_router = scratch.template take<Real>(tokens, S::config.hidden);
    Router::backward(device, weights.router, pass, x, saved.router, Routing<Real>{saved.chosen, saved.weights_tk},
                     dweights_tk, dx_router, gradients.router);
    add(device, dx, dx_router);
  }
};

}  // namespace guild::inline v1
