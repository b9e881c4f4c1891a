// The rows of latent attention whose keys are merged: running means of those of the tokens. Shapes: T tokens of a pass,
// C latent rank, R rope dimensions.
#pragma once

#include <cstdint>
#include <type_traits>

#include <guild/device/staged.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/latent_rows.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/running_attention.hpp>
#include <guild/modules/running_rows.hpp>
#include <guild/ops/merge/running_means.hpp>

namespace guild {
inline namespace v1 {

/// LatentRows of merged keys.
template <class Attention, class Keys>
requires MergesKeys<Keys>
struct LatentRows<Attention, Keys> {
  template <class Real>
  struct Saved {
    DeviceView<std::int32_t> counts;  ///< [T]: see RunningPlan
  };

  template <class Device, class Real>
  struct OfPass : RunningRows<Keys, Device, Real> {
    using RunningRows<Keys, Device, Real>::RunningRows;

    template <class Cache, class RoomOf, class Attend>
    void attend_to_caches(const Pass<Device>& pass, Caches<Cache> caches, DeviceView<const float, 2> shared,
                          DeviceView<const float, 2>, RoomOf& room, Attend&& attend) const {
      const RunningAttention<Keys, Device, Cache> running{pass, caches, *this, shared};
      running.append(room);
      running.attend(room, attend);
    }
  };

  /// Of a pass without caches: normed latents [T, C] become their running means.
  template <class Device, class Real>
  static void merge_again(const Pass<Device>& pass, const Saved<Real>& saved,
                          DeviceView<std::type_identity_t<Real>, 2> latents) {
    Staged<Device, RunningMeansJob<Real>> jobs(pass.device, pass.batch.chunk_count());
    for (const Chunk& chunk : pass.batch.chunks) {
      const auto rows = latents.middle_rows(chunk.begin, chunk.count);
      jobs.add({.x = rows, .counts = saved.counts.slice(chunk.begin, chunk.count), .z = rows});
    }
    running_means(pass.device, jobs.ready());
  }
  /// The gradients of running means, latents and shared keys side by side [T, C + R], become those of the tokens'. What
  /// is folded is a step function of novelty, which has none.
  template <class Device, class Real>
  static void backward(const Pass<Device>& pass, const Saved<Real>& saved,
                       DeviceView<std::type_identity_t<Real>, 2> d) {
    Staged<Device, RunningMeansGradientJob<Real>> jobs(pass.device, pass.batch.chunk_count());
    for (const Chunk& chunk : pass.batch.chunks)
      jobs.add({.counts = saved.counts.slice(chunk.begin, chunk.count), .d = d.middle_rows(chunk.begin, chunk.count)});
    running_means_backward(pass.device, jobs.ready());
  }
};

}  // namespace v1
}  // namespace guild
