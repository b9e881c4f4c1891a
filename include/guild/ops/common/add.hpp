// Sums of activations: residuals.
#pragma once

#include <guild/ops/common/rows/add.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// x += y, both [T, D]. Throws op_shape.
template <class Device, class Real>
void add(Device& device, DeviceView<Real, 2> x, DeviceView<const std::type_identity_t<Real>, 2> y) {
  detail::require_shape(x, x.rows, x.cols, "add: x");
  detail::require_shape(y, x.rows, x.cols, "add: y");
  for_each_row(device, x.rows, x.cols, AddRow<Real>{x, y});
}

/// x, y = x - y, x + y, both [T, D] of different memory. Throws op_shape.
template <class Device, class Real>
void difference_and_sum(Device& device, DeviceView<Real, 2> x, DeviceView<Real, 2> y) {
  detail::require_shape(x, x.rows, x.cols, "difference_and_sum: x");
  detail::require_shape(y, x.rows, x.cols, "difference_and_sum: y");
  for_each_row(device, x.rows, 2 * x.cols, DifferenceAndSumRow<Real>{x, y});
}

}  // namespace v1
}  // namespace guild
