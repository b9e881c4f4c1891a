// Gradients of SwiGLU (arXiv 2002.05202), h = silu(gate) * up, in place.
#pragma once

#include <guild/ops/rows/swiglu_backward.hpp>
#include <guild/ops/shape_check.hpp>
#include <type_traits>

namespace guild::inline v1 {

/// gate and up [T, F] hold what `swiglu` took and are overwritten with their gradients under dh [T, F]. h [T, F] gets
/// silu(gate) * up again, which the gradient of the projection after it needs; it may be the memory of dh, or an empty
/// view if it is not wanted. Throws op_shape.
template <class Device, class Real>
void swiglu_backward(Device& device, DeviceView<Real, 2> gate, DeviceView<std::type_identity_t<Real>, 2> up,
                     DeviceView<const std::type_identity_t<Real>, 2> dh, DeviceView<std::type_identity_t<Real>, 2> h) {
  detail::require_shape(gate, gate.rows, gate.cols, "swiglu_backward: gate");
  detail::require_shape(up, gate.rows, gate.cols, "swiglu_backward: up");
  detail::require_shape(dh, gate.rows, gate.cols, "swiglu_backward: dh");
  if (h.data != nullptr) detail::require_shape(h, gate.rows, gate.cols, "swiglu_backward: h");
  for_each_row(device, gate.rows, 8 * gate.cols, SwigluBackwardRow<Real>{gate, up, dh, h});
}

}  // namespace guild::inline v1
