// Copies of rows between matrices of different elements: into the caches of sequences and out of them.
#pragma once

#include <guild/core/refuse.hpp>
#include <guild/ops/common/rows/copy_rows.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <span>

namespace guild {
inline namespace v1 {

/// The job that copies x to y, both [T, D].
template <class From, class To>
[[nodiscard]] CopyRowsJob<From, To> copy_of(DeviceView<const From, 2> x, DeviceView<To, 2> y) {
  return {x, y, {1, y.cols, 0, 0}};
}

/// Runs all jobs, in any order and side by side: no job writes what another one reads or writes. Each takes x [T, D] to
/// y [T, E], whose columns hold its parts, and the parts of y lie apart. Throws op_shape.
template <class Device, class From, class To>
void copy_rows(Device& device, std::span<const CopyRowsJob<From, To>> jobs) {
  for (const CopyRowsJob<From, To>& job : jobs) {
    const auto [count, width, from_stride, to_stride] = job.parts;
    detail::require_shape(job.x, job.y.rows, job.x.cols, "copy_rows: x");
    detail::require_shape(job.y, job.y.rows, job.y.cols, "copy_rows: y");
    const auto within = [&](Index stride, Index cols) {
      return stride >= 0 && width <= cols - (count > 0 ? count - 1 : 0) * stride;
    };
    if (count < 0 || width < 0 || !within(from_stride, job.x.cols) || !within(to_stride, job.y.cols) ||
        (count > 1 && to_stride < width))
      detail::refuse(ErrorCode::op_shape,
                     {count, " parts of ", width, " columns, every ", from_stride, " columns of x and every ",
                      to_stride, " of y, expected within their ", job.x.cols, " and ", job.y.cols,
                      " columns, and apart in y; pass the layout of the views"},
                     "copy_rows: parts");
  }
  for_each_piece(device, jobs);
}

}  // namespace v1
}  // namespace guild
