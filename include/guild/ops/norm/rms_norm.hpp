// RMSNorm (arXiv 1910.07467), as DeepSeek applies it: the weight inside, sums in float or wider.
#pragma once

#include <guild/ops/common/rows/column_sums.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/norm/rows/rms_norm.hpp>
#include <guild/ops/norm/rows/rms_norm_backward.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// y[t, :] = x[t, :] / sqrt(mean(x[t, :]^2) + epsilon) * weight, or (1 + weight) of NormGain::one_plus_weight, or
/// nothing of NormGain::one, which has no weight (and no gradient of one).
/// weight [D], x and y [T, D] with any row pitch; x and y may be the same view. Everything is computed in the element
/// type (float, or double for gradient checks). Throws op_shape.
template <NormGain Gain = NormGain::weight, class Device, class Real>
void rms_norm(Device& device, DeviceView<const std::type_identity_t<Real>> weight,
              DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> y, double epsilon) {
  if constexpr (Gain != NormGain::one) detail::require_size(weight, y.cols, "rms_norm: weight");
  detail::require_shape(x, y.rows, y.cols, "rms_norm: x");
  detail::require_shape(y, y.rows, y.cols, "rms_norm: y");
  for_each_row(device, y.rows, y.cols, RmsNormRow<Real, Gain>{weight, x, y, static_cast<Real>(epsilon)});
}

/// Gradients of rms_norm: overwrites dx [T, D] and adds to dweight [D]. x is the forward's input. dx is the gradient
/// plus `plus` [T, D], where that has data: what reaches x along a residual stream. dx may be dy or plus. Sums over
/// rows run over blocks of rows and then over blocks, whatever the number of threads. Throws op_shape.
template <NormGain Gain = NormGain::weight, class Device, class Real>
void rms_norm_backward(Device& device, DeviceView<const std::type_identity_t<Real>> weight,
                       DeviceView<const std::type_identity_t<Real>, 2> x,
                       DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dx,
                       DeviceView<std::type_identity_t<Real>> dweight, double epsilon,
                       DeviceView<const std::type_identity_t<Real>, 2> plus = {}) {
  if constexpr (Gain != NormGain::one) detail::require_size(weight, dx.cols, "rms_norm_backward: weight");
  detail::require_shape(x, dx.rows, dx.cols, "rms_norm_backward: x");
  detail::require_shape(dy, dx.rows, dx.cols, "rms_norm_backward: dy");
  detail::require_shape(dx, dx.rows, dx.cols, "rms_norm_backward: dx");
  if constexpr (Gain != NormGain::one) detail::require_size(dweight, dx.cols, "rms_norm_backward: dweight");
  if (plus.data != nullptr) detail::require_shape(plus, dx.rows, dx.cols, "rms_norm_backward: plus");
  using Block = RmsNormBackwardBlock<Real, Gain>;
  [[maybe_unused]] constexpr Index strip = AddColumnSums<Real>::strip;
  const Index blocks = (dx.rows + Block::rows - 1) / Block::rows;
  auto scratch = device.scratch();
  const View partial = scratch.template take<Real>(blocks, dx.cols);
  for_each_row(device, blocks, 4 * Block::rows * dx.cols,
               Block{weight, x, dy, plus, dx, partial, static_cast<Real>(epsilon)});
  if constexpr (Gain != NormGain::one)
    for_each_row(device, (dx.cols + strip - 1) / strip, strip * blocks, AddColumnSums<Real>{partial, dweight});
}

}  // namespace v1
}  // namespace guild
