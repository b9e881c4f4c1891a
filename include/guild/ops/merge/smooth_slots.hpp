// What the inner layers added to slots, or made of them, smoothed over the slots (the dechunking of H-Net, arXiv
// 2507.07955, section 2.2.2, which is of what they made). Shapes: n tokens, M slots of D columns.
#pragma once

#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/merge/rows/smooth_slots.hpp>
#include <span>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// d[j] = P_j (y[j] - z[j]) + (1 - P_j) d[j - 1] of each job's slots, one after the other, columns side by side. What
/// was before the sequence's first slot is 0, without a product. P_j = 1 gives y[j] - z[j] whatever came before. d is
/// the forward's memory: a job goes on from the row of the slot before its own. Slots may be cut into jobs anywhere
/// without a change in their bits. Without z the layers' whole rows y are smoothed. Throws op_shape.
template <class Device, class Real>
void smooth_slots(Device& device, std::span<const SmoothSlotsJob<Real>> jobs) {
  for (const SmoothSlotsJob<Real>& job : jobs) {
    const Index slots = job.d.rows, columns = job.d.cols;
    detail::require_shape(job.d, slots, columns, "smooth_slots: d");
    detail::require_shape(job.y, slots, columns, "smooth_slots: y");
    if (job.z.data != nullptr) detail::require_shape(job.z, slots, columns, "smooth_slots: z");
    detail::require_size(job.weights, slots, "smooth_slots: weights");
    if (job.before.data != nullptr) detail::require_size(job.before, columns, "smooth_slots: before");
  }
  for_each_piece(device, jobs);
}

/// Gradients of smooth_slots of whole sequences (without a `before`) under dd [M, D], which is used up: it becomes that
/// of d with all later slots that read it. Adds to dy [M, D], which may hold what reaches y otherwise, overwrites dz
/// [M, D], with zeros where z has no data, and dweights [M], that of P whatever P is. Throws op_shape.
template <class Device, class Real>
void smooth_slots_backward(Device& device, std::span<const SmoothSlotsGradientJob<Real>> jobs) {
  Staged<Device, SmoothSlotsAdjointJob<Real>> adjoints(device, static_cast<Index>(jobs.size()));
  for (const SmoothSlotsGradientJob<Real>& job : jobs) {
    const Index slots = job.d.rows, columns = job.d.cols;
    detail::require_shape(job.y, slots, columns, "smooth_slots_backward: y");
    if (job.z.data != nullptr) detail::require_shape(job.z, slots, columns, "smooth_slots_backward: z");
    detail::require_shape(job.d, slots, columns, "smooth_slots_backward: d");
    detail::require_shape(job.dd, slots, columns, "smooth_slots_backward: dd");
    detail::require_shape(job.dy, slots, columns, "smooth_slots_backward: dy");
    detail::require_shape(job.dz, slots, columns, "smooth_slots_backward: dz");
    detail::require_size(job.weights, slots, "smooth_slots_backward: weights");
    detail::require_size(job.dweights, slots, "smooth_slots_backward: dweights");
    adjoints.add({job.weights, job.dd});
  }
  for_each_piece(device, adjoints.ready());
  for_each_piece(device, jobs);
}

/// P of each slot: the novelty p of the token that closed it, at least 1e-4, or 1 where the token closed a group of
/// itself alone. p and single [n] (not 0: alone), closing [M]: the row of each slot's closing token among the n,
/// unchecked, so that one call serves all sequences of a pass. Without single, as in H-Net, P is p within [1e-4,
/// 1 - 1e-4] of all slots. Throws op_shape.
template <class Device, class Real>
void smoothing_weights(Device& device, DeviceView<const std::type_identity_t<Real>> p,
                       DeviceView<const std::int32_t> closing, DeviceView<const std::int32_t> single,
                       DeviceView<Real> weights) {
  detail::require_size(p, p.size, "smoothing_weights: p");
  if (single.data != nullptr) detail::require_size(single, p.size, "smoothing_weights: single");
  detail::require_size(closing, weights.size, "smoothing_weights: closing");
  detail::require_size(weights, closing.size, "smoothing_weights: weights");
  for_each_row(device, pieces_of(weights.size), piece_elements,
               SmoothingWeightsPiece<Real>{p, closing, single, weights});
}

/// Adds the gradient of smoothing_weights to dp [n] under dweights [M]; where P is a bound or 1 for another reason than
/// p there is none. Throws op_shape.
template <class Device, class Real>
void smoothing_weights_backward(Device& device, DeviceView<const std::type_identity_t<Real>> p,
                                DeviceView<const std::int32_t> closing, DeviceView<const std::int32_t> single,
                                DeviceView<const std::type_identity_t<Real>> dweights, DeviceView<Real> dp) {
  detail::require_size(p, p.size, "smoothing_weights_backward: p");
  if (single.data != nullptr) detail::require_size(single, p.size, "smoothing_weights_backward: single");
  detail::require_size(closing, dweights.size, "smoothing_weights_backward: closing");
  detail::require_size(dweights, closing.size, "smoothing_weights_backward: dweights");
  detail::require_size(dp, p.size, "smoothing_weights_backward: dp");
  for_each_row(device, pieces_of(dweights.size), piece_elements,
               SmoothingWeightsBackwardPiece<Real>{p, closing, single, dweights, dp});
}

}  // namespace v1
}  // namespace guild
