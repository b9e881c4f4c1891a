// Layers that run on a number of learned slots, whatever the length of a sequence: each slot is a soft mean of all
// tokens (PatchMerger, arXiv 2202.12015), and tokens take back what its layers added (Soft MoE, arXiv 2308.00951). For
// models that see whole sequences: masked language models.
//
//   template <class S>
//   using Span = LearnedSlots<Segment<typename S::template DenseLayer<S>, 4>, S, 64>;
//
// Shapes: T tokens of a pass, D hidden, M slots a sequence, N of all sequences.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <guild/core/config.hpp>
#include <guild/device/staged.hpp>
#include <guild/device/transfer.hpp>
#include <guild/modules/batch.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/layer_stack.hpp>
#include <guild/modules/linear.hpp>
#include <guild/modules/match_span.hpp>
#include <guild/modules/merging_options.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/slot_masses.hpp>
#include <guild/modules/slot_plan.hpp>
#include <guild/modules/takes_slots.hpp>
#include <guild/ops/common/add.hpp>
#include <guild/ops/merge/learned_slots.hpp>
#include <guild/ops/norm/rms_norm.hpp>

namespace guild {
inline namespace v1 {

/// A LayerStack of the usual width whose layers see M slots of each sequence that has tokens. With n(x) the rows at
/// unit root mean square and l = n(x) W^T the logits [n, M] of a sequence:
///   slots = softmax over tokens(l + log mass)^T x, y = x + softmax over slots(l) (layers(slots) - slots).
/// Every slot sees every token, so passes are bidirectional and have no caches; others are refused. A slot stands for
/// no tokens of its own: inside, positions are 0 to M - 1, ids 0, masses 1. Spans nest.
template <class LayersType, class S, Index M>
struct LearnedSlots {
  static_assert(LayerStack<LayersType>,
                "LearnedSlots: takes a Segment, a Stack, a Repeat or another LayerStack, see "
                "guild/modules/layer_stack.hpp; a single layer is Segment<Layer, 1>");
  static_assert(M > 0, "LearnedSlots: M must be positive: layers that see no slot have nothing to add");
  static_assert(LayersType::layers > 0, "LearnedSlots: a span of no layers merges for nothing");
  static_assert(detail::takes_slots<LayersType>,
                "LearnedSlots: attention inside a span is Mla or Gqa, or Weighted of them; a kind of your own that may "
                "run on slots says static constexpr bool takes_slots = true");
  static_assert(detail::first_choice<LayersType> == detail::FirstChoice::none,
                "LearnedSlots: an index chooses among earlier tokens, and slots have none");
  using Layers = LayersType;
  using LastLayer = typename Layers::LastLayer;
  static constexpr int layers = Layers::layers;
  static constexpr bool merges_tokens = true;
  static constexpr Index width = S::config.hidden, slots = M;
  static_assert(detail::takes_rows_of<Layers>(width),
                "LearnedSlots: its layers take rows of another width than hidden");
  using Cache = typename Layers::Cache;
  using Logits = Linear<M, width>;

  template <class Store>
  struct Weights {
    typename Layers::template Weights<Store> layers;
    typename Logits::template Weights<Store> logits;  ///< W
  };

  static constexpr Index spans_at_front = 1 + detail::spans_at_front<Layers>;  ///< that begin with its first layer

  /// Paths as those of a MergeSpan.
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, Index first_layer, W&... weights) {
    detail::at_path_of_span(path, first_layer, spans_at_front, [&](const Path& own) {
      Logits::visit(visitor, own / "slots", weights.logits...);
      Layers::visit(visitor, path, first_layer, weights.layers...);
    });
  }

  template <class Real>
  struct Saved {
    typename Layers::template Saved<Real> layers;
    DeviceView<Real, 2> x;                  ///< [T, D]
    DeviceView<Real, 2> dispatch, combine;  ///< [T, M]: weights of the two softmaxes
    DeviceView<Real, 2> slots;              ///< [N, D]
    DeviceView<Real, 2> made;               ///< [N, D]: what the inner layers made of them
  };

  /// y [T, D] = all layers of x. What is kept refers to x, which must stay then; otherwise y may be x.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, Caches<Cache> caches,
                      DeviceView<Real, 2> x, DeviceView<Real, 2> y, Saved<std::type_identity_t<Real>>* keep = nullptr) {
    detail::require_whole_sight(pass, static_cast<bool>(caches), "LearnedSlots");
    check_masses(pass);
    check_whole(pass.batch);
    Device& device = pass.device;
    Saved<Real> here;
    Saved<Real>& saved = keep != nullptr ? *keep : here;
    auto room = pass.room(keep);
    const SlotBatch<Device> of(pass, room);
    saved.x = x;
    saved.dispatch = room.template keep<Real>(x.rows, M);
    saved.combine = room.template keep<Real>(x.rows, M);
    saved.slots = room.template keep<Real>(of.size(), width);
    saved.made = room.template keep<Real>(of.size(), width);
    const auto normed = room.template take<Real>(x.rows, width), logits = room.template take<Real>(x.rows, M);
    rms_norm<NormGain::one>(device, {}, x, normed, epsilon);
    Logits::forward(device, weights.logits, normed, logits);
    const DeviceView<const Real, 2> masses = detail::column(detail::masses_of<Real>(pass, room));
    {
      Staged<Device, DispatchSlotsJob<Real>> jobs(device, pass.batch.chunk_count());
      for (std::size_t i = 0; i < pass.batch.chunks.size(); ++i) {
        const Chunk& chunk = pass.batch.chunks[i];
        if (chunk.count == 0) continue;
        jobs.add({.logits = detail::rows_of(logits, chunk),
                  .masses = detail::some_rows(masses, chunk),
                  .x = detail::rows_of(x, chunk),
                  .dispatch = detail::rows_of(saved.dispatch, chunk),
                  .z = detail::rows_of(saved.slots, of.chunk(i))});
      }
      dispatch_slots(device, jobs.ready());
    }
    Layers::forward(of.over_slots(pass), weights.layers, {}, saved.slots, saved.made,
                    keep != nullptr ? &keep->layers : nullptr);
    Staged<Device, CombineSlotsJob<Real>> jobs(device, pass.batch.chunk_count());
    for (std::size_t i = 0; i < pass.batch.chunks.size(); ++i) {
      const Chunk& chunk = pass.batch.chunks[i];
      if (chunk.count == 0) continue;
      jobs.add({.logits = detail::rows_of(logits, chunk),
                .x = detail::rows_of(x, chunk),
                .made = detail::rows_of(saved.made, of.chunk(i)),
                .z = detail::rows_of(saved.slots, of.chunk(i)),
                .combine = detail::rows_of(saved.combine, chunk),
                .y = detail::rows_of(y, chunk)});
    }
    combine_slots(device, jobs.ready());
  }

  /// dx [T, D]: on entry the gradient of forward's y, afterwards that of its x. `saved` is used up.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights, Saved<Real>& saved,
                       DeviceView<Real, 2> dx, Weights<Gradients>& gradients) {
    Device& device = pass.device;
    auto scratch = device.scratch();
    const SlotBatch<Device> of(pass, scratch);
    const auto dmade = scratch.template take<Real>(of.size(), width);
    const auto dslots = scratch.template take<Real>(of.size(), width);
    const auto dlogits = scratch.template take<Real>(dx.rows, M);
    const auto normed = scratch.template take<Real>(dx.rows, width);
    const auto dnormed = scratch.template take<Real>(dx.rows, width);
    {
      Staged<Device, CombineSlotsGradientJob<Real>> jobs(device, pass.batch.chunk_count());
      for (std::size_t i = 0; i < pass.batch.chunks.size(); ++i)
        jobs.add({.combine = detail::rows_of(saved.combine, pass.batch.chunks[i]),
                  .dy = detail::rows_of(dx, pass.batch.chunks[i]),
                  .dmade = detail::rows_of(dmade, of.chunk(i)),
                  .dz = detail::rows_of(dslots, of.chunk(i))});
      combine_slots_backward(device, jobs.ready());
    }
    detail::count_slots(pass, dx.rows, std::min(of.size(), dx.rows));
    Layers::backward(of.over_slots(pass), weights.layers, saved.layers, dmade, gradients.layers);
    add(device, dslots, dmade);
    {
      Staged<Device, LearnedSlotsGradientJob<Real>> jobs(device, pass.batch.chunk_count());
      for (std::size_t i = 0; i < pass.batch.chunks.size(); ++i) {
        const Chunk &chunk = pass.batch.chunks[i], &to = of.chunk(i);
        jobs.add({.x = detail::rows_of(saved.x, chunk),
                  .dispatch = detail::rows_of(saved.dispatch, chunk),
                  .combine = detail::rows_of(saved.combine, chunk),
                  .z = detail::rows_of(saved.slots, to),
                  .dz = detail::rows_of(dslots, to),
                  .made = detail::rows_of(saved.made, to),
                  .dy = detail::rows_of(dx, chunk),
                  .dx = detail::rows_of(dx, chunk),
                  .dlogits = detail::rows_of(dlogits, chunk)});
      }
      learned_slots_backward(device, jobs.ready());
    }
    rms_norm<NormGain::one>(device, {}, saved.x, normed, epsilon);
    Logits::backward(device, weights.logits, normed, dlogits, dnormed, gradients.logits);
    rms_norm_backward<NormGain::one>(device, {}, saved.x, dnormed, dnormed, {}, epsilon);
    add(device, dx, dnormed);
  }

 private:
  static constexpr double epsilon = S::config.norm.epsilon;

  /// The slots of a pass as a batch.
  template <class Device>
  class SlotBatch {
   public:
    template <class Memory>
    SlotBatch(const Pass<Device>& pass, Memory& memory)
        : chunks_(pass.device, pass.batch.chunk_count()),
          offsets_(pass.device, pass.batch.chunk_count() + 1),
          positions_(pass.device, M * pass.batch.chunk_count()) {
      for (const Chunk& chunk : pass.batch.chunks) {
        const Index count = chunk.count > 0 ? M : 0;
        offsets_.add(size());
        chunks_.add({chunk.sequence, size(), count, 0});
        for (Index j = 0; j < count; ++j) positions_.add(static_cast<std::int32_t>(j));
      }
      offsets_.add(size());
      batch_ = {zeros<std::int32_t>(pass.device, size(), memory), upload(pass.device, positions_.ready(), memory),
                chunks_.ready()};
    }
    [[nodiscard]] Index size() const { return positions_.size(); }
    [[nodiscard]] const Chunk& chunk(std::size_t i) const { return chunks_.ready()[i]; }
    [[nodiscard]] Pass<Device> over_slots(const Pass<Device>& pass) const {
      return detail::pass_over_slots(pass, batch_, {}, offsets_.ready());
    }

   private:
    Staged<Device, Chunk> chunks_;
    Staged<Device, Index> offsets_;
    Staged<Device, std::int32_t> positions_;
    Batch batch_{};
  };
};

}  // namespace v1
}  // namespace guild
