// Budgets that decide of a whole window of tokens at once, when its last one is there.
#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <guild/core/view.hpp>
#include <guild/modules/merge_budget.hpp>

namespace guild {
inline namespace v1 {

/// What a plan must know of a token when its group closes.
struct OpenToken {
  float novelty = 1.0f, mass = 1.0f;
  std::int32_t position = 0, id = 0;
  bool guarded = false;  ///< it is protected
  friend constexpr bool operator==(const OpenToken&, const OpenToken&) = default;
};

/// The tokens of a window, and which of them end a group: the last one does.
template <Index W>
using TokenWindow = std::array<OpenToken, std::size_t{W}>;
template <Index W>
using GroupEnds = std::array<bool, std::size_t{W}>;

/// A MergeBudget whose groups close when a window of `window` tokens is complete, all at once. Its tokens wait until
/// then, without a slot of their own. `step` says whether the next token completes a window and counts all its slots,
/// `longest` is the window: so many rows are kept.
template <class B>
concept WindowBudget = MergeBudget<B> && requires(const TokenWindow<B::window>& tokens) {
  { B::ends(tokens) } -> std::same_as<GroupEnds<B::window>>;
};

/// MergeState and its last token. Those of the tokens before it hold the others of the open window.
template <Index W>
struct WindowState : MergeState {
  static constexpr Index kept = std::max(W - 1, Index{1});
  OpenToken token{};
  friend constexpr bool operator==(const WindowState&, const WindowState&) = default;
};

namespace detail {
/// Tokens of a window; 0 for budgets that know none.
template <class Budget>
inline constexpr Index window_of = 0;
template <WindowBudget Budget>
inline constexpr Index window_of<Budget> = Budget::window;
}  // namespace detail

/// What merging keeps of a sequence under a budget, for each of its last tokens.
template <class Budget>
using MergeStateOf = std::conditional_t<WindowBudget<Budget>, WindowState<detail::window_of<Budget>>, MergeState>;

/// ToMe (arXiv 2210.09461) as causal as it can be: of each complete window of W tokens the R pairs of neighbours
/// (0, 1), (2, 3), ... that are most alike merge, the others are slots of their own: W - R slots a window, exactly.
/// That is local merging (arXiv 2405.17951) with k = 1, whose quota counts whole sequences and so looks ahead. The
/// earlier of equal pairs goes first, pairs with a protected token last. A window closes W - R slots at once: rings of
/// layers inside, such as Local's, should take in as many, or each closing copies them and none is taken back cheaply.
template <Index W, Index R>
struct WindowQuota {
  static_assert(R > 0 && 2 * R <= W, "WindowQuota: R must be above 0 and at most W / 2, the pairs of a window");
  static constexpr Index window = W, longest = W;
  static constexpr bool causal = true, prefix_stable = true;

  [[nodiscard]] static constexpr Index max_slots(Index tokens) {
    return tokens <= 0 ? 0 : (tokens + W - 1) / W * (W - R);
  }
  static constexpr bool step(MergeState& state, bool) {
    const bool completes = state.length + 1 == W;
    if (completes) state.slots += W - R - 1;  // beside the one that take counts
    return state.take(completes);
  }
  [[nodiscard]] static constexpr GroupEnds<W> ends(const TokenWindow<W>& tokens) {
    GroupEnds<W> ends{};
    ends.fill(true);
    for (Index merged = 0; merged < R; ++merged) {
      std::size_t best = 0;
      for (std::size_t second = 1; second < tokens.size(); second += 2)
        if (ends[second - 1] && (best == 0 || distance(tokens, second) < distance(tokens, best))) best = second;
      ends[best - 1] = false;
    }
    return ends;
  }

 private:
  /// Of a pair: novelties are up to 1.
  static constexpr float distance(const TokenWindow<W>& tokens, std::size_t second) {
    if (tokens[second - 1].guarded) return 4.0f;
    if (tokens[second].guarded) return 3.0f;                                // which closes, and so stays alone
    return tokens[second].novelty <= 1.0f ? tokens[second].novelty : 2.0f;  // not a number
  }
};

}  // namespace v1
}  // namespace guild
