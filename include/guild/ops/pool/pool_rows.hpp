// Few rows made of many: each is a weighted sum of the tokens of a window, column by column, with weights that the
// tokens bring along (the compressed entries of DeepSeek-V4, sections 2.3.1 and 2.3.2 of its report).
#pragma once

#include <algorithm>
#include <guild/core/refuse.hpp>
#include <guild/ops/common/pieces.hpp>
#include <guild/ops/common/ring_check.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/linear/bias.hpp>
#include <guild/ops/pool/rows/pool_rows.hpp>
#include <span>
#include <type_traits>

namespace guild {
inline namespace v1 {

namespace detail {
template <class Real>
void check_pool(const PoolSizes& sizes, DeviceView<const Real, 2> rows, DeviceView<const Real> bias, const char* what) {
  require(sizes.ratio > 0 && sizes.width > 0, "ratio and width must be positive", what);
  require_shape(rows, rows.rows, 2 * sizes.columns(), what);
  require_size(bias, sizes.ratio * sizes.columns(), what);
}
}  // namespace detail

/// Runs all jobs, in any order and side by side. The softmax is that of the element type, less its largest gate; sums
/// run over the tokens in their order, so a row's bits depend neither on where its tokens lie nor on other rows. Throws
/// op_shape, also for windows that are not closed or that a ring does not hold, op_argument.
template <class Device, class Real>
void pool_rows(Device& device, std::span<const PoolRowsJob<Real>> jobs) {
  for (const PoolRowsJob<Real>& job : jobs) {
    const auto [ratio, width, windows] = job.sizes;
    detail::check_pool<Real>(job.sizes, job.rows, job.bias, "pool_rows: rows");
    detail::require_shape(job.out, job.out.rows, width, "pool_rows: out");
    if (job.out.rows == 0) continue;
    const Index begin = std::max(job.first + 1 - job.sizes.series(), Index{0}) * ratio;
    if (job.first < 0 || job.first + job.out.rows > job.length / ratio)
      detail::refuse(ErrorCode::op_shape,
                     {"windows ", job.first, " to ", job.first + job.out.rows - 1, " of ", ratio, " of ", job.length,
                      " tokens are not all closed; ask for closed windows"},
                     "pool_rows: out");
    detail::require_held(job.ring, begin, job.length, job.rows.rows, "pool_rows: rows");
  }
  for_each_piece(device, jobs);
}

/// The gradients of each job, and those of the bias that all jobs share, which are added to dbias [ratio * C]: their
/// sums run over blocks of windows and then over blocks, whatever the number of threads. Throws op_shape, op_argument.
template <class Device, class Real>
void pool_rows_backward(Device& device, std::span<const PoolRowsGradientJob<Real>> jobs,
                        DeviceView<std::type_identity_t<Real>> dbias) {
  for (const PoolRowsGradientJob<Real>& job : jobs) {
    const Index tokens = job.rows.rows, columns = job.sizes.columns();
    detail::check_pool<Real>(job.sizes, job.rows, job.bias, "pool_rows_backward: rows");
    detail::require_size(dbias, job.bias.size, "pool_rows_backward: dbias");
    detail::require_shape(job.out, tokens / job.sizes.ratio, job.sizes.width, "pool_rows_backward: out");
    detail::require_shape(job.dout, tokens / job.sizes.ratio, job.sizes.width, "pool_rows_backward: dout");
    detail::require_shape(job.dvalues, tokens, columns, "pool_rows_backward: dvalues");
    detail::require_shape(job.dgates, tokens, columns, "pool_rows_backward: dgates");
    detail::require(job.dgates.pitch == columns || tokens == 0, "the rows of dgates must lie one behind the other",
                    "pool_rows_backward: dgates");
  }
  for_each_piece(device, jobs);
  for (const PoolRowsGradientJob<Real>& job : jobs)
    bias_gradient(device, DeviceView<const Real, 2>(job.dgates.data, job.out.rows, dbias.size), dbias);
}

}  // namespace v1
}  // namespace guild
