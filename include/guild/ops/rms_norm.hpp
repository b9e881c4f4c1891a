// RMSNorm (arXiv 1910.07467), as DeepSeek applies it: the weight inside, sums in float or wider.
#pragma once

#include <guild/ops/rows/rms_norm.hpp>
#include <guild/ops/shape_check.hpp>
#include <type_traits>

namespace guild::inline v1 {

/// y[t, :] = x[t, :] / sqrt(mean(x[t, :]^2) + epsilon) * weight.
/// weight [D], x and y [T, D] with any row pitch; x and y may be the same view. Everything is computed in the element
/// type (float, or double for gradient checks). Throws op_shape.
template <class Device, class Real>
void rms_norm(Device& device, View<const std::type_identity_t<Real>> weight,
              View<const std::type_identity_t<Real>, 2> x, View<Real, 2> y, double epsilon) {
  detail::require_size(weight, y.cols, "rms_norm: weight");
  detail::require_shape(x, y.rows, y.cols, "rms_norm: x");
  detail::require_shape(y, y.rows, y.cols, "rms_norm: y");
  for_each_row(device, y.rows, y.cols, RmsNormRow<Real>{weight, x, y, static_cast<Real>(epsilon)});
}

}  // namespace guild::inline v1
