// Numbers of (token, choice) pairs in the order of the experts' rows (slots), and back.
#pragma once

#include <cstdint>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/experts/rows/slots.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// weights_s[slots_tk(t, k)] = weights_tk(t, k): slots_tk [T, K] with slots in [0, S), each at most once; weights_tk
/// [T, K], weights_s [S]. Slots of no pair keep what they hold. Throws op_shape.
template <class Device, class Real>
void slot_weights(Device& device, DeviceView<const std::int32_t, 2> slots_tk,
                  DeviceView<const std::type_identity_t<Real>, 2> weights_tk, DeviceView<Real> weights_s) {
  detail::require_shape(slots_tk, weights_tk.rows, weights_tk.cols, "slot_weights: slots_tk");
  detail::require_shape(weights_tk, weights_tk.rows, weights_tk.cols, "slot_weights: weights_tk");
  detail::require_size(weights_s, weights_s.size, "slot_weights: weights_s");
  for_each_row(device, slots_tk.rows, slots_tk.cols, ScatterSlotsRow<Real>{slots_tk, weights_tk, weights_s});
}

/// values_tk(t, k) = values_s[slots_tk(t, k)]; the shapes are those of slot_weights. Throws op_shape.
template <class Device, class Real>
void gather_slots(Device& device, DeviceView<const std::int32_t, 2> slots_tk, DeviceView<const std::type_identity_t<Real>> values_s,
                  DeviceView<Real, 2> values_tk) {
  detail::require_shape(slots_tk, values_tk.rows, values_tk.cols, "gather_slots: slots_tk");
  detail::require_shape(values_tk, values_tk.rows, values_tk.cols, "gather_slots: values_tk");
  detail::require_size(values_s, values_s.size, "gather_slots: values_s");
  for_each_row(device, slots_tk.rows, slots_tk.cols, GatherSlotsRow<Real>{slots_tk, values_s, values_tk});
}

}  // namespace v1
}  // namespace guild
