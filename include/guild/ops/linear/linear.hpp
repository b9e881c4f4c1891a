// Linear layers: products of activations with stored weights and the gradients of such weights, any number of
// independent ones in a call.
#pragma once

#include <guild/core/refuse.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/common/twins.hpp>
#include <guild/ops/linear/job.hpp>
#include <span>
#include <string>
#include <type_traits>

namespace guild {
inline namespace v1 {

/// Throws Error op_shape unless `x`, `weight` and `y` of job number `index` fit together. f64 weights need Real =
/// double; with double activations every format of weights is legal.
template <class Real>
void check_linear(const WeightView& weight, DeviceView<const Real, 2> x, DeviceView<Real, 2> y,
                  const std::int32_t* gather, Product product, std::size_t index) {
  const auto fail = [&](const std::string& message) {
    detail::refuse(ErrorCode::op_shape, {"linear job ", index, ": ", message});
  };
  using detail::shape_text;
  const bool transposed = product == Product::x_wt;
  const Index inputs = transposed ? weight.cols : weight.rows, outputs = transposed ? weight.rows : weight.cols;
  if (!has_codec(weight.format) || (weight.format == DType::f64 && !std::is_same_v<Real, double>))
    fail("weights stored as " + describe(weight.format) +
         (weight.format == DType::f64 ? " need double activations; store them as F32, BF16 or F16, or take double ones"
                                      : " cannot be multiplied: they have no codec, see guild/core/codec.hpp"));
  if (weight.rows < 0 || weight.cols < 0 || x.rows < 0 || y.rows < 0) fail("a shape is negative");
  if (x.cols != inputs || y.cols != outputs)
    fail("x " + shape_text(x.rows, x.cols) + " times the weight " + shape_text(weight.rows, weight.cols) +
         (transposed ? " transposed" : "") + " needs x with " + std::to_string(inputs) + " columns and y with " +
         std::to_string(outputs) + ", but y is " + shape_text(y.rows, y.cols));
  if (gather == nullptr && x.rows != y.rows)
    fail("x has " + std::to_string(x.rows) + " rows and y " + std::to_string(y.rows) +
         "; they must agree without gather");
  if (x.pitch < x.cols || y.pitch < y.cols) fail("the pitch of x or y is less than its columns");
  if (y.rows == 0 || outputs == 0) return;  // nothing is read
  const Format& format = weight.format;
  if (format.scaled() && inputs > 0) {
    const std::string block = std::to_string(format.block_rows) + " x " + std::to_string(format.block_cols);
    if (weight.scales == nullptr || weight.first_row < 0 ||
        weight.scale_pitch < (weight.cols + format.block_cols - 1) / format.block_cols)
      fail(std::string(name(format.element)) + " weights need one scale for each block of " + block);
    if (bits(format.element) < 8 && weight.cols % format.block_cols != 0)
      fail("rows of " + std::string(name(format.element)) + " need a whole number of blocks of " + block);
  }
  if (y.data == nullptr || (inputs > 0 && (x.data == nullptr || weight.data == nullptr))) fail("a view of no memory");
  if (gather != nullptr) {
    for (Index t = 0; t < y.rows; ++t)
      if (gather[t] < 0 || gather[t] >= x.rows)
        fail("gather[" + std::to_string(t) + "] is " + std::to_string(gather[t]) + ", but x has " +
             std::to_string(x.rows) + " rows");
  }
}

/// Throws Error op_shape unless dy [T, O], x [T, I] and dw [O, I] of job number `index` fit together.
template <class Real>
void check_weight_gradient(const WeightGradientJob<Real>& job, std::size_t index) {
  const auto fail = [&](const std::string& message) {
    detail::refuse(ErrorCode::op_shape, {"weight gradient job ", index, ": ", message});
  };
  using detail::shape_text;
  if (job.rows < 0 || job.dy.rows < 0 || job.x.rows < 0 || job.dw.rows < 0 || job.dw.cols < 0)
    fail("a shape is negative");
  if (job.dy.cols != job.dw.rows || job.x.cols != job.dw.cols)
    fail("dy " + shape_text(job.dy.rows, job.dy.cols) + " transposed times x " + shape_text(job.x.rows, job.x.cols) +
         " needs dw " + shape_text(job.dy.cols, job.x.cols) + ", but it is " + shape_text(job.dw.rows, job.dw.cols));
  const auto check_rows = [&](const char* what, View<const Real, 2> view, const std::int32_t* gather) {
    if (view.pitch < view.cols) fail(std::string("the pitch of ") + what + " is less than its columns");
    if (gather == nullptr && view.rows != job.rows)
      fail(std::string(what) + " has " + std::to_string(view.rows) + " rows, but the job " + std::to_string(job.rows) +
           "; they must agree without gather");
    if (job.rows == 0 || job.dw.rows == 0 || job.dw.cols == 0) return;  // nothing is read
    if (view.data == nullptr) fail("a view of no memory");
    for (Index t = 0; gather != nullptr && t < job.rows; ++t)
      if (gather[t] < 0 || gather[t] >= view.rows)
        fail(std::string(what) + "_gather[" + std::to_string(t) + "] is " + std::to_string(gather[t]) + ", but " +
             what + " has " + std::to_string(view.rows) + " rows");
  };
  check_rows("dy", job.dy, job.dy_gather);
  check_rows("x", job.x, job.x_gather);
  if (job.dw.pitch < job.dw.cols) fail("the pitch of dw is less than its columns");
  if (job.dw.data == nullptr && job.rows > 0 && job.dw.rows > 0 && job.dw.cols > 0) fail("a view of no memory");
}

namespace detail {
template <class Device, class Real>
void checked_linear(Device& device, std::span<const BasicLinearJob<Real>> jobs) {
  for (std::size_t i = 0; i < jobs.size(); ++i)
    check_linear<Real>(jobs[i].weight, jobs[i].x, jobs[i].y, jobs[i].gather, jobs[i].product, i);
  require_twins<Device>();
  run_linear(device, jobs);
}
template <class Device, class Real>
void checked_weight_gradient(Device& device, std::span<const WeightGradientJob<Real>> jobs) {
  for (std::size_t i = 0; i < jobs.size(); ++i) check_weight_gradient(jobs[i], i);
  require_twins<Device>();
  run_weight_gradient(device, jobs);
}
}  // namespace detail

/// Runs the jobs, in any order and side by side: y = x W^T (or x W for Product::x_w) of each, or y += it for
/// Update::add. y must not overlap any input or other output. Jobs without rows are legal. Products are summed in
/// float: in a fixed order that depends neither on threads nor on the other rows of the job, except that a job of more
/// than 8 rows sums in another order than a smaller one (results may differ in the last bits). With Update::add the
/// finished sum is added once. Processors with bf16 dot products round the activations of such larger x W^T to bf16
/// where the weights are bf16 or fp8. fp8 weights count as value * scale, rounded to float.
template <class Device>
void linear(Device& device, std::span<const LinearJob> jobs) {
  detail::checked_linear(device, jobs);
}
/// The same in double with plain loops, for the checks of gradients.
template <class Device>
void linear(Device& device, std::span<const BasicLinearJob<double>> jobs) {
  detail::checked_linear(device, jobs);
}

/// Adds the weight gradient of each job to its dw, in any order and side by side: dw += sum_t dy[t, :]^T x[t, :] over
/// the rows of the job. dw must not overlap any input or the dw of another job of the call. Jobs without rows are legal
/// and add nothing. The sum over rows has a fixed order that does not depend on threads; it is added to dw once.
template <class Device>
void weight_gradient(Device& device, std::span<const WeightGradientJob<float>> jobs) {
  detail::checked_weight_gradient(device, jobs);
}
/// The same in double with plain loops, for the checks of gradients.
template <class Device>
void weight_gradient(Device& device, std::span<const WeightGradientJob<double>> jobs) {
  detail::checked_weight_gradient(device, jobs);
}

/// One job.
template <class Device, class Real>
void linear(Device& device, const BasicLinearJob<Real>& job) {
  detail::checked_linear(device, std::span<const BasicLinearJob<Real>>(&job, 1));
}
template <class Device, class Real>
void weight_gradient(Device& device, const WeightGradientJob<Real>& job) {
  detail::checked_weight_gradient(device, std::span<const WeightGradientJob<Real>>(&job, 1));
}

/// One product: y [T, rows] = x [T, cols] W^T.
template <class Device>
void linear(Device& device, const WeightView& weight, DeviceView<const float, 2> x, DeviceView<float, 2> y) {
  const LinearJob job{weight, x, y};
  linear(device, std::span<const LinearJob>(&job, 1));
}
template <class Device>
void linear(Device& device, const WeightView& weight, DeviceView<const double, 2> x, DeviceView<double, 2> y) {
  const BasicLinearJob<double> job{weight, x, y};
  linear(device, std::span<const BasicLinearJob<double>>(&job, 1));
}

}  // namespace v1
}  // namespace guild
