// The backward of experts' SwiGLU, whose rows have routing weights.
#pragma once

#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/experts/rows/backward.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// The rows s of experts, where a token's output is the sum over its slots of weights_s[s] * h[s] W_down^T.
/// dh [S, F] on entry is dout[token of s] W_down, without the slot's weight; gate and up [S, F] hold the inputs of
/// `swiglu`. Writes
///   dweights_s[s] = <h[s], dh[s]>, the gradient of the routing weight [S];
///   gate, up      = their gradients, those under weights_s[s] * dh[s];
///   dh            = weights_s[s] * h[s], what dout meets in the gradient of W_down.
/// Throws op_shape.
template <class Device, class Real>
void expert_swiglu_backward(Device& device, DeviceView<const std::type_identity_t<Real>> weights_s, DeviceView<Real, 2> gate,
                            DeviceView<std::type_identity_t<Real>, 2> up, DeviceView<std::type_identity_t<Real>, 2> dh,
                            DeviceView<std::type_identity_t<Real>> dweights_s) {
  detail::require_size(weights_s, gate.rows, "expert_swiglu_backward: weights_s");
  detail::require_shape(gate, gate.rows, gate.cols, "expert_swiglu_backward: gate");
  detail::require_shape(up, gate.rows, gate.cols, "expert_swiglu_backward: up");
  detail::require_shape(dh, gate.rows, gate.cols, "expert_swiglu_backward: dh");
  detail::require_size(dweights_s, gate.rows, "expert_swiglu_backward: dweights_s");
  for_each_row(device, gate.rows, 8 * gate.cols, ExpertSwigluBackwardRow<Real>{weights_s, gate, up, dh, dweights_s});
}

}  // namespace v1
}  // namespace guild
