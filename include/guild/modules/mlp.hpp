// The SwiGLU network (arXiv 2002.05202): y = down(silu(gate x) * up x).
#pragma once

#include <array>

#include <guild/modules/linear.hpp>
#include <guild/ops/combine.hpp>
#include <guild/ops/swiglu_backward.hpp>

namespace guild::inline v1 {

template <Index Size, Index Hidden>
struct Mlp {
  static constexpr Index size = Size, hidden = Hidden;
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

  /// x and y [T, Size]; keeps nothing.
  template <class Device, class Store>
  static void forward(Device& device, const Weights<Store>& weights, View<const float, 2> x, View<float, 2> y) {
    auto scratch = device.scratch();
    const auto h = scratch.template take<float>(x.rows, Hidden);
    const std::array jobs = {GatedJob{weights.gate.weight.view(), weights.up.weight.view(), x, h}};
    gated_linear(device, std::span<const GatedJob>(jobs));
    Linear<Size, Hidden>::forward(device, weights.down, h, y);
  }

  template <class Real>
  struct Saved {
    View<Real, 2> gate, up;  ///< [T, Hidden] each, before the gate's nonlinearity
  };

  /// As above, and keeps what backward needs in `memory`.
  template <class Device, class Store, class Real, class Memory>
  static void forward(Device& device, const Weights<Store>& weights, View<const std::type_identity_t<Real>, 2> x,
                      View<Real, 2> y, Saved<Real>& saved, Memory& memory) {
    saved = {memory.template take<Real>(x.rows, Hidden), memory.template take<Real>(x.rows, Hidden)};
    const std::array jobs = {BasicLinearJob<Real>{weights.gate.weight.view(), x, saved.gate},
                             BasicLinearJob<Real>{weights.up.weight.view(), x, saved.up}};
    linear(device, std::span<const BasicLinearJob<Real>>(jobs));
    auto scratch = device.scratch();
    const auto h = scratch.template take<Real>(x.rows, Hidden);
    swiglu(device, saved.gate, saved.up, h);
    Linear<Size, Hidden>::forward(device, weights.down, h, y);
  }

  /// dy and dx [T, Size]; `saved` is used up: its memory holds gradients afterwards.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(Device& device, const Weights<Store>& weights, View<const std::type_identity_t<Real>, 2> x,
                       const Saved<std::type_identity_t<Real>>& saved, View<const std::type_identity_t<Real>, 2> dy,
                       View<Real, 2> dx, Weights<Gradients>& gradients) {
    auto scratch = device.scratch();
    const auto h = scratch.template take<Real>(x.rows, Hidden);
    input_gradient(device, weights.down.weight.view(), dy, h);
    swiglu_backward(device, saved.gate, saved.up, h, h);
    const std::array jobs = {WeightGradientJob<Real>{x.rows, dy, h, gradients.down.weight.matrix()},
                             WeightGradientJob<Real>{x.rows, saved.gate, x, gradients.gate.weight.matrix()},
                             WeightGradientJob<Real>{x.rows, saved.up, x, gradients.up.weight.matrix()}};
    weight_gradient(device, std::span<const WeightGradientJob<Real>>(jobs));
    input_gradient(device, weights.gate.weight.view(), saved.gate, dx);
    input_gradient(device, weights.up.weight.view(), saved.up, dx, Update::add);
  }
};

}  // namespace guild::inline v1
