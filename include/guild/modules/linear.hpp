// A linear layer without bias: y = x W^T.
#pragma once

#include <guild/modules/module.hpp>
#include <guild/ops/linear.hpp>

namespace guild::inline v1 {

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
  template <class Device, class Store>
  static void forward(Device& device, const Weights<Store>& weights, View<const float, 2> x, View<float, 2> y) {
    linear(device, weights.weight.view(), x, y);
  }
};

}  // namespace guild::inline v1
