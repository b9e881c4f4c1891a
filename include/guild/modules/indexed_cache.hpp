// The cache of sparse attention: rows that attention reads, and the keys of the index that chooses among them.
#pragma once

#include <guild/modules/joint_cache.hpp>
#include <guild/modules/row_cache.hpp>

namespace guild {
inline namespace v1 {

/// Two RowCaches of one sequence. A SequenceCache.
template <class ElementType, Index Width, Index IndexWidth>
struct IndexedCache : JointCache<IndexedCache<ElementType, Width, IndexWidth>> {
  using Element = ElementType;
  using Rows = RowCache<Element, Width>;
  using IndexKeys = RowCache<Element, IndexWidth>;
  static constexpr Index width = Width;
  static constexpr DType type = Rows::type;

  struct Parts {
    Rows rows{};
    IndexKeys keys{};
  };
  struct Mark {
    typename Rows::Mark rows{};
    typename IndexKeys::Mark keys{};
  };
  Parts parts{};

  template <class F, class... C>
  static void for_each(F&& f, C&&... caches) {
    f(caches.rows...);
    f(caches.keys...);
  }
  /// Bytes of the rows of `tokens` tokens.
  [[nodiscard]] static constexpr Index bytes(Index tokens) { return Rows::bytes(tokens) + IndexKeys::bytes(tokens); }
};

}  // namespace v1
}  // namespace guild
