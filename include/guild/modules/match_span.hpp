// Layers that run on matched tokens: tokens that are alike, wherever they stand in their sequence, share a slot (ToMe,
// arXiv 2210.09461). For models that see whole sequences: masked language models.
//
//   template <class S>
//   using Span = MatchSpan<Segment<typename S::template DenseLayer<S>, 4>, DefaultMatching,
//                          TokenInflation<S, MatchedInflation>>;
//
// Shapes: T tokens of a pass, D hidden, M slots of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <guild/core/refuse.hpp>
#include <guild/device/staged.hpp>
#include <guild/device/transfer.hpp>
#include <guild/modules/batch.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/layer_stack.hpp>
#include <guild/modules/match_plan.hpp>
#include <guild/modules/match_policies.hpp>
#include <guild/modules/match_tokens.hpp>
#include <guild/modules/merging_options.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/slot_masses.hpp>
#include <guild/modules/slot_plan.hpp>
#include <guild/modules/takes_slots.hpp>
#include <guild/modules/token_inflation.hpp>
#include <guild/modules/whole_slots.hpp>
#include <guild/ops/common/scatter_rows.hpp>
#include <guild/ops/merge/log_masses.hpp>

namespace guild {
inline namespace v1 {

namespace detail {
/// Refuses passes that do not see whole sequences at once.
template <class Device>
void require_whole_sight(const Pass<Device>& pass, bool caches, const char* where) {
  if (pass.mask != AttentionMask::bidirectional)
    refuse(ErrorCode::op_argument,
           "a merging that is not causal in a causal model: later tokens decide which ones merge; take MergeSpan, or "
           "train with AttentionMask::bidirectional",
           where);
  if (caches)
    refuse(ErrorCode::op_argument, "whole sequences merge, and none that grow: there is no decoding from caches",
           where);
}

/// A MatchPlan's lists on the device. Tokens lie in its order, so a slot's are those from its first up to the next
/// one's: with the first for the one that `closed` it, what inflation knows of slots that were closed by a token holds
/// here too.
template <class Device, class Position>
class MatchedSlots {
 public:
  template <class Memory>
  MatchedSlots(const Pass<Device>& pass, DeviceView<const std::int32_t> into, Memory& memory)
      : tokens_(pass.device, pass.batch.tokens),
        positions_(pass.device, pass.batch.positions),
        into_(pass.device, into),
        masses_(pass.device, Position::weighs_tokens ? pass.masses : DeviceView<const float>{}),
        plan_(pass.device, pass.batch, into_.view()),
        ids_(pass.device, plan_.size()),
        places_(pass.device, plan_.size()),
        offsets_(pass.device, pass.batch.chunk_count() + 1) {
    Device& device = pass.device;
    for (const std::int32_t row : plan_.leader()) ids_.add(tokens_.view()[row]);
    for (std::size_t i = 0; i < pass.batch.chunks.size(); ++i) {
      const Chunk& of_slots = plan_.chunks()[i];
      offsets_.add(of_slots.begin);
      for (Index j = of_slots.begin; j < of_slots.begin + of_slots.count; ++j)
        places_.add(position_of(pass.batch.chunks[i].begin, static_cast<std::size_t>(j)));
    }
    offsets_.add(plan_.size());
    place = upload(device, plan_.place(), memory);
    order = upload(device, plan_.order(), memory);
    slot = upload(device, plan_.slot(), memory);
    single = upload(device, plan_.single(), memory);
    first = closed = upload(device, plan_.first(), memory);
    last = upload(device, plan_.last(), memory);
    batch_ = {upload(device, ids_.ready(), memory), upload(device, places_.ready(), memory), plan_.chunks()};
  }

  DeviceView<const std::int32_t> place, order, slot, single, first, last, closed, marked{};

  [[nodiscard]] Index size() const { return plan_.size(); }
  [[nodiscard]] const Chunk& chunk(std::size_t i) const { return plan_.chunks()[i]; }
  /// `pass` over slots of so much mass [M], which have the ids of their first tokens.
  [[nodiscard]] Pass<Device> over_slots(const Pass<Device>& pass, DeviceView<const float> masses) const {
    return pass_over_slots(pass, batch_, masses, offsets_.ready());
  }

 private:
  /// That of slot j, whose tokens' places count from `begin`.
  [[nodiscard]] std::int32_t position_of(Index begin, std::size_t j) const {
    MergeState group{};
    for (Index at = begin + plan_.first()[j]; at <= begin + plan_.last()[j]; ++at) {
      const Index row = plan_.order()[static_cast<std::size_t>(at)];
      Position::take(group, positions_.view()[row], masses_.view().size > 0 ? masses_.view()[row] : 1.0f);
      ++group.length;
    }
    return static_cast<std::int32_t>(Position::of(group));
  }

  Download<Device, std::int32_t, 1> tokens_, positions_, into_;
  Download<Device, float, 1> masses_;
  MatchPlan<Device> plan_;
  Staged<Device, std::int32_t> ids_, places_;
  Staged<Device, Index> offsets_;
  Batch batch_{};
};
}  // namespace detail

/// A LayerStack of the usual width whose layers see fewer rows: what DefaultMatching says of `MatchingType`, and a
/// TokenInflation whose policy neither smooths nor has a confidence. A slot is the mean of its tokens by mass, its
/// id and position are those of its first token (or another position of the policy), and it gives all of them what its
/// layers added:
///   y = x + (1 + tanh(gate(r))) d + detail(r), r = x - slot, d = layers(slot) - slot.
/// A token that is a slot of its own is a copy on both ways, so where none is merged the layers' results have the bits
/// that they have without a span. Which tokens merge has no gradient. Passes are bidirectional and have no caches;
/// others are refused. Spans nest, and stand beside others.
template <class LayersType, class MatchingType, class Inflation>
struct MatchSpan {
  static_assert(LayerStack<LayersType>,
                "MatchSpan: takes a Segment, a Stack, a Repeat or another LayerStack, see "
                "guild/modules/layer_stack.hpp; a single layer is Segment<Layer, 1>");
  static_assert(sizeof(detail::LayersOfSlots<LayersType, MatchingType>) > 0);
  static_assert(LayersType::layers > 0, "MatchSpan: a span of no layers merges for nothing");
  static_assert(
      !Inflation::Policy::smooths && !Inflation::Policy::confidence,
      "MatchSpan: slots of a whole sequence are neither smoothed nor weighed by novelty: derive the policy of "
      "inflation from MatchedInflation");
  using Layers = LayersType;
  using LastLayer = typename Layers::LastLayer;
  using Policy = MatchingType;
  static constexpr int layers = Layers::layers;
  static constexpr bool merges_tokens = true;
  static constexpr Index width = Inflation::hidden;
  static_assert(detail::takes_rows_of<Layers>(width), "MatchSpan: its layers take rows of another width than hidden");
  using Cache = typename Layers::Cache;
  template <class Device>
  using Plan = detail::MatchedSlots<Device, typename Policy::Position>;
  using Whole = WholeSlots<Inflation>;

  template <class Store>
  struct Weights {
    typename Layers::template Weights<Store> layers;
    typename Inflation::template Weights<Store> inflation;
  };

  static constexpr Index spans_at_front = 1 + detail::spans_at_front<Layers>;  ///< that begin with its first layer

  /// Paths as those of a MergeSpan.
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, Index first_layer, W&... weights) {
    detail::at_path_of_span(path, first_layer, spans_at_front, [&](const Path& own) {
      Layers::visit(visitor, path, first_layer, weights.layers...);
      Inflation::visit(visitor, own / "inflation", weights.inflation...);
    });
  }

  template <class Real>
  struct Saved {
    typename Layers::template Saved<Real> layers;
    MergedTokens<Real> merged;      ///< tokens in the order of the plan
    DeviceView<Real, 2> scores;     ///< [T, 1]: logarithms of their masses
    DeviceView<std::int32_t> into;  ///< [T]: see match_tokens
  };

  /// y [T, D] = all layers of x. y may be x.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, Caches<Cache> caches,
                      DeviceView<Real, 2> x, DeviceView<Real, 2> y, Saved<std::type_identity_t<Real>>* keep = nullptr) {
    detail::require_whole_sight(pass, static_cast<bool>(caches), "MatchSpan");
    check_masses(pass);
    Device& device = pass.device;
    Saved<Real> here;
    Saved<Real>& saved = keep != nullptr ? *keep : here;
    auto room = pass.room(keep);
    saved.into = room.template keep<std::int32_t>(x.rows);
    saved.merged.x = room.template keep<Real>(x.rows, width);
    saved.scores = room.template keep<Real>(x.rows, 1);
    match_tokens<Policy>(pass, DeviceView<const Real, 2>(x), saved.into);
    const Plan<Device> plan(pass, saved.into, room);
    scatter_rows(device, x, plan.place, saved.merged.x);
    const DeviceView<const Real> masses = place_masses(pass, plan, saved.scores, room);
    const auto placed = room.template take<Real>(x.rows, width);
    Whole::forward(pass, weights.inflation, plan, saved.scores, masses, saved.merged, placed, room,
                   [&](DeviceView<const float> of_slots) {
                     Layers::forward(plan.over_slots(pass, of_slots), weights.layers, {}, saved.merged.slots,
                                     saved.merged.made, keep != nullptr ? &keep->layers : nullptr);
                   });
    scatter_rows(device, placed, plan.order, y);
  }

  /// dx [T, D]: on entry the gradient of forward's y, afterwards that of its x. `saved` is used up.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights, Saved<Real>& saved,
                       DeviceView<Real, 2> dx, Weights<Gradients>& gradients) {
    Device& device = pass.device;
    auto scratch = device.scratch();
    const Plan<Device> plan(pass, saved.into, scratch);
    const auto dplaced = scratch.template take<Real>(dx.rows, width);
    const auto dscores = scratch.template take<Real>(dx.rows, 1);
    detail::count_slots(pass, dx.rows, plan.size());
    scatter_rows(device, dx, plan.place, dplaced);
    Whole::backward(pass, weights.inflation, plan, saved.scores, saved.merged, dplaced, dscores, DeviceView<Real>{},
                    gradients.inflation, [&](DeviceView<const float> masses, DeviceView<Real, 2> dmade) {
                      Layers::backward(plan.over_slots(pass, masses), weights.layers, saved.layers, dmade,
                                       gradients.layers);
                    });
    scatter_rows(device, dplaced, plan.order, dx);
  }

 private:
  /// The masses of tokens [T] in the plan's order, or no data, and their logarithms in `scores`.
  template <class Device, class Real, class RoomOf>
  static DeviceView<const Real> place_masses(const Pass<Device>& pass, const Plan<Device>& plan,
                                             DeviceView<Real, 2> scores, RoomOf& room) {
    Device& device = pass.device;
    if (pass.masses.data == nullptr) {
      for_each_row(device, scores.rows, 1, FillRow<Real>{scores, Real(0)});
      return {};
    }
    const auto logs = room.template take<Real>(scores.rows, 1), placed = room.template take<Real>(scores.rows, 1);
    log_masses(device, pass.masses, logs);
    scatter_rows(device, logs, plan.place, scores);
    scatter_rows(device, detail::column(detail::masses_of<Real>(pass, room)), plan.place, placed);
    return {placed.data, placed.rows};
  }
};

}  // namespace v1
}  // namespace guild
