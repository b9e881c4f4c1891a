// Which keys an attention kind sees, as a type: all of the sequence, a window of them, or those that an index chooses.
//
//   template <class S> using Mixer = Gqa<S>;                          // all keys
//   template <class S> using Mixer = Local<Gqa<S>, 128, 4>;           // the last 128, and the first 4 of the sequence
//   template <class S> using Mixer = SparseTopK<Mla<S>, Indexer<S>>;  // the S::indexer.top_k of largest score
#pragma once

#include <cstdint>

#include <guild/core/view.hpp>
#include <guild/modules/indexed_cache.hpp>
#include <guild/modules/key_choice.hpp>
#include <guild/modules/module.hpp>
#include <guild/modules/ring_cache.hpp>
#include <guild/modules/row_cache.hpp>
#include <guild/ops/attention/job.hpp>

namespace guild {
inline namespace v1 {

/// Keys that no index chooses.
struct NoIndexer {
  static constexpr bool chooses = false, shares = false;
  static constexpr Index top_k = 0;
  template <class, class>
  using Of = NoIndexer;
  template <class Store>
  struct Weights {};
  template <class Visitor, class... W>
  static void visit(Visitor&&, const Path&, W&...) {}

  template <class... A>
  static KeyChoice choose_of_caches(A&&...) {
    return {};
  }
  template <class... A>
  static DeviceView<std::uint32_t> choose_of_itself(A&&...) {
    return {};
  }
  template <class... A>
  static void backward(A&&...) {}
};

/// All keys up to the token's own.
struct AllKeys {
  static constexpr KeyWindow window{};
  using Indexer = NoIndexer;
  template <class Element, Index Width>
  using Cache = RowCache<Element, Width>;
};

/// The last `Window` keys, the token's own among them, and the first `Pinned` of the sequence (attention sinks, arXiv
/// 2309.17453). Up to `Chunk` tokens are appended to the cache or forgotten at no cost.
template <Index Window, Index Pinned = 0, Index Chunk = 16>
struct LocalKeys {
  static_assert(Window > 0, "Local: Window must be positive; a token sees itself");
  static_assert(Pinned >= 0, "Local: Pinned must not be negative");
  static_assert(Chunk > 0, "Local: Chunk must be positive");
  static constexpr KeyWindow window{Window, Pinned};
  static constexpr Index chunk = Chunk;
  using Indexer = NoIndexer;
  template <class Element, Index Width>
  using Cache = RingCache<Element, Width, Window, Pinned, Chunk>;
};

namespace detail {
template <class Element, Index Width, class Indexer>
struct CacheOfChosen {
  using type = IndexedCache<Element, Width, Indexer::dim>;
};
template <class Element, Index Width, class Indexer>
requires Indexer::shares struct CacheOfChosen<Element, Width, Indexer> {
  using type = RowCache<Element, Width>;  // no keys of an index
};
}  // namespace detail

/// The keys that an index chooses (guild/modules/indexer.hpp).
template <class IndexerType>
struct ChosenKeys {
  static constexpr KeyWindow window{};
  using Indexer = IndexerType;
  template <class Element, Index Width>
  using Cache = typename detail::CacheOfChosen<Element, Width, Indexer>::type;
};

/// Keys some of which are pooled of several tokens (guild/modules/compressed_keys.hpp).
template <class Keys>
concept PooledKeys = requires {
  typename Keys::Pooling;
};

/// Keys that count as much as what they stand for (guild/modules/weighted_keys.hpp).
template <class Keys>
concept WeighsKeys = requires {
  Keys::weighted;
};

/// Keys that are merged in the cache (guild/modules/running_keys.hpp).
template <class Keys>
concept MergesKeys = requires {
  typename Keys::Merging;
};

/// The cache whose rows attention reads.
template <class Cache>
[[nodiscard]] auto& attended_rows(Cache& cache) {
  if constexpr (requires { cache.attended_rows(); })
    return cache.attended_rows();
  else
    return cache;
}

namespace detail {
/// An attention kind with other keys.
template <class Attention, class Keys>
struct WithKeys {
  static_assert(!MergesKeys<typename Attention::KeyPolicy> && !WeighsKeys<typename Attention::KeyPolicy>,
                "Local, SparseTopK: of keys that are neither merged nor weighted; Weighted<...> is outermost");
  using type = typename Attention::template WithKeys<Keys>;
};
}  // namespace detail

/// An attention kind that sees the keys which an index chooses (DeepSeek-V3.2-Exp): all of them in a sequence of no
/// more than IndexerType::top_k, to the bit.
template <class Attention, class IndexerType>
using SparseTopK = typename detail::WithKeys<Attention, ChosenKeys<IndexerType>>::type;

/// An attention kind that sees a window of keys.
template <class Attention, Index Window, Index Pinned = 0, Index Chunk = 16>
using Local = typename detail::WithKeys<Attention, LocalKeys<Window, Pinned, Chunk>>::type;

}  // namespace v1
}  // namespace guild
