// Work on all tensors of a model in one parallel region: clearing gradients, moving averages of weights.
#pragma once

#include <guild/device/staged.hpp>
#include <guild/modules/parameters.hpp>
#include <guild/ops/common/rows/normal.hpp>
#include <guild/ops/optimizer/rows/blend.hpp>

namespace guild {
inline namespace v1 {

/// Sets all gradients to zero.
template <class Model, class Device, class Gradients>
void clear_gradients(Device& device, Gradients& gradients) {
  Index count = 0;
  for_each_parameter<Model>([&](const Path&, const TensorShape&, const Buffer<float>&) { ++count; }, gradients);
  Staged<Device, FillJob> jobs(device, count);
  for_each_parameter<Model>(
      [&](const Path&, const TensorShape&, Buffer<float>& data) {
        jobs.add({data.view(), 0.0f});
      },
      gradients);
  for_each_piece(device, jobs.ready());
}

/// average = keep * average + (1 - keep) * weights, for all tensors that a file keeps of its own: selection biases too.
/// Tables of whole numbers and states of blocked experts are copied.
template <class Model, class Device, class Weights>
void update_average(Device& device, const Weights& weights, Weights& average, double keep) {
  Index count = 0;
  for_each_tensor<Model>([&](const Path&, const TensorShape&, TensorRole, const Buffer<float>&) { ++count; }, weights);
  Staged<Device, BlendJob> jobs(device, count);
  for_each_tensor<Model>(
      [&](const Path&, const TensorShape& shape, TensorRole role, const Buffer<float>& from, Buffer<float>& to) {
        const bool whole = role == TensorRole::table || shape.buffering != nullptr;
        jobs.add({to.view(), from.view(), whole ? 0.0f : static_cast<float>(keep)});
      },
      weights, average);
  for_each_piece(device, jobs.ready());
}

}  // namespace v1
}  // namespace guild
