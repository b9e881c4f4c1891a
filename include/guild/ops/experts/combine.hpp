// The outputs of a token's experts, weighed and added up, and the way back: routing weights in the order of the
// experts' rows (slots), and the backward of experts' gates, whose rows have those weights.
#pragma once

#include <cstdint>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/experts/rows/combine.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// out[t] = (sum over k of weights[t, k] * rows[slots[t, k]]) + shared[t]: the outputs of a token's experts.
/// rows [R, D], slots and weights [T, K] with slots in [0, R) or below 0 for a k that adds nothing, out [T, D]; shared
/// [T, D] or an empty view; out may be `shared`. The sum starts at zero and runs in the order of k, which after `route`
/// is the best choice first; the shared expert comes last, neither scaled nor gated. So a token's result does not
/// depend on its batch. Throws op_shape.
template <class Device, class Real>
void combine_experts(Device& device, DeviceView<const std::type_identity_t<Real>, 2> rows,
                     DeviceView<const std::int32_t, 2> slots, DeviceView<const std::type_identity_t<Real>, 2> weights,
                     DeviceView<const std::type_identity_t<Real>, 2> shared, DeviceView<Real, 2> out) {
  detail::require_shape(rows, rows.rows, out.cols, "combine_experts: rows");
  detail::require_shape(slots, out.rows, slots.cols, "combine_experts: slots");
  detail::require_shape(weights, out.rows, slots.cols, "combine_experts: weights");
  detail::require_shape(out, out.rows, out.cols, "combine_experts: out");
  if (shared.data != nullptr) detail::require_shape(shared, out.rows, out.cols, "combine_experts: shared");
  for_each_row(device, out.rows, out.cols * (slots.cols + 1), CombineRow<Real>{rows, slots, weights, shared, out});
}

/// weights_s[slots_tk(t, k)] = weights_tk(t, k): slots_tk [T, K] with slots in [0, S), each at most once, or below 0
/// for none; weights_tk [T, K], weights_s [S]. Slots of no pair keep what they hold. Throws op_shape.
template <class Device, class Real>
void slot_weights(Device& device, DeviceView<const std::int32_t, 2> slots_tk,
                  DeviceView<const std::type_identity_t<Real>, 2> weights_tk, DeviceView<Real> weights_s) {
  detail::require_shape(slots_tk, weights_tk.rows, weights_tk.cols, "slot_weights: slots_tk");
  detail::require_shape(weights_tk, weights_tk.rows, weights_tk.cols, "slot_weights: weights_tk");
  detail::require_size(weights_s, weights_s.size, "slot_weights: weights_s");
  for_each_row(device, slots_tk.rows, slots_tk.cols, ScatterSlotsRow<Real>{slots_tk, weights_tk, weights_s});
}

/// values_tk(t, k) = values_s[slots_tk(t, k)], 0 without a slot; shapes as in slot_weights. Throws op_shape.
template <class Device, class Real>
void gather_slots(Device& device, DeviceView<const std::int32_t, 2> slots_tk,
                  DeviceView<const std::type_identity_t<Real>> values_s, DeviceView<Real, 2> values_tk) {
  detail::require_shape(slots_tk, values_tk.rows, values_tk.cols, "gather_slots: slots_tk");
  detail::require_shape(values_tk, values_tk.rows, values_tk.cols, "gather_slots: values_tk");
  detail::require_size(values_s, values_s.size, "gather_slots: values_s");
  for_each_row(device, slots_tk.rows, slots_tk.cols, GatherSlotsRow<Real>{slots_tk, values_s, values_tk});
}

/// The rows s of experts, where a token's output is the sum over its slots of weights_s[s] * h[s] W_down^T.
/// dh [S, F] on entry is dout[token of s] W_down, without the slot's weight; gate and up [S, F] hold the inputs of
/// `swiglu`. Writes
///   dweights_s[s] = <h[s], dh[s]>, the gradient of the routing weight [S];
///   gate, up      = their gradients, those under weights_s[s] * dh[s];
///   dh            = weights_s[s] * h[s], what dout meets in the gradient of W_down.
/// Throws op_shape.
template <class Device, class Real>
void expert_swiglu_backward(Device& device, DeviceView<const std::type_identity_t<Real>> weights_s,
                            DeviceView<Real, 2> gate, DeviceView<std::type_identity_t<Real>, 2> up,
                            DeviceView<std::type_identity_t<Real>, 2> dh,
                            DeviceView<std::type_identity_t<Real>> dweights_s,
                            const ActivationConfig& activation = {}) {
  detail::require_size(weights_s, gate.rows, "expert_swiglu_backward: weights_s");
  detail::require_shape(gate, gate.rows, gate.cols, "expert_swiglu_backward: gate");
  detail::require_shape(up, gate.rows, gate.cols, "expert_swiglu_backward: up");
  detail::require_shape(dh, gate.rows, gate.cols, "expert_swiglu_backward: dh");
  detail::require_size(dweights_s, gate.rows, "expert_swiglu_backward: dweights_s");
  for_each_row(device, gate.rows, 8 * gate.cols,
               ExpertSwigluBackwardRow<Real>{weights_s, gate, up, dh, dweights_s, activation});
}

}  // namespace v1
}  // namespace guild
