// How a layer joins what its sub-layers give with what came in: the residual connection, as a policy of Block.
//
//   struct R {
//     static constexpr Index hidden, width;     // values of a token within a layer, and between layers
//     static constexpr bool adds;               // a sub-layer may write where the sum goes, which `leave` completes
//     template <class Store> struct Weights;    // of one sub-layer; with visit(visitor, path, weights...)
//     template <class Real> struct Saved;       // views: what leave and backward need of enter
//     static auto enter(pass, weights, x, room, saved);      // what the sub-layer's norm reads, [T, hidden]
//     static void leave(pass, saved, x, out, y);             // y [T, width] of x and of what the sub-layer gave
//     template <class Real> struct Workspace;   // scratch of backward; take(frame, T) makes one
//     class Back;                               // one sub-layer's way back: see PlainResidual's
//   };
#pragma once

#include <type_traits>

#include <guild/modules/module.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/common/add.hpp>

namespace guild {
inline namespace v1 {

/// x + f(norm(x)).
template <class S>
struct PlainResidual {
  static constexpr Index hidden = S::config.hidden, width = hidden;
  static constexpr bool adds = true;

  template <class Store>
  struct Weights {};
  template <class Visitor, class... W>
  static void visit(Visitor&&, const Path&, W&...) {}
  template <class Real>
  struct Saved {};

  template <class Device, class Store, class Real, class RoomOf>
  static DeviceView<const Real, 2> enter(const Pass<Device>&, const Weights<Store>&, DeviceView<const Real, 2> x,
                                         RoomOf&, Saved<Real>&) {
    return x;
  }
  /// What the sub-layer gave stands in y.
  template <class Device, class Real>
  static void leave(const Pass<Device>& pass, const Saved<Real>&, DeviceView<const std::type_identity_t<Real>, 2> x,
                    DeviceView<const std::type_identity_t<Real>, 2>, DeviceView<std::type_identity_t<Real>, 2> y) {
    add(pass.device, y, x);
  }

  template <class Real>
  struct Workspace {
    template <class Frame>
    static Workspace take(Frame&, Index) {
      return {};
    }
  };

  /// Calls in this order: `input`, `leave`, then the sub-layer and its norm go back, and `enter`. The norm writes the
  /// gradient of what it read to `dinput`, with `plus` added where that has data.
  template <class Device, class Store, class Real>
  class Back {
   public:
    Back(const Pass<Device>&, const Weights<Store>&, const Saved<Real>&, const Workspace<Real>&,
         DeviceView<const Real, 2> x, DeviceView<Real, 2> dx)
        : x_(x), dx_(dx) {}

    /// What the norm read.
    [[nodiscard]] DeviceView<const Real, 2> input() const { return x_; }
    /// The gradient of what the sub-layer gave, `out`, from that of the sum.
    [[nodiscard]] DeviceView<const Real, 2> leave(DeviceView<const Real, 2>, DeviceView<const Real, 2> dy) {
      return plus_ = dy;
    }
    [[nodiscard]] DeviceView<Real, 2> dinput() const { return dx_; }
    [[nodiscard]] DeviceView<const Real, 2> plus() const { return plus_; }
    template <class Gradients>
    void enter(Weights<Gradients>&) const {}

   private:
    DeviceView<const Real, 2> x_, plus_{};
    DeviceView<Real, 2> dx_;
  };
};

}  // namespace v1
}  // namespace guild
