// Slots on their way back to tokens: what their layers added to them, smoothed, and what each token takes of it.
// Shapes: T tokens of a pass, D hidden, M slots that the pass closes.
#pragma once

#include <cstddef>

#include <guild/core/view.hpp>
#include <guild/device/staged.hpp>
#include <guild/modules/batch.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/slot_plan.hpp>
#include <guild/modules/token_inflation.hpp>
#include <guild/ops/common/rows/fill.hpp>
#include <guild/ops/merge/inflate.hpp>
#include <guild/ops/merge/smooth_slots.hpp>

namespace guild {
inline namespace v1 {

/// Where the slots that a chunk's tokens read lie, and what was added to them.
template <class Real>
struct SlotRows {
  DeviceView<const Real, 2> slots, added;
  RingRows ring{};
};

/// Of a TokenInflation.
template <class Inflation>
struct SlotInflation {
  using Policy = typename Inflation::Policy;
  static constexpr Index width = Inflation::hidden;

  /// The weights [M] of what slots add, against what was added before.
  template <class Device, class Real, class Plan, class Memory>
  static DeviceView<Real> shares_of(const Pass<Device>& pass, const Plan& plan, const MergedTokens<Real>& merged,
                                    Memory& memory) {
    const auto shares = memory.template take<Real>(plan.size());
    if constexpr (Policy::smooths)
      smoothing_weights(pass.device, merged.novelty, plan.closing, copied(plan), shares);
    else
      for_each_row(pass.device, shares.size, 1, FillRow<Real>{detail::column(shares), Real(1)});
    return shares;
  }

  /// Smooths what the slots of chunk i give, by weights [M], as if the sequence began with them.
  template <class Plan, class Real>
  static SmoothSlotsJob<Real> smoothing_of(const Plan& plan, const MergedTokens<Real>& merged, DeviceView<Real> shares,
                                           std::size_t i) {
    const Chunk& of = plan.chunk(i);
    return {.y = detail::rows_of(merged.made, of),
            .z = taken_off(merged, of),
            .weights = detail::rows_of(shares, of),
            .d = detail::rows_of(merged.added, of)};
  }

  /// y of slots and what was added to them, those of chunk i in slots_of(i).
  template <class Device, class Store, class Real, class Plan, class Memory, class SlotsOf>
  static void forward(const Pass<Device>& pass, const typename Inflation::template Weights<Store>& weights,
                      const Plan& plan, const MergedTokens<Real>& merged, DeviceView<Real, 2> y, Memory& memory,
                      SlotsOf&& slots_of) {
    const auto made =
        Inflation::reads_lost
            ? Inflation::make(pass.device, weights, lost_of<Real>(pass, plan, merged, memory, slots_of), memory)
            : typename Inflation::template Made<Real>{};
    DeviceView<Real, 2> base = merged.x;
    if constexpr (Policy::maps_residual) {
      base = memory.template take<Real>(merged.x.rows, width);
      Inflation::Residual::forward(pass.device, weights.residual, merged.x, base);
    }
    const DeviceView<const std::int32_t> singles = copied(plan);
    Staged<Device, InflateJob<Real>> jobs(pass.device, pass.batch.chunk_count());
    for (std::size_t i = 0; i < pass.batch.chunks.size(); ++i) {
      const Chunk &chunk = pass.batch.chunks[i], &of = plan.chunk(i);
      if (chunk.count == 0) continue;
      const SlotRows<Real> from = slots_of(i);
      jobs.add({.x = detail::rows_of(base, chunk),
                .gate = detail::some_rows(made.gate, chunk),
                .details = detail::some_rows(made.detail, chunk),
                .d = from.added,
                .before = of.first_position,
                .made = detail::rows_of(merged.made, of),
                .slot = detail::rows_of(plan.slot, chunk),
                .single = detail::some_rows(singles, chunk),
                .y = detail::rows_of(y, chunk),
                .ring = from.ring});
    }
    inflate(pass.device, jobs.ready());
  }
  /// What merging lost of each token [T, D].
  template <class Real, class Device, class Plan, class Memory, class SlotsOf>
  static DeviceView<const Real, 2> lost_of(const Pass<Device>& pass, const Plan& plan, const MergedTokens<Real>& merged,
                                           Memory& memory, SlotsOf&& slots_of) {
    const DeviceView<Real, 2> loss = memory.template take<Real>(merged.x.rows, width);
    Staged<Device, LostDetailJob<Real>> jobs(pass.device, pass.batch.chunk_count());
    for (std::size_t i = 0; i < pass.batch.chunks.size(); ++i) {
      const Chunk &chunk = pass.batch.chunks[i], &of = plan.chunk(i);
      if (chunk.count == 0) continue;
      const SlotRows<Real> from = slots_of(i);
      jobs.add({.x = detail::rows_of(merged.x, chunk),
                .z = from.slots,
                .before = of.first_position,
                .length = of.first_position + of.count,
                .slot = detail::rows_of(plan.slot, chunk),
                .r = detail::rows_of(loss, chunk),
                .ring = from.ring});
    }
    lost_detail(pass.device, jobs.ready());
    return loss;
  }

  /// From dx, the gradient of y: that of x by all ways around the inner layers in dx, of what they made in dmade, of
  /// slots in dslots, and of novelty, which is added to.
  template <class Device, class Store, class Gradients, class Real, class Plan>
  static void backward(const Pass<Device>& pass, const typename Inflation::template Weights<Store>& weights,
                       const Plan& plan, const MergedTokens<Real>& merged, DeviceView<Real, 2> dx,
                       DeviceView<Real, 2> dadded, DeviceView<Real, 2> dmade, DeviceView<Real, 2> dslots,
                       DeviceView<Real> dnovelty, typename Inflation::template Weights<Gradients>& gradients) {
    Device& device = pass.device;
    auto scratch = device.scratch();
    const auto chunks = pass.batch.chunks;
    const Index count = pass.batch.chunk_count();
    const auto slots_of = [&](std::size_t i) -> SlotRows<Real> {
      return {detail::rows_of(merged.slots, plan.chunk(i)), detail::rows_of(merged.added, plan.chunk(i)), {}};
    };
    DeviceView<const Real, 2> loss{};
    typename Inflation::template Made<Real> made{};
    DeviceView<Real, 2> dgate{}, ddetail{};
    if constexpr (Inflation::reads_lost) {
      loss = lost_of<Real>(pass, plan, merged, scratch, slots_of);
      made = Inflation::make(device, weights, loss, scratch);
      if (Inflation::has_gate) dgate = scratch.template take<Real>(dx.rows, width);
      if (Inflation::has_detail) ddetail = scratch.template take<Real>(dx.rows, width);
    }
    const auto dconfidence = scratch.template take<Real>(dx.rows);
    const auto dbase = Policy::maps_residual ? scratch.template take<Real>(dx.rows, width) : dx;
    const DeviceView<const std::int32_t> singles = copied(plan);
    {
      Staged<Device, InflateGradientJob<Real>> jobs(device, count);
      for (std::size_t i = 0; i < chunks.size(); ++i) {
        const Chunk &chunk = chunks[i], &of = plan.chunk(i);
        jobs.add({.gate = detail::some_rows(made.gate, chunk),
                  .d = detail::rows_of(merged.added, of),
                  .closing = detail::rows_of(plan.closed, of),
                  .single = detail::some_rows(singles, chunk),
                  .dy = detail::rows_of(dx, chunk),
                  .dx = detail::rows_of(dbase, chunk),
                  .dgate = detail::some_rows(dgate, chunk),
                  .ddetails = detail::some_rows(ddetail, chunk),
                  .dd = detail::rows_of(dadded, of),
                  .dmade = detail::rows_of(dmade, of),
                  .dconfidence = detail::rows_of(dconfidence, chunk)});
      }
      inflate_backward(device, jobs.ready());
    }
    if constexpr (Policy::maps_residual)
      Inflation::Residual::backward(device, weights.residual, merged.x, dbase, dx, gradients.residual);
    if constexpr (Policy::confidence) confidence_backward(device, plan.closes, dconfidence, dnovelty);
    const auto shares = shares_of(pass, plan, merged, scratch);
    const auto dshares = scratch.template take<Real>(plan.size());
    {
      Staged<Device, SmoothSlotsGradientJob<Real>> jobs(device, count);
      for (std::size_t i = 0; i < chunks.size(); ++i) {
        const Chunk& of = plan.chunk(i);
        jobs.add({.y = detail::rows_of(merged.made, of),
                  .z = taken_off(merged, of),
                  .weights = detail::rows_of(shares, of),
                  .d = detail::rows_of(merged.added, of),
                  .dd = detail::rows_of(dadded, of),
                  .dy = detail::rows_of(dmade, of),
                  .dz = detail::rows_of(dslots, of),
                  .dweights = detail::rows_of(dshares, of)});
      }
      smooth_slots_backward(device, jobs.ready());
    }
    if constexpr (Policy::smooths)
      smoothing_weights_backward(device, merged.novelty, plan.closing, singles, dshares, dnovelty);
    if constexpr (Inflation::reads_lost) {
      const auto dloss = scratch.template take<Real>(dx.rows, width);
      Inflation::backward(device, weights, loss, made, dgate, ddetail, dloss, gradients);
      Staged<Device, LostDetailGradientJob<Real>> jobs(device, count);
      for (std::size_t i = 0; i < chunks.size(); ++i)
        jobs.add({.closing = detail::rows_of(plan.closed, plan.chunk(i)),
                  .dr = detail::rows_of(dloss, chunks[i]),
                  .dx = detail::rows_of(dx, chunks[i]),
                  .dz = detail::rows_of(dslots, plan.chunk(i))});
      lost_detail_backward(device, jobs.ready());
    }
  }

 private:
  /// Of each token whether it is what the layers made of it [T]; no data: none is.
  template <class Plan>
  static DeviceView<const std::int32_t> copied(const Plan& plan) {
    return Policy::whole_slots ? DeviceView<const std::int32_t>{} : plan.single;
  }
  /// What slots do not give of that which the layers made of them; no data: they give all.
  template <class Real>
  static DeviceView<Real, 2> taken_off(const MergedTokens<Real>& merged, const Chunk& of_slots) {
    return Policy::whole_slots ? DeviceView<Real, 2>{} : detail::rows_of(merged.slots, of_slots);
  }
};

}  // namespace v1
}  // namespace guild
