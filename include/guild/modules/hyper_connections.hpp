// Hyper-connections: several residual streams for each token, of which every sub-layer reads a mixture, and to which it
// writes (arXiv 2409.19606; with doubly stochastic matrices, arXiv 2512.24880; DeepSeek-V4).
#pragma once

#include <type_traits>

#include <guild/core/config/hyper.hpp>
#include <guild/modules/module.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/residual/stream_weights.hpp>
#include <guild/ops/residual/streams.hpp>

namespace guild {
inline namespace v1 {

/// What makes the weights of N streams of `Hidden` values: for a sub-layer, or where streams end.
template <Index Hidden, const HyperConfig& Config, StreamEnd End>
struct StreamMixing {
  static_assert(Config.streams >= 1 && Config.streams <= HyperConfig::most_streams,
                "HyperConnections: streams must be from 1 to 16");
  static_assert(Config.sinkhorn_rounds >= 1, "HyperConnections: sinkhorn_rounds must be at least 1");
  static_assert(Config.epsilon > 0.0 && Config.epsilon < 1.0, "HyperConnections: epsilon must be above 0 and below 1");
  static constexpr int streams = Config.streams;
  static constexpr Index width = Index{streams} * Hidden;
  static constexpr Index count = End == StreamEnd::passed_on ? Config.weights() : streams;
  static constexpr Index groups = End == StreamEnd::passed_on ? 3 : 1;

  template <class Store>
  struct Weights {
    typename Store::Matrix weight;  ///< [count, streams * hidden]
    typename Store::Vector bias;    ///< [count]
    typename Store::Vector scale;   ///< [groups]
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    visitor(path / "weight", MatrixShape{count, width}, weights.weight...);
    visitor(path / "bias", VectorShape{.size = count, .first = 0.0f}, weights.bias...);
    visitor(path / "scale", VectorShape{groups}, weights.scale...);
  }

  template <class Real>
  using Saved = StreamMix<Real>;

  /// Mixes x [T, width]; what it makes lies in `room`, as long as that keeps.
  template <class Device, class Store, class Real, class RoomOf>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, double norm_epsilon,
                      DeviceView<const Real, 2> x, RoomOf& room, Saved<Real>& saved) {
    saved.products = room.template keep<Real>(x.rows, count);
    saved.roots = room.template keep<Real>(x.rows);
    saved.weights = room.template keep<Real>(x.rows, count);
    stream_weights<streams, End>(pass.device, Config, norm_epsilon, projection<Real>(weights), x, saved);
  }

  /// dweights [T, count] is used up; adds to the gradients and to dx [T, width].
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights,
                       DeviceView<const std::type_identity_t<Real>, 2> x, const Saved<Real>& saved,
                       DeviceView<Real, 2> dweights, DeviceView<Real, 2> dx, Weights<Gradients>& gradients) {
    stream_weights_backward<streams, End>(pass.device, Config, projection<Real>(weights), x, saved, dweights,
                                          gradients.weight.matrix(), gradients.bias.view(), gradients.scale.view(), dx);
  }

 private:
  template <class Real, class Store>
  static StreamProjection<Real> projection(const Weights<Store>& weights) {
    return {weights.weight.view(), weights.bias.view(), weights.scale.view()};
  }
};

/// The residual policy of a Block of N streams: the layer is as wide as all of them, its mixer and feed-forward as wide
/// as one. Stands between Streams (guild/modules/streams.hpp), which begins and ends them.
template <class S, const HyperConfig& Config = S::hyper>
struct HyperConnections {
  static constexpr Index hidden = S::config.hidden;
  using Mixing = StreamMixing<hidden, Config, StreamEnd::passed_on>;
  static constexpr int streams = Mixing::streams;
  static constexpr Index width = Mixing::width;
  static constexpr bool adds = false;

  template <class Store>
  using Weights = typename Mixing::template Weights<Store>;
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    Mixing::visit(visitor, path, weights...);
  }
  template <class Real>
  using Saved = StreamMix<Real>;

  /// x [T, width]; returns [T, hidden].
  template <class Device, class Store, class Real, class RoomOf>
  static DeviceView<const Real, 2> enter(const Pass<Device>& pass, const Weights<Store>& weights,
                                         DeviceView<const Real, 2> x, RoomOf& room, StreamMix<Real>& saved) {
    Mixing::forward(pass, weights, S::config.norm.epsilon, x, room, saved);
    const DeviceView<Real, 2> in = room.template take<Real>(x.rows, hidden);
    collapse_streams<streams>(pass.device, saved.weights, x, in);
    return in;
  }
  /// x and y [T, width], out [T, hidden]; y is not x.
  template <class Device, class Real>
  static void leave(const Pass<Device>& pass, const StreamMix<Real>& saved,
                    DeviceView<const std::type_identity_t<Real>, 2> x,
                    DeviceView<const std::type_identity_t<Real>, 2> out, DeviceView<std::type_identity_t<Real>, 2> y) {
    spread_streams<streams>(pass.device, saved.weights, x, out, y);
  }

  template <class Real>
  struct Workspace {
    DeviceView<Real, 2> input;     ///< [T, hidden]: made again
    DeviceView<Real, 2> dinput;    ///< [T, hidden], and before that the gradient of what the sub-layer gave
    DeviceView<Real, 2> dweights;  ///< [T, weights of a token]

    template <class Frame>
    static Workspace take(Frame& frame, Index tokens) {
      return {frame.template take<Real>(tokens, hidden), frame.template take<Real>(tokens, hidden),
              frame.template take<Real>(tokens, Mixing::count)};
    }
  };

  template <class Device, class Store, class Real>
  class Back {
   public:
    Back(const Pass<Device>& pass, const Weights<Store>& weights, const StreamMix<Real>& saved,
         const Workspace<Real>& work, DeviceView<const Real, 2> x, DeviceView<Real, 2> dx)
        : pass_(pass), weights_(weights), saved_(saved), work_(work), x_(x), dx_(dx) {
      collapse_streams<streams>(pass_.device, saved_.weights, x_, work_.input);
    }

    [[nodiscard]] DeviceView<const Real, 2> input() const { return work_.input; }
    [[nodiscard]] DeviceView<const Real, 2> leave(DeviceView<const Real, 2> out, DeviceView<const Real, 2> dy) const {
      spread_streams_backward<streams>(pass_.device, saved_.weights, x_, out, dy, dx_, work_.dinput, work_.dweights);
      return work_.dinput;
    }
    [[nodiscard]] DeviceView<Real, 2> dinput() const { return work_.dinput; }
    [[nodiscard]] DeviceView<const Real, 2> plus() const { return {}; }
    template <class Gradients>
    void enter(Gradients& gradients) const {
      collapse_streams_backward<streams>(pass_.device, saved_.weights, x_, work_.dinput, dx_, work_.dweights,
                                         Update::add);
      Mixing::backward(pass_, weights_, x_, saved_, work_.dweights, dx_, gradients);
    }

   private:
    const Pass<Device>& pass_;
    const Weights<Store>& weights_;
    const StreamMix<Real>& saved_;
    const Workspace<Real>& work_;
    DeviceView<const Real, 2> x_;
    DeviceView<Real, 2> dx_;
  };
};

}  // namespace v1
}  // namespace guild
