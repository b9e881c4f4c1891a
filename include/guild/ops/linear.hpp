// Linear layers: products of activations with stored weights, any number of independent ones in a call.
#pragma once

#include <guild/core/error.hpp>
#include <guild/ops/cpu/linear.hpp>
#include <guild/ops/job.hpp>
#include <span>
#include <string>

namespace guild::inline v1 {

/// Throws Error op_shape unless `x`, `weight` and `y` of job number `index` fit together.
inline void check_linear(const WeightView& weight, View<const float, 2> x, View<float, 2> y, const std::int32_t* gather,
                         Product product, std::size_t index) {
  const auto fail = [&](const std::string& message) {
    throw Error(ErrorCode::op_shape, "linear job " + std::to_string(index) + ": " + message);
  };
  const auto shape = [](Index rows, Index cols) {
    return std::string("[").append(std::to_string(rows)).append(", ").append(std::to_string(cols)).append("]");
  };
  const bool transposed = product == Product::x_wt;
  const Index inputs = transposed ? weight.cols : weight.rows, outputs = transposed ? weight.rows : weight.cols;
  if (weight.type != DType::f32 && weight.type != DType::bf16 && weight.type != DType::f16 &&
      weight.type != DType::f8_e4m3)
    fail("weights of type " + std::string(name(weight.type)) +
         " cannot be multiplied; store them as F32, BF16, F16 or F8_E4M3");
  if (weight.rows < 0 || weight.cols < 0 || x.rows < 0 || y.rows < 0) fail("a shape is negative");
  if (x.cols != inputs || y.cols != outputs)
    fail("x " + shape(x.rows, x.cols) + " times the weight " + shape(weight.rows, weight.cols) +
         (transposed ? " transposed" : "") + " needs x with " + std::to_string(inputs) + " columns and y with " +
         std::to_string(outputs) + ", but y is " + shape(y.rows, y.cols));
  if (gather == nullptr && x.rows != y.rows)
    fail("x has " + std::to_string(x.rows) + " rows and y " + std::to_string(y.rows) +
         "; they must agree without gather");
  if (x.pitch < x.cols || y.pitch < y.cols) fail("the pitch of x or y is less than its columns");
  if (y.rows == 0 || outputs == 0) return;  // nothing is read
  if (weight.type == DType::f8_e4m3 && inputs > 0 &&
      (weight.scale == nullptr || weight.scale_row < 0 ||
       weight.scale_pitch < (weight.cols + scale_block - 1) / scale_block))
    fail("fp8 weights need one scale for each block of 128 x 128");
  if (y.data == nullptr || (inputs > 0 && (x.data == nullptr || weight.data == nullptr))) fail("a view of no memory");
  if (gather != nullptr) {
    for (Index t = 0; t < y.rows; ++t)
      if (gather[t] < 0 || gather[t] >= x.rows)
        fail("gather[" + std::to_string(t) + "] is " + std::to_string(gather[t]) + ", but x has " +
             std::to_string(x.rows) + " rows");
  }
}

/// Runs the jobs, in any order and side by side: y = x W^T (or x W for Product::x_w) of each. y must not overlap any
/// input or other output. Jobs without rows are legal. Products are summed in float: in a fixed order that depends
/// neither on threads nor on the other rows of the job, except that a job of more than 8 rows sums in another order
/// than a smaller one (results may differ in the last bits). Processors with bf16 dot products round the activations of
/// such larger jobs to bf16 where the weights are bf16 or fp8. fp8 weights count as value * scale, rounded to float.
template <class Device>
void linear(Device& device, std::span<const LinearJob> jobs) {
  for (std::size_t i = 0; i < jobs.size(); ++i)
    check_linear(jobs[i].weight, jobs[i].x, jobs[i].y, jobs[i].gather, jobs[i].product, i);
  run_linear(device, jobs);
}

/// Runs h = silu(x Wgate^T) * (x Wup^T) for each job, silu(z) = z / (1 + exp(-z)); the terms are those of `linear`.
template <class Device>
void gated_linear(Device& device, std::span<const GatedJob> jobs) {
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    check_linear(jobs[i].gate, jobs[i].x, jobs[i].h, jobs[i].gather, Product::x_wt, i);
    check_linear(jobs[i].up, jobs[i].x, jobs[i].h, jobs[i].gather, Product::x_wt, i);
  }
  run_gated_linear(device, jobs);
}

/// One product: y [T, rows] = x [T, cols] W^T.
template <class Device>
void linear(Device& device, const WeightView& weight, View<const float, 2> x, View<float, 2> y) {
  const LinearJob job{weight, x, y};
  linear(device, std::span<const LinearJob>(&job, 1));
}

}  // namespace guild::inline v1
