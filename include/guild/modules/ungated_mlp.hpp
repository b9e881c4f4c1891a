// The network without a gate: y = down(f(up x)), with f = max(z, 0)^2 (Primer, arXiv 2109.08668), GELU or SiLU.
#pragma once

#include <array>
#include <span>
#include <type_traits>

#include <guild/modules/linear.hpp>
#include <guild/modules/mlp.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/linear/activate.hpp>

namespace guild {
inline namespace v1 {

/// `Of::activation` is an ActivationConfig.
template <Index Size, Index Hidden, class Of>
struct UngatedMlp {
  static constexpr Index size = Size, hidden = Hidden;
  static constexpr ActivationConfig activation = Of::activation;
  static_assert(!activation.gated, "UngatedMlp: activation.gated is true; Mlp is the network with a gate");
  template <class Store>
  struct Weights {
    typename Linear<Hidden, Size>::template Weights<Store> up;
    typename Linear<Size, Hidden>::template Weights<Store> down;
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    Linear<Hidden, Size>::visit(visitor, path / "up", weights.up...);
    Linear<Size, Hidden>::visit(visitor, path / "down", weights.down...);
  }

  template <class Real>
  struct Saved {
    DeviceView<Real, 2> up;  ///< [T, Hidden], before the nonlinearity
  };

  /// x and y [T, Size]
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights,
                      DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> y,
                      Saved<std::type_identity_t<Real>>* keep = nullptr) {
    auto room = pass.room(keep);
    Linear<Size, Hidden>::forward(pass.device, weights.down, first_half<Real>(pass, room, weights, x, keep), y);
  }

  /// What goes into `down`; keeps what backward needs of `forward`.
  template <class Real, class Device, class RoomOf, class Store>
  static DeviceView<Real, 2> first_half(const Pass<Device>& pass, RoomOf& room, const Weights<Store>& weights,
                                        DeviceView<const Real, 2> x, Saved<Real>* keep) {
    const auto z = room.template keep<Real>(x.rows, Hidden);
    if (keep != nullptr) keep->up = z;
    const auto h = keep != nullptr ? room.template take<Real>(x.rows, Hidden) : z;
    Linear<Hidden, Size>::forward(pass.device, weights.up, x, z);
    activate(pass.device, z, h, activation);
    return h;
  }

  /// dy and dx [T, Size]; `saved` is used up: its memory holds gradients afterwards.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights,
                       DeviceView<const std::type_identity_t<Real>, 2> x,
                       const Saved<std::type_identity_t<Real>>& saved,
                       DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dx,
                       Weights<Gradients>& gradients) {
    Device& device = pass.device;
    auto scratch = device.scratch();
    const auto h = scratch.template take<Real>(x.rows, Hidden);
    input_gradient(device, weights.down.weight.view(), dy, h);
    activate_backward(device, saved.up, h, activation);
    add_gradients(device, weights, x, dy, saved, h, dx, gradients);
  }
  /// The rest of `backward`: h [T, Hidden] is what dy meets in the gradient of `down`, `dsaved` has the gradient of
  /// what was saved.
  template <class Device, class Store, class Gradients, class Real>
  static void add_gradients(Device& device, const Weights<Store>& weights,
                            DeviceView<const std::type_identity_t<Real>, 2> x,
                            DeviceView<const std::type_identity_t<Real>, 2> dy,
                            const Saved<std::type_identity_t<Real>>& dsaved,
                            DeviceView<const std::type_identity_t<Real>, 2> h, DeviceView<Real, 2> dx,
                            Weights<Gradients>& gradients) {
    const std::array jobs = {WeightGradientJob<Real>{x.rows, dy, h, gradients.down.weight.matrix()},
                             WeightGradientJob<Real>{x.rows, dsaved.up, x, gradients.up.weight.matrix()}};
    weight_gradient(device, std::span<const WeightGradientJob<Real>>(jobs));
    input_gradient(device, weights.up.weight.view(), dsaved.up, dx);
  }
};

/// The network that `Of::activation` means: with a gate or without.
template <Index Size, Index Hidden, class Of>
using FeedForwardOf = std::conditional_t<Of::activation.gated, std::type_identity<Mlp<Size, Hidden, Of>>,
                                         std::type_identity<UngatedMlp<Size, Hidden, Of>>>::type;

}  // namespace v1
}  // namespace guild
