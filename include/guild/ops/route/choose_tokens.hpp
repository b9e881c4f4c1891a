// Experts choose tokens: expert choice (Zhou et al., arXiv 2202.09368).
#pragma once

#include <cstdint>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/experts/rows/assignment.hpp>
#include <guild/ops/route/rows/choose_tokens.hpp>

namespace guild {
inline namespace v1 {

/// numbers[t, i] = i, for all rows. Throws op_shape.
template <class Device>
void count_up(Device& device, DeviceView<std::int32_t, 2> numbers) {
  detail::require_shape(numbers, numbers.rows, numbers.cols, "count_up: numbers");
  for_each_row(device, numbers.rows, numbers.cols, CountUpRow{numbers});
}

/// Of N sequences with T tokens together, each of E experts chooses the tokens of largest weight, most [N * E] of each
/// group (an expert in a sequence, sequence by sequence): chosen[t, e] = e, or no_expert. Ties go to the earlier token,
/// weights [T, E] are compared as floats. offsets [N * E + 1]: group n E + e has the candidates
/// begin_n E + e T_n ... of T_n tokens, begin_n the first token of the sequence. Throws op_shape.
template <class Device, class Real>
void choose_tokens(Device& device, DeviceView<const std::int32_t> offsets, DeviceView<const std::int32_t> most,
                   DeviceView<const Real, 2> weights, DeviceView<std::int32_t, 2> chosen) {
  detail::require_size(most, most.size, "choose_tokens: most");
  detail::require_size(offsets, most.size + 1, "choose_tokens: offsets");
  detail::require_shape(weights, chosen.rows, chosen.cols, "choose_tokens: weights");
  detail::require_shape(chosen, chosen.rows, chosen.cols, "choose_tokens: chosen");
  const Index groups = most.size, candidates = chosen.rows * chosen.cols;
  auto scratch = device.scratch();
  const DeviceView<std::uint64_t> priority = scratch.template take<std::uint64_t>(candidates);
  const DeviceView<std::uint8_t> kept = scratch.template take<std::uint8_t>(candidates);
  const Index work = candidates / (groups > 0 ? groups : 1) + 1;
  for_each_row(device, groups, work, CandidatesRow<Real>{offsets, weights, priority});
  for_each_row(device, groups, 64 * work, KeepFirstRow{offsets, priority, most, 0, kept});
  for_each_row(device, groups, work, TakeTokensRow{offsets, kept, chosen});
}

}  // namespace v1
}  // namespace guild
