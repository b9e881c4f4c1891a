// The cache of sparse attention: rows that attention reads, and the keys of the index that chooses among them.
#pragma once

#include <guild/core/types.hpp>
#include <guild/core/view.hpp>
#include <guild/modules/joint_cache.hpp>
#include <guild/modules/row_cache.hpp>

namespace guild {
inline namespace v1 {

/// Two RowCaches of one sequence. A SequenceCache.
template <class ElementType, Index Width, Index IndexWidth>
struct IndexedCache : CacheTuple<RowCache<ElementType, Width>, RowCache<ElementType, IndexWidth>> {
  using Element = ElementType;
  using IndexKeys = RowCache<Element, IndexWidth>;
  static constexpr Index width = Width;
  static constexpr DType type = dtype_of<Element>;
  [[nodiscard]] RowCache<Element, Width>& attended_rows() { return this->template part<0>(); }
  [[nodiscard]] IndexKeys& index_keys() { return this->template part<1>(); }
};

}  // namespace v1
}  // namespace guild
