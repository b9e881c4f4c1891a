// Means of the tokens of a group up to each of them: what a cache that merges its keys holds of a group while it grows
// (dynamic memory compression, arXiv 2403.09636, section 3; here all tokens weigh the same). Shapes: n tokens of D
// columns.
#pragma once

#include <guild/ops/common/pieces.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/merge/rows/running_means.hpp>
#include <span>

namespace guild {
inline namespace v1 {

/// Runs all jobs, in any order and side by side. counts [n] lie on the device, unchecked: 1, or one more than that of
/// the token before; that of token 0 is above 1 only with a `before`. The first of a group is copied, and equal rows
/// have a mean of their bits. A mean depends on the rows of its group up to its own alone, one after the other: neither
/// on where a sequence was split nor on other groups. Throws op_shape.
template <class Device, class Real>
void running_means(Device& device, std::span<const RunningMeansJob<Real>> jobs) {
  for (const RunningMeansJob<Real>& job : jobs) {
    detail::require_shape(job.x, job.z.rows, job.z.cols, "running_means: x");
    detail::require_size(job.counts, job.z.rows, "running_means: counts");
    if (job.before.data != nullptr) detail::require_shape(job.before, 1, job.z.cols, "running_means: before");
  }
  for_each_piece(device, jobs);
}

/// Gradients of running_means of whole sequences, in place. Throws op_shape.
template <class Device, class Real>
void running_means_backward(Device& device, std::span<const RunningMeansGradientJob<Real>> jobs) {
  for (const RunningMeansGradientJob<Real>& job : jobs)
    detail::require_size(job.counts, job.d.rows, "running_means_backward: counts");
  for_each_piece(device, jobs);
}

}  // namespace v1
}  // namespace guild
