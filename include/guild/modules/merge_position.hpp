// Where a slot stands: the position that attention turns its queries and keys by, from those of its group's tokens.
#pragma once

#include <cmath>
#include <concepts>

#include <guild/core/view.hpp>
#include <guild/modules/merge_budget.hpp>

namespace guild {
inline namespace v1 {

/// The interface of positions: pure functions, which keep what they need of the open group in the state. Positions are
/// within the group, so those of a sequence's slots go up as those of its tokens do.
template <class P>
concept MergePosition = requires(MergeState& state, const MergeState& group, Index position, float mass) {
  P::take(state, position, mass);                     // the next token of the open group, before a budget steps
  { P::of(group) } -> std::same_as<Index>;            // of the tokens taken in
  { P::weighs_tokens } -> std::convertible_to<bool>;  // masses matter
};

/// That of the token that closed the group.
struct LastPosition {
  static constexpr bool weighs_tokens = false;
  static constexpr void take(MergeState& state, Index position, float) { state.place = static_cast<double>(position); }
  [[nodiscard]] static constexpr Index of(const MergeState& state) { return static_cast<Index>(state.place); }
};
/// That of the group's first token (as DeepSeek-V4's compressed keys have).
struct FirstPosition {
  static constexpr bool weighs_tokens = false;
  static constexpr void take(MergeState& state, Index position, float) {
    if (state.length == 0) state.place = static_cast<double>(position);
  }
  [[nodiscard]] static constexpr Index of(const MergeState& state) { return static_cast<Index>(state.place); }
};
/// The mean of the tokens' positions by mass, rounded down: positions are integers.
struct CentroidPosition {
  static constexpr bool weighs_tokens = true;
  static constexpr void take(MergeState& state, Index position, float mass) {
    if (state.length == 0) state.place = state.mass = 0.0;
    state.place += double{mass} * static_cast<double>(position);
    state.mass += double{mass};
  }
  [[nodiscard]] static Index of(const MergeState& state) {
    return static_cast<Index>(std::floor(state.place / state.mass));
  }
};

}  // namespace v1
}  // namespace guild
