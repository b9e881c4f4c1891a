// A pass over caches whose keys are merged: its rows are appended, and its tokens attend to them. Shapes: T tokens of a
// pass, C latent rank, R rope dimensions.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <utility>

#include <guild/device/staged.hpp>
#include <guild/device/transfer.hpp>
#include <guild/device/tuning.hpp>
#include <guild/modules/append_rows.hpp>
#include <guild/modules/cached_rows.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/key_choice.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/running_rows.hpp>
#include <guild/modules/weighted_keys.hpp>
#include <guild/ops/common/copy_rows.hpp>
#include <guild/ops/merge/group_keys.hpp>

namespace guild {
inline namespace v1 {

/// Of the rows of one pass, and the caches that they belong to. `Keys` are merged ones.
template <class Keys, class Device, class Cache>
struct RunningAttention {
  using Element = typename Cache::Element;
  using Floats = DeviceView<const float, 2>;
  const Pass<Device>& pass;
  Caches<Cache> caches;
  const RunningRows<Keys, Device, float>& rows;
  Floats shared;  ///< [T, R]: running means of shared keys, rotated

  /// Appends the pass to the caches. The row of the group before is written again: going back leaves it as it was
  /// later.
  template <class RoomOf>
  void append(RoomOf& room) const {
    using Means = typename Cache::Means;
    const auto means_of = [&](int sequence) -> Means& { return caches[sequence].means; };
    Staged<Device, CachedRows<const float>> seen(pass.device, pass.batch.chunk_count());
    if constexpr (Cache::measures)
      append_rows(pass, Caches<Means>(means_of), std::array<Floats, 4>{rows.latents, shared, rows.keys, rows.own}, room,
                  seen);
    else
      append_rows(pass, Caches<Means>(means_of), std::array<Floats, 3>{rows.latents, shared, rows.keys}, room, seen);

    const Index tokens = rows.latents.rows, chunks = pass.batch.chunk_count();
    Staged<Device, CopyRowsJob<float, Element>> copies(pass.device, 2 * tokens + chunks);
    Staged<Device, CopyRowsJob<float, float>> biases(pass.device, tokens + chunks);
    for (Index i = 0; i < chunks; ++i) {
      const Chunk& chunk = pass.batch.chunks[static_cast<std::size_t>(i)];
      if (chunk.count == 0) continue;
      Cache& cache = caches[chunk.sequence];
      const Index end = chunk.begin + chunk.count, more = groups_of(chunk) - cache.groups();
      (void)cache.rows.append(more);
      (void)cache.biases.append(more);
      const auto write = [&](Index group, Index column, Floats from) {
        const auto to = cache.rows.rows().middle_rows(group, from.rows).middle_cols(column, from.cols);
        copies.add(copy_of(from, to));
      };
      const auto weigh = [&](Index group, Floats from) {
        biases.add(copy_of(from, cache.biases.rows().middle_rows(group, from.rows)));
      };
      if (const Index group = rows.plan.group(chunk.begin) - 1; rows.plan.follows_a_group(chunk)) {
        write(group, 0, rows.before.middle_rows(i, 1).middle_cols(0, Cache::width));
        weigh(group, rows.logs.middle_rows(tokens + i, 1));
      }
      for (Index row = chunk.begin, count = 1; row < end; row += count, count = 1) {
        if (!rows.plan.is_last(chunk, row)) continue;
        while (row + count < end && rows.plan.is_last(chunk, row + count)) ++count;  // groups side by side
        const Index group = rows.plan.group(row);
        write(group, 0, rows.latents.middle_rows(row, count));
        write(group, Cache::latent, shared.middle_rows(row, count));
        weigh(group, rows.logs.middle_rows(row, count));
      }
    }
    copy_rows(pass.device, copies.ready());
    copy_rows(pass.device, biases.ready());
  }

  /// Calls to(pass over some chunks, their AttendedRows, KeyChoice, form) until all tokens have attended; positions in
  /// these chunks count rows. Where no token is folded into one of the pass, a chunk sees rows of the cache, as one of
  /// unmerged keys does. Another one sees a row of each of its tokens, behind those of the groups before. The expanded
  /// form adds keys up in tiles of rows, and runs as long as these are those of positions: behind merged tokens a chunk
  /// runs absorbed. So a token has the same bits in any split that runs in one form.
  template <class RoomOf, class To>
  void attend(RoomOf& room, To&& to) const {
    Device& device = pass.device;
    const Index tokens = rows.latents.rows, chunks = pass.batch.chunk_count();
    Part all_rows(device, chunks), listed(device, chunks), all_rows_later(device, chunks), listed_later(device, chunks);
    Staged<Device, std::int32_t> ends(device, tokens), sees(device, tokens);
    Staged<Device, ListGroupKeysJob> lists(device, chunks);
    Staged<Device, CopyRowsJob<Element, Element>> earlier(device, chunks);
    Staged<Device, CopyRowsJob<float, Element>> fresh(device, 2 * chunks);
    Staged<Device, CopyRowsJob<float, float>> biases(device, 2 * chunks);
    Index most = 0;
    for (const Chunk& chunk : pass.batch.chunks) {
      for (Index row = chunk.begin; row < chunk.begin + chunk.count; ++row) {
        sees.add(static_cast<std::int32_t>(rows.plan.group(row) + 1));
        if (rows.plan.is_last(chunk, row)) ends.add(static_cast<std::int32_t>(row - chunk.begin));
      }
      if (rows.plan.folds(chunk)) most = std::max(most, groups_of(chunk));
    }
    const KeyChoice choice{room.template take<std::int32_t>(tokens, most), room.template take<std::int32_t>(tokens),
                           true};
    const DeviceView<const std::int32_t> seen = upload(device, sees.ready(), room);
    DeviceView<const std::int32_t> rest = upload(device, ends.ready(), room);
    for (const Chunk& chunk : pass.batch.chunks) {
      if (chunk.count == 0) continue;
      Cache& cache = caches[chunk.sequence];
      const DeviceView<const Element, 2> cached = std::as_const(cache.rows).rows();
      const Floats bias = std::as_const(cache.biases).rows();
      const Index first = rows.plan.group(chunk.begin), groups = groups_of(chunk) - first;
      const Chunk by_rows{chunk.sequence, chunk.begin, chunk.count, first};
      const bool by_position = first == chunk.first_position;
      if (!rows.plan.folds(chunk)) {
        (by_position ? all_rows : all_rows_later).add(by_rows, {{cached}, bias});
      } else {
        const auto all = room.template take<Element>(first + chunk.count, Cache::width);
        const auto all_biases = room.template take<float>(first + chunk.count, 1);
        const auto of_chunk = [&](Floats of) { return of.middle_rows(chunk.begin, chunk.count); };
        const auto own = all.middle_rows(first, chunk.count);
        earlier.add(copy_of(cached.middle_rows(0, first), all.middle_rows(0, first)));
        fresh.add(copy_of(of_chunk(rows.latents), own.middle_cols(0, Cache::latent)));
        fresh.add(copy_of(of_chunk(shared), own.middle_cols(Cache::latent, Cache::rotary)));
        biases.add(copy_of(bias.middle_rows(0, first), all_biases.middle_rows(0, first)));
        biases.add(copy_of(of_chunk(rows.logs), all_biases.middle_rows(first, chunk.count)));
        const KeyChoice of = choice.rows(chunk);
        lists.add({.before = first,
                   .ends = rest.slice(0, groups),
                   .sees = seen.slice(chunk.begin, chunk.count),
                   .chosen = of.chosen,
                   .counts = of.counts});
        (by_position ? listed : listed_later).add(by_rows, {{all}, all_biases});
      }
      rest = rest.slice(groups, rest.size - groups);
    }
    copy_rows(device, earlier.ready());
    copy_rows(device, fresh.ready());
    copy_rows(device, biases.ready());
    list_group_keys(device, lists.ready());
    all_rows.attend(pass, to, {}, LatentForm::automatic);
    listed.attend(pass, to, choice, LatentForm::automatic);
    all_rows_later.attend(pass, to, {}, LatentForm::absorbed);
    listed_later.attend(pass, to, choice, LatentForm::absorbed);
  }

 private:
  /// Some chunks of the pass, and the rows that their tokens attend to.
  struct Part {
    Staged<Device, Chunk> chunks;
    Staged<Device, AttendedRows<Element>> seen;
    Part(Device& device, Index most) : chunks(device, most), seen(device, most) {}
    void add(const Chunk& chunk, const AttendedRows<Element>& of_chunk) { chunks.add(chunk), seen.add(of_chunk); }
    template <class To>
    void attend(Pass<Device> some, To&& to, const KeyChoice& choice, LatentForm form) const {
      if (chunks.size() == 0) return;
      some.batch.chunks = chunks.ready();
      to(some, seen.ready(), choice, form);
    }
  };

  /// Groups of a chunk's sequence once the pass is appended.
  [[nodiscard]] Index groups_of(const Chunk& chunk) const {
    return chunk.count == 0 ? 0 : rows.plan.group(chunk.begin + chunk.count - 1) + 1;
  }
};

}  // namespace v1
}  // namespace guild
