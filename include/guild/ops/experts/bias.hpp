// Biases of experts (GPT-OSS), added behind their grouped products, and their gradients. Shapes: E experts, S slots
// that offsets [E + 1] give to them, T tokens, D columns.
#pragma once

#include <cstdint>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/experts/rows/bias.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// y[s, :] += bias[expert of s, :] for every slot: bias [E, D], y [S, D]. Throws op_shape.
template <class Device, class Real>
void add_slot_bias(Device& device, DeviceView<const std::int32_t> offsets,
                   DeviceView<const std::type_identity_t<Real>, 2> bias, DeviceView<Real, 2> y) {
  detail::require_size(offsets, bias.rows + 1, "add_slot_bias: offsets");
  detail::require_shape(bias, bias.rows, y.cols, "add_slot_bias: bias");
  detail::require_shape(y, y.rows, y.cols, "add_slot_bias: y");
  for_each_row(device, y.rows, y.cols, AddSlotBiasRow<Real>{offsets, bias, y});
}

/// dbias [E, D] += for each expert the sum over its slots s of dy[s, :]: the gradient of add_slot_bias. With token [S]
/// and weights_s [S] the sum is of weights_s[s] * dy[token[s], :], dy [T, D]: where the slots of a token are added up
/// with their weights. Sums run over the slots in their order, whatever the number of threads. Throws op_shape.
template <class Device, class Real>
void slot_bias_gradient(Device& device, DeviceView<const std::int32_t> offsets,
                        DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dbias,
                        DeviceView<const std::int32_t> token = {},
                        DeviceView<const std::type_identity_t<Real>> weights_s = {}) {
  detail::require_size(offsets, dbias.rows + 1, "slot_bias_gradient: offsets");
  detail::require_shape(dy, dy.rows, dbias.cols, "slot_bias_gradient: dy");
  detail::require_shape(dbias, dbias.rows, dbias.cols, "slot_bias_gradient: dbias");
  if (token.data != nullptr) detail::require_size(weights_s, token.size, "slot_bias_gradient: weights_s");
  for_each_row(device, dbias.rows, dbias.cols * (dy.rows / (dbias.rows > 0 ? dbias.rows : 1) + 1),
               SlotBiasGradient<Real>{offsets, token, weights_s, dy, dbias});
}

/// dweights_s[s] += <bias[expert of s], dy[token[s]]>: what the weight of a slot gets through the bias that it weighs,
/// beside what it gets through the product (`expert_swiglu_backward`). bias [E, D], dy [T, D]. Throws op_shape.
template <class Device, class Real>
void slot_bias_weight_gradient(Device& device, DeviceView<const std::int32_t> offsets,
                               DeviceView<const std::int32_t> token,
                               DeviceView<const std::type_identity_t<Real>, 2> bias,
                               DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real> dweights_s) {
  detail::require_size(offsets, bias.rows + 1, "slot_bias_weight_gradient: offsets");
  detail::require_size(token, dweights_s.size, "slot_bias_weight_gradient: token");
  detail::require_shape(bias, bias.rows, dy.cols, "slot_bias_weight_gradient: bias");
  detail::require_shape(dy, dy.rows, dy.cols, "slot_bias_weight_gradient: dy");
  detail::require_size(dweights_s, token.size, "slot_bias_weight_gradient: dweights_s");
  for_each_row(device, dweights_s.size, dy.cols, SlotBiasWeightRow<Real>{offsets, token, bias, dy, dweights_s});
}

}  // namespace v1
}  // namespace guild
