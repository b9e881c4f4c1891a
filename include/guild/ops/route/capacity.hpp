// Experts that serve no more than so many tokens: choices that find no room are dropped.
#pragma once

#include <cstdint>
#include <guild/core/config/capacity.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/experts/assignment.hpp>
#include <guild/ops/route/rows/capacity.hpp>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// Of the choices [T, K] of each of `experts`, all but the first `capacity` in this order become ~e. Weights [T, K] are
/// read, compared as floats, and stay: those of a token's other choices are not made larger (mesh, Megatron-LM).
/// Choices below 0 were dropped before and take no room. The result does not depend on threads. Throws op_shape,
/// op_argument.
template <class Device, class Real>
void drop_over_capacity(Device& device, DropOrder order, Index experts, Index capacity,
                        DeviceView<const Real, 2> weights, DeviceView<std::int32_t, 2> chosen) {
  const Index tokens = chosen.rows, choices = chosen.cols;
  detail::require_shape(weights, tokens, choices, "drop_over_capacity: weights");
  detail::require_shape(chosen, tokens, choices, "drop_over_capacity: chosen");
  detail::require(capacity >= 1, "an expert must serve at least 1 token", "drop_over_capacity: capacity");
  if (capacity >= tokens || choices == 0) return;  // no token chooses an expert twice
  auto scratch = device.scratch();
  const Assignment all = Assignment::take(scratch, tokens, choices, experts);
  assign_experts(device, chosen, all);
  const DeviceView<std::uint8_t> kept = scratch.template take<std::uint8_t>(all.slots());
  DeviceView<std::uint64_t> priority{};
  if (order != DropOrder::position) {
    priority = scratch.template take<std::uint64_t>(all.slots());
    for_each_row(device, tokens, 4 * choices, SlotPriorityRow<Real>{order, all.slot_tk, weights, priority});
  }
  for_each_row(device, experts, 64 * (all.slots() / experts + 1),
               KeepFirstRow{all.offsets, priority, {}, capacity, kept});
  for_each_row(device, tokens, choices, DropChoicesRow{all.slot_tk, kept, chosen});
}

/// The second choice of each token, chosen [T, 2], is kept with probability min(1, its weight / threshold), or becomes
/// ~e. Token t of the batch has the draw (t, 1). Throws op_shape, and op_argument for a threshold that is not positive.
template <class Device, class Real>
void drop_second_by_chance(Device& device, const Draws& draws, double threshold, DeviceView<const Real, 2> weights,
                           DeviceView<std::int32_t, 2> chosen) {
  detail::require_shape(weights, chosen.rows, 2, "drop_second_by_chance: weights");
  detail::require_shape(chosen, chosen.rows, 2, "drop_second_by_chance: chosen");
  detail::require(threshold > 0.0, "the threshold must be positive", "drop_second_by_chance: threshold");
  for_each_row(device, chosen.rows, 16, DropSecondRow<Real>{draws, threshold, weights, chosen});
}

/// wanted [T, K] = the choices as they were before any was dropped. Throws op_shape.
template <class Device>
void undrop(Device& device, DeviceView<const std::int32_t, 2> chosen, DeviceView<std::int32_t, 2> wanted) {
  detail::require_shape(chosen, wanted.rows, wanted.cols, "undrop: chosen");
  detail::require_shape(wanted, wanted.rows, wanted.cols, "undrop: wanted");
  for_each_row(device, wanted.rows, wanted.cols, UndropRow{chosen, wanted});
}

}  // namespace v1
}  // namespace guild
