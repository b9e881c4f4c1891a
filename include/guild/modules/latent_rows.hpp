// The rows of latent attention between its projections and its softmax: those of the tokens, or others for keys of a
// kind that says so, as merged ones do (running_latents.hpp). Shapes: T tokens of a pass, C latent rank, R rope
// dimensions.
#pragma once

#include <array>

#include <guild/device/staged.hpp>
#include <guild/device/tuning.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/key_choice.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/weighted_keys.hpp>

namespace guild {
inline namespace v1 {

/// Of keys that are not merged: each token's own.
template <class Attention, class Keys>
struct LatentRows {
  template <class Real>
  struct Saved {};

  template <class Device, class Real>
  struct OfPass {
    DeviceView<Real, 2> latents;  ///< [T, C]
    template <class Cache, class Kept, class RoomOf>
    OfPass(const Pass<Device>&, Caches<Cache>, DeviceView<Real, 2> normed, Kept&, RoomOf&) : latents(normed) {}

    /// Appends the pass to the caches, shared keys [T, R] rotated, and calls attend(pass over some chunks, their
    /// AttendedRows, KeyChoice, form) until all tokens have attended.
    template <class Cache, class RoomOf, class Attend>
    void attend_to_caches(const Pass<Device>& pass, Caches<Cache> caches, DeviceView<const float, 2> shared,
                          DeviceView<const float, 2> key_bias, RoomOf& room, Attend&& attend) const {
      Staged<Device, AttendedRows<typename Cache::Element>> seen(pass.device, pass.batch.chunk_count());
      append_attended(pass, caches, std::array<DeviceView<const float, 2>, 2>{latents, shared}, key_bias, room, seen);
      attend(pass, seen.ready(), KeyChoice{}, LatentForm::automatic);
    }
  };
  template <class... A>
  static void merge_again(A&&...) {}
  template <class... A>
  static void backward(A&&...) {}
};

}  // namespace v1
}  // namespace guild
