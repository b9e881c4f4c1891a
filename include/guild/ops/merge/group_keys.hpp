// Keys that tokens attend to where keys are merged: of each earlier group the mean of all its tokens, of their own the
// mean so far. Shapes: n tokens.
#pragma once

#include <guild/ops/common/pieces.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/merge/rows/group_keys.hpp>
#include <span>

namespace guild {
inline namespace v1 {

/// What expanded_attention and its backward take as chosen keys, see MarkGroupKeysJob. counts lie on the device,
/// unchecked. Throws op_shape.
template <class Device>
void mark_group_keys(Device& device, std::span<const MarkGroupKeysJob> jobs) {
  for (const MarkGroupKeysJob& job : jobs) {
    detail::require_size(job.counts, job.bits.rows, "mark_group_keys: counts");
    detail::require_shape(job.bits, job.bits.rows, chosen_words(job.bits.rows), "mark_group_keys: bits");
  }
  for_each_piece(device, jobs);
}

/// What cached_attention takes as chosen keys, see ListGroupKeysJob. Lists lie on the device, unchecked. Throws
/// op_shape.
template <class Device>
void list_group_keys(Device& device, std::span<const ListGroupKeysJob> jobs) {
  for (const ListGroupKeysJob& job : jobs) {
    detail::require_size(job.sees, job.chosen.rows, "list_group_keys: sees");
    detail::require_size(job.counts, job.chosen.rows, "list_group_keys: counts");
    detail::require(job.before >= 0, "there cannot be fewer than no groups", "list_group_keys: before");
  }
  for_each_piece(device, jobs);
}

}  // namespace v1
}  // namespace guild
