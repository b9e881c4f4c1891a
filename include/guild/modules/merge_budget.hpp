// Which tokens close a group of merged ones: budgets, exact integers, and tokens that are not to be blended.
#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <span>
#include <type_traits>

#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

/// What merging knows of a sequence's tokens so far. That of no tokens is `{}`, whatever the budget.
struct MergeState {
  static constexpr Index kept = 1;  ///< of so many last tokens those to come need the states
  Index credit = 0;  ///< of a token bucket
  Index length = 0;  ///< tokens since the last that closed a group: the open ones
  Index slots = 0;   ///< groups closed
  Index tokens = 0;
  double place = 0.0;  ///< of the open tokens' positions what a MergePosition keeps
  double mass = 0.0;   ///< of the open tokens, if it weighs them

  /// Takes in one more token; returns `closes`, whether it closes the open group, itself included.
  constexpr bool take(bool closes) {
    ++tokens;
    slots += closes ? 1 : 0;
    length = closes ? 0 : length + 1;
    return closes;
  }
  friend constexpr bool operator==(const MergeState&, const MergeState&) = default;
};

/// Why a token wants to close its group. For budgets that do not ask why, whether it does: a bool.
struct Wish {
  bool novel = false;
  bool guarded = false;  ///< it is protected
  constexpr Wish(bool of_novelty, bool of_protection = false) : novel(of_novelty), guarded(of_protection) {}
  constexpr operator bool() const { return novel || guarded; }
};

/// The interface of budgets: pure functions. The first token of a sequence closes a group of itself, but under a
/// WindowBudget, and no group is longer than `longest`. A budget may say `ratio`, the share of tokens that are meant to
/// close a group, for the ratio loss (MergingOptions); one that refuses wishes may have a `grant(state, wish)`, which
/// does not, for training in which merging is not yet in force.
template <class B>
concept MergeBudget = requires(MergeState& state, Wish wish, Index tokens) {
  { B::step(state, wish) } -> std::same_as<bool>;     // whether the next token closes a group
  { B::max_slots(tokens) } -> std::same_as<Index>;    // the most that so many tokens in a row can close, anywhere
  { B::longest } -> std::convertible_to<Index>;       // tokens of a group; 0: of any length
  { B::causal } -> std::convertible_to<bool>;         // a token's answer depends on none after it
  { B::prefix_stable } -> std::convertible_to<bool>;  // the answers of a prefix are the first of the whole
};

/// At most Burst + floor(Num / Den (N - 1)) of any N tokens in a row close a group, whatever is wanted, and each group
/// has up to G tokens. A bucket that holds Burst closings gains Num / Den of one with each token; what is wanted
/// without one in it is not had, so the next groups are longer. <1, 1, ...>: every wish is granted.
template <Index Num, Index Den, Index Burst, Index G>
struct TokenBucket {
  static_assert(Num > 0 && Den > 0 && Num <= Den, "TokenBucket: Num / Den must be above 0 and not above 1");
  static_assert(G > 0 && Num * G >= Den,
                "TokenBucket: G tokens must bring at least one closing, Num * G >= Den: a budget that cannot hold");
  static_assert(Burst >= 1, "TokenBucket: Burst must be at least 1: the first token closes a group");
  static constexpr Index burst = Burst, longest = G;
  static constexpr double ratio = static_cast<double>(Num) / static_cast<double>(Den);
  static constexpr bool causal = true, prefix_stable = true;

  [[nodiscard]] static constexpr Index max_slots(Index tokens) {
    return tokens <= 0 ? 0 : std::min(tokens, Burst + Num * (tokens - 1) / Den);
  }
  /// What is wanted must leave `left` closings in the bucket; a group of G tokens is closed out of any.
  static constexpr bool step(MergeState& state, bool wanted, Index left = 0) {
    const bool first = state.tokens == 0;
    state.credit = first ? Burst * Den : std::min(state.credit + Num, Burst * Den);
    const bool grants = wanted && state.credit >= (left + 1) * Den;
    const bool closes = first || grants || (state.credit >= Den && state.length + 1 >= G);
    if (closes) state.credit -= Den;
    return state.take(closes);
  }
  /// As Unbounded<G>.
  static constexpr bool grant(MergeState& state, bool wanted) {
    return state.take(state.tokens == 0 || wanted || state.length + 1 >= G);
  }
};

/// A TokenBucket whose last R closings are for protected tokens: novel ones leave them. Its bounds are the bucket's.
/// If any n tokens in a row hold at most R + (Num / Den - 1 / G) (n - 1) protected ones, none of these is refused,
/// whatever is novel: what the closings of full groups leave of a token's gain is theirs before it is anyone's.
template <class Bucket, Index R>
struct Reserve : Bucket {
  static_assert(R > 0 && R < Bucket::burst,
                "Reserve: R must be above 0 and below the bucket's Burst: else nothing is left for novel tokens");
  static constexpr bool step(MergeState& state, Wish wish) { return Bucket::step(state, wish, wish.guarded ? 0 : R); }
};

/// All that is wanted, and groups of up to G tokens, or of any length for 0: as in H-Net (arXiv 2507.07955).
template <Index G = 0>
struct Unbounded {
  static_assert(G >= 0, "Unbounded: G must not be negative");
  static constexpr Index longest = G;
  static constexpr bool causal = true, prefix_stable = true;

  [[nodiscard]] static constexpr Index max_slots(Index tokens) { return std::max(tokens, Index{0}); }
  static constexpr bool step(MergeState& state, bool wanted) {
    return state.take(state.tokens == 0 || wanted || (G > 0 && state.length + 1 >= G));
  }
};

/// The first token and every Stride-th after it, whatever is wanted: as in Hourglass (arXiv 2110.13711), the first
/// group aside.
template <Index Stride>
struct FixedStride {
  static_assert(Stride > 0, "FixedStride: Stride must be positive");
  static constexpr Index longest = Stride;
  static constexpr bool causal = true, prefix_stable = true;

  [[nodiscard]] static constexpr Index max_slots(Index tokens) { return tokens <= 0 ? 0 : 1 + (tokens - 1) / Stride; }
  static constexpr bool step(MergeState& state, bool) {
    return state.take(state.tokens == 0 || state.length + 1 >= Stride);
  }
};

namespace detail {
/// Whether the next token closes a group: as the budget says, or, where merging is not `in_force`, as is wanted.
template <MergeBudget Budget, class State>
constexpr bool take_token(State& state, Wish wish, bool in_force) {
  if constexpr (requires { Budget::grant(state, wish); })
    if (!in_force) return Budget::grant(state, wish);
  return Budget::step(state, wish);
}
inline void require_in_force(bool in_force) {
  if (!in_force)
    refuse(ErrorCode::op_argument, "over caches merging is in force as its policy says: 1 is expected",
           "MergingOptions::strength");
}
/// The most groups that so many tokens in a row can close.
template <MergeBudget Budget>
[[nodiscard]] constexpr Index most_slots(Index tokens, bool in_force) {
  if constexpr (requires(MergeState & state) { Budget::grant(state, Wish(true)); })
    if (!in_force) return tokens;
  return Budget::max_slots(tokens);
}
}  // namespace detail

/// Of `most` tokens so many that what they close fits `slots`, and no fewer than `least`, which do.
template <MergeBudget Budget>
[[nodiscard]] Index tokens_that_fit(Index least, Index most, Index slots) {
  if (Budget::max_slots(most) <= slots) return most;
  while (most - least > 1) {
    const Index between = least + (most - least) / 2;
    (Budget::max_slots(between) <= slots ? least : most) = between;
  }
  return least;
}

/// Every token is a group of its own: nothing is merged.
using Always = FixedStride<1>;

/// No token is protected.
struct NoProtect {
  [[nodiscard]] static constexpr bool protects(std::int32_t) { return false; }
};

/// Tokens of these ids close their group where the budget lets them, and its slot is theirs alone.
template <std::int32_t... Ids>
struct ProtectTokens {
  static_assert(sizeof...(Ids) > 0, "ProtectTokens: name the ids of tokens, or take NoProtect");
  [[nodiscard]] static constexpr bool protects(std::int32_t token) { return ((token == Ids) || ...); }
};

/// Tokens whose rows are unlike the W ones before them: of an energy (token_energy) below `least`. Protected as those
/// of ProtectTokens are. A policy may derive from it and say other numbers.
template <Index W>
struct CausalEnergy {
  static_assert(W > 0, "CausalEnergy: W must be positive: a token is compared with the W before it");
  static constexpr Index window = W;
  static constexpr float margin = 0.5f, alpha = 1.0f, least = -0.25f;
};
namespace detail {
/// How many rows before a token say whether it is protected.
template <class Protect>
inline constexpr Index energy_window = 0;
template <class Protect>
requires requires { Protect::window; }
inline constexpr Index energy_window<Protect> = Protect::window;
}  // namespace detail

/// Adds to a list, such as Staged, for each token 1 if it is protected and 0 if not; under NoProtect nothing at all,
/// which says the same.
template <class Protect, class List>
constexpr void flag_protected(std::span<const std::int32_t> tokens, List& flags) {
  if constexpr (!std::is_same_v<Protect, NoProtect>)
    for (const std::int32_t token : tokens) flags.add(Protect::protects(token) ? 1 : 0);
}

}  // namespace v1
}  // namespace guild
