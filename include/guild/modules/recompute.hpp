// Memory for time: layers that keep their inputs alone and are computed a second time in backward (arXiv 1604.06174).
#pragma once

#include <cstdint>

#include <guild/modules/caches.hpp>
#include <guild/modules/fwd.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/repeat.hpp>
#include <guild/modules/segment.hpp>
#include <guild/modules/stack.hpp>

namespace guild {
inline namespace v1 {

namespace detail {
/// True for a layer without an index that reads what another one chose.
template <class Layer>
inline constexpr bool shares_a_choice = [] {
  if constexpr (requires { Layer::Mixer::Indexer::shares; })
    return Layer::Mixer::Indexer::shares;
  else
    return false;
}();
}  // namespace detail

/// A layer that keeps nothing but the experts it chose. The gradients are those of `Layer` to the last bit.
template <class Layer>
struct RecomputedLayer : Layer {
  static_assert(!detail::shares_a_choice<Layer>,
                "Recompute: a layer that sees the choice of another layer's index cannot be computed again alone");
  template <class Real>
  struct Saved {
    LayerChoice choice{};  ///< what must not be decided a second time
  };

  /// Computes the first time as it will then, if backward is to come, and forgets.
  template <class Device, class Weights, class Real>
  static void forward(const Pass<Device>& pass, const Weights& weights, Caches<typename Layer::Cache> caches,
                      DeviceView<Real, 2> x, DeviceView<Real, 2> y, Saved<Real>* keep = nullptr) {
    if (keep == nullptr) return Layer::forward(pass, weights, caches, x, y);
    constexpr Index chosen = Layer::chosen_experts;
    Pass<Device> first = pass;
    if (chosen > 0 && first.choice.experts.data == nullptr)
      first.choice.experts = pass.kept().template take<std::int32_t>(x.rows, chosen);
    keep->choice = {first.choice.experts, Choice::given};
    auto own = pass.kept().nested();
    typename Layer::template Saved<Real> forgotten;
    Layer::forward(first.with(own), weights, caches, x, y, &forgotten);
  }

  template <class Device, class Weights, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights& weights, DeviceView<Real, 2> x,
                       const Saved<Real>& saved, DeviceView<Real, 2> dy, DeviceView<Real, 2> dx, Gradients& gradients) {
    auto own = pass.kept().nested();
    Pass<Device> again = pass.with(own);
    again.choice = saved.choice;
    again.observer = nullptr;  // it has seen what is computed again,
    again.counts = {};         // and they have counted it
    const auto y = own.template take<Real>(x.rows, x.cols);
    typename Layer::template Saved<Real> of_layer;
    Layer::forward(again, weights, {}, x, y, &of_layer);
    again.counts = pass.counts;
    Layer::backward(again, weights, x, of_layer, dy, dx, gradients);
  }
};

/// A Segment, Stack, Repeat or span of slots all of whose layers are computed again, one at a time: their inputs stay,
/// and the memory of one layer is all there is beside them.
template <class Part>
struct Recompute {
  static_assert(sizeof(Part*) == 0, "Recompute: takes a Segment, a Stack, a Repeat or a MergeSpan of such");
};
template <class Layer, int Count>
struct Recompute<Segment<Layer, Count>> : Segment<RecomputedLayer<Layer>, Count> {
  using LastLayer = Layer;
};
template <class... Parts>
struct Recompute<Stack<Parts...>> : Stack<Recompute<Parts>...> {};
template <class Pattern, int Times>
struct Recompute<Repeat<Pattern, Times>> : Repeat<Recompute<Pattern>, Times> {};
template <class Part>
struct Recompute<Recompute<Part>> : Recompute<Part> {};

template <class Layers, class Merging, class Inflation>
struct Recompute<MergeSpan<Layers, Merging, Inflation>> : MergeSpan<Recompute<Layers>, Merging, Inflation> {};
template <class Layers, class Matching, class Inflation>
struct Recompute<MatchSpan<Layers, Matching, Inflation>> : MatchSpan<Recompute<Layers>, Matching, Inflation> {};
template <class Layers, class S, Index M>
struct Recompute<LearnedSlots<Layers, S, M>> : LearnedSlots<Recompute<Layers>, S, M> {};

}  // namespace v1
}  // namespace guild
