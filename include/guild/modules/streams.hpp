// Layers that pass on several residual streams: the row of a token becomes streams before them and one row behind them.
//
//   template <class S> using Layer  = Block<S, Mixer<S>, Moe<S>, HyperConnections<S>>;
//   template <class S> using Layers = Streams<S, Segment<Layer<S>, 43>>;
#pragma once

#include <type_traits>

#include <guild/modules/caches.hpp>
#include <guild/modules/hyper_connections.hpp>
#include <guild/modules/layer_stack.hpp>
#include <guild/modules/recompute.hpp>

namespace guild {
inline namespace v1 {

template <class S, class LayersType, const HyperConfig& Config>
struct StreamedLayer;

/// A LayerStack of the usual width made of one whose layers have a residual of hyper-connections. Streams begin as
/// copies of the token's row; at the end a head, weighed as sub-layers weigh what they read, mixes them to one.
template <class S, class LayersType, const HyperConfig& Config = S::hyper>
struct Streams {
  static_assert(LayerStack<LayersType>,
                "Streams: takes a Segment, a Stack, a Repeat or another LayerStack, see guild/modules/layer_stack.hpp; "
                "a single layer is Segment<Layer, 1>");
  static constexpr Index width = S::config.hidden;
  using Head = StreamMixing<width, Config, StreamEnd::mixed>;
  static_assert(detail::takes_rows_of<LayersType>(Head::width),
                "Streams: its layers take rows of another width than all streams together; their Block needs "
                "HyperConnections<S> of the same streams");
  using Layers = LayersType;
  using LastLayer = StreamedLayer<S, typename Layers::LastLayer, Config>;
  using Cache = typename Layers::Cache;
  static constexpr int layers = Layers::layers, streams = Head::streams;

  template <class Store>
  struct Weights {
    typename Layers::template Weights<Store> layers;
    typename Head::template Weights<Store> head;
  };

  /// Paths are `path / layer`, and `path / "stream_head"`.
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, Index first_layer, W&... weights) {
    Layers::visit(visitor, path, first_layer, weights.layers...);
    Head::visit(visitor, path / "stream_head", weights.head...);
  }

  template <class Real>
  struct Saved {
    typename Layers::template Saved<Real> layers;
    DeviceView<Real, 2> last;  ///< [T, streams * hidden]: what the head mixes
    typename Head::template Saved<Real> head;
  };

  /// y [T, hidden] = all layers of x [T, hidden]; y may be x.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, Caches<Cache> caches,
                      DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> y,
                      Saved<std::type_identity_t<Real>>* keep = nullptr) {
    Saved<Real> here;
    Saved<Real>& saved = keep != nullptr ? *keep : here;
    auto room = pass.room(keep);
    const DeviceView<Real, 2> first = room.template keep<Real>(x.rows, Head::width);
    saved.last = keep != nullptr ? room.template keep<Real>(x.rows, Head::width) : first;
    repeat_streams<streams>(pass.device, x, first);
    Layers::forward(pass, weights.layers, caches, first, saved.last, part_of(keep, &Saved<Real>::layers));
    Head::forward(pass, weights.head, S::config.norm.epsilon, DeviceView<const Real, 2>(saved.last), room, saved.head);
    collapse_streams<streams>(pass.device, saved.head.weights, saved.last, y);
  }

  /// dx [T, hidden]: on entry the gradient of forward's y, afterwards that of its x. `saved` is used up.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights, Saved<Real>& saved,
                       DeviceView<Real, 2> dx, Weights<Gradients>& gradients) {
    auto scratch = pass.device.scratch();
    const auto dstreams = scratch.template take<Real>(dx.rows, Head::width);
    const auto dweights = scratch.template take<Real>(dx.rows, Head::count);
    collapse_streams_backward<streams>(pass.device, saved.head.weights, saved.last, dx, dstreams, dweights);
    Head::backward(pass, weights.head, saved.last, saved.head, dweights, dstreams, gradients.head);
    Layers::backward(pass, weights.layers, saved.layers, dstreams, gradients.layers);
    sum_streams<streams>(pass.device, dstreams, dx);
  }
};

/// A layer with streams of its own, as wide as others: what prediction layers are made of.
template <class S, class LayerType, const HyperConfig& Config>
struct StreamedLayer {
  using Layers = Streams<S, Segment<LayerType, 1>, Config>;
  using Cache = typename Layers::Cache;
  static constexpr Index width = Layers::width, chosen_experts = LayerType::chosen_experts;

  template <class Store>
  using Weights = typename Layers::template Weights<Store>;
  template <class Real>
  using Saved = typename Layers::template Saved<Real>;

  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    LayerType::visit(visitor, path, weights.layers.layers[0]...);
    Layers::Head::visit(visitor, path / "stream_head", weights.head...);
  }

  /// x and y [T, hidden].
  template <class Device, class WeightsOf, class Real>
  static void forward(const Pass<Device>& pass, const WeightsOf& weights, Caches<Cache> caches,
                      DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> y,
                      Saved<std::type_identity_t<Real>>* keep = nullptr) {
    Layers::forward(pass, weights, caches, x, y, keep);
  }

  /// dy and dx [T, hidden]; dx is overwritten and may be dy.
  template <class Device, class WeightsOf, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const WeightsOf& weights,
                       DeviceView<const std::type_identity_t<Real>, 2>, const Saved<std::type_identity_t<Real>>& saved,
                       DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dx,
                       Gradients& gradients) {
    if (dx.data != dy.data) repeat_streams<1>(pass.device, dy, dx);
    Saved<Real> of_layers = saved;
    Layers::backward(pass, weights, of_layers, dx, gradients);
  }
};

/// Streams whose layers are computed again; what the head mixes is kept.
template <class S, class LayersType, const HyperConfig& Config>
struct Recompute<Streams<S, LayersType, Config>> : Streams<S, Recompute<LayersType>, Config> {};

}  // namespace v1
}  // namespace guild
