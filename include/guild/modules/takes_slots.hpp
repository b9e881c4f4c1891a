// Which layers may run on slots of merged tokens.
#pragma once

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

}  // namespace detail
}  // namespace v1
}  // namespace guild
