// A linear layer without bias: y = x W^T.
#pragma once

#include <span>
#include <type_traits>

#include <guild/modules/module.hpp>
#include <guild/ops/linear/linear.hpp>

namespace guild {
inline namespace v1 {

/// dx = dy W or dx += dy W: the gradient of the input of y = x W^T.
template <class Device, class Real>
void input_gradient(Device& device, const WeightView& weight, DeviceView<const std::type_identity_t<Real>, 2> dy,
                    DeviceView<Real, 2> dx, Update update = Update::overwrite) {
  const BasicLinearJob<Real> job{weight, dy, dx, nullptr, Product::x_w, update};
  linear(device, std::span<const BasicLinearJob<Real>>(&job, 1));
}

template <Index Outputs, Index Inputs>
struct Linear {
  template <class Store>
  struct Weights {
    typename Store::Matrix weight;  ///< [Outputs, Inputs]
  };

  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    visitor(path / "weight", MatrixShape{Outputs, Inputs}, weights.weight...);
  }

  /// x [T, Inputs], y [T, Outputs]
  template <class Device, class Store, class Real>
  static void forward(Device& device, const Weights<Store>& weights, DeviceView<const std::type_identity_t<Real>, 2> x,
                      DeviceView<Real, 2> y) {
    linear(device, weights.weight.view(), x, y);
  }

  /// Backward needs the input alone.
  template <class Real>
  struct Saved {};

  /// Adds dy^T x to the weight's gradient; dx = dy W, or dx += dy W. A dx without data is not computed.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(Device& device, const Weights<Store>& weights, DeviceView<const std::type_identity_t<Real>, 2> x,
                       DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dx,
                       Weights<Gradients>& gradients, Update update = Update::overwrite) {
    const WeightGradientJob<Real> job{x.rows, dy, x, gradients.weight.matrix()};
    weight_gradient(device, job);
    if (dx.data != nullptr) input_gradient(device, weights.weight.view(), dy, dx, update);
  }
};

}  // namespace v1
}  // namespace guild
