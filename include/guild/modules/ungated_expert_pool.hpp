// The pool of routed experts without gates: y = down(f(up x)) for each slot, in two grouped products.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>

#include <guild/modules/expert_dropout.hpp>
#include <guild/modules/module.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/experts/assignment.hpp>
#include <guild/ops/experts/grouped.hpp>
#include <guild/ops/linear/activate.hpp>

namespace guild {
inline namespace v1 {

/// What Spec::Experts is where `experts.activation.gated` is false.
template <class S>
struct UngatedExpertPool {
  static constexpr Index count = S::routing.experts;
  static constexpr Index size = S::config.hidden, hidden = S::experts.hidden;
  static_assert(!S::experts.activation.gated,
                "UngatedExpertPool: experts.activation.gated is true; ExpertPool has experts with gates");

  template <class Store>
  struct Weights {
    typename Store::Stack up;    ///< [count, hidden, size]
    typename Store::Stack down;  ///< [count, size, hidden]
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    visitor(path / "up" / "weight", StackShape{count, hidden, size}, weights.up...);
    visitor(path / "down" / "weight", StackShape{count, size, hidden}, weights.down...);
  }

  template <class Real>
  struct Saved {
    DeviceView<Real, 2> up;  ///< [S, hidden of an expert], before the nonlinearity
  };

  /// As ExpertPool's.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, const Assignment& assignment,
                      DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> y,
                      std::type_identity_t<std::span<const BasicGatedJob<Real>>> gated,
                      std::type_identity_t<std::span<const BasicLinearJob<Real>>> down,
                      Saved<std::type_identity_t<Real>>* keep = nullptr) {
    auto room = pass.room(keep);
    const auto z = room.template keep<Real>(y.rows, hidden);
    if (keep != nullptr) keep->up = z;
    const auto h = keep != nullptr ? room.template take<Real>(y.rows, hidden) : z;
    if (!gated.empty()) gated_linear(pass.device, gated);
    grouped_linear<Real>(pass.device, {}, {{weights.up.view(), assignment.offsets, x, z, assignment.token.data}});
    activate(pass.device, z, h, S::experts.activation);
    ExpertDropout<S>::apply(pass, assignment, h);
    grouped_linear<Real>(pass.device, down, {{weights.down.view(), assignment.offsets, h, y}});
  }

  /// As ExpertPool's.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights, const Assignment& assignment,
                       DeviceView<const std::type_identity_t<Real>, 2> x,
                       const Saved<std::type_identity_t<Real>>& saved,
                       DeviceView<const std::type_identity_t<Real>, 2> dy,
                       DeviceView<const std::type_identity_t<Real>> weight_s,
                       DeviceView<std::type_identity_t<Real>> dweight_s, DeviceView<Real, 2> dx,
                       Weights<Gradients>& gradients) {
    Device& device = pass.device;
    auto scratch = device.scratch();
    const auto h = scratch.template take<Real>(dx.rows, hidden);
    const DeviceView<const std::int32_t> offsets = assignment.offsets;
    const std::int32_t* const token = assignment.token.data;
    grouped_linear<Real>(device, {}, {{weights.down.view(), offsets, dy, h, token, Product::x_w}});
    ExpertDropout<S>::apply(pass, assignment, h);  // of the gradient, and of h when h is that again
    activate_backward(device, saved.up, h, S::experts.activation, weight_s, dweight_s);
    ExpertDropout<S>::apply(pass, assignment, h);
    grouped_gradient<Real>(device, {{gradients.down.matrices(), offsets, dy, h, token},
                                    {gradients.up.matrices(), offsets, saved.up, x, nullptr, token}});
    grouped_linear<Real>(device, {}, {{weights.up.view(), offsets, saved.up, dx, nullptr, Product::x_w}});
  }
};

}  // namespace v1
}  // namespace guild
