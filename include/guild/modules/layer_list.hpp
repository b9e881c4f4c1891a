// Layers by a list that says of each which kind it is, as files publish it (`layer_types`).
//
//   template <class S>
//   using Layers = LayerList<layer_kinds<S>, GlobalLayer<S>, LocalLayer<S>>;           // as S::windows.types says
//
//   struct S : ... {
//     static constexpr std::array<int, 62> kinds = every<62>(6, 0, 1);   // five of kind 0, one of kind 1, and so on
//     template <class T> using Layers = LayerList<T::kinds, LocalLayer<T>, GlobalLayer<T>>;
//   };
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

#include <guild/core/config/window.hpp>
#include <guild/modules/repeat.hpp>
#include <guild/modules/segment.hpp>
#include <guild/modules/stack.hpp>

namespace guild {
inline namespace v1 {

/// The kinds of `Layers` layers of which each `period`-th is of kind `then` and the others are `first`.
template <std::size_t Layers>
[[nodiscard]] constexpr std::array<int, Layers> every(std::size_t period, int first, int then) {
  std::array<int, Layers> kinds{};
  for (std::size_t i = 0; i < Layers; ++i) kinds[i] = (i + 1) % period == 0 ? then : first;
  return kinds;
}

namespace detail {

template <std::size_t Layers>
constexpr std::array<int, Layers> kinds_of(const LayerTypes& types) {
  std::array<int, Layers> kinds{};
  for (std::size_t i = 0; i < Layers; ++i) kinds[i] = static_cast<int>(types[static_cast<int>(i)]);
  return kinds;
}

/// The fewest layers after which a list begins anew; all of them if it does not.
template <std::size_t N>
constexpr std::size_t period_of(const std::array<int, N>& kinds) {
  for (std::size_t period = 1; period < N; ++period) {
    bool repeats = true;
    for (std::size_t i = period; i < N; ++i) repeats = repeats && kinds[i] == kinds[i - period];
    if (repeats) return period;
  }
  return N;
}

struct LayerRun {
  std::size_t kind = 0;
  int count = 0;
};
/// Layers [begin, end) of a list as runs of one kind.
template <std::size_t N>
struct LayerRuns {
  std::array<LayerRun, N> runs{};
  std::size_t count = 0;

  constexpr LayerRuns(const std::array<int, N>& kinds, std::size_t begin, std::size_t end) {
    for (std::size_t i = begin; i < end; ++i) {
      const auto kind = static_cast<std::size_t>(kinds[i]);
      if (count == 0 || runs[count - 1].kind != kind) runs[count++] = {kind, 0};
      ++runs[count - 1].count;
    }
  }
};

template <const auto& Kinds, class... Kind>
struct LayerListOf {
  static constexpr std::size_t layers = Kinds.size();
  static_assert(layers > 0, "LayerList: the list is empty; a model has a layer");
  static constexpr bool known = std::ranges::all_of(
      Kinds, [](int kind) { return kind >= 0 && static_cast<std::size_t>(kind) < sizeof...(Kind); });
  static_assert(known, "LayerList: the list names a kind of layer that is not there; kinds are numbered from 0");
  static constexpr std::size_t period = period_of(Kinds), times = layers / period;

  template <std::size_t Begin, std::size_t End>
  static constexpr LayerRuns<layers> runs{Kinds, Begin, End};
  template <std::size_t Begin, std::size_t End>
  static auto stack() {
    return []<std::size_t... I>(std::index_sequence<I...>) {
      constexpr auto list = runs<Begin, End>.runs;
      return std::type_identity<
          Stack<Segment<std::tuple_element_t<list[I].kind, std::tuple<Kind...>>, list[I].count>...>>{};
    }
    (std::make_index_sequence<runs<Begin, End>.count>{});
  }
  template <std::size_t Begin, std::size_t End>
  using Runs = typename decltype(stack<Begin, End>())::type;

  static auto whole() {
    if constexpr (!known)
      return std::type_identity<void>{};
    else if constexpr (times <= 1 || period == 1)
      return std::type_identity<Runs<0, layers>>{};
    else if constexpr (times * period == layers)
      return std::type_identity<Repeat<Runs<0, period>, static_cast<int>(times)>>{};
    else
      return std::type_identity<
          Stack<Repeat<Runs<0, period>, static_cast<int>(times)>, Runs<times * period, layers>>>{};
  }
  using type = typename decltype(whole())::type;
};

}  // namespace detail

/// The kinds of a Spec's layers by its `windows.types`: 0 where attention is full, 1 where it slides.
template <class S>
inline constexpr auto layer_kinds = [] {
  static_assert(S::windows.types.size() == S::config.layers,
                "layer_kinds: windows.types must name config.layers layers");
  return detail::kinds_of<std::size_t{S::windows.types.size()}>(S::windows.types);
}();

/// A LayerStack of as many layers as the list has: layer i is of the `Kind` number Kinds[i]. What repeats is a Repeat
/// and what is alike a Segment, so that a model of many layers compiles as fast as one of few.
template <const auto& Kinds, class... Kind>
using LayerList = typename detail::LayerListOf<Kinds, Kind...>::type;

}  // namespace v1
}  // namespace guild
