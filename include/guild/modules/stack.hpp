// A stack of layers as a few segments of few block types: arrays and loops, never one type per layer.
#pragma once

#include <tuple>
#include <utility>
#include <vector>

#include <guild/modules/block.hpp>

namespace guild::inline v1 {

/// `Count` layers of one block type.
template <class BlockType, int Count>
struct Segment {
  using Block = BlockType;
  static constexpr int count = Count;
  static_assert(Count >= 0, "Segment: the number of layers must not be negative");
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

  /// The caches of one sequence, layer by layer.
  struct Cache {
    std::tuple<std::vector<typename Segments::Block::Cache>...> segments{
        std::vector<typename Segments::Block::Cache>(std::size_t{Segments::count})...};

    template <class F> void for_each(F&& f) {
      std::apply([&](auto&... segment) { (for_each_in(segment, f), ...); }, segments);
    }

   private:
    template <class V, class F> static void for_each_in(V& caches, F&& f) { for (auto& cache : caches) f(cache); }
  };

  /// Paths are `path / layer`, with the layer's number in the whole model.
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    visit_segments(visitor, path, std::make_index_sequence<segments>{}, weights...);
  }

  /// Runs all layers in place on x [T, hidden]; `cache(sequence)` returns the Cache of a sequence.
  template <class Device, class Store, class CacheOf, class Observer>
  static void extend(Device& device, const Weights<Store>& weights, const Batch& batch, const RopeView& rope_table,
                     const CacheOf& cache, View<float, 2> x, Observer& observer, MlaForm form) {
    int layer = FirstLayer;
    const auto run_segment = [&]<std::size_t I>(std::integral_constant<std::size_t, I>) {
      using BlockOf = typename std::tuple_element_t<I, std::tuple<Segments...>>::Block;
      const auto& blocks = std::get<I>(weights.segments);
      for (std::size_t i = 0; i < blocks.size(); ++i, ++layer) {
        const auto layer_cache = [&](int sequence) -> typename BlockOf::Cache& {
          return std::get<I>(cache(sequence).segments)[i];
        };
        BlockOf::extend(device, blocks[i], batch, rope_table, layer_cache, x, layer, observer, form);
      }
    };
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      (run_segment(std::integral_constant<std::size_t, I>{}), ...);
    }(std::make_index_sequence<segments>{});
  }

 private:
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
