// A linear layer whose weight is block diagonal: each group of outputs is a product of its group of inputs alone.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <type_traits>

#include <guild/modules/module.hpp>
#include <guild/ops/linear/linear.hpp>

namespace guild {
inline namespace v1 {

/// Outputs and Inputs are those of one group.
template <Index Groups, Index Outputs, Index Inputs>
struct BlockDiagonalLinear {
  static_assert(Groups > 0 && Outputs > 0 && Inputs > 0, "BlockDiagonalLinear: sizes must be positive");

  template <class Store>
  struct Weights {
    typename Store::Matrix weight;  ///< [Groups * Outputs, Inputs]: rows of one group after the other
  };

  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    visitor(path / "weight", MatrixShape{Groups * Outputs, Inputs}, weights.weight...);
  }

  /// x [T, Groups * Inputs], y [T, Groups * Outputs]
  template <class Device, class Store, class Real>
  static void forward(Device& device, const Weights<Store>& weights, DeviceView<const std::type_identity_t<Real>, 2> x,
                      DeviceView<Real, 2> y) {
    std::array<BasicLinearJob<Real>, Groups> jobs;
    for (Index g = 0; g < Groups; ++g)
      jobs[static_cast<std::size_t>(g)] = {weights.weight.view().middle_rows(g * Outputs, Outputs),
                                           x.middle_cols(g * Inputs, Inputs), y.middle_cols(g * Outputs, Outputs)};
    linear(device, std::span<const BasicLinearJob<Real>>(jobs));
  }

  /// Backward needs the input alone.
  template <class Real>
  struct Saved {};

  /// Adds to the weight's gradient; overwrites dx [T, Groups * Inputs].
  template <class Device, class Store, class Gradients, class Real>
  static void backward(Device& device, const Weights<Store>& weights, DeviceView<const std::type_identity_t<Real>, 2> x,
                       DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dx,
                       Weights<Gradients>& gradients) {
    std::array<WeightGradientJob<Real>, Groups> of_weights;
    std::array<BasicLinearJob<Real>, Groups> of_inputs;
    for (Index g = 0; g < Groups; ++g) {
      const auto i = static_cast<std::size_t>(g);
      const auto dout = dy.middle_cols(g * Outputs, Outputs);
      of_weights[i] = {x.rows, dout, x.middle_cols(g * Inputs, Inputs),
                       gradients.weight.matrix().middle_rows(g * Outputs, Outputs)};
      of_inputs[i] = {weights.weight.view().middle_rows(g * Outputs, Outputs), dout, dx.middle_cols(g * Inputs, Inputs),
                      nullptr, Product::x_w};
    }
    weight_gradient(device, std::span<const WeightGradientJob<Real>>(of_weights));
    linear(device, std::span<const BasicLinearJob<Real>>(of_inputs));
  }
};

}  // namespace v1
}  // namespace guild
