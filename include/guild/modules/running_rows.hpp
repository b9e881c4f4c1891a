// The rows that latent attention merges, before shared keys are rotated: running means of latents after their norm and
// of shared keys. Keys and values of all heads are linear in both. Shapes: T tokens of a pass, C latent rank, R rope
// dimensions.
#pragma once

#include <cstdint>
#include <type_traits>
#include <utility>

#include <guild/core/refuse.hpp>
#include <guild/device/staged.hpp>
#include <guild/device/transfer.hpp>
#include <guild/modules/cached_rows.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/key_choice.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/running_plan.hpp>
#include <guild/ops/common/copy_rows.hpp>
#include <guild/ops/merge/group_keys.hpp>
#include <guild/ops/merge/log_masses.hpp>
#include <guild/ops/merge/novelty.hpp>
#include <guild/ops/merge/running_means.hpp>

namespace guild {
inline namespace v1 {

/// Of the tokens of one pass: the plan, and what was made by it. `Keys` are merged ones.
template <class Keys, class Device, class Real>
class RunningRows {
  using Policy = typename Keys::Merging;
  static constexpr bool measures = Keys::measures;
  static constexpr Index latent = Keys::latent;

 public:
  /// normed [T, C]. Folds the shared keys in kept.latents too, and says what the tokens see of the pass alone. Throws
  /// op_argument for a pass whose tokens see later ones.
  template <class Cache, class Kept, class RoomOf>
  RunningRows(const Pass<Device>& pass, Caches<Cache> caches, DeviceView<Real, 2> normed, Kept& kept, RoomOf& room)
      : plan(plan_of(pass, caches, normed, room)), own(normed), latents(room.template take<Real>(normed.rows, latent)) {
    Device& device = pass.device;
    const Index tokens = normed.rows, chunks = pass.batch.chunk_count();
    const auto counts = upload(device, plan.counts(), room);
    kept.rows.counts = room.template keep<std::int32_t>(tokens);
    copy(device, DeviceView<const std::int32_t, 2>(counts.data, tokens, 1),
         DeviceView<std::int32_t, 2>(kept.rows.counts.data, tokens, 1));
    const Index width = kept.latents.cols;
    const DeviceView<Real, 2> shared = kept.latents.middle_cols(latent, width - latent);
    if (caches) before = room.template take<Real>(chunks, Cache::own_latent);
    if constexpr (std::is_same_v<Real, float>)
      if (caches) recall(pass, caches);
    Staged<Device, RunningMeansJob<Real>> jobs(device, 2 * chunks);
    for (Index i = 0; i < chunks; ++i) {
      const Chunk& chunk = pass.batch.chunks[static_cast<std::size_t>(i)];
      const auto add = [&](DeviceView<Real, 2> x, DeviceView<Real, 2> z, Index column) {
        const DeviceView<Real, 2> earlier =
            caches ? before.middle_rows(i, 1).middle_cols(column, z.cols) : DeviceView<Real, 2>{};
        jobs.add({.x = x.middle_rows(chunk.begin, chunk.count),
                  .counts = counts.slice(chunk.begin, chunk.count),
                  .before = earlier,
                  .z = z.middle_rows(chunk.begin, chunk.count)});
      };
      add(normed, latents, 0);
      add(shared, shared, width);
    }
    running_means(device, jobs.ready());
    kept.chosen = {};  // of an earlier pass
    if (!caches && !plan.merges()) return;
    logs = room.template keep<Real>(tokens + chunks, 1);
    log_masses(device, upload(device, plan.masses(), room), logs);
    kept.branches.key_bias = logs.middle_rows(0, tokens);
    if (caches) {
      keys = room.template take<Real>(tokens, shared.cols);
      copy(device, DeviceView<const Real, 2>(shared), keys);
    } else {
      kept.chosen = mark(pass, counts, room);
    }
  }

  RunningPlan<Device> plan;
  DeviceView<Real, 2> own;       ///< [T, C]: normed latents
  DeviceView<Real, 2> latents;   ///< [T, C]: their running means
  DeviceView<Real, 2> keys{};    ///< [T, R], over caches: those of shared keys, not rotated
  DeviceView<Real, 2> before{};  ///< [chunks, ..], over caches: what the ring holds of the token before each chunk
  DeviceView<Real, 2> logs{};    ///< [T + chunks, 1]: logarithms of the plan's masses

 private:
  template <class T>
  static void copy(Device& device, DeviceView<const T, 2> from, DeviceView<T, 2> to) {
    Staged<Device, CopyRowsJob<T, T>> jobs(device, 1);
    jobs.add(copy_of(from, to));
    copy_rows(device, jobs.ready());
  }

  template <class Cache, class RoomOf>
  static RunningPlan<Device> plan_of(const Pass<Device>& pass, Caches<Cache> caches, DeviceView<const Real, 2> normed,
                                     RoomOf& room) {
    using States = typename Cache::States;
    if (pass.mask != AttentionMask::causal)
      detail::refuse(ErrorCode::op_argument, "a running mean is of the tokens up to one's own", "Pass::mask");
    const auto novelty = room.template take<Real>(measures ? normed.rows : 0);
    if constexpr (measures) measure(pass, caches, normed, novelty);
    const Download measured(pass.device, novelty);
    const double strength = detail::strength_of(pass.merging);
    const Real threshold = Real(strength) * Real(Policy::threshold);
    const auto wants = [&](Index row) { return !measures || measured.view()[row] >= threshold; };
    const auto states_of = [&](int sequence) -> States& { return caches[sequence].states; };
    return RunningPlan<Device>(pass.device, typename Policy::Budget{}, pass.batch, wants,
                               caches ? Caches<States>(states_of) : Caches<States>{}, strength == 1.0);
  }
  /// The novelty of each token [T]: of the first one of a chunk beside the token that the ring holds.
  template <class Cache>
  static void measure(const Pass<Device>& pass, Caches<Cache> caches, DeviceView<const Real, 2> normed,
                      DeviceView<Real> novelty_t) {
    Staged<Device, NoveltyJob<Real>> jobs(pass.device, 2 * pass.batch.chunk_count());
    for (const Chunk& chunk : pass.batch.chunks) {
      if (chunk.count == 0) continue;
      const auto rows = normed.middle_rows(chunk.begin, chunk.count);
      const auto p = novelty_t.slice(chunk.begin, chunk.count);
      const Index earlier = caches && chunk.first_position > 0 ? 1 : 0;
      if constexpr (std::is_same_v<Real, float>)
        if (earlier > 0) {
          const CachedRows<const float> ring = std::as_const(caches[chunk.sequence].means).rows();
          jobs.add({.q = rows.middle_rows(0, 1),
                    .keys = ring.rows.middle_cols(Cache::own_latent, latent),
                    .first = chunk.first_position,
                    .p = p.slice(0, 1),
                    .ring = ring.ring});
        }
      jobs.add({.q = rows.middle_rows(earlier, chunk.count - earlier),
                .keys = rows,
                .first = earlier,
                .p = p.slice(earlier, chunk.count - earlier)});
    }
    novelty(pass.device, jobs.ready());
  }
  /// What the rings hold of the token before each chunk.
  template <class Cache>
  void recall(const Pass<Device>& pass, Caches<Cache> caches) const {
    Staged<Device, CopyRowsJob<float, float>> jobs(pass.device, before.rows);
    for (Index i = 0; i < before.rows; ++i) {
      const Chunk& chunk = pass.batch.chunks[static_cast<std::size_t>(i)];
      if (chunk.count == 0 || chunk.first_position == 0) continue;
      const CachedRows<const float> ring = std::as_const(caches[chunk.sequence].means).rows();
      const Index row = ring.ring.row_of(chunk.first_position - 1);
      jobs.add(copy_of(ring.rows.middle_rows(row, 1).middle_cols(0, before.cols), before.middle_rows(i, 1)));
    }
    copy_rows(pass.device, jobs.ready());
  }
  /// What the tokens of whole sequences see of them, as ChosenBits.
  template <class RoomOf>
  static DeviceView<std::uint32_t> mark(const Pass<Device>& pass, DeviceView<const std::int32_t> counts, RoomOf& room) {
    const auto all = room.template keep<std::uint32_t>(ChosenBits::words(pass.batch, 0));
    ChosenBits bits(all, 0);
    Staged<Device, MarkGroupKeysJob> jobs(pass.device, pass.batch.chunk_count());
    for (const Chunk& chunk : pass.batch.chunks)
      jobs.add({.counts = counts.slice(chunk.begin, chunk.count), .bits = bits.next(chunk)});
    mark_group_keys(pass.device, jobs.ready());
    return all;
  }
};

}  // namespace v1
}  // namespace guild
