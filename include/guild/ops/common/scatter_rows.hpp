// Rows of a matrix to chosen places of another, and zeros where nothing goes.
#pragma once

#include <guild/ops/common/rows/scatter_rows.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// y[to[n], :] = x[n, :]: x [N, D], to [N] with rows of y, each at most once; y [T, D]. Throws op_shape.
template <class Device, class Real>
void scatter_rows(Device& device, DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<const std::int32_t> to,
                  DeviceView<Real, 2> y) {
  detail::require_shape(x, to.size, y.cols, "scatter_rows: x");
  detail::require_size(to, x.rows, "scatter_rows: to");
  detail::require_shape(y, y.rows, y.cols, "scatter_rows: y");
  for_each_row(device, x.rows, y.cols, ScatterRow<Real>{x, to, y});
}

/// y[t, :] = 0 for each t with marks[t] < 0, as ignored targets have: marks [T], y [T, D]. Throws op_shape.
template <class Device, class Real>
void zero_marked_rows(Device& device, DeviceView<const std::int32_t> marks, DeviceView<Real, 2> y) {
  detail::require_size(marks, y.rows, "zero_marked_rows: marks");
  detail::require_shape(y, y.rows, y.cols, "zero_marked_rows: y");
  for_each_row(device, y.rows, y.cols, ZeroMarkedRow<Real>{marks, y});
}

}  // namespace v1
}  // namespace guild
