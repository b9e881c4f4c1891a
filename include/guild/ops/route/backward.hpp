// The gradient of `route`: from the weights of the chosen experts to the router logits.
#pragma once

#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/route/rows/backward.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// Overwrites dlogits [T, E] with the gradient through the chosen weights of `route`: logits [T, E] as it took them,
/// indices, weights_tk and dweights_tk [T, K]. Which experts are chosen, and so the selection bias, has no gradient.
/// With sigmoid scores only the chosen experts' logits get one; with softmax all of them do. dlogits must not be
/// logits. `top_k` is that of the indices: those of another choice than the config's are legal. Throws op_shape.
template <class Device, class Real>
void route_backward(Device& device, const TopKConfig& config, DeviceView<const std::type_identity_t<Real>, 2> logits,
                    DeviceView<const std::int32_t, 2> indices,
                    DeviceView<const std::type_identity_t<Real>, 2> weights_tk,
                    DeviceView<const std::type_identity_t<Real>, 2> dweights_tk, DeviceView<Real, 2> dlogits) {
  detail::require_shape(logits, dlogits.rows, dlogits.cols, "route_backward: logits");
  detail::require_shape(indices, dlogits.rows, indices.cols, "route_backward: indices");
  detail::require_shape(weights_tk, dlogits.rows, indices.cols, "route_backward: weights_tk");
  detail::require_shape(dweights_tk, dlogits.rows, indices.cols, "route_backward: dweights_tk");
  detail::require_shape(dlogits, dlogits.rows, dlogits.cols, "route_backward: dlogits");
  for_each_row(device, dlogits.rows, 8 * (dlogits.cols + 4 * indices.cols),
               RouteBackwardRow<Real>{config, logits, indices, weights_tk, dweights_tk, dlogits});
}

}  // namespace v1
}  // namespace guild
