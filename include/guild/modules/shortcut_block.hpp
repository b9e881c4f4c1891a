// A layer of two halves whose experts are beside the second one: they may be computed, and their rows travel, while the
// second attention runs (LongCat-Flash, arXiv 2509.01322, section 2.2; arXiv 2404.05019).
#pragma once

#include <array>
#include <cstddef>
#include <type_traits>

#include <guild/modules/block.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/joint_cache.hpp>
#include <guild/modules/norm.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/common/add.hpp>

namespace guild {
inline namespace v1 {

/// y = x + mixer0(norm(x)); u = norm(y); z = y + dense0(u); w = z + mixer1(norm(z)); out = w + dense1(norm(w)) +
/// experts(u). Each half has norms of its own. The layer's cache is that of both mixers.
template <class S, class MixerType, class DenseType, class ExpertsType>
struct ShortcutBlock {
  static_assert(SequenceMixer<MixerType> && TrainableModule<MixerType>,
                "ShortcutBlock: its mixer needs what Block's needs: Weights<Store>, Saved<Real>, visit and a Cache");
  using Mixer = MixerType;
  using Dense = DenseType;
  using FeedForward = ExpertsType;
  using Norm = RmsNorm<S::config.hidden, S::config.norm.gain>;
  using Cache = CacheTuple<typename Mixer::Cache, typename Mixer::Cache>;
  static constexpr Index chosen_experts = FeedForward::chosen_experts;
  static constexpr Index hidden = S::config.hidden;
  static constexpr double epsilon = S::config.norm.epsilon;
  static_assert(S::config.norm.place == NormPlace::before, "ShortcutBlock: has norms before its parts alone");

  template <class Store>
  struct Weights {
    std::array<typename Norm::template Weights<Store>, 2> mixer_norm;
    std::array<typename Mixer::template Weights<Store>, 2> mixer;
    std::array<typename Norm::template Weights<Store>, 2> feed_forward_norm;
    std::array<typename Dense::template Weights<Store>, 2> dense;
    typename FeedForward::template Weights<Store> feed_forward;
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    const Path mixer_norm = path / "mixer_norm", mixer = path / "mixer";
    const Path feed_forward_norm = path / "feed_forward_norm", dense = path / "dense";
    for (std::size_t i = 0; i < 2; ++i) {
      const auto half = static_cast<Index>(i);
      Norm::visit(visitor, mixer_norm / half, weights.mixer_norm[i]...);
      Mixer::visit(visitor, mixer / half, weights.mixer[i]...);
      Norm::visit(visitor, feed_forward_norm / half, weights.feed_forward_norm[i]...);
      Dense::visit(visitor, dense / half, weights.dense[i]...);
    }
    FeedForward::visit(visitor, path / "feed_forward", weights.feed_forward...);
  }

  template <class Real>
  struct Saved {
    std::array<typename Mixer::template Saved<Real>, 2> mixer;
    std::array<typename Dense::template Saved<Real>, 2> dense;
    typename FeedForward::template Saved<Real> feed_forward;
    std::array<DeviceView<Real, 2>, 2> middle;  ///< [T, hidden]: y and w, behind each mixer
    DeviceView<Real, 2> between;                ///< [T, hidden]: z, between the halves
  };

  /// y [T, hidden] = the layer of x [T, hidden]; y may be x if nothing is kept.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, Caches<Cache> caches,
                      DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> y,
                      Saved<std::type_identity_t<Real>>* keep = nullptr) {
    Device& device = pass.device;
    auto room = pass.room(keep);
    Saved<Real> here;
    Saved<Real>& saved = keep != nullptr ? *keep : here;
    saved.middle = {room.template keep<Real>(x.rows, hidden), room.template keep<Real>(x.rows, hidden)};
    saved.between = room.template keep<Real>(x.rows, hidden);
    const auto normed = room.template take<Real>(x.rows, hidden),
               from_experts = room.template take<Real>(x.rows, hidden);
    const auto half = [&](auto i, DeviceView<const Real, 2> in, DeviceView<Real, 2> out) {
      const auto middle = saved.middle[i];
      const auto cache_of = [&](int sequence) -> auto& { return caches[sequence].template part<i()>(); };
      using OfHalf = Caches<typename Mixer::Cache>;
      const OfHalf of_half = caches ? OfHalf(cache_of) : OfHalf();
      Norm::forward(device, weights.mixer_norm[i], in, normed, epsilon);
      Mixer::forward(pass, weights.mixer[i], of_half, normed, middle, keep != nullptr ? &keep->mixer[i] : nullptr);
      add(device, middle, in);
      Norm::forward(device, weights.feed_forward_norm[i], middle, normed, epsilon);
      if constexpr (i() == 0)
        FeedForward::forward(pass, weights.feed_forward, normed, from_experts,
                             part_of(keep, &Saved<Real>::feed_forward));
      Dense::forward(pass, weights.dense[i], normed, out, keep != nullptr ? &keep->dense[i] : nullptr);
      add(device, out, middle);
    };
    half(std::integral_constant<std::size_t, 0>{}, x, saved.between);
    half(std::integral_constant<std::size_t, 1>{}, saved.between, y);
    add(device, y, from_experts);
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
    const auto normed = scratch.template take<Real>(x.rows, hidden),
               dnormed = scratch.template take<Real>(x.rows, hidden);
    const auto dexperts = scratch.template take<Real>(x.rows, hidden),
               dmiddle = scratch.template take<Real>(x.rows, hidden);
    const auto half = [&](std::size_t i, DeviceView<const Real, 2> in, DeviceView<const Real, 2> dout,
                          DeviceView<Real, 2> din) {
      Norm::forward(device, weights.feed_forward_norm[i], saved.middle[i], normed, epsilon);
      Dense::backward(pass, weights.dense[i], normed, saved.dense[i], dout, dnormed, gradients.dense[i]);
      if (i == 0) {
        FeedForward::backward(pass, weights.feed_forward, normed, saved.feed_forward, dy, dexperts,
                              gradients.feed_forward);
        add(device, dnormed, dexperts);
      }
      Norm::backward(device, weights.feed_forward_norm[i], saved.middle[i], dnormed, dmiddle,
                     gradients.feed_forward_norm[i], epsilon, dout);
      Norm::forward(device, weights.mixer_norm[i], in, normed, epsilon);
      Mixer::backward(pass, weights.mixer[i], normed, saved.mixer[i], dmiddle, dnormed, gradients.mixer[i]);
      Norm::backward(device, weights.mixer_norm[i], in, dnormed, din, gradients.mixer_norm[i], epsilon, dmiddle);
    };
    const auto dbetween = scratch.template take<Real>(x.rows, hidden);
    half(1, saved.between, dy, dbetween);
    half(0, x, dbetween, dx);
  }
};

}  // namespace v1
}  // namespace guild
