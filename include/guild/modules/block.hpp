// One transformer layer, pre-norm: x += mixer(norm(x)); x += feed_forward(norm(x)).
#pragma once

#include <type_traits>

#include <guild/modules/mla.hpp>
#include <guild/modules/moe.hpp>
#include <guild/modules/norm.hpp>
#include <guild/modules/training_pass.hpp>
#include <guild/ops/combine.hpp>

namespace guild::inline v1 {

/// The leading layers' feed-forward: one dense SwiGLU network, with the interface of Moe.
template <class S>
struct DenseFeedForward {
  using Network = Mlp<S::config.hidden, S::config.dense_hidden>;
  static constexpr Index chosen_experts = 0;
  template <class Store> using Weights = typename Network::template Weights<Store>;

  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) { Network::visit(visitor, path, weights...); }

  template <class Device, class WeightsOf, class Observer>
  static void forward(Device& device, const WeightsOf& weights, View<const float, 2> x, View<float, 2> y, int,
                      Observer&) {
    Network::forward(device, weights, x, y);
  }

  template <class Real> using Saved = typename Network::template Saved<Real>;

  template <class Device, class WeightsOf, class X, class Y, class SavedOf, class Memory>
  static void forward(Device& device, const WeightsOf& weights, const TrainingPass&, X x, Y y, SavedOf& saved,
                      Memory& memory) {
    Network::forward(device, weights, x, y, saved, memory);
  }
  template <class Device, class WeightsOf, class X, class SavedOf, class DY, class DX, class GradientsOf>
  static void backward(Device& device, const WeightsOf& weights, const TrainingPass&, X x, const SavedOf& saved, DY dy,
                       DX dx, GradientsOf& gradients) {
    Network::backward(device, weights, x, saved, dy, dx, gradients);
  }
};

/// What a Spec's Mixer is: a module with a Cache that can make room for `tokens` rows and keep the first `used`.
template <class M>
concept SequenceMixer = Module<M> && requires(typename M::Cache& cache, Index tokens, Index used) {
  cache.reserve(tokens, used);
};

/// A layer made of a sequence mixer and a feed-forward network.
template <class S, class MixerType, class FeedForwardType>
struct Block {
  static_assert(SequenceMixer<MixerType>,
                "Block: Spec::Mixer needs a nested Weights<Store>, a static visit, and a nested Cache with "
                "reserve(tokens, used), see guild/modules/module.hpp");
  using Mixer = MixerType;
  using FeedForward = FeedForwardType;
  using Norm = RmsNorm<S::config.hidden>;
  using Cache = typename Mixer::Cache;

  template <class Store>
  struct Weights {
    typename Norm::template Weights<Store> mixer_norm;
    typename Mixer::template Weights<Store> mixer;
    typename Norm::template Weights<Store> feed_forward_norm;
    typename FeedForward::template Weights<Store> feed_forward;
  };

  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    Norm::visit(visitor, path / "mixer_norm", weights.mixer_norm...);
    Mixer::visit(visitor, path / "mixer", weights.mixer...);
    Norm::visit(visitor, path / "feed_forward_norm", weights.feed_forward_norm...);
    FeedForward::visit(visitor, path / "feed_forward", weights.feed_forward...);
  }

  /// Runs the layer in place on the residual stream x [T, hidden].
  template <class Device, class Store, class CacheOf, class Observer>
  static void extend(Device& device, const Weights<Store>& weights, const Batch& batch, const RopeView& rope_table,
                     const CacheOf& cache, View<float, 2> x, int layer, Observer& observer, MlaForm form) {
    auto scratch = device.scratch();
    const auto normed = scratch.template take<float>(x.rows, x.cols);
    const auto update = scratch.template take<float>(x.rows, x.cols);
    Norm::forward(device, weights.mixer_norm, x, normed, S::config.norm_epsilon);
    static_assert(requires { Mixer::extend(device, weights.mixer, batch, rope_table, cache, normed, update, form); },
                  "Block: Spec::Mixer needs a static extend(device, weights, batch, rope_table, cache, x, y, form) as "
                  "Mla has");
    Mixer::extend(device, weights.mixer, batch, rope_table, cache, normed, update, form);
    add(device, x, update);
    Norm::forward(device, weights.feed_forward_norm, x, normed, S::config.norm_epsilon);
    FeedForward::forward(device, weights.feed_forward, normed, update, layer, observer);
    add(device, x, update);
    observer.on_layer(layer, x);
  }

  template <class Real>
  struct Saved {
    typename Mixer::template Saved<Real> mixer;
    View<Real, 2> middle;  ///< [T, hidden]: the residual stream between mixer and feed-forward
    typename FeedForward::template Saved<Real> feed_forward;
  };

  /// y [T, hidden] = the layer of x [T, hidden], over whole sequences; keeps what backward needs in `memory`.
  template <class Device, class Store, class Real, class Memory>
  static void forward(Device& device, const Weights<Store>& weights, const TrainingPass& pass,
                      View<const std::type_identity_t<Real>, 2> x, View<Real, 2> y, Saved<Real>& saved,
                      Memory& memory) {
    saved.middle = memory.template take<Real>(x.rows, x.cols);
    auto scratch = device.scratch();
    const auto normed = scratch.template take<Real>(x.rows, x.cols);
    Norm::forward(device, weights.mixer_norm, x, normed, S::config.norm_epsilon);
    Mixer::forward(device, weights.mixer, pass, normed, saved.middle, saved.mixer, memory);
    add(device, saved.middle, x);
    Norm::forward(device, weights.feed_forward_norm, saved.middle, normed, S::config.norm_epsilon);
    FeedForward::forward(device, weights.feed_forward, pass, normed, y, saved.feed_forward, memory);
    add(device, y, saved.middle);
  }

  /// dy and dx [T, hidden]; dx is overwritten and may be dy. `saved` is used up. Normalised rows are made anew.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(Device& device, const Weights<Store>& weights, const TrainingPass& pass,
                       View<const std::type_identity_t<Real>, 2> x, const Saved<std::type_identity_t<Real>>& saved,
                       View<const std::type_identity_t<Real>, 2> dy, View<Real, 2> dx, Weights<Gradients>& gradients) {
    auto scratch = device.scratch();
    const auto normed = scratch.template take<Real>(x.rows, x.cols);
    const auto dnormed = scratch.template take<Real>(x.rows, x.cols);
    const auto dmiddle = scratch.template take<Real>(x.rows, x.cols);
    Norm::forward(device, weights.feed_forward_norm, saved.middle, normed, S::config.norm_epsilon);
    FeedForward::backward(device, weights.feed_forward, pass, normed, saved.feed_forward, dy, dnormed,
                          gradients.feed_forward);
    Norm::backward(device, weights.feed_forward_norm, saved.middle, dnormed, dmiddle, gradients.feed_forward_norm,
                   S::config.norm_epsilon, dy);
    Norm::forward(device, weights.mixer_norm, x, normed, S::config.norm_epsilon);
    Mixer::backward(device, weights.mixer, pass, normed, saved.mixer, dmiddle, dnormed, gradients.mixer);
    Norm::backward(device, weights.mixer_norm, x, dnormed, dx, gradients.mixer_norm, S::config.norm_epsilon,
                   dmiddle);
  }
};

}  // namespace guild::inline v1
