// The gate of shared experts (Qwen2-MoE, arXiv 2407.10671): what they give a token is multiplied by a sigmoid of the
// token. Shapes: T tokens, D columns.
#pragma once

#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/experts/rows/shared_gate.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// gates[t] = sigmoid(logits[t]); y[t, :] *= gates[t]: logits and gates [T], apart, y [T, D]. Throws op_shape.
template <class Device, class Real>
void apply_shared_gate(Device& device, DeviceView<const std::type_identity_t<Real>> logits,
                       DeviceView<std::type_identity_t<Real>> gates, DeviceView<Real, 2> y) {
  detail::require_size(logits, y.rows, "apply_shared_gate: logits");
  detail::require_size(gates, y.rows, "apply_shared_gate: gates");
  detail::require_shape(y, y.rows, y.cols, "apply_shared_gate: y");
  for_each_row(device, y.rows, y.cols + 8, SharedGateRow<Real>{logits, gates, y});
}

/// dgates [T], the gradient of the gates, becomes that of their logits. Throws op_shape.
template <class Device, class Real>
void shared_gate_backward(Device& device, DeviceView<const std::type_identity_t<Real>> gates, DeviceView<Real> dgates) {
  detail::require_size(gates, dgates.size, "shared_gate_backward: gates");
  detail::require_size(dgates, dgates.size, "shared_gate_backward: dgates");
  for_each_row(device, 1, dgates.size, SharedGateBackward<Real>{gates, dgates});
}

}  // namespace v1
}  // namespace guild
