// Which layers may run on slots of merged tokens, and in which order.
#pragma once

#include <cstddef>

#include <guild/core/path.hpp>
#include <guild/core/view.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/recompute.hpp>
#include <guild/modules/repeat.hpp>
#include <guild/modules/segment.hpp>
#include <guild/modules/stack.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// True if attention of a kind may run on slots: it says so, or has keys of a policy and says nothing.
template <class Mixer>
inline constexpr bool mixer_takes_slots = requires {
  typename Mixer::KeyPolicy;
};
template <class Mixer>
requires requires { Mixer::takes_slots; }
inline constexpr bool mixer_takes_slots<Mixer> = Mixer::takes_slots;

/// Of a layer, or of all layers of a stack; one that is no Block is taken at its word.
template <class Layer>
inline constexpr bool takes_slots = true;
template <class Layer>
requires requires { typename Layer::Mixer; }
inline constexpr bool takes_slots<Layer> = mixer_takes_slots<typename Layer::Mixer>;
template <class Layer, int Count>
inline constexpr bool takes_slots<Segment<Layer, Count>> = takes_slots<Layer>;
template <class... Parts>
inline constexpr bool takes_slots<Stack<Parts...>> = (takes_slots<Parts> && ...);
template <class Pattern, int Times>
inline constexpr bool takes_slots<Repeat<Pattern, Times>> = takes_slots<Pattern>;
template <class Part>
inline constexpr bool takes_slots<Recompute<Part>> = takes_slots<Part>;

/// True if attention of all layers weighs slots by their masses: that of Weighted kinds.
template <class Layer>
inline constexpr bool weighs_slots = true;
template <class Layer>
requires requires { typename Layer::Mixer::KeyPolicy; }
inline constexpr bool weighs_slots<Layer> = WeighsKeys<typename Layer::Mixer::KeyPolicy>;
template <class Layer, int Count>
inline constexpr bool weighs_slots<Segment<Layer, Count>> = weighs_slots<Layer>;
template <class... Parts>
inline constexpr bool weighs_slots<Stack<Parts...>> = (weighs_slots<Parts> && ...);
template <class Pattern, int Times>
inline constexpr bool weighs_slots<Repeat<Pattern, Times>> = weighs_slots<Pattern>;
template <class Part>
inline constexpr bool weighs_slots<Recompute<Part>> = weighs_slots<Part>;

/// Where the first layer of a stack that sees chosen keys alone has them from.
enum class FirstChoice { none, its_own_index, an_index_before };
template <class Layer>
inline constexpr FirstChoice first_choice = FirstChoice::none;
template <class Layer>
requires requires { typename Layer::Mixer::KeyPolicy::Indexer; }
inline constexpr FirstChoice first_choice<Layer> = [] {
  using Indexer = typename Layer::Mixer::KeyPolicy::Indexer;
  if (!Indexer::chooses) return FirstChoice::none;
  return Indexer::shares ? FirstChoice::an_index_before : FirstChoice::its_own_index;
}();
template <class Layer, int Count>
inline constexpr FirstChoice first_choice<Segment<Layer, Count>> = Count > 0 ? first_choice<Layer> : FirstChoice::none;
template <class... Parts>
inline constexpr FirstChoice first_choice<Stack<Parts...>> = [] {
  for (const FirstChoice one : {first_choice<Parts>...})
    if (one != FirstChoice::none) return one;
  return FirstChoice::none;
}();
template <class Pattern, int Times>
inline constexpr FirstChoice first_choice<Repeat<Pattern, Times>> = first_choice<Pattern>;
template <class Part>
inline constexpr FirstChoice first_choice<Recompute<Part>> = first_choice<Part>;

/// Spans that begin with the first layer of a stack, one within the other: their tensors need names of their own.
template <class Layers>
inline constexpr Index spans_at_front = 0;
template <class Layers>
requires requires { Layers::spans_at_front; }
inline constexpr Index spans_at_front<Layers> = Layers::spans_at_front;
template <class... Parts>
inline constexpr Index spans_at_front<Stack<Parts...>> = [] {
  constexpr int layers[] = {Parts::layers...};
  constexpr Index spans[] = {spans_at_front<Parts>...};
  std::size_t part = 0;
  while (part + 1 < sizeof...(Parts) && layers[part] == 0) ++part;
  return spans[part];
}();
template <class Pattern, int Times>
inline constexpr Index spans_at_front<Repeat<Pattern, Times>> = spans_at_front<Pattern>;
template <class Part>
inline constexpr Index spans_at_front<Recompute<Part>> = spans_at_front<Part>;

/// Calls visit(path of a span's own tensors): below the first layer of `path`, or below its "span" and a number, 2 and
/// more, for a span around others that begin with the same layer. `spans`: with this one.
template <class Visit>
void at_path_of_span(const Path& path, Index first_layer, Index spans, Visit&& visit) {
  const Path first = path / first_layer, name = first / "span", numbered = name / spans;
  visit(spans > 1 ? numbered : first);
}

/// True if a stack has a MergeSpan.
template <class Layers>
inline constexpr bool merges_tokens = requires {
  requires Layers::merges_tokens;
};
template <class... Parts>
inline constexpr bool merges_tokens<Stack<Parts...>> = (merges_tokens<Parts> || ...);
template <class Pattern, int Times>
inline constexpr bool merges_tokens<Repeat<Pattern, Times>> = merges_tokens<Pattern>;
template <class Part>
inline constexpr bool merges_tokens<Recompute<Part>> = merges_tokens<Part>;

/// What the layers of a MergeSpan must be.
template <class Layers, class Policy>
struct LayersOfSlots {
  static_assert(detail::takes_slots<Layers>,
                "attention inside a span is Mla or Gqa, or Local, SparseTopK or Weighted of them; a kind of "
                "your own that may run on slots says static constexpr bool takes_slots = true");
  static_assert(!Policy::proportional || detail::weighs_slots<Layers>,
                "attention inside a span weighs a slot by its mass: make it Weighted<...>, outermost, or let "
                "the policy say proportional = false");
  static_assert(detail::first_choice<Layers> != detail::FirstChoice::an_index_before,
                "a layer without an index needs one with an index before it, inside the span");
};

}  // namespace detail
}  // namespace v1
}  // namespace guild
