// Keys that stand for several tokens, beside those of a window, as a type; see guild/modules/pooled_attention.hpp.
#pragma once

#include <guild/core/view.hpp>
#include <guild/modules/compressed_cache.hpp>
#include <guild/modules/keys.hpp>

namespace guild {
inline namespace v1 {

/// Rows are pooled of `Tokens` tokens each; overlapping, of their own and of those of the row before
/// (guild/modules/compressor.hpp).
template <Index Tokens, PoolWindows Windows = PoolWindows::apart>
struct Pooled {
  static_assert(Tokens > 0, "Pooled: Tokens must be positive: a row is pooled of some");
  static constexpr Index tokens = Tokens;
  static constexpr PoolWindows windows = Windows;
};

namespace detail {
template <class Element, Index Width, class Near, class Pooling, class Indexer>
struct CacheOfPooled {
  using Pooled = CompressorCache<Element, Width, Pooling, Near::chunk>;
  using type = CompressedCache<typename Near::template Cache<Element, Width>, Pooled,
                               typename Indexer::template Cache<Element, Pooling, Near::chunk>>;
};
template <class Element, Index Width, class Near, class Pooling>
struct CacheOfPooled<Element, Width, Near, Pooling, NoIndexer> {
  using Pooled = CompressorCache<Element, Width, Pooling, Near::chunk>;
  using type = CompressedCache<typename Near::template Cache<Element, Width>, Pooled>;
};
}  // namespace detail

/// The keys of `Near`, a window, and of the rows pooled before a token all, or those that an index chooses.
template <class Near, class PoolingType, class IndexerType = NoIndexer>
struct CompressedKeys {
  static_assert(!Near::window.all(), "Compressed: pooled keys stand beside those of a window; put a Local inside it");
  static_assert(!WeighsKeys<Near>, "Weighted: pooled rows have no masses");
  static constexpr KeyWindow window = Near::window;
  using Indexer = NoIndexer;  ///< of the keys of tokens
  using Pooling = PoolingType;
  using PooledIndexer = IndexerType;
  template <class Element, Index Width>
  using Cache = typename detail::CacheOfPooled<Element, Width, Near, Pooling, IndexerType>::type;
};

/// An attention kind over a window that sees what was before it through pooled rows.
template <class Attention, class Pooling, class IndexerType = NoIndexer>
using Compressed =
    typename Attention::template WithKeys<CompressedKeys<typename Attention::KeyPolicy, Pooling, IndexerType>>;

}  // namespace v1
}  // namespace guild
