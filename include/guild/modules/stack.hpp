// A stack of layers as a few segments of few block types: arrays and loops, never one type per layer.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <guild/modules/block.hpp>

namespace guild::inline v1 {

/// What training keeps of a layer's forward pass.
enum class Activations : std::uint8_t { kept, recomputed };

/// `Count` layers of one block type.
template <class BlockType, int Count>
struct Segment {
  using Block = BlockType;
  static constexpr int count = Count;
  static constexpr Activations activations = Activations::kept;
  static_assert(Count >= 0, "Segment: the number of layers must not be negative");
};

/// A segment of which training keeps the layers' inputs alone and computes the rest a second time in backward
/// (arXiv 1604.06174): memory for time. The gradients are the same to the last bit.
template <class SegmentType>
struct Recompute : SegmentType {
  static constexpr Activations activations = Activations::recomputed;
};

/// Segments one after the other, layers numbered through from FirstLayer.
template <int FirstLayer, class... Segments>
struct Stack {
  static constexpr int layers = (0 + ... + Segments::count);
  static constexpr std::size_t segments = sizeof...(Segments);

  template <class Store>
  struct Weights {
    std::tuple<std::vector<typename Segments::Block::template Weights<Store>>...> segments{
        std::vector<typename Segments::Block::template Weights<Store>>(std::size_t{Segments::count})...};
  };

  /// The caches of one sequence, layer by layer: a SequenceCache.
  struct Cache {
    template <class SegmentType>
    using Layers = std::vector<typename SegmentType::Block::Cache>;
    template <class SegmentType>
    using Marks = std::array<typename SegmentType::Block::Cache::Mark, std::size_t{SegmentType::count}>;
    using Mark = std::tuple<Marks<Segments>...>;

    std::tuple<Layers<Segments>...> segments{Layers<Segments>(std::size_t{Segments::count})...};

    /// f(layer's cache...) of each layer of `caches`, side by side: caches, or a cache and its marks.
    template <class F, class... C>
    static void for_each(F&& f, C&&... caches) {
      for_each_segment([&]<std::size_t I>(std::integral_constant<std::size_t, I>) {
        for (std::size_t i = 0; i < std::size_t{SegmentOf<I>::count}; ++i) f(std::get<I>(caches)[i]...);
      });
    }

    [[nodiscard]] Index length() const {
      return least([](const auto& layer) { return layer.length(); });
    }
    [[nodiscard]] Index reserved() const {
      return least([](const auto& layer) { return layer.reserved(); });
    }
    void reserve(Index tokens) {
      for_each([&](auto& layer) { layer.reserve(tokens); }, segments);
    }
    [[nodiscard]] Mark mark() const {
      Mark marks{};
      for_each([](const auto& layer, auto& mark) { mark = layer.mark(); }, segments, marks);
      return marks;
    }
    [[nodiscard]] Mark mark(Index tokens) const {
      Mark marks{};
      for_each([&](const auto& layer, auto& mark) { mark = layer.mark(tokens); }, segments, marks);
      return marks;
    }
    [[nodiscard]] Index oldest() const {
      Index most = 0;
      for_each([&](const auto& layer) { most = std::max(most, layer.oldest()); }, segments);
      return most;
    }
    void rewind(const Mark& marks) {
      for_each([](auto& layer, const auto& mark) { layer.rewind(mark); }, segments, marks);
    }
    [[nodiscard]] static constexpr Index bytes(Index tokens) {
      return (Index{0} + ... + (Segments::count * Segments::Block::Cache::bytes(tokens)));
    }

   private:
    template <class F>
    [[nodiscard]] Index least(F&& of) const {
      Index found = layers > 0 ? std::numeric_limits<Index>::max() : 0;
      for_each([&](const auto& layer) { found = std::min(found, of(layer)); }, segments);
      return found;
    }
  };

  /// Paths are `path / layer`, with the layer's number in the whole model.
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    visit_segments(visitor, path, std::make_index_sequence<segments>{}, weights...);
  }

  template <class Real>
  struct Saved {
    template <class SegmentType>
    struct OfSegment {
      static constexpr bool kept = SegmentType::activations == Activations::kept;
      std::array<View<Real, 2>, SegmentType::count> inputs{};  ///< [T, hidden] each
      std::array<typename SegmentType::Block::template Saved<Real>, kept ? SegmentType::count : 0> blocks{};
      /// What a layer that is computed again must not decide a second time.
      std::array<LayerChoice, kept ? 0 : SegmentType::count> choices{};
    };
    std::tuple<OfSegment<Segments>...> segments;
  };

  /// y [T, hidden] = all layers of x. What is kept refers to x, which must stay then; otherwise y may be x.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, Caches<Cache> caches, View<Real, 2> x,
                      View<Real, 2> y, Saved<std::type_identity_t<Real>>* keep = nullptr) {
    Pass<Device> at = pass;  // the layer that is called
    at.layer = FirstLayer;
    auto room = pass.room(keep);
    for_each_segment([&]<std::size_t I>(std::integral_constant<std::size_t, I>) {
      using SegmentType = SegmentOf<I>;
      for (std::size_t i = 0; i < std::size_t{SegmentType::count}; ++i, ++at.layer) {
        const bool last = at.layer + 1 == FirstLayer + layers;
        const auto next = keep == nullptr || last ? y : room.template keep<Real>(x.rows, x.cols);
        const auto& block = std::get<I>(weights.segments)[i];
        const auto cache_of = [&](int sequence) -> auto& { return std::get<I>(caches[sequence].segments)[i]; };
        using LayerCaches = Caches<typename SegmentType::Block::Cache>;
        const LayerCaches layer_caches = caches ? LayerCaches(cache_of) : LayerCaches();
        at.choice = choice_of<SegmentType>(at, x.rows);
        if (keep == nullptr)
          SegmentType::Block::forward(at, block, layer_caches, x, next);
        else
          forward_and_keep<SegmentType>(at, block, layer_caches, x, next, std::get<I>(keep->segments), i);
        x = next;
      }
    });
  }

  /// dx [T, hidden]: on entry the gradient of forward's y, afterwards that of its x. `saved` is used up.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights, Saved<Real>& saved, View<Real, 2> dx,
                       Weights<Gradients>& gradients) {
    Pass<Device> at = pass;
    at.layer = FirstLayer + layers;
    at.observer = nullptr;  // it has seen what is computed again
    for_each_segment_reversed([&]<std::size_t I>(std::integral_constant<std::size_t, I>) {
      using SegmentType = SegmentOf<I>;
      auto& of_segment = std::get<I>(saved.segments);
      for (std::size_t i = std::size_t{SegmentType::count}; i-- > 0;) {
        --at.layer;
        const auto& block = std::get<I>(weights.segments)[i];
        auto& block_gradients = std::get<I>(gradients.segments)[i];
        const auto x = of_segment.inputs[i];
        if constexpr (SegmentType::activations == Activations::kept) {
          SegmentType::Block::backward(at, block, x, of_segment.blocks[i], dx, dx, block_gradients);
        } else {
          auto own = pass.kept().nested();
          at.choice = of_segment.choices[i];
          const Pass<Device> again = at.with(own);
          const auto y = own.template take<Real>(x.rows, x.cols);
          typename SegmentType::Block::template Saved<Real> of_block;
          SegmentType::Block::forward(again, block, {}, x, y, &of_block);
          SegmentType::Block::backward(again, block, x, of_block, dx, dx, block_gradients);
        }
      }
    });
  }

 private:
  /// What the pass says about the experts of its layer. Throws op_shape for a choice that does not fit.
  template <class SegmentType, class Device>
  static LayerChoice choice_of(const Pass<Device>& pass, Index tokens) {
    const auto layer = static_cast<std::size_t>(pass.layer);
    if (layer >= pass.choices.size() || pass.choices[layer].data == nullptr) return {};
    constexpr Index chosen = SegmentType::Block::FeedForward::chosen_experts;
    const View<std::int32_t, 2> experts = pass.choices[layer];
    if (experts.rows != tokens || experts.cols != chosen)
      throw Error(ErrorCode::op_shape, "the experts given for layer " + std::to_string(pass.layer) + " are [" +
                                           std::to_string(experts.rows) + ", " + std::to_string(experts.cols) +
                                           "], expected [" + std::to_string(tokens) + ", " + std::to_string(chosen) +
                                           "]: those of the same tokens and model");
    return {experts, Choice::given};
  }

  template <std::size_t I> using SegmentOf = std::tuple_element_t<I, std::tuple<Segments...>>;

  template <class F>
  static void for_each_segment(F&& f) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (f(std::integral_constant<std::size_t, I>{}), ...);
    }(std::make_index_sequence<segments>{});
  }
  template <class F>
  static void for_each_segment_reversed(F&& f) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (f(std::integral_constant<std::size_t, segments - 1 - I>{}), ...);
    }(std::make_index_sequence<segments>{});
  }
  /// Keeps what backward needs of layer i of a segment: all of it, or what it is computed again from. A layer that is
  /// computed again computes the first time as it will then, and forgets.
  template <class SegmentType, class Device, class BlockWeights, class LayerCaches, class Real, class OfSegment>
  static void forward_and_keep(Pass<Device> pass, const BlockWeights& block, LayerCaches caches, View<Real, 2> x,
                               View<Real, 2> y, OfSegment& of_segment, std::size_t i) {
    of_segment.inputs[i] = x;
    if constexpr (SegmentType::activations == Activations::kept) {
      SegmentType::Block::forward(pass, block, caches, x, y, &of_segment.blocks[i]);
    } else {
      constexpr Index chosen = SegmentType::Block::FeedForward::chosen_experts;
      if (chosen > 0 && pass.choice.experts.data == nullptr)
        pass.choice.experts = pass.kept().template take<std::int32_t>(x.rows, chosen);
      of_segment.choices[i] = {pass.choice.experts, Choice::given};
      auto own = pass.kept().nested();
      typename SegmentType::Block::template Saved<Real> forgotten;
      SegmentType::Block::forward(pass.with(own), block, caches, x, y, &forgotten);
    }
  }

  template <class Visitor, std::size_t... I, class... W>
  static void visit_segments(Visitor&& visitor, const Path& path, std::index_sequence<I...>, W&... weights) {
    Index layer = FirstLayer;
    (visit_segment<I>(visitor, path, layer, weights...), ...);
  }
  template <std::size_t I, class Visitor, class... W>
  static void visit_segment(Visitor&& visitor, const Path& path, Index& layer, W&... weights) {
    using SegmentType = std::tuple_element_t<I, std::tuple<Segments...>>;
    for (std::size_t i = 0; i < std::size_t{SegmentType::count}; ++i, ++layer)
      SegmentType::Block::visit(visitor, path / layer, std::get<I>(weights.segments)[i]...);
  }
};

}  // namespace guild::inline v1
