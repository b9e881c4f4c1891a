// Experts that give their input (the zero-computation experts of LongCat-Flash, arXiv 2509.01322, section 2.1): choices
// from `first` on are theirs. They have no weights and no slots. Shapes: T tokens, K choices, D columns.
#pragma once

#include <cstdint>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/experts/rows/identities.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// y[t] += w_t x[t], w_t the sum of the weights of t's identities: chosen and weights [T, K], x and y [T, D]. With dy
/// as x it is the gradient by x. Throws op_shape.
template <class Device, class Real>
void add_identities(Device& device, Index first, DeviceView<const std::int32_t, 2> chosen,
                    DeviceView<const std::type_identity_t<Real>, 2> weights,
                    DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> y) {
  detail::require_shape(chosen, y.rows, weights.cols, "add_identities: chosen");
  detail::require_shape(weights, y.rows, weights.cols, "add_identities: weights");
  detail::require_shape(x, y.rows, y.cols, "add_identities: x");
  detail::require_shape(y, y.rows, y.cols, "add_identities: y");
  for_each_row(device, y.rows, y.cols, AddIdentitiesRow<Real>{first, chosen, weights, x, y});
}

/// dweights[t, k] = <x[t], dy[t]> where choice k of token t is an identity: chosen and dweights [T, K], x and dy [T,
/// D]. Throws op_shape.
template <class Device, class Real>
void identity_weight_gradients(Device& device, Index first, DeviceView<const std::int32_t, 2> chosen,
                               DeviceView<const std::type_identity_t<Real>, 2> x,
                               DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dweights) {
  detail::require_shape(chosen, x.rows, dweights.cols, "identity_weight_gradients: chosen");
  detail::require_shape(dweights, x.rows, dweights.cols, "identity_weight_gradients: dweights");
  detail::require_shape(dy, x.rows, x.cols, "identity_weight_gradients: dy");
  detail::require_shape(x, x.rows, x.cols, "identity_weight_gradients: x");
  for_each_row(device, x.rows, x.cols, IdentityWeightsRow<Real>{first, chosen, x, dy, dweights});
}

}  // namespace v1
}  // namespace guild
