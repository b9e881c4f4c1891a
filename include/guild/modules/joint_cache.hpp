// The caches of several layers, or of several parts of a stack, as one.
#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <tuple>
#include <utility>

#include <guild/core/view.hpp>
#include <guild/modules/sequence_cache.hpp>

namespace guild {
inline namespace v1 {

/// What makes a SequenceCache of `Self::parts`, caches themselves, whose marks together are its Mark. `Self::for_each`
/// calls f(part...) for each part of such caches and marks, side by side; `Self` adds `bytes`.
template <class Self>
struct JointCache {
  [[nodiscard]] Index length() const {
    return least([](const auto& part) { return part.length(); });
  }
  [[nodiscard]] Index reserved() const {
    return least([](const auto& part) { return part.reserved(); });
  }
  void reserve(Index tokens) {
    Self::for_each([&](auto& part) { part.reserve(tokens); }, self().parts);
  }
  [[nodiscard]] auto mark() const {
    typename Self::Mark marks{};
    Self::for_each([](const auto& part, auto& mark) { mark = part.mark(); }, self().parts, marks);
    return marks;
  }
  [[nodiscard]] auto mark(Index tokens) const {
    typename Self::Mark marks{};
    Self::for_each([&](const auto& part, auto& mark) { mark = part.mark(tokens); }, self().parts, marks);
    return marks;
  }
  [[nodiscard]] Index oldest() const {
    Index most = 0;
    Self::for_each([&](const auto& part) { most = std::max(most, part.oldest()); }, self().parts);
    return most;
  }
  /// Throws for a mark to which a part cannot go back.
  template <class Marks>
  void check_rewind(const Marks& marks) const {
    Self::for_each([](const auto& part, const auto& mark) { detail::check_rewind(part, mark); }, self().parts, marks);
  }
  /// Throws as `check_rewind` does, and then changes nothing.
  template <class Marks>
  void rewind(const Marks& marks) {
    check_rewind(marks);
    Self::for_each([](auto& part, const auto& mark) { part.rewind(mark); }, self().parts, marks);
  }

 private:
  [[nodiscard]] Self& self() { return static_cast<Self&>(*this); }
  [[nodiscard]] const Self& self() const { return static_cast<const Self&>(*this); }

  /// 0 if there is no part.
  template <class F>
  [[nodiscard]] Index least(F&& of) const {
    constexpr Index none = std::numeric_limits<Index>::max();
    Index found = none;
    Self::for_each([&](const auto& part) { found = std::min(found, of(part)); }, self().parts);
    return found == none ? 0 : found;
  }
};

/// Caches of one sequence side by side, as one: what a layer that caches several things has. A SequenceCache.
template <class... Caches>
struct CacheTuple : JointCache<CacheTuple<Caches...>> {
  using Mark = std::tuple<typename Caches::Mark...>;
  std::tuple<Caches...> parts{};

  template <std::size_t I>
  [[nodiscard]] auto& part() {
    return std::get<I>(parts);
  }
  template <class F, class... C>
  static void for_each(F&& f, C&&... tuples) {
    [&]<std::size_t... I>(std::index_sequence<I...>) {
      const auto one = [&]<std::size_t At>(std::integral_constant<std::size_t, At>) { f(std::get<At>(tuples)...); };
      (one(std::integral_constant<std::size_t, I>{}), ...);
    }
    (std::index_sequence_for<Caches...>{});
  }
  /// Bytes of the rows of `tokens` tokens.
  [[nodiscard]] static constexpr Index bytes(Index tokens) { return (Caches::bytes(tokens) + ...); }
};

}  // namespace v1
}  // namespace guild
