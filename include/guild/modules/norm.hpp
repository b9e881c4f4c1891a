// Root-mean-square normalisation (arXiv 1910.07467): y = x / sqrt(mean(x^2) + epsilon) * weight.
#pragma once

#include <guild/modules/module.hpp>
#include <guild/ops/rms_norm.hpp>

namespace guild::inline v1 {

/// Normalises rows of Size values. Sums are in float or wider.
template <Index Size>
struct RmsNorm {
  template <class Store>
  struct Weights {
    typename Store::Vector weight;  ///< [Size]
  };

  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    visitor(path / "weight", VectorShape{Size}, weights.weight...);
  }

  /// x and y [T, Size]; they may be the same view.
  template <class Device, class Store>
  static void forward(Device& device, const Weights<Store>& weights, View<const float, 2> x, View<float, 2> y,
                      double epsilon) {
    rms_norm(device, weights.weight.view(), x, y, epsilon);
  }
};

}  // namespace guild::inline v1
