// The gated network (arXiv 2002.05202): y = down(f(gate x) * up x), with f = silu or another activation.
#pragma once

#include <array>
#include <span>
#include <type_traits>

#include <guild/modules/linear.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/linear/gated.hpp>
#include <guild/ops/linear/swiglu.hpp>

namespace guild {
inline namespace v1 {

/// Which activation a network has: of its type, because nothing is decided when it runs.
struct SiluActivation {
  static constexpr ActivationConfig activation{};
};

/// `Of::activation` is an ActivationConfig.
template <Index Size, Index Hidden, class Of = SiluActivation>
struct Mlp {
  static constexpr Index size = Size, hidden = Hidden;
  static constexpr ActivationConfig activation = Of::activation;
  template <class Store>
  struct Weights {
    typename Linear<Hidden, Size>::template Weights<Store> gate;
    typename Linear<Hidden, Size>::template Weights<Store> up;
    typename Linear<Size, Hidden>::template Weights<Store> down;
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    Linear<Hidden, Size>::visit(visitor, path / "gate", weights.gate...);
    Linear<Hidden, Size>::visit(visitor, path / "up", weights.up...);
    Linear<Size, Hidden>::visit(visitor, path / "down", weights.down...);
  }

  template <class Real>
  struct Saved {
    DeviceView<Real, 2> gate, up;  ///< [T, Hidden] each, before the gate's nonlinearity
  };

  /// x and y [T, Size]
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights,
                      DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> y,
                      Saved<std::type_identity_t<Real>>* keep = nullptr) {
    auto room = pass.room(keep);
    const BasicGatedJob<Real> job = first_half<Real>(room, weights, x, keep);
    gated_linear(pass.device, std::span<const BasicGatedJob<Real>>(&job, 1));
    Linear<Size, Hidden>::forward(pass.device, weights.down, job.h, y);
  }

  /// What goes into `down`, as a job that others may run beside their own; keeps what backward needs of `forward`.
  template <class Real, class RoomOf, class Store>
  static BasicGatedJob<Real> first_half(RoomOf& room, const Weights<Store>& weights, DeviceView<const Real, 2> x,
                                        Saved<Real>* keep) {
    const Index rows = x.rows;
    const DeviceView<Real, 2> h = room.template take<Real>(rows, Hidden);
    if (keep != nullptr) *keep = {room.template keep<Real>(rows, Hidden), room.template keep<Real>(rows, Hidden)};
    const Saved<Real> out = keep != nullptr ? *keep : Saved<Real>{};
    return {weights.gate.weight.view(), weights.up.weight.view(), x, h, nullptr, out.gate, out.up, activation};
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
    swiglu_backward(device, saved.gate, saved.up, h, h, activation);
    add_gradients(device, weights, x, dy, saved, h, dx, gradients);
  }
  /// The rest of `backward`: h [T, Hidden] is what dy meets in the gradient of `down`, `dsaved` has the gradients of
  /// what was saved.
  template <class Device, class Store, class Gradients, class Real>
  static void add_gradients(Device& device, const Weights<Store>& weights,
                            DeviceView<const std::type_identity_t<Real>, 2> x,
                            DeviceView<const std::type_identity_t<Real>, 2> dy,
                            const Saved<std::type_identity_t<Real>>& dsaved,
                            DeviceView<const std::type_identity_t<Real>, 2> h, DeviceView<Real, 2> dx,
                            Weights<Gradients>& gradients) {
    const std::array jobs = {WeightGradientJob<Real>{x.rows, dy, h, gradients.down.weight.matrix()},
                             WeightGradientJob<Real>{x.rows, dsaved.gate, x, gradients.gate.weight.matrix()},
                             WeightGradientJob<Real>{x.rows, dsaved.up, x, gradients.up.weight.matrix()}};
    weight_gradient(device, std::span<const WeightGradientJob<Real>>(jobs));
    input_gradient(device, weights.gate.weight.view(), dsaved.gate, dx);
    input_gradient(device, weights.up.weight.view(), dsaved.up, dx, Update::add);
  }
};

}  // namespace v1
}  // namespace guild
