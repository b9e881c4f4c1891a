// Root-mean-square normalisation (arXiv 1910.07467): y = x / sqrt(mean(x^2) + epsilon) * weight, or times 1 + weight;
// and layer normalisation (arXiv 1607.06450): y = (x - mean(x)) / sqrt(variance(x) + epsilon) * weight + bias.
#pragma once

#include <type_traits>

#include <guild/modules/module.hpp>
#include <guild/ops/norm/layer_norm.hpp>
#include <guild/ops/norm/rms_norm.hpp>

namespace guild {
inline namespace v1 {

/// Normalises rows of Size values. Sums are in float or wider.
template <Index Size, NormGain Gain = NormGain::weight>
struct RmsNorm {
  static_assert(Gain != NormGain::one, "RmsNorm: a norm without weight is the operation rms_norm alone");

  template <class Store>
  struct Weights {
    typename Store::Vector weight;  ///< [Size]
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    constexpr float one = Gain == NormGain::weight ? 1.0f : 0.0f;
    visitor(path / "weight", VectorShape{Size, TensorRole::parameter, one}, weights.weight...);
  }

  /// x and y [T, Size]; they may be the same view.
  template <class Device, class Store, class Real>
  static void forward(Device& device, const Weights<Store>& weights, DeviceView<const std::type_identity_t<Real>, 2> x,
                      DeviceView<Real, 2> y, double epsilon) {
    rms_norm<Gain>(device, weights.weight.view(), x, y, epsilon);
  }

  /// Backward needs the input alone.
  template <class Real>
  struct Saved {};

  /// x, dy and dx [T, Size]; dx is overwritten, with the gradient plus `plus` [T, Size] if that has data (it may be dy
  /// or plus); the weight's gradient is added to.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(Device& device, const Weights<Store>& weights, DeviceView<const std::type_identity_t<Real>, 2> x,
                       DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dx,
                       Weights<Gradients>& gradients, double epsilon,
                       DeviceView<const std::type_identity_t<Real>, 2> plus = {}) {
    rms_norm_backward<Gain>(device, weights.weight.view(), x, dy, dx, gradients.weight.view(), epsilon, plus);
  }
};

/// Normalises rows of Size values around their mean. Sums are in float or wider.
template <Index Size>
struct LayerNorm {
  template <class Store>
  struct Weights {
    typename Store::Vector weight;  ///< [Size]
    typename Store::Vector bias;    ///< [Size]
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    visitor(path / "weight", VectorShape{Size, TensorRole::parameter, 1.0f}, weights.weight...);
    visitor(path / "bias", VectorShape{Size, TensorRole::parameter, 0.0f}, weights.bias...);
  }

  /// x and y [T, Size]; they may be the same view.
  template <class Device, class Store, class Real>
  static void forward(Device& device, const Weights<Store>& weights, DeviceView<const std::type_identity_t<Real>, 2> x,
                      DeviceView<Real, 2> y, double epsilon) {
    layer_norm(device, weights.weight.view(), weights.bias.view(), x, y, epsilon);
  }

  /// Backward needs the input alone.
  template <class Real>
  struct Saved {};

  /// x, dy and dx [T, Size]; dx is overwritten and may be dy; the gradients of weight and bias are added to.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(Device& device, const Weights<Store>& weights, DeviceView<const std::type_identity_t<Real>, 2> x,
                       DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dx,
                       Weights<Gradients>& gradients, double epsilon) {
    layer_norm_backward(device, weights.weight.view(), x, dy, dx, gradients.weight.view(), gradients.bias.view(),
                        epsilon);
  }
};

}  // namespace v1
}  // namespace guild
