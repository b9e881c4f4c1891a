// Dropout between the two products of experts: what is drawn depends on token, expert and column alone.
#pragma once

#include <cstdint>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/experts/rows/dropout.hpp>

namespace guild {
inline namespace v1 {

/// Each element of h [S, F] becomes 0 with this probability, in [0, 1), and is divided by 1 - probability else; slot s
/// is that of row token[s], token [S], and of the expert that offsets [E + 1] give it to. The same again is the
/// gradient: the numbers are drawn anew and nothing is kept. Tokens times experts count to 2^32. Throws op_shape.
template <class Device, class Real>
void drop_slots(Device& device, const Draws& draws, double probability, DeviceView<const std::int32_t> offsets,
                DeviceView<const std::int32_t> token, DeviceView<Real, 2> h) {
  detail::require(offsets.size >= 2, "offsets need one more element than there are experts", "drop_slots: offsets");
  detail::require_size(token, h.rows, "drop_slots: token");
  detail::require_shape(h, h.rows, h.cols, "drop_slots: h");
  for_each_row(device, h.rows, 32 * h.cols, DropSlotsRow<Real>{draws, probability, offsets, token, h});
}

}  // namespace v1
}  // namespace guild
