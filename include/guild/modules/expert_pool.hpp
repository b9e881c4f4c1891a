// The pool of routed experts: only the chosen ones are touched, and all of their rows run in two parallel regions.
#pragma once

#include <cstdint>
#include <span>
#include <type_traits>

#include <guild/modules/expert_dropout.hpp>
#include <guild/modules/module.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/experts/assignment.hpp>
#include <guild/ops/experts/combine.hpp>
#include <guild/ops/experts/grouped.hpp>

namespace guild {
inline namespace v1 {

template <class S>
struct ExpertPool {
  static constexpr Index count = S::routing.experts;
  static constexpr Index size = S::config.hidden, hidden = S::experts.hidden;
  static constexpr bool has_bias = S::experts.bias;
  static_assert(S::experts.activation.gated,
                "ExpertPool: experts.activation.gated is false; UngatedExpertPool has experts without gates");

  /// Expert e is the gated network of the three matrices e: y = down(f(gate x) * up x), f of `S::experts.activation`;
  /// the biases, if there are any, are added to the products.
  template <class Store>
  struct Weights {
    typename Store::Stack gate, up;             ///< [count, hidden, size]
    typename Store::Stack down;                 ///< [count, size, hidden]
    typename Store::Vector gate_bias, up_bias;  ///< [count * hidden]; unused without experts.bias
    typename Store::Vector down_bias;           ///< [count * size]; the same
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    const Path gate = path / "gate", up = path / "up", down = path / "down";
    visitor(gate / "weight", StackShape{count, hidden, size}, weights.gate...);
    visitor(up / "weight", StackShape{count, hidden, size}, weights.up...);
    visitor(down / "weight", StackShape{count, size, hidden}, weights.down...);
    if constexpr (has_bias) {
      const VectorShape inner{.size = count * hidden, .count = count}, outer{.size = count * size, .count = count};
      visitor(gate / "bias", inner, weights.gate_bias...);
      visitor(up / "bias", inner, weights.up_bias...);
      visitor(down / "bias", outer, weights.down_bias...);
    }
  }

  template <class Real>
  struct Saved {
    DeviceView<Real, 2> gate, up;  ///< [S, hidden of an expert] each, before the gate's nonlinearity
  };

  /// x [T, hidden]; y [S, hidden]: slot s holds what its expert makes of row token[s]. `gated` and `down` are products
  /// that run beside those of the pool (the shared experts): the same parallel regions serve all.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, const Assignment& assignment,
                      DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> y,
                      std::type_identity_t<std::span<const BasicGatedJob<Real>>> gated,
                      std::type_identity_t<std::span<const BasicLinearJob<Real>>> down,
                      Saved<std::type_identity_t<Real>>* keep = nullptr) {
    auto room = pass.room(keep);
    const auto h = room.template take<Real>(y.rows, hidden);
    if (keep != nullptr) *keep = {room.template keep<Real>(y.rows, hidden), room.template keep<Real>(y.rows, hidden)};
    const Saved<Real> out = keep != nullptr ? *keep : Saved<Real>{};
    grouped_gated<Real>(pass.device, gated,
                        {weights.gate.view(), weights.up.view(), assignment.offsets, x, h, assignment.token.data,
                         out.gate, out.up, S::experts.activation, by_expert<const Real>(weights.gate_bias, hidden),
                         by_expert<const Real>(weights.up_bias, hidden)});
    ExpertDropout<S>::apply(pass, assignment, h);
    grouped_linear<Real>(pass.device, down, {{weights.down.view(), assignment.offsets, h, y}});
    if constexpr (has_bias)
      add_slot_bias(pass.device, assignment.offsets, by_expert<const Real>(weights.down_bias, size), y);
  }

  /// dy [T, hidden] is the gradient of the weighted sum over slots, weight_s [T * K] the weight of each slot.
  /// Overwrites dx [T * K, hidden], the slots' gradients of x, and dweight_s. `saved` is used up. The outputs of the
  /// experts need not be kept: with h what goes into `down`, <y_s, dy> = <h_s, dy down>, and the bias times dy.
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
    expert_swiglu_backward(device, weight_s, saved.gate, saved.up, h, dweight_s, S::experts.activation);
    ExpertDropout<S>::apply(pass, assignment, h);

    if constexpr (has_bias) {
      slot_bias_weight_gradient(device, offsets, assignment.token, by_expert<const Real>(weights.down_bias, size), dy,
                                dweight_s);
      slot_bias_gradient(device, offsets, dy, by_expert<Real>(gradients.down_bias, size), assignment.token, weight_s);
      slot_bias_gradient(device, offsets, saved.gate, by_expert<Real>(gradients.gate_bias, hidden));
      slot_bias_gradient(device, offsets, saved.up, by_expert<Real>(gradients.up_bias, hidden));
    }
    grouped_gradient<Real>(device, {{gradients.down.matrices(), offsets, dy, h, token},
                                    {gradients.gate.matrices(), offsets, saved.gate, x, nullptr, token},
                                    {gradients.up.matrices(), offsets, saved.up, x, nullptr, token}});

    grouped_linear<Real>(device, {}, {{weights.gate.view(), offsets, saved.gate, dx, nullptr, Product::x_w}});
    grouped_linear<Real>(device, {}, {{weights.up.view(), offsets, saved.up, dx, nullptr, Product::x_w, Update::add}});
  }

 private:
  /// The biases of all experts, a row for each; a view of no memory where there are none.
  template <class Real, class Vector>
  static DeviceView<Real, 2> by_expert(Vector& biases, Index width) {
    if constexpr (has_bias)
      return {biases.view().data, count, width};
    else
      return {};
  }
};

}  // namespace v1
}  // namespace guild
