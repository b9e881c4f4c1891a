// A number of learned slots for all tokens of a sequence (PatchMerger, arXiv 2202.12015, equation 1; Soft MoE, arXiv
// 2308.00951, equations 1 to 3). Shapes: n tokens of D columns, M slots.
#pragma once

#include <guild/ops/common/pieces.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/merge/rows/learned_slots.hpp>
#include <span>

namespace guild {
inline namespace v1 {

/// Runs all jobs: dispatch [n, M] = softmax over tokens of the logits, weighed by masses, z [M, D] = dispatch^T x. A
/// sequence of no tokens leaves z as it is. Throws op_shape.
template <class Device, class Real>
void dispatch_slots(Device& device, std::span<const DispatchSlotsJob<Real>> jobs) {
  for (const DispatchSlotsJob<Real>& job : jobs) {
    const Index tokens = job.x.rows, slots = job.z.rows;
    detail::require_shape(job.x, tokens, job.z.cols, "dispatch_slots: x");
    detail::require_shape(job.logits, tokens, slots, "dispatch_slots: logits");
    if (job.masses.data != nullptr) detail::require_shape(job.masses, tokens, 1, "dispatch_slots: masses");
    detail::require_shape(job.dispatch, tokens, slots, "dispatch_slots: dispatch");
    detail::require_shape(job.z, slots, job.z.cols, "dispatch_slots: z");
  }
  for_each_piece(device, jobs);
}

/// Runs all jobs: combine [n, M] = softmax over slots of the logits, y = x + combine (made - z). y may be x. Throws
/// op_shape.
template <class Device, class Real>
void combine_slots(Device& device, std::span<const CombineSlotsJob<Real>> jobs) {
  for (const CombineSlotsJob<Real>& job : jobs) {
    const Index tokens = job.x.rows, slots = job.z.rows;
    detail::require(slots > 0 || tokens == 0, "tokens take from one slot at least", "combine_slots: z");
    detail::require_shape(job.x, tokens, job.x.cols, "combine_slots: x");
    detail::require_shape(job.logits, tokens, slots, "combine_slots: logits");
    detail::require_shape(job.made, slots, job.x.cols, "combine_slots: made");
    detail::require_shape(job.z, slots, job.x.cols, "combine_slots: z");
    detail::require_shape(job.combine, tokens, slots, "combine_slots: combine");
    detail::require_shape(job.y, tokens, job.x.cols, "combine_slots: y");
  }
  for_each_piece(device, jobs);
}

/// Runs all jobs: the gradients of what was made of slots and of slots on this way, under dy, both overwritten. Throws
/// op_shape.
template <class Device, class Real>
void combine_slots_backward(Device& device, std::span<const CombineSlotsGradientJob<Real>> jobs) {
  for (const CombineSlotsGradientJob<Real>& job : jobs) {
    detail::require_shape(job.combine, job.dy.rows, job.dz.rows, "combine_slots_backward: combine");
    detail::require_shape(job.dy, job.dy.rows, job.dz.cols, "combine_slots_backward: dy");
    detail::require_shape(job.dmade, job.dz.rows, job.dz.cols, "combine_slots_backward: dmade");
    detail::require_shape(job.dz, job.dz.rows, job.dy.cols, "combine_slots_backward: dz");
  }
  for_each_piece(device, jobs);
}

/// Runs all jobs: the gradients of tokens and logits by both ways, under dy and dz. Throws op_shape.
template <class Device, class Real>
void learned_slots_backward(Device& device, std::span<const LearnedSlotsGradientJob<Real>> jobs) {
  for (const LearnedSlotsGradientJob<Real>& job : jobs) {
    const Index tokens = job.x.rows, slots = job.z.rows, columns = job.x.cols;
    detail::require_shape(job.x, tokens, columns, "learned_slots_backward: x");
    detail::require_shape(job.dispatch, tokens, slots, "learned_slots_backward: dispatch");
    detail::require_shape(job.combine, tokens, slots, "learned_slots_backward: combine");
    detail::require_shape(job.z, slots, columns, "learned_slots_backward: z");
    detail::require_shape(job.dz, slots, columns, "learned_slots_backward: dz");
    detail::require_shape(job.made, slots, columns, "learned_slots_backward: made");
    detail::require_shape(job.dy, tokens, columns, "learned_slots_backward: dy");
    detail::require_shape(job.dx, tokens, columns, "learned_slots_backward: dx");
    detail::require_shape(job.dlogits, tokens, slots, "learned_slots_backward: dlogits");
  }
  for_each_piece(device, jobs);
}

}  // namespace v1
}  // namespace guild
