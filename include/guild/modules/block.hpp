// One transformer layer: x += mixer(norm(x)); x += feed_forward(norm(x)); or, with norms behind them too,
// x += post_norm(mixer(norm(x))); x += post_norm(feed_forward(norm(x))). What += is, a residual policy says
// (guild/modules/residual.hpp).
#pragma once

#include <type_traits>

#include <guild/modules/caches.hpp>
#include <guild/modules/mla.hpp>
#include <guild/modules/moe.hpp>
#include <guild/modules/norm.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/residual.hpp>
#include <guild/modules/sequence_cache.hpp>
#include <guild/modules/ungated_mlp.hpp>

namespace guild {
inline namespace v1 {

namespace detail {
/// The width that a mixer says it has; one that says nothing fits.
template <class Mixer, Index Otherwise>
inline constexpr Index width_of = Otherwise;
template <class Mixer, Index Otherwise>
requires requires { Mixer::hidden; }
inline constexpr Index width_of<Mixer, Otherwise> = Mixer::hidden;

template <class S>
struct DenseActivation {
  static constexpr ActivationConfig activation = S::dense.activation;
};
}  // namespace detail

/// The leading layers' feed-forward: one dense network, with the interface of Moe.
template <class S>
struct DenseFeedForward : FeedForwardOf<S::config.hidden, S::dense.hidden, detail::DenseActivation<S>> {
  static constexpr Index chosen_experts = 0;
};

/// What a Spec's Mixer is: a module with a cache.
template <class M>
concept SequenceMixer = Module<M> && SequenceCache<typename M::Cache>;

/// A layer made of a sequence mixer and a feed-forward network, joined by a residual connection: x + f(norm(x)), or
/// HyperConnections<S>.
template <class S, class MixerType, class FeedForwardType, class ResidualType = PlainResidual<S>>
struct Block {
  static_assert(SequenceMixer<MixerType>,
                "Block: Spec::Mixer needs a nested Weights<Store>, a static visit, and a nested Cache that is a "
                "SequenceCache, see guild/modules/module.hpp and guild/modules/sequence_cache.hpp");
  static_assert(!Module<MixerType> || TrainableModule<MixerType>,
                "Block: Spec::Mixer needs a nested Saved<Real> for what its backward needs of its forward; it may be "
                "empty");
  static_assert(detail::width_of<MixerType, S::config.hidden> == S::config.hidden,
                "Block: Spec::Mixer was made for a model of another width than this Spec's config.hidden");
  using Mixer = MixerType;
  using FeedForward = FeedForwardType;
  using Residual = ResidualType;
  using Norm = RmsNorm<S::config.hidden, S::config.norm.gain>;
  using Cache = typename Mixer::Cache;
  static constexpr Index chosen_experts = FeedForward::chosen_experts;
  static constexpr Index hidden = S::config.hidden, width = Residual::width;  ///< of a token within, and between layers
  static_assert(Residual::hidden == hidden,
                "Block: its residual was made for a model of another width than this Spec's config.hidden");
  static constexpr bool post_norms = S::config.norm.place == NormPlace::before_and_after;
  static constexpr bool keeps_outputs = post_norms || !Residual::adds;

  template <class Store>
  struct Weights {
    typename Norm::template Weights<Store> mixer_norm;
    typename Mixer::template Weights<Store> mixer;
    typename Norm::template Weights<Store> mixer_post_norm;  ///< unused without post_norms
    typename Norm::template Weights<Store> feed_forward_norm;
    typename FeedForward::template Weights<Store> feed_forward;
    typename Norm::template Weights<Store> feed_forward_post_norm;  ///< unused without post_norms
    [[no_unique_address]] typename Residual::template Weights<Store> mixer_residual;
    [[no_unique_address]] typename Residual::template Weights<Store> feed_forward_residual;
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    Norm::visit(visitor, path / "mixer_norm", weights.mixer_norm...);
    Mixer::visit(visitor, path / "mixer", weights.mixer...);
    if constexpr (post_norms) Norm::visit(visitor, path / "mixer_post_norm", weights.mixer_post_norm...);
    Norm::visit(visitor, path / "feed_forward_norm", weights.feed_forward_norm...);
    FeedForward::visit(visitor, path / "feed_forward", weights.feed_forward...);
    if constexpr (post_norms) Norm::visit(visitor, path / "feed_forward_post_norm", weights.feed_forward_post_norm...);
    Residual::visit(visitor, path / "mixer_residual", weights.mixer_residual...);
    Residual::visit(visitor, path / "feed_forward_residual", weights.feed_forward_residual...);
  }

  template <class Real>
  struct Saved {
    typename Mixer::template Saved<Real> mixer;
    DeviceView<Real, 2> middle;  ///< [T, width]: the residual stream between mixer and feed-forward
    typename FeedForward::template Saved<Real> feed_forward;
    DeviceView<Real, 2> mixed;  ///< [T, hidden]: what the mixer gave; empty without keeps_outputs
    DeviceView<Real, 2> fed;    ///< [T, hidden]: what the feed-forward gave; empty without keeps_outputs
    typename Residual::template Saved<Real> mixer_residual;
    typename Residual::template Saved<Real> feed_forward_residual;
  };

  /// y [T, width] = the layer of x [T, width]; y may be x if nothing is kept.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, Caches<Cache> caches,
                      DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> y,
                      Saved<std::type_identity_t<Real>>* keep = nullptr) {
    Device& device = pass.device;
    auto room = pass.room(keep);
    const DeviceView<Real, 2> middle = room.template keep<Real>(x.rows, width);
    const DeviceView<Real, 2> normed = room.template take<Real>(x.rows, hidden);
    // What is added: where the sum goes, if the residual does no more with it.
    const auto addend = [&](DeviceView<Real, 2> sum) {
      if constexpr (Residual::adds)
        return sum;
      else
        return room.template take<Real>(x.rows, hidden);
    };
    const DeviceView<Real, 2> from_mixer = addend(middle), from_feed_forward = addend(y);
    DeviceView<Real, 2> mixed = from_mixer, fed = from_feed_forward;  // normalised in place if nothing is kept
    if (keep != nullptr) {
      keep->middle = middle;
      if constexpr (keeps_outputs) {
        mixed = keep->mixed = room.template keep<Real>(x.rows, hidden);
        fed = keep->fed = room.template keep<Real>(x.rows, hidden);
      }
    }
    const auto mixer_keep = part_of(keep, &Saved<Real>::mixer);
    const auto feed_forward_keep = part_of(keep, &Saved<Real>::feed_forward);
    typename Residual::template Saved<Real> of_mixer{}, of_feed_forward{};

    const auto mixer_in = Residual::enter(pass, weights.mixer_residual, x, room, of_mixer);
    Norm::forward(device, weights.mixer_norm, mixer_in, normed, S::config.norm.epsilon);
    static_assert(
        requires { Mixer::forward(pass, weights.mixer, caches, normed, middle, mixer_keep); },
        "Block: Spec::Mixer needs a static forward(pass, weights, caches, x, y, keep) as Mla has");
    Mixer::forward(pass, weights.mixer, caches, normed, mixed, mixer_keep);
    if constexpr (post_norms) Norm::forward(device, weights.mixer_post_norm, mixed, from_mixer, S::config.norm.epsilon);
    Residual::leave(pass, of_mixer, x, post_norms ? from_mixer : mixed, middle);

    const auto feed_forward_in =
        Residual::enter(pass, weights.feed_forward_residual, DeviceView<const Real, 2>(middle), room, of_feed_forward);
    Norm::forward(device, weights.feed_forward_norm, feed_forward_in, normed, S::config.norm.epsilon);
    FeedForward::forward(pass, weights.feed_forward, normed, fed, feed_forward_keep);
    if constexpr (post_norms)
      Norm::forward(device, weights.feed_forward_post_norm, fed, from_feed_forward, S::config.norm.epsilon);
    Residual::leave(pass, of_feed_forward, middle, post_norms ? from_feed_forward : fed, y);
    if (keep != nullptr) keep->mixer_residual = of_mixer, keep->feed_forward_residual = of_feed_forward;
    if constexpr (std::is_same_v<Real, float>)
      if (pass.observer != nullptr) pass.observer->on_layer(pass.layer, Download(pass.device, y).view());
  }

  /// dy and dx [T, width]; dx is overwritten and may be dy. `saved` is used up. Normalised rows are made anew.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights,
                       DeviceView<const std::type_identity_t<Real>, 2> x,
                       const Saved<std::type_identity_t<Real>>& saved,
                       DeviceView<const std::type_identity_t<Real>, 2> dy, DeviceView<Real, 2> dx,
                       Weights<Gradients>& gradients) {
    using Back = typename Residual::template Back<Device, Store, Real>;
    constexpr double epsilon = S::config.norm.epsilon;
    Device& device = pass.device;
    auto scratch = device.scratch();
    const auto normed = scratch.template take<Real>(x.rows, hidden);
    const auto dnormed = scratch.template take<Real>(x.rows, hidden);
    const auto dmiddle = scratch.template take<Real>(x.rows, width);
    // The gradient of what comes out of mixer and feed-forward, given that of what is added.
    const auto dout = scratch.template take<Real>(post_norms ? x.rows : 0, hidden);
    const auto work = Residual::template Workspace<Real>::take(scratch, x.rows);
    const auto added = [&](const auto& norm, DeviceView<const Real, 2> out) -> DeviceView<const Real, 2> {
      if constexpr (post_norms && keeps_outputs && !Residual::adds) {
        Norm::forward(device, norm, out, dout, epsilon);
        return dout;
      } else {
        return out;
      }
    };
    const auto before_post_norm = [&](const auto& norm, DeviceView<const Real, 2> out, DeviceView<const Real, 2> dsum,
                                      auto& gradient) -> DeviceView<const Real, 2> {
      if constexpr (post_norms) {
        Norm::backward(device, norm, out, dsum, dout, gradient, epsilon);
        return dout;
      } else {
        return dsum;
      }
    };
    {
      Back back(pass, weights.feed_forward_residual, saved.feed_forward_residual, work, saved.middle, dmiddle);
      Norm::forward(device, weights.feed_forward_norm, back.input(), normed, epsilon);
      const auto dsum = back.leave(added(weights.feed_forward_post_norm, saved.fed), dy);
      const auto dfed =
          before_post_norm(weights.feed_forward_post_norm, saved.fed, dsum, gradients.feed_forward_post_norm);
      FeedForward::backward(pass, weights.feed_forward, normed, saved.feed_forward, dfed, dnormed,
                            gradients.feed_forward);
      Norm::backward(device, weights.feed_forward_norm, back.input(), dnormed, back.dinput(),
                     gradients.feed_forward_norm, epsilon, back.plus());
      back.enter(gradients.feed_forward_residual);
    }
    Back back(pass, weights.mixer_residual, saved.mixer_residual, work, x, dx);
    Norm::forward(device, weights.mixer_norm, back.input(), normed, epsilon);
    const auto dsum = back.leave(added(weights.mixer_post_norm, saved.mixed), dmiddle);
    const auto dmixed = before_post_norm(weights.mixer_post_norm, saved.mixed, dsum, gradients.mixer_post_norm);
    Mixer::backward(pass, weights.mixer, normed, saved.mixer, dmixed, dnormed, gradients.mixer);
    Norm::backward(device, weights.mixer_norm, back.input(), dnormed, back.dinput(), gradients.mixer_norm, epsilon,
                   back.plus());
    back.enter(gradients.mixer_residual);
  }
};

}  // namespace v1
}  // namespace guild
