// The SwiGLU network (arXiv 2002.05202): y = down(silu(gate x) * up x).
#pragma once

#include <array>

#include <guild/modules/linear.hpp>

namespace guild::inline v1 {

template <Index Size, Index Hidden>
struct Mlp {
  template <class Store>
  struct Weights {
    typename Linear<Hidden, Size>::template Weights<Store> gate;
    typename Linear<Hidden, Size>::template Weights<Store> up;
    typename Linear<Size, Hidden>::template Weights<Store> down;
  };

  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    Linear<Hidden, Size>::visit(visitor, path / "gate", weights.gate...);
    Linear<Hidden, Size>::visit(visitor, path / "up", weights.up...);
    Linear<Size, Hidden>::visit(visitor, path / "down", weights.down...);
  }

  /// x and y [T, Size]
  template <class Device, class Store>
  static void forward(Device& device, const Weights<Store>& weights, View<const float, 2> x, View<float, 2> y) {
    auto scratch = device.scratch();
    const auto h = scratch.template take<float>(x.rows, Hidden);
    const std::array jobs = {GatedJob{weights.gate.weight.view(), weights.up.weight.view(), x, h}};
    gated_linear(device, std::span<const GatedJob>(jobs));
    Linear<Size, Hidden>::forward(device, weights.down, h, y);
  }
};

}  // namespace guild::inline v1
