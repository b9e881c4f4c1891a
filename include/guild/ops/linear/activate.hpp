// What stands between the two products of a network without a gate, h = f(z), and its gradient in place.
#pragma once

#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/linear/rows/activate.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// h = f(z), both [T, F], f as `activation` says, which has no gate. h may be z. Throws op_shape.
template <class Device, class Real>
void activate(Device& device, DeviceView<const std::type_identity_t<Real>, 2> z, DeviceView<Real, 2> h,
              const ActivationConfig& activation) {
  detail::require_shape(z, h.rows, h.cols, "activate: z");
  detail::require_shape(h, h.rows, h.cols, "activate: h");
  for_each_row(device, h.rows, 8 * h.cols, ActivateRow<Real>{z, h, activation});
}

/// z [T, F] holds what `activate` took, dh [T, F] the gradient of what it gave, of rows that count weights[t] times
/// (weights [T], or no data: once). z becomes its gradient, dh weights[t] * f(z), which the gradient of the next
/// product needs, and dweights [T], if it has data, <f(z[t]), dh[t]>. Throws op_shape.
template <class Device, class Real>
void activate_backward(Device& device, DeviceView<Real, 2> z, DeviceView<std::type_identity_t<Real>, 2> dh,
                       const ActivationConfig& activation, DeviceView<const std::type_identity_t<Real>> weights = {},
                       DeviceView<std::type_identity_t<Real>> dweights = {}) {
  detail::require_shape(z, z.rows, z.cols, "activate_backward: z");
  detail::require_shape(dh, z.rows, z.cols, "activate_backward: dh");
  if (weights.data != nullptr) detail::require_size(weights, z.rows, "activate_backward: weights");
  if (dweights.data != nullptr) detail::require_size(dweights, z.rows, "activate_backward: dweights");
  for_each_row(device, z.rows, 8 * z.cols, ActivateBackwardRow<Real>{weights, z, dh, dweights, activation});
}

}  // namespace v1
}  // namespace guild
