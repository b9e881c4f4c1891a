// Layers that run on merged tokens: tokens become slots before them and are tokens again behind them.
//
//   template <class S>
//   using Span = MergeSpan<Segment<ExpertLayer<S>, 53>, SoftTokenMerging<S>, TokenInflation<S>>;
//   template <class S>
//   using Layers = Stack<Segment<DenseLayer<S>, 4>, Span<S>, Segment<ExpertLayer<S>, 4>>;
//
// Shapes: T tokens of a pass, D hidden, M slots that the pass closes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>

#include <guild/core/refuse.hpp>
#include <guild/device/staged.hpp>
#include <guild/device/transfer.hpp>
#include <guild/modules/append_rows.hpp>
#include <guild/modules/batch.hpp>
#include <guild/modules/cached_rows.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/layer_stack.hpp>
#include <guild/modules/merge_cache.hpp>
#include <guild/modules/merging_options.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/slot_inflation.hpp>
#include <guild/modules/slot_masses.hpp>
#include <guild/modules/slot_plan.hpp>
#include <guild/modules/soft_token_merging.hpp>
#include <guild/modules/takes_slots.hpp>
#include <guild/modules/token_inflation.hpp>
#include <guild/modules/whole_slots.hpp>
#include <guild/ops/merge/pool_groups.hpp>
#include <guild/ops/merge/smooth_slots.hpp>

namespace guild {
inline namespace v1 {

/// A LayerStack of the usual width whose layers see fewer rows: `Merging` is a SoftTokenMerging, `Inflation` a
/// TokenInflation. Inside, windows and caches count slots, a slot has the position of its last token, or another
/// of the policy, and says its mass by Pass::masses, and its experts are routed once. Where no token is merged, the
/// layers' results have the same bits as without a span, unless inflation gives whole slots. Spans nest.
template <class LayersType, class Merging, class Inflation>
struct MergeSpan {
  static_assert(LayerStack<LayersType>,
                "MergeSpan: takes a Segment, a Stack, a Repeat or another LayerStack, see "
                "guild/modules/layer_stack.hpp; a single layer is Segment<Layer, 1>");
  static_assert(sizeof(detail::LayersOfSlots<LayersType, typename Merging::Policy>) > 0);
  static_assert(LayersType::layers > 0, "MergeSpan: a span of no layers merges for nothing");
  using Layers = LayersType;
  using LastLayer = typename Layers::LastLayer;
  using Policy = typename Merging::Policy;
  static constexpr int layers = Layers::layers;
  static constexpr bool merges_tokens = true;
  static constexpr Index width = Merging::hidden;
  static_assert(detail::takes_rows_of<Layers>(width), "MergeSpan: its layers take rows of another width than hidden");
  static_assert(!WindowBudget<typename Policy::Budget> ||
                    (!Inflation::Policy::smooths && !Inflation::Policy::confidence),
                "MergeSpan: slots of a window have no tokens of their own whose novelty counts: its inflation says "
                "smooths = false and confidence = false, as CopyUnmerge");
  static_assert(Inflation::hidden == width, "MergeSpan: merging and inflation were made for models of other widths");
  using Cache = MergeCache<Merging, typename Layers::Cache>;
  template <class Device>
  using Plan = SlotPlan<Device, Policy>;
  using Slots = SlotInflation<Inflation>;
  using Whole = WholeSlots<Inflation>;

  template <class Store>
  struct Weights {
    typename Layers::template Weights<Store> layers;
    typename Merging::template Weights<Store> merging;
    typename Inflation::template Weights<Store> inflation;
  };

  static constexpr Index spans_at_front = 1 + detail::spans_at_front<Layers>;  ///< that begin with its first layer

  /// Paths are `path / layer`, those of merging and inflation below the first one, or below its "span" and a number, 2
  /// and more, for a span around others that begin with the same layer.
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, Index first_layer, W&... weights) {
    detail::at_path_of_span(path, first_layer, spans_at_front, [&](const Path& own) {
      Merging::visit(visitor, own / "merging", weights.merging...);
      Layers::visit(visitor, path, first_layer, weights.layers...);
      Inflation::visit(visitor, own / "inflation", weights.inflation...);
    });
  }

  template <class Real>
  struct Saved {
    typename Merging::template Saved<Real> merging;
    typename Layers::template Saved<Real> layers;
    MergedTokens<Real> merged;
  };

  /// y [T, D] = all layers of x. What is kept refers to x, which must stay then; otherwise y may be x.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, Caches<Cache> caches,
                      DeviceView<Real, 2> x, DeviceView<Real, 2> y, Saved<std::type_identity_t<Real>>* keep = nullptr) {
    if (pass.mask != AttentionMask::causal)
      detail::refuse(ErrorCode::op_argument, "merging by what came before is of causal models", "Pass::mask");
    check_masses(pass);
    Saved<Real> here;
    Saved<Real>& saved = keep != nullptr ? *keep : here;
    auto room = pass.room(keep);
    saved.merged.x = x;
    Merging::project(pass, weights.merging, DeviceView<const Real, 2>(x), room, saved.merging);
    saved.merged.novelty = saved.merging.novelty;
    if (!caches)
      over_itself(pass, weights, y, saved, room, keep);
    else if constexpr (std::is_same_v<Real, float>)
      over_caches(pass, weights, caches, y, saved, room);
    else
      detail::refuse(ErrorCode::op_argument, "merging over caches is in float", "MergeSpan: caches");
  }

  /// dx [T, D]: on entry the gradient of forward's y, afterwards that of its x. `saved` is used up.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights, Saved<Real>& saved,
                       DeviceView<Real, 2> dx, Weights<Gradients>& gradients) {
    Device& device = pass.device;
    auto scratch = device.scratch();
    const Plan<Device> plan(pass, saved.merging, scratch);
    const auto dscores = scratch.template take<Real>(dx.rows, 1);
    const auto dnovelty = zeros<Real>(device, dx.rows, scratch);
    detail::add_ratio_loss<Policy>(pass, plan, DeviceView<const Real>(saved.merging.novelty), dnovelty);
    Whole::backward(pass, weights.inflation, plan, saved.merging.scores, saved.merged, dx, dscores, dnovelty,
                    gradients.inflation, [&](DeviceView<const float> masses, DeviceView<Real, 2> dmade) {
                      auto memory = device.scratch();
                      Layers::backward(plan.over_slots(pass, masses, memory), weights.layers, saved.layers, dmade,
                                       gradients.layers);
                    });
    Merging::backward(pass, weights.merging, saved.merged.x, saved.merging, dnovelty, dscores, dx, gradients.merging);
  }

 private:
  /// Whole sequences.
  template <class Device, class Store, class Real, class RoomOf>
  static void over_itself(const Pass<Device>& pass, const Weights<Store>& weights, DeviceView<Real, 2> y,
                          Saved<Real>& saved, RoomOf& room, Saved<Real>* keep) {
    check_whole(pass.batch);
    const auto chunks = pass.batch.chunks;
    const DeviceView<const Real> masses = detail::masses_of<Real>(pass, room);
    Merging::compare(pass, room, saved.merging, [&](std::size_t i) -> TokenRows<Real> {
      return {detail::rows_of(saved.merged.x, chunks[i]), detail::rows_of(saved.merging.key, chunks[i])};
    });
    Merging::score(pass, weights.merging, masses, saved.merging, room);
    const Plan<Device> plan(pass, saved.merging, room);
    Whole::forward(pass, weights.inflation, plan, saved.merging.scores, masses, saved.merged, y, room,
                   [&](DeviceView<const float> of_slots) {
                     Layers::forward(plan.over_slots(pass, of_slots, room), weights.layers, {}, saved.merged.slots,
                                     saved.merged.made, keep != nullptr ? &keep->layers : nullptr);
                   });
  }

  template <class Device, class Store, class RoomOf>
  static void over_caches(const Pass<Device>& pass, const Weights<Store>& weights, Caches<Cache> caches,
                          DeviceView<float, 2> y, Saved<float>& saved, RoomOf& room) {
    using Tokens = typename Cache::Tokens;
    using Scores = typename Cache::Scores;
    using States = typename Cache::States;
    using SlotCache = typename Cache::Slots;
    using Inner = typename Layers::Cache;
    using Columns = std::array<DeviceView<const float, 2>, 2>;
    using Seen = Staged<Device, CachedRows<const float>>;
    Device& device = pass.device;
    const Index count = pass.batch.chunk_count();
    const auto chunks = pass.batch.chunks;
    const auto tokens_of = [&](int sequence) -> Tokens& { return caches[sequence].tokens; };
    const auto scores_of = [&](int sequence) -> Scores& { return caches[sequence].scores; };
    const auto states_of = [&](int sequence) -> States& { return caches[sequence].states; };
    const auto slots_of = [&](int sequence) -> SlotCache& { return caches[sequence].slots; };
    const auto inner_of = [&](int sequence) -> Inner& { return caches[sequence].inner; };
    Seen seen(device, count), scored(device, count);
    append_rows(pass, Caches<Tokens>(tokens_of), Columns{saved.merged.x, saved.merging.key}, room, seen);
    Merging::compare(pass, room, saved.merging, [&](std::size_t i) -> TokenRows<float> {
      const CachedRows<const float>& all = seen.ready()[i];
      return {all.rows.middle_cols(0, width), all.rows.middle_cols(width, Merging::rank), chunks[i].first_position,
              all.ring};
    });
    Merging::score(pass, weights.merging, pass.masses, saved.merging, room);
    append_rows(pass, Caches<Scores>(scores_of),
                Columns{saved.merging.scores, detail::column(detail::masses_or_ones(pass, room))}, room, scored);
    const Plan<Device> plan(pass, saved.merging, room, Caches<States>(states_of));
    saved.merged.slots = room.template take<float>(plan.size(), width);
    saved.merged.masses = room.template take<float>(plan.size());
    saved.merged.made = room.template take<float>(plan.size(), width);
    saved.merged.added = room.template take<float>(plan.size(), width);
    {
      Staged<Device, PoolGroupsJob<float>> jobs(device, count);
      for (std::size_t i = 0; i < chunks.size(); ++i) {
        const Chunk &chunk = chunks[i], &of = plan.chunk(i);
        if (of.count == 0) continue;
        jobs.add({.x = seen.ready()[i].rows.middle_cols(0, width),
                  .scores = scored.ready()[i].rows.middle_cols(0, 1),
                  .masses = scored.ready()[i].rows.middle_cols(1, 1),
                  .begin = plan.first_position(of),
                  .length = chunk.first_position + chunk.count,
                  .first = detail::rows_of(plan.first, of),
                  .last = detail::rows_of(plan.last, of),
                  .marked = detail::rows_of(plan.marked, of),
                  .z = detail::rows_of(saved.merged.slots, of),
                  .mass = detail::rows_of(saved.merged.masses, of),
                  .ring = seen.ready()[i].ring});
      }
      pool_groups(device, jobs.ready());
    }
    const Pass<Device> of_slots = plan.over_slots(pass, saved.merged.masses, room);
    if (plan.size() > 0)  // where no group closes, the inner layers rest
      Layers::forward(of_slots, weights.layers, Caches<Inner>(inner_of), saved.merged.slots, saved.merged.made);
    const auto shares = Slots::shares_of(pass, plan, saved.merged, room);
    {
      Staged<Device, SmoothSlotsJob<float>> jobs(device, count);
      for (std::size_t i = 0; i < chunks.size(); ++i) {
        const Chunk& of = plan.chunk(i);
        if (of.count == 0) continue;
        const CachedRows<const float> before = std::as_const(slots_of(of.sequence)).rows();
        SmoothSlotsJob<float> job = Slots::smoothing_of(plan, saved.merged, shares, i);
        if (of.first_position > 0)
          job.before = before.rows.row(before.ring.row_of(of.first_position - 1)).slice(width, width);
        jobs.add(job);
      }
      smooth_slots(device, jobs.ready());
    }
    Seen slots(device, count);
    append_rows(of_slots, Caches<SlotCache>(slots_of), Columns{saved.merged.slots, saved.merged.added}, room, slots);
    Slots::forward(pass, weights.inflation, plan, saved.merged, y, room, [&](std::size_t i) -> SlotRows<float> {
      const Chunk& of = plan.chunk(i);
      const CachedRows<const float> all = of.count > 0 ? slots.ready()[i] : std::as_const(slots_of(of.sequence)).rows();
      return {all.rows.middle_cols(0, width), all.rows.middle_cols(width, width), all.ring};
    });
  }
};

}  // namespace v1
}  // namespace guild
