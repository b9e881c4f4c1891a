// The cache of attention whose keys weigh differently: rows that attention reads, and beside each its bias.
#pragma once

#include <type_traits>
#include <utility>

#include <guild/core/types.hpp>
#include <guild/core/view.hpp>
#include <guild/modules/joint_cache.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/ring_cache.hpp>
#include <guild/modules/row_cache.hpp>

namespace guild {
inline namespace v1 {

namespace detail {
/// A float for each row of a cache, in the same place.
template <class Rows>
struct BiasesBeside {
  using type = RowCache<float, 1>;
};
template <class Rows>
requires requires { Rows::ring; }
struct BiasesBeside<Rows> {
  using type = RingCache<float, 1, Rows::window, Rows::pinned, Rows::chunk>;
};
}  // namespace detail

/// `Rows`, the cache of a key policy, and a bias of each row that attention reads. A SequenceCache.
template <class Rows>
struct WeightedCache
    : CacheTuple<Rows, typename detail::BiasesBeside<
                           std::remove_reference_t<decltype(guild::attended_rows(std::declval<Rows&>()))>>::type> {
  using Element = typename Rows::Element;
  static constexpr Index width = Rows::width;
  static constexpr DType type = Rows::type;
  [[nodiscard]] auto& attended_rows() { return guild::attended_rows(this->template part<0>()); }
  [[nodiscard]] auto& index_keys() { return this->template part<0>().index_keys(); }
  [[nodiscard]] auto& key_biases() { return this->template part<1>(); }
};

}  // namespace v1
}  // namespace guild
