// Tokens made of slots again (token inflation): what the inner layers added to a token's slot is added to the token, by
// a gate of what merging lost of it. Shapes: n tokens, M slots, D columns. A token's slot is the last one closed when
// it came, itself included; before the first close it has none (-1).
#pragma once

#include <algorithm>
#include <guild/ops/common/ring_check.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/merge/rows/inflate.hpp>
#include <span>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// r[t] = x[t] - z[slot of t] of each job's tokens, r and x [n, D]; r = 0 where a token has no slot, and exactly 0
/// where its slot is a copy of it. slot [n] lies on the device, unchecked: at least before - 1, below length. Throws
/// op_shape, also where the ring does not hold slots before - 1 to length.
template <class Device, class Real>
void lost_detail(Device& device, std::span<const LostDetailJob<Real>> jobs) {
  for (const LostDetailJob<Real>& job : jobs) {
    const Index tokens = job.x.rows, columns = job.x.cols;
    detail::require_shape(job.x, tokens, columns, "lost_detail: x");
    detail::require_shape(job.r, tokens, columns, "lost_detail: r");
    detail::require_size(job.slot, tokens, "lost_detail: slot");
    detail::require_shape(job.z, job.z.rows, columns, "lost_detail: z");
    detail::require_held(job.ring, std::max(job.before - 1, Index{0}), job.length, job.z.rows, "lost_detail: z");
  }
  for_each_piece(device, jobs);
}

/// Gradients of lost_detail of whole sequences under dr [n, D]: adds to dx [n, D] and to dz [M, D], a slot's tokens one
/// after the other. Tokens without a slot give none. Throws op_shape.
template <class Device, class Real>
void lost_detail_backward(Device& device, std::span<const LostDetailGradientJob<Real>> jobs) {
  for (const LostDetailGradientJob<Real>& job : jobs) {
    detail::require_shape(job.dr, job.dr.rows, job.dx.cols, "lost_detail_backward: dr");
    detail::require_shape(job.dx, job.dr.rows, job.dx.cols, "lost_detail_backward: dx");
    detail::require_shape(job.dz, job.closing.size, job.dx.cols, "lost_detail_backward: dz");
    detail::require_size(job.closing, job.dz.rows, "lost_detail_backward: closing");
  }
  for_each_piece(device, jobs);
}

/// y[t] = x[t] + (1 + tanh(gate[t])) d[slot of t] + details[t] of each job's tokens, all [n, D], d as smooth_slots
/// makes it. Where a token closed a group of itself alone (single, if it has data), y[t] is its slot's row of `made`
/// [M, D] to the bit, and neither gate nor details are read; where it has no slot, y[t] is x[t]. The gate's tanh is
/// that of the element type: 1 + tanh(g) = 2 / (1 + e^(-2 g)), exactly 1 at 0. y may be x. slot and single [n] lie on
/// the device, unchecked: slots are at least before - 1, and below before + M. Throws op_shape, also where the ring
/// does not hold these slots.
template <class Device, class Real>
void inflate(Device& device, std::span<const InflateJob<Real>> jobs) {
  for (const InflateJob<Real>& job : jobs) {
    const Index tokens = job.x.rows, columns = job.x.cols, length = job.before + job.made.rows;
    detail::require_shape(job.x, tokens, columns, "inflate: x");
    if (job.gate.data != nullptr) detail::require_shape(job.gate, tokens, columns, "inflate: gate");
    if (job.details.data != nullptr) detail::require_shape(job.details, tokens, columns, "inflate: details");
    detail::require_shape(job.made, job.made.rows, columns, "inflate: made");
    detail::require_size(job.slot, tokens, "inflate: slot");
    if (job.single.data != nullptr) detail::require_size(job.single, tokens, "inflate: single");
    detail::require_shape(job.y, tokens, columns, "inflate: y");
    detail::require_shape(job.d, job.d.rows, columns, "inflate: d");
    detail::require_held(job.ring, std::max(job.before - 1, Index{0}), length, job.d.rows, "inflate: d");
  }
  for_each_piece(device, jobs);
}

/// Gradients of inflate of whole sequences under dy [n, D], all overwritten; with f = 1 + tanh(gate):
///   a token of a slot   dx = dy, ddetails = dy, dgate = f (2 - f) d dy; dd of its slot has f dy, in the tokens' order
///   a single one        dmade of its slot = dy, and nothing else has a gradient: x + (made - z) would send dy to x,
///   and
///                       back from z, which is x
///   one without a slot  dx = dy
/// d may be multiplied by a confidence whose value is 1 and whose gradient is that of a novelty (the straight-through
/// estimator of H-Net): dconfidence[t] = <dy, f d>, f = 1 for a single token, and 0 for one without a slot. dmade is 0
/// for slots that no single token closed. dx may be dy. Throws op_shape.
template <class Device, class Real>
void inflate_backward(Device& device, std::span<const InflateGradientJob<Real>> jobs) {
  for (const InflateGradientJob<Real>& job : jobs) {
    const Index tokens = job.dy.rows, columns = job.dy.cols, slots = job.closing.size;
    detail::require_shape(job.dy, tokens, columns, "inflate_backward: dy");
    detail::require_shape(job.dx, tokens, columns, "inflate_backward: dx");
    detail::require((job.gate.data == nullptr) == (job.dgate.data == nullptr),
                    "gates and their gradients must be both there or neither", "inflate_backward: dgate");
    if (job.gate.data != nullptr) detail::require_shape(job.gate, tokens, columns, "inflate_backward: gate");
    if (job.dgate.data != nullptr) detail::require_shape(job.dgate, tokens, columns, "inflate_backward: dgate");
    if (job.ddetails.data != nullptr)
      detail::require_shape(job.ddetails, tokens, columns, "inflate_backward: ddetails");
    detail::require_shape(job.d, slots, columns, "inflate_backward: d");
    detail::require_shape(job.dd, slots, columns, "inflate_backward: dd");
    detail::require_shape(job.dmade, slots, columns, "inflate_backward: dmade");
    detail::require_size(job.closing, slots, "inflate_backward: closing");
    if (job.single.data != nullptr) detail::require_size(job.single, tokens, "inflate_backward: single");
    if (job.dconfidence.data != nullptr) detail::require_size(job.dconfidence, tokens, "inflate_backward: dconfidence");
  }
  for_each_piece(device, jobs);
}

/// dp [n] += dconfidence [n] for tokens that closed a group (closes [n] not 0), whose confidence is p, and -= for
/// others, whose confidence is 1 - p. Throws op_shape.
template <class Device, class Real>
void confidence_backward(Device& device, DeviceView<const std::int32_t> closes,
                         DeviceView<const std::type_identity_t<Real>> dconfidence, DeviceView<Real> dp) {
  detail::require_size(closes, dp.size, "confidence_backward: closes");
  detail::require_size(dconfidence, dp.size, "confidence_backward: dconfidence");
  detail::require_size(dp, closes.size, "confidence_backward: dp");
  for_each_row(device, pieces_of(dp.size), piece_elements, ConfidenceBackwardPiece<Real>{closes, dconfidence, dp});
}

}  // namespace v1
}  // namespace guild
