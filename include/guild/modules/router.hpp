// The router: which experts serve a token, and with what weight.
#pragma once

#include <type_traits>

#include <guild/core/config.hpp>
#include <guild/modules/balance_support.hpp>
#include <guild/modules/linear.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/linear/bias.hpp>
#include <guild/ops/linear/linear.hpp>
#include <guild/ops/route/balance.hpp>
#include <guild/ops/route/route.hpp>

namespace guild {
inline namespace v1 {

/// Top-k selection as `S::routing` says: sigmoid or softmax scores, groups, selection bias (DeepSeek-V3 report,
/// section 2.1.2). Logits, scores and weights are float whatever the storage of the weights.
template <class S>
struct TopKRouter {
  static constexpr TopKConfig config = S::routing;
  static constexpr TopKConfig all = config.over_all();  ///< of experts and identities: [experts] below is both
  static constexpr Index identities = config.identities;
  static constexpr bool has_selection_bias = config.selection == Selection::noaux_tc;
  static constexpr bool heeds_shift = true;  ///< Routing::shift
  static constexpr BalanceSupport balance{};  ///< all

  template <class Store>
  struct Weights {
    typename Store::Matrix weight;          ///< [experts, hidden]
    typename Store::Vector bias;            ///< [experts], of the logits; unused without config.bias
    typename Store::Vector selection_bias;  ///< [experts], only with noaux_tc: added to scores for the choice alone
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    visitor(path / "weight", MatrixShape{all.experts, S::config.hidden}, weights.weight...);
    if constexpr (config.bias) visitor(path / "bias", VectorShape{all.experts}, weights.bias...);
    if constexpr (has_selection_bias)
      visitor(path / "selection_bias", VectorShape{all.experts, TensorRole::state}, weights.selection_bias...);
  }

  template <class Real>
  struct Saved {
    DeviceView<Real, 2> logits;  ///< [T, experts]
  };

  /// x [T, hidden]; experts and weights [T, top_k], in descending order of choice, ties to the lower index.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, DeviceView<const Real, 2> x,
                      const Routing<std::type_identity_t<Real>>& routing,
                      Saved<std::type_identity_t<Real>>* keep = nullptr) {
    auto room = pass.room(keep);
    choose(pass, weights, logits(pass, weights, x, room, keep), routing);
  }

  /// The first half of forward: the logits [T, experts] of x, in the memory of `room`.
  template <class Device, class Store, class Real, class Room>
  static DeviceView<Real, 2> logits(const Pass<Device>& pass, const Weights<Store>& weights,
                                    DeviceView<const Real, 2> x, Room& room, Saved<std::type_identity_t<Real>>* keep) {
    const auto logits = room.template keep<Real>(x.rows, all.experts);
    if (keep != nullptr) keep->logits = logits;
    linear(pass.device, weights.weight.view(), x, logits);
    if constexpr (config.bias) add_bias(pass.device, weights.bias.view(), logits);
    return logits;
  }
  /// The second half, for routers that choose by other logits than they weigh by.
  template <class Device, class Store, class Real>
  static void choose(const Pass<Device>& pass, const Weights<Store>& weights, DeviceView<Real, 2> logits,
                     const Routing<std::type_identity_t<Real>>& routing) {
    DeviceView<const Real> bias = routing.shift;
    if (bias.data == nullptr) bias = weights.selection_bias.view();
    route(pass.device, all, logits, bias, routing.experts, routing.weights, routing.choice);
  }
  static constexpr bool choose_by_logits = true;  ///< the two halves are there

  /// Gradients through the weights of the chosen experts, and of the balancing losses; the choice itself has none, nor
  /// has the selection bias. dweights [T, top_k] may be used up; dx [T, hidden] is overwritten. Adds the losses to the
  /// pass's counts.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights,
                       DeviceView<const std::type_identity_t<Real>, 2> x,
                       const Saved<std::type_identity_t<Real>>& saved,
                       const Routing<std::type_identity_t<Real>>& routing,
                       DeviceView<std::type_identity_t<Real>, 2> dweights, DeviceView<Real, 2> dx,
                       Weights<Gradients>& gradients) {
    Device& device = pass.device;
    auto scratch = device.scratch();
    const auto dlogits = scratch.template take<Real>(x.rows, all.experts);
    route_backward(device, all, saved.logits, routing.experts, routing.weights, dweights, dlogits);
    balance_losses(device, all, pass.balance, DeviceView<const Real, 2>(saved.logits), routing.balanced(),
                   pass.sequence_offsets, pass.balance_scale, dlogits, pass.counts.terms(pass.layer));
    if constexpr (config.bias) bias_gradient(device, dlogits, gradients.bias.view());
    const WeightGradientJob<Real> job{x.rows, dlogits, x, gradients.weight.matrix()};
    weight_gradient(device, job);
    input_gradient(device, weights.weight.view(), dlogits, dx);
  }
};

}  // namespace v1
}  // namespace guild
