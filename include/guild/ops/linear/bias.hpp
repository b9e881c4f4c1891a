// The bias of a linear layer, for those that have one: added behind the product, which knows nothing of it.
#pragma once

#include <guild/ops/common/rows/column_sums.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/linear/rows/bias.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// y[t, :] += bias: bias [D], y [T, D] with any row pitch. Throws op_shape.
template <class Device, class Real>
void add_bias(Device& device, DeviceView<const std::type_identity_t<Real>> bias, DeviceView<Real, 2> y) {
  detail::require_size(bias, y.cols, "add_bias: bias");
  detail::require_shape(y, y.rows, y.cols, "add_bias: y");
  for_each_row(device, y.rows, y.cols, AddBiasRow<Real>{bias, y});
}

/// dbias [D] += the sum over t of dy[t, :], dy [T, D]: the gradient of add_bias; that of its input is dy itself. The
/// sum runs over blocks of rows and then over blocks, whatever the number of threads. Throws op_shape.
template <class Device, class Real>
void bias_gradient(Device& device, DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real> dbias) {
  detail::require_shape(dy, dy.rows, dbias.size, "bias_gradient: dy");
  detail::require_size(dbias, dy.cols, "bias_gradient: dbias");
  using Block = SumBlockOfRows<Real>;
  constexpr Index strip = AddColumnSums<Real>::strip;
  const Index blocks = (dy.rows + Block::rows - 1) / Block::rows;
  auto scratch = device.scratch();
  const View partial = scratch.template take<Real>(blocks, dy.cols);
  for_each_row(device, blocks, Block::rows * dy.cols, Block{dy, partial});
  for_each_row(device, (dy.cols + strip - 1) / strip, strip * blocks, AddColumnSums<Real>{partial, dbias});
}

}  // namespace v1
}  // namespace guild
