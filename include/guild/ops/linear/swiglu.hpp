// SwiGLU and its kin (arXiv 2002.05202), h = f(gate) * up, and their gradients in place.
#pragma once

#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/linear/rows/swiglu.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// h = f(gate) * up, all [T, D]: with f = silu, x * sigmoid(x), or as `activation` says. h may be `gate` or `up`.
/// Throws op_shape.
template <class Device, class Real>
void swiglu(Device& device, DeviceView<const std::type_identity_t<Real>, 2> gate,
            DeviceView<const std::type_identity_t<Real>, 2> up, DeviceView<Real, 2> h,
            const ActivationConfig& activation = {}) {
  detail::require_shape(gate, h.rows, h.cols, "swiglu: gate");
  detail::require_shape(up, h.rows, h.cols, "swiglu: up");
  detail::require_shape(h, h.rows, h.cols, "swiglu: h");
  for_each_row(device, h.rows, 8 * h.cols, SwigluRow<Real>{gate, up, h, activation});
}

/// gate and up [T, F] hold what `swiglu` took and are overwritten with their gradients under dh [T, F]. h [T, F] gets
/// f(gate) * up again, which the gradient of the projection after it needs; it may be the memory of dh, or an empty
/// view if it is not wanted. Throws op_shape.
template <class Device, class Real>
void swiglu_backward(Device& device, DeviceView<Real, 2> gate, DeviceView<std::type_identity_t<Real>, 2> up,
                     DeviceView<const std::type_identity_t<Real>, 2> dh, DeviceView<std::type_identity_t<Real>, 2> h,
                     const ActivationConfig& activation = {}) {
  detail::require_shape(gate, gate.rows, gate.cols, "swiglu_backward: gate");
  detail::require_shape(up, gate.rows, gate.cols, "swiglu_backward: up");
  detail::require_shape(dh, gate.rows, gate.cols, "swiglu_backward: dh");
  if (h.data != nullptr) detail::require_shape(h, gate.rows, gate.cols, "swiglu_backward: h");
  for_each_row(device, gate.rows, 8 * gate.cols, SwigluBackwardRow<Real>{gate, up, dh, h, activation});
}

}  // namespace v1
}  // namespace guild
