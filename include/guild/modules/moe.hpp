// Mixture of experts: y = sum over chosen experts of weight * expert(x), plus the shared experts (DeepSeek-V3, eq. 12).
// A choice that the router dropped adds nothing: a token without any gets the shared experts alone, and the residual.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>

#include <guild/modules/dispatch.hpp>
#include <guild/modules/expert_pool.hpp>
#include <guild/modules/router.hpp>
#include <guild/modules/shared_experts.hpp>
#include <guild/ops/common/add.hpp>
#include <guild/ops/common/rows/fill.hpp>
#include <guild/ops/experts/combine.hpp>
#include <guild/ops/experts/identities.hpp>

namespace guild {
inline namespace v1 {

/// The router is the Spec's, or one of its own: layers of one model may route in different ways.
template <class S, class RouterType = typename S::template Router<S>>
struct Moe {
  static constexpr TopKConfig config = S::routing;
  using Router = RouterType;
  using Experts = typename S::template Experts<S>;
  using Ways = typename S::template Dispatch<S>;         ///< to the experts and back
  /// Of each token: what a pass that replays must bring. Routers may say `choices`, if they are not top_k.
  static constexpr Index chosen_experts = detail::choices_of<Router>(config.top_k);
  using Shared = SharedExperts<S>;
  static constexpr bool has_shared = Shared::exists;
  static_assert(Module<Router>,
                "Moe: Spec::Router needs a nested Weights<Store> and a static visit(visitor, path, "
                "weights...), see guild/modules/module.hpp");
  static_assert(Module<Experts>,
                "Moe: Spec::Experts needs a nested Weights<Store> and a static visit(visitor, path, "
                "weights...), see guild/modules/module.hpp");
  static_assert(
      !Module<Router> || TrainableModule<Router>,
      "Moe: Spec::Router needs a nested Saved<Real> for what its backward needs of its forward; it may be empty");
  static_assert(!Module<Experts> || TrainableModule<Experts>,
                "Moe: Spec::Experts needs a nested Saved<Real> for what its backward needs of its forward; it may be "
                "empty");
  static_assert(Dispatch<Ways>,
                "Moe: Spec::Dispatch needs a nested Route with an assignment, and static route, send, "
                "send_slots, collect and collect_slots, see guild/modules/dispatch.hpp");
  static_assert(config.top_k > 0 && config.top_k <= config.experts,
                "Moe: routing.top_k must be in [1, routing.experts]");
  static_assert(config.groups > 0 && config.experts % config.groups == 0,
                "Moe: routing.groups must divide routing.experts");
  static constexpr bool has_identities = config.identities > 0;  ///< experts that give their input
  static_assert(detail::identities_of<Router> == config.identities,
                "Moe: this router does not choose among routing.identities, experts that give their input, as "
                "TopKRouter does");

  template <class Store>
  struct Weights {
    typename Router::template Weights<Store> router;
    typename Experts::template Weights<Store> experts;
    typename Shared::template Weights<Store> shared;  ///< empty without shared experts
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    Router::visit(visitor, path / "router", weights.router...);
    Experts::visit(visitor, path / "experts", weights.experts...);
    Shared::visit(visitor, path / "shared", weights.shared...);
  }

  template <class Real>
  struct Saved {
    typename Router::template Saved<Real> router;
    DeviceView<std::int32_t, 2> chosen;  ///< [T, K]: choices are kept, never made a second time
    DeviceView<Real, 2> weights_tk;      ///< [T, K]
    Assignment assignment;
    typename Ways::Route route;
    typename Experts::template Saved<Real> experts;
    typename Shared::template Saved<Real> shared;
  };

  /// x and y [T, hidden]. The shared experts run beside the routed ones. Counts the choices for the pass.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights,
                      DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> y,
                      Saved<std::type_identity_t<Real>>* keep = nullptr) {
    Saved<Real> here;
    Saved<Real>& saved = keep != nullptr ? *keep : here;
    auto room = pass.room(keep);
    const Index tokens = x.rows;
    saved.chosen = pass.choice.experts;
    if (saved.chosen.data == nullptr) saved.chosen = room.template keep<std::int32_t>(tokens, chosen_experts);
    saved.weights_tk = room.template keep<Real>(tokens, chosen_experts);
    const Routing<Real> routing{saved.chosen, saved.weights_tk, pass.choice.choice};
    const auto router_keep = part_of(keep, &Saved<Real>::router);
    static_assert(
        requires { Router::forward(pass, weights.router, x, routing, router_keep); },
        "Moe: Spec::Router needs a static forward(pass, weights, x, routing, keep) as TopKRouter has");
    Router::forward(pass, weights.router, x, routing, router_keep);
    if constexpr (std::is_same_v<Real, float>)
      if (pass.observer != nullptr)
        pass.observer->on_routing(pass.layer, Download(pass.device, saved.chosen).view(),
                                  Download(pass.device, saved.weights_tk).view());

    const auto phase = keep != nullptr ? Phase::training : Phase::inference;
    saved.assignment = Assignment::take(room.kept(), tokens, chosen_experts, config.experts,
                                        detail::slots_of<Router>(pass, tokens, chosen_experts, phase));
    assign_experts(pass.device, saved.chosen, saved.assignment, config.identities);
    if (const auto sums = pass.counts.sums_of(pass.layer); sums.data != nullptr)
      count_routing(pass.device, config.experts + config.identities, saved.chosen,
                    DeviceView<const Real, 2>(saved.weights_tk), sums);
    saved.route = Ways::route(pass.device, saved.assignment, room.kept());
    const Assignment& there = saved.route.assignment;
    const DeviceView<const Real, 2> x_sent = Ways::send(pass.device, saved.route, x, room);

    const auto y_sent = room.template take<Real>(there.slots(), S::config.hidden);
    const auto shared_keep = part_of(keep, &Saved<Real>::shared);
    const auto beside = Shared::template jobs<Real>(pass, room, weights.shared, x, y, shared_keep);
    const std::span<const BasicGatedJob<Real>> gated(beside.first);
    const std::span<const BasicLinearJob<Real>> down(beside.second);
    const auto experts_keep = part_of(keep, &Saved<Real>::experts);
    static_assert(
        requires { Experts::forward(pass, weights.experts, there, x_sent, y_sent, gated, down, experts_keep); },
        "Moe: Spec::Experts needs a static forward(pass, weights, assignment, x, y, gated, down, keep) as ExpertPool "
        "has");
    Experts::forward(pass, weights.experts, there, x_sent, y_sent, gated, down, experts_keep);
    Shared::finish(pass, beside, room, shared_keep);
    const auto shared = has_shared ? DeviceView<const Real, 2>(y) : DeviceView<const Real, 2>();
    combine_experts(pass.device, Ways::collect(pass.device, saved.route, y_sent, room), saved.assignment.slot_tk,
                    saved.weights_tk, shared, y);
    if constexpr (has_identities) add_identities(pass.device, config.experts, saved.chosen, saved.weights_tk, x, y);
  }

  /// dy and dx [T, hidden]; dx is overwritten and must not be dy. `saved` is used up.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights,
                       DeviceView<const std::type_identity_t<Real>, 2> x,
                       const Saved<std::type_identity_t<Real>>& saved,
                       DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dx,
                       Weights<Gradients>& gradients) {
    Device& device = pass.device;
    auto scratch = device.scratch();
    const Index tokens = x.rows;
    const auto weight_s = scratch.template take<Real>(saved.assignment.slots());
    slot_weights(device, saved.assignment.slot_tk, saved.weights_tk, weight_s);
    clear_unserved(device, saved.assignment.offsets, DeviceView<Real, 2>(weight_s.data, weight_s.size, 1));
    const auto& route = saved.route;
    const Index slots_sent = route.assignment.slots();
    const auto dx_sent = scratch.template take<Real>(slots_sent, S::config.hidden);
    const auto dweight_sent = scratch.template take<Real>(slots_sent);
    const DeviceView<const Real, 2> x_sent = Ways::send(device, route, x, scratch);
    const DeviceView<const Real, 2> dy_sent = Ways::send(device, route, dy, scratch);
    const DeviceView<const Real> weight_sent = Ways::send_slots(device, route, weight_s, scratch);
    static_assert(
        requires {
          Experts::backward(pass, weights.experts, route.assignment, x_sent, saved.experts, dy_sent, weight_sent,
                            dweight_sent, dx_sent, gradients.experts);
        },
        "Moe: Spec::Experts needs a static backward(pass, weights, assignment, x, saved, dy, weight, dweight, dx, "
        "gradients) as ExpertPool has");
    Experts::backward(pass, weights.experts, route.assignment, x_sent, saved.experts, dy_sent, weight_sent,
                      dweight_sent, dx_sent, gradients.experts);
    if constexpr (has_shared) Shared::backward(pass, weights.shared, x, saved.shared, dy, dx, gradients.shared);

    const auto ones = scratch.template take<Real>(tokens, chosen_experts);
    for_each_row(device, tokens, chosen_experts, FillRow<Real>{ones, Real(1)});
    combine_experts(device, Ways::collect(device, route, dx_sent, scratch), saved.assignment.slot_tk, ones,
                    has_shared ? DeviceView<const Real, 2>(dx) : DeviceView<const Real, 2>(), dx);

    const auto dweights_tk = scratch.template take<Real>(tokens, chosen_experts);
    gather_slots(device, saved.assignment.slot_tk, Ways::collect_slots(device, route, dweight_sent, scratch),
                 dweights_tk);
    if constexpr (has_identities) {
      identity_weight_gradients(device, config.experts, saved.chosen, x, dy, dweights_tk);
      add_identities(device, config.experts, saved.chosen, saved.weights_tk, dy, dx);
    }
    const auto dx_router = scratch.template take<Real>(tokens, S::config.hidden);
    const Routing<Real> routing{saved.chosen, saved.weights_tk};
    static_assert(
        requires {
          Router::backward(pass, weights.router, x, saved.router, routing, dweights_tk, dx_router, gradients.router);
        },
        "Moe: Spec::Router needs a static backward(pass, weights, x, saved, routing, dweights, dx, gradients) as "
        "TopKRouter has");
    Router::backward(pass, weights.router, x, saved.router, routing, dweights_tk, dx_router, gradients.router);
    add(device, dx, dx_router);
  }
};

}  // namespace v1
}  // namespace guild
