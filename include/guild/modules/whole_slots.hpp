// Slots of whole sequences: pooled of their tokens, run through layers, and what tokens take of them; and the way back.
// Shapes: T tokens of a pass, D hidden, M slots.
#pragma once

#include <cstddef>

#include <guild/core/view.hpp>
#include <guild/device/staged.hpp>
#include <guild/modules/batch.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/slot_inflation.hpp>
#include <guild/modules/slot_masses.hpp>
#include <guild/modules/slot_plan.hpp>
#include <guild/ops/common/add.hpp>
#include <guild/ops/merge/pool_groups.hpp>
#include <guild/ops/merge/smooth_slots.hpp>

namespace guild {
inline namespace v1 {

/// Of a TokenInflation. A plan says of slots `first` and `last`, the tokens of their groups, and `marked`, or no data.
template <class Inflation>
struct WholeSlots {
  using Slots = SlotInflation<Inflation>;
  static constexpr Index width = Inflation::hidden;

  /// y [T, D] of merged.x, whose tokens are pooled by scores [T, 1] and masses [T], or no data: 1 each. Keeps the other
  /// parts of `merged`. layers(masses [M]) makes merged.made of merged.slots.
  template <class Device, class Store, class Plan, class Real, class RoomOf, class LayersOf>
  static void forward(const Pass<Device>& pass, const typename Inflation::template Weights<Store>& weights,
                      const Plan& plan, DeviceView<Real, 2> scores, DeviceView<const Real> masses,
                      MergedTokens<Real>& merged, DeviceView<Real, 2> y, RoomOf& room, LayersOf&& layers) {
    Device& device = pass.device;
    const auto chunks = pass.batch.chunks;
    merged.slots = room.template keep<Real>(plan.size(), width);
    merged.masses = room.template keep<Real>(plan.size());
    merged.made = room.template keep<Real>(plan.size(), width);
    merged.added = room.template keep<Real>(plan.size(), width);
    {
      Staged<Device, PoolGroupsJob<Real>> jobs(device, pass.batch.chunk_count());
      for (std::size_t i = 0; i < chunks.size(); ++i) {
        const Chunk &chunk = chunks[i], &of = plan.chunk(i);
        jobs.add({.x = detail::rows_of(merged.x, chunk),
                  .scores = detail::rows_of(scores, chunk),
                  .masses = detail::some_rows(detail::column(masses), chunk),
                  .length = chunk.count,
                  .first = detail::rows_of(plan.first, of),
                  .last = detail::rows_of(plan.last, of),
                  .marked = detail::some_rows(plan.marked, of),
                  .z = detail::rows_of(merged.slots, of),
                  .mass = detail::rows_of(merged.masses, of)});
      }
      pool_groups(device, jobs.ready());
    }
    if (plan.size() > 0) layers(detail::as_float(pass, merged.masses, room));  // else the inner layers rest
    const auto shares = Slots::shares_of(pass, plan, merged, room);
    Staged<Device, SmoothSlotsJob<Real>> added(device, pass.batch.chunk_count());
    for (std::size_t i = 0; i < chunks.size(); ++i) added.add(Slots::smoothing_of(plan, merged, shares, i));
    smooth_slots(device, added.ready());
    Slots::forward(pass, weights, plan, merged, y, room, [&](std::size_t i) -> SlotRows<Real> {
      return {detail::rows_of(merged.slots, plan.chunk(i)), detail::rows_of(merged.added, plan.chunk(i)), {}};
    });
  }

  /// dx [T, D]: on entry the gradient of y, afterwards that of merged.x but for what is measured of it; dscores [T, 1]
  /// is overwritten, and to dnovelty [T] that of smoothing and confidence is added, where the policy has them.
  /// layers(masses [M], d [M, D]) turns the gradient of merged.made into that of merged.slots.
  template <class Device, class Store, class Gradients, class Plan, class Real, class LayersOf>
  static void backward(const Pass<Device>& pass, const typename Inflation::template Weights<Store>& weights,
                       const Plan& plan, DeviceView<Real, 2> scores, MergedTokens<Real>& merged, DeviceView<Real, 2> dx,
                       DeviceView<Real, 2> dscores, DeviceView<Real> dnovelty,
                       typename Inflation::template Weights<Gradients>& gradients, LayersOf&& layers) {
    Device& device = pass.device;
    auto scratch = device.scratch();
    const auto take = [&](Index rows) { return scratch.template take<Real>(rows, width); };
    // dmade: of what came out of the inner layers; dslots: of slots, by all other ways.
    const auto dadded = take(plan.size()), dmade = take(plan.size()), dslots = take(plan.size());
    const auto dpooled = take(dx.rows);
    Slots::backward(pass, weights, plan, merged, dx, dadded, dmade, dslots, dnovelty, gradients);
    if (plan.size() > 0) layers(detail::as_float(pass, merged.masses, scratch), dmade);
    add(device, dslots, dmade);
    Staged<Device, PoolGroupsGradientJob<Real>> jobs(device, pass.batch.chunk_count());
    for (std::size_t i = 0; i < pass.batch.chunks.size(); ++i) {
      const Chunk &chunk = pass.batch.chunks[i], &of = plan.chunk(i);
      jobs.add({.x = detail::rows_of(merged.x, chunk),
                .scores = detail::rows_of(scores, chunk),
                .first = detail::rows_of(plan.first, of),
                .last = detail::rows_of(plan.last, of),
                .marked = detail::some_rows(plan.marked, of),
                .z = detail::rows_of(merged.slots, of),
                .dz = detail::rows_of(dslots, of),
                .dx = detail::rows_of(dpooled, chunk),
                .da = detail::rows_of(dscores, chunk)});
    }
    pool_groups_backward(device, jobs.ready());
    add(device, dx, dpooled);
  }
};

}  // namespace v1
}  // namespace guild
