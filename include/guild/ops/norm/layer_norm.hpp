// LayerNorm (arXiv 1607.06450), with weight and bias.
#pragma once

#include <guild/ops/common/rows/column_sums.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/norm/rows/layer_norm.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// y[t, :] = (x[t, :] - mean) / sqrt(variance + epsilon) * weight + bias, with mean and variance (the mean square of
/// the differences from the mean) of x[t, :]. weight and bias [D], x and y [T, D] with any row pitch; x and y may be
/// the same view. Everything is computed in the element type (float, or double for gradient checks). Throws op_shape.
template <class Device, class Real>
void layer_norm(Device& device, DeviceView<const std::type_identity_t<Real>> weight,
                DeviceView<const std::type_identity_t<Real>> bias, DeviceView<const std::type_identity_t<Real>, 2> x,
                DeviceView<Real, 2> y, double epsilon) {
  detail::require_size(weight, y.cols, "layer_norm: weight");
  detail::require_size(bias, y.cols, "layer_norm: bias");
  detail::require_shape(x, y.rows, y.cols, "layer_norm: x");
  detail::require_shape(y, y.rows, y.cols, "layer_norm: y");
  for_each_row(device, y.rows, y.cols, LayerNormRow<Real>{weight, bias, x, y, static_cast<Real>(epsilon)});
}

/// Gradients of layer_norm: overwrites dx [T, D] and adds to dweight and dbias [D]. x is the forward's input; dx may be
/// dy. Sums over rows run over blocks of rows and then over blocks, whatever the number of threads. Throws op_shape.
template <class Device, class Real>
void layer_norm_backward(Device& device, DeviceView<const std::type_identity_t<Real>> weight,
                         DeviceView<const std::type_identity_t<Real>, 2> x,
                         DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dx,
                         DeviceView<std::type_identity_t<Real>> dweight, DeviceView<std::type_identity_t<Real>> dbias,
                         double epsilon) {
  detail::require_size(weight, dx.cols, "layer_norm_backward: weight");
  detail::require_shape(x, dx.rows, dx.cols, "layer_norm_backward: x");
  detail::require_shape(dy, dx.rows, dx.cols, "layer_norm_backward: dy");
  detail::require_shape(dx, dx.rows, dx.cols, "layer_norm_backward: dx");
  detail::require_size(dweight, dx.cols, "layer_norm_backward: dweight");
  detail::require_size(dbias, dx.cols, "layer_norm_backward: dbias");
  using Block = LayerNormBackwardBlock<Real>;
  constexpr Index strip = AddColumnSums<Real>::strip;
  const Index blocks = (dx.rows + Block::rows - 1) / Block::rows, strips = (dx.cols + strip - 1) / strip;
  auto scratch = device.scratch();
  const DeviceView<Real, 2> partial = scratch.template take<Real>(blocks, 2 * dx.cols);
  for_each_row(device, blocks, 5 * Block::rows * dx.cols,
               Block{weight, x, dy, dx, partial, static_cast<Real>(epsilon)});
  for_each_row(device, strips, strip * blocks, AddColumnSums<Real>{partial.middle_cols(0, dx.cols), dweight});
  for_each_row(device, strips, strip * blocks, AddColumnSums<Real>{partial.middle_cols(dx.cols, dx.cols), dbias});
}

}  // namespace v1
}  // namespace guild
