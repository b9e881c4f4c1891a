// Groups of neighbouring tokens become slots, a soft mean each (soft token merging; `FixedStride` groups of equal
// scores are the pooling of Hourglass transformers, arXiv 2110.13711). Shapes: n tokens of D columns, M slots.
#pragma once

#include <guild/ops/common/pieces.hpp>
#include <guild/ops/common/ring_check.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/merge/rows/pool_groups.hpp>
#include <span>

namespace guild {
inline namespace v1 {

/// Runs all jobs, in any order and side by side: z [M, D] and, where it has data, mass [M]. first and last hold
/// positions, begin <= first[j] <= last[j] < length, on the device, unchecked; of a group one token at least has a
/// mass. A group of one, whatever its score, and a marked one give the bits of their last row; the mass is that of all
/// tokens of the group even then. A token's row lies at its position (`ring`), so a slot's bits depend neither on how
/// the sequence was split nor on other slots. Throws op_shape, also where the ring does not hold positions begin to
/// length.
template <class Device, class Real>
void pool_groups(Device& device, std::span<const PoolGroupsJob<Real>> jobs) {
  for (const PoolGroupsJob<Real>& job : jobs) {
    const Index slots = job.z.rows, rows = job.x.rows;
    detail::require_shape(job.z, slots, job.z.cols, "pool_groups: z");
    detail::require_shape(job.x, rows, job.z.cols, "pool_groups: x");
    detail::require_shape(job.scores, rows, 1, "pool_groups: scores");
    if (job.masses.data != nullptr) detail::require_shape(job.masses, rows, 1, "pool_groups: masses");
    detail::require_size(job.first, slots, "pool_groups: first");
    detail::require_size(job.last, slots, "pool_groups: last");
    if (job.marked.data != nullptr) detail::require_size(job.marked, slots, "pool_groups: marked");
    if (job.mass.data != nullptr) detail::require_size(job.mass, slots, "pool_groups: mass");
    if (slots > 0) detail::require_held(job.ring, job.begin, job.length, rows, "pool_groups: x");
  }
  for_each_piece(device, jobs);
}

/// Gradients of pool_groups of whole sequences under dz [M, D]: overwrites dx [n, D] and da [n, 1], zeros for tokens of
/// no group (those behind the last close) and for those that a mark leaves out. Masses have none but by the scores. A
/// token of no mass must have a score of minus infinity. dx is none of the inputs. Throws op_shape.
template <class Device, class Real>
void pool_groups_backward(Device& device, std::span<const PoolGroupsGradientJob<Real>> jobs) {
  for (const PoolGroupsGradientJob<Real>& job : jobs) {
    const Index slots = job.z.rows, tokens = job.x.rows, columns = job.x.cols;
    detail::require_shape(job.x, tokens, columns, "pool_groups_backward: x");
    detail::require_shape(job.scores, tokens, 1, "pool_groups_backward: scores");
    detail::require_size(job.first, slots, "pool_groups_backward: first");
    detail::require_size(job.last, slots, "pool_groups_backward: last");
    if (job.marked.data != nullptr) detail::require_size(job.marked, slots, "pool_groups_backward: marked");
    detail::require_shape(job.z, slots, columns, "pool_groups_backward: z");
    detail::require_shape(job.dz, slots, columns, "pool_groups_backward: dz");
    detail::require_shape(job.dx, tokens, columns, "pool_groups_backward: dx");
    detail::require_shape(job.da, tokens, 1, "pool_groups_backward: da");
    detail::require(slots <= tokens, "there cannot be more slots than tokens", "pool_groups_backward: z");
  }
  for_each_piece(device, jobs);
}

}  // namespace v1
}  // namespace guild
