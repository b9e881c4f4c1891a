// One transformer layer: x += mixer(norm(x)); x += feed_forward(norm(x)); or, with norms behind them too,
// x += post_norm(mixer(norm(x))); x += post_norm(feed_forward(norm(x))).
#pragma once

#include <type_traits>

#include <guild/modules/mla.hpp>
#include <guild/modules/moe.hpp>
#include <guild/modules/norm.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/sequence_cache.hpp>
#include <guild/ops/common/add.hpp>

namespace guild {
inline namespace v1 {

namespace detail {
template <class S>
struct DenseActivation {
  static constexpr ActivationConfig activation = S::dense.activation;
};
}  // namespace detail

/// The leading layers' feed-forward: one dense gated network, with the interface of Moe.
template <class S>
struct DenseFeedForward : Mlp<S::config.hidden, S::dense.hidden, detail::DenseActivation<S>> {
  static constexpr Index chosen_experts = 0;
};

/// What a Spec's Mixer is: a module with a cache.
template <class M>
concept SequenceMixer = Module<M> && SequenceCache<typename M::Cache>;

/// A layer made of a sequence mixer and a feed-forward network.
template <class S, class MixerType, class FeedForwardType, NormPlace Norms = S::config.norm.place>
struct Block {
  static_assert(SequenceMixer<MixerType>,
                "Block: Spec::Mixer needs a nested Weights<Store>, a static visit, and a nested Cache that is a "
                "SequenceCache, see guild/modules/module.hpp and guild/modules/sequence_cache.hpp");
  static_assert(!Module<MixerType> || TrainableModule<MixerType>,
                "Block: Spec::Mixer needs a nested Saved<Real> for what its backward needs of its forward; it may be "
                "empty");
  using Mixer = MixerType;
  using FeedForward = FeedForwardType;
  using Norm = RmsNorm<S::config.hidden, S::config.norm.gain>;
  using Cache = typename Mixer::Cache;
  static constexpr Index chosen_experts = FeedForward::chosen_experts;
  static constexpr bool post_norms = Norms == NormPlace::before_and_after;

  template <class Store>
  struct Weights {
    typename Norm::template Weights<Store> mixer_norm;
    typename Mixer::template Weights<Store> mixer;
    typename Norm::template Weights<Store> mixer_post_norm;  ///< unused without post_norms
    typename Norm::template Weights<Store> feed_forward_norm;
    typename FeedForward::template Weights<Store> feed_forward;
    typename Norm::template Weights<Store> feed_forward_post_norm;  ///< unused without post_norms
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    Norm::visit(visitor, path / "mixer_norm", weights.mixer_norm...);
    Mixer::visit(visitor, path / "mixer", weights.mixer...);
    if constexpr (post_norms) Norm::visit(visitor, path / "mixer_post_norm", weights.mixer_post_norm...);
    Norm::visit(visitor, path / "feed_forward_norm", weights.feed_forward_norm...);
    FeedForward::visit(visitor, path / "feed_forward", weights.feed_forward...);
    if constexpr (post_norms) Norm::visit(visitor, path / "feed_forward_post_norm", weights.feed_forward_post_norm...);
  }

  template <class Real>
  struct Saved {
    typename Mixer::template Saved<Real> mixer;
    DeviceView<Real, 2> middle;  ///< [T, hidden]: the residual stream between mixer and feed-forward
    typename FeedForward::template Saved<Real> feed_forward;
    DeviceView<Real, 2> mixed;  ///< [T, hidden]: what the mixer gave; empty without post_norms
    DeviceView<Real, 2> fed;    ///< [T, hidden]: what the feed-forward gave; empty without post_norms
  };

  /// y [T, hidden] = the layer of x [T, hidden]; y may be x if nothing is kept.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, Caches<Cache> caches,
                      DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> y,
                      Saved<std::type_identity_t<Real>>* keep = nullptr) {
    Device& device = pass.device;
    auto room = pass.room(keep);
    const DeviceView<Real, 2> middle = room.template keep<Real>(x.rows, x.cols);
    const DeviceView<Real, 2> normed = room.template take<Real>(x.rows, x.cols);
    DeviceView<Real, 2> mixed = middle, fed = y;  // what comes out, normalised in place if nothing is kept
    if (keep != nullptr) {
      keep->middle = middle;
      if constexpr (post_norms) {
        mixed = keep->mixed = room.template keep<Real>(x.rows, x.cols);
        fed = keep->fed = room.template keep<Real>(x.rows, x.cols);
      }
    }
    const auto mixer_keep = part_of(keep, &Saved<Real>::mixer);
    const auto feed_forward_keep = part_of(keep, &Saved<Real>::feed_forward);

    Norm::forward(device, weights.mixer_norm, x, normed, S::config.norm.epsilon);
    static_assert(
        requires { Mixer::forward(pass, weights.mixer, caches, normed, middle, mixer_keep); },
        "Block: Spec::Mixer needs a static forward(pass, weights, caches, x, y, keep) as Mla has");
    Mixer::forward(pass, weights.mixer, caches, normed, mixed, mixer_keep);
    if constexpr (post_norms) Norm::forward(device, weights.mixer_post_norm, mixed, middle, S::config.norm.epsilon);
    add(device, middle, x);
    Norm::forward(device, weights.feed_forward_norm, middle, normed, S::config.norm.epsilon);
    FeedForward::forward(pass, weights.feed_forward, normed, fed, feed_forward_keep);
    if constexpr (post_norms) Norm::forward(device, weights.feed_forward_post_norm, fed, y, S::config.norm.epsilon);
    add(device, y, middle);
    if constexpr (std::is_same_v<Real, float>)
      if (pass.observer != nullptr) pass.observer->on_layer(pass.layer, Download(pass.device, y).view());
  }

  /// dy and dx [T, hidden]; dx is overwritten and may be dy. `saved` is used up. Normalised rows are made anew.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights,
                       DeviceView<const std::type_identity_t<Real>, 2> x,
                       const Saved<std::type_identity_t<Real>>& saved,
                       DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dx,
                       Weights<Gradients>& gradients) {
    Device& device = pass.device;
    auto scratch = device.scratch();
    const auto normed = scratch.template take<Real>(x.rows, x.cols);
    const auto dnormed = scratch.template take<Real>(x.rows, x.cols);
    const auto dmiddle = scratch.template take<Real>(x.rows, x.cols);
    // The gradient of what comes out of mixer and feed-forward, given that of the sum which it is added to.
    const auto dout = scratch.template take<Real>(post_norms ? x.rows : 0, x.cols);
    const auto before_post_norm = [&](const auto& norm, DeviceView<const Real, 2> out, DeviceView<const Real, 2> dsum,
                                      auto& gradient) -> DeviceView<const Real, 2> {
      if constexpr (post_norms) {
        Norm::backward(device, norm, out, dsum, dout, gradient, S::config.norm.epsilon);
        return dout;
      } else {
        return dsum;
      }
    };
    Norm::forward(device, weights.feed_forward_norm, saved.middle, normed, S::config.norm.epsilon);
    const auto dfed = before_post_norm(weights.feed_forward_post_norm, saved.fed, dy, gradients.feed_forward_post_norm);
    FeedForward::backward(pass, weights.feed_forward, normed, saved.feed_forward, dfed, dnormed,
                          gradients.feed_forward);
    Norm::backward(device, weights.feed_forward_norm, saved.middle, dnormed, dmiddle, gradients.feed_forward_norm,
                   S::config.norm.epsilon, dy);
    Norm::forward(device, weights.mixer_norm, x, normed, S::config.norm.epsilon);
    const auto dmixed = before_post_norm(weights.mixer_post_norm, saved.mixed, dmiddle, gradients.mixer_post_norm);
    Mixer::backward(pass, weights.mixer, normed, saved.mixer, dmixed, dnormed, gradients.mixer);
    Norm::backward(device, weights.mixer_norm, x, dnormed, dx, gradients.mixer_norm, S::config.norm.epsilon, dmiddle);
  }
};

}  // namespace v1
}  // namespace guild
