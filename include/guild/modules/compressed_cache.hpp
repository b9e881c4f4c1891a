// The cache of attention over the rows of tokens and over rows that are pooled of them.
#pragma once

#include <guild/core/types.hpp>
#include <guild/core/view.hpp>
#include <guild/modules/joint_cache.hpp>
#include <guild/modules/pooled_cache.hpp>
#include <guild/modules/ring_cache.hpp>
#include <guild/ops/pool/pool_rows.hpp>

namespace guild {
inline namespace v1 {

/// What the last tokens of a sequence left behind that rows to come are pooled of: values and gates. A SequenceCache.
template <Index Width, Index Ratio, PoolWindows Windows, Index Chunk>
using PoolSources = RingCache<float, 2 * PoolSizes{Ratio, Width, Windows}.columns(),
                              PoolSizes{Ratio, Width, Windows}.series() * Ratio, 0, Chunk>;

/// Pooled rows of a sequence, and their sources. A SequenceCache.
template <class Element, Index Width, class Pooling, Index Chunk>
struct CompressorCache : CacheTuple<PoolSources<Width, Pooling::tokens, Pooling::windows, Chunk>,
                                    PooledCache<Element, Width, Pooling::tokens>> {
  using Sources = PoolSources<Width, Pooling::tokens, Pooling::windows, Chunk>;
  using Rows = PooledCache<Element, Width, Pooling::tokens>;
  [[nodiscard]] Sources& sources() { return this->template part<0>(); }
  [[nodiscard]] Rows& rows() { return this->template part<1>(); }
};

/// Rows of tokens `Near`, pooled rows and perhaps the pooled keys of an index, both of them CompressorCaches. A
/// SequenceCache.
template <class Near, class... Pooled>
struct CompressedCache : CacheTuple<Near, Pooled...> {
  using Element = typename Near::Element;
  static constexpr Index width = Near::width;
  static constexpr DType type = Near::type;
  [[nodiscard]] Near& attended_rows() { return this->template part<0>(); }
  [[nodiscard]] auto& pooled() { return this->template part<1>(); }
  [[nodiscard]] auto& index_keys() { return this->template part<2>(); }
};

}  // namespace v1
}  // namespace guild
