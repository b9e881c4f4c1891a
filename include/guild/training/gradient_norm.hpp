// The global norm of a model's gradients, and the factor that clips them.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>

#include <guild/core/refuse.hpp>
#include <guild/device/staged.hpp>
#include <guild/modules/parameters.hpp>
#include <guild/ops/optimizer/sum_of_squares.hpp>

namespace guild {
inline namespace v1 {

/// sqrt(sum of g^2) over the gradients of all trained tensors, summed in double in an order that does not depend on
/// threads. It is finite exactly if all gradients are: with a NaN or infinity among them skip the step. Throws op_shape
/// if a gradient has no memory.
template <class Model, class Device, class Gradients>
[[nodiscard]] double gradient_norm(Device& device, const Gradients& gradients) {
  Index count = 0;
  for_each_parameter<Model>(
      [&](const Path& path, const TensorShape& shape, const Buffer<float>& data) {
        detail::require_allocated(path, shape, data, "the gradient");
        ++count;
      },
      gradients);
  Staged<Device, DeviceView<const float>> tensors(device, count);
  for_each_parameter<Model>(
      [&](const Path&, const TensorShape&, const Buffer<float>& data) { tensors.add(data.view()); }, gradients);
  return std::sqrt(sum_of_squares(device, tensors.ready()));
}

/// min(1, limit / norm): the factor that brings gradients of this norm to at most `limit` (arXiv 1211.5063). An
/// infinite limit clips nothing. Throws op_argument unless limit is positive, op_nonfinite unless norm is finite.
[[nodiscard]] inline double clip_scale(double norm, double limit) {
  if (!(limit > 0.0))
    detail::refuse(
        ErrorCode::op_argument,
        {"the gradient norm's limit is ", limit, ", expected a positive number; 1 is usual, infinity clips nothing"},
        "clip_scale: limit");
  if (!std::isfinite(norm) || norm < 0.0)
    detail::refuse(ErrorCode::op_nonfinite,
                   {"the gradient norm is ", norm, "; skip the step, and lower the rate if it repeats"},
                   "clip_scale: norm");
  return norm > limit ? limit / norm : 1.0;
}

}  // namespace v1
}  // namespace guild
