// Which tokens of a whole sequence merge, as types: for models that see it whole (masked language models), and for no
// others, since a token after another decides with whom that one merges.
//
//   struct Third : guild::DefaultMatching {
//     using Match = guild::BipartiteSoftMatch<1, 3>;   // N tokens become N - floor(N / 3) slots
//     using Protect = guild::ProtectTokens<103>;       // [MASK]
//   };
#pragma once

#include <algorithm>

#include <guild/core/view.hpp>
#include <guild/modules/merge_budget.hpp>
#include <guild/modules/merge_policies.hpp>
#include <guild/modules/merge_position.hpp>

namespace guild {
inline namespace v1 {

/// How the tokens that may merge are parted into those that go (A) and those that receive (B).
enum class MatchSides {
  in_turn,    ///< every second of the sequence goes
  by_energy,  ///< of those that are most redundant, in that order, every second goes; the others stay as they are
};

/// ToMe (arXiv 2210.09461, section 3): each token of A has an edge to that of B which is most like it, by the cosine,
/// and the floor(Num / Den N) edges of largest cosine merge; equal ones in the order of their tokens in A. A are the
/// tokens of even number among those that are not protected, or of odd number for Parity 1: spans that follow each
/// other may take turns. Of U that are not protected at most floor(U / 2) go.
template <Index Num, Index Den, int Parity = 0>
struct BipartiteSoftMatch {
  static_assert(
      Num >= 0 && Den > 0 && 2 * Num <= Den,
      "BipartiteSoftMatch: Num / Den must be from 0 to 1 / 2: each token that goes has one of the other half");
  static_assert(Parity == 0 || Parity == 1, "BipartiteSoftMatch: Parity is 0 or 1");
  static constexpr MatchSides sides = MatchSides::in_turn;
  static constexpr int parity = Parity;
  static constexpr Index reach = 0;  ///< places in B that a token of A sees beside its own; 0: all
  /// Edges that merge in a sequence of `tokens`, `free` of which are not protected.
  [[nodiscard]] static constexpr Index merged(Index tokens, Index free) {
    return std::min(Num * tokens / Den, free / 2);
  }
};

/// Neighbours that are most alike, of the whole sequence (local merging, arXiv 2405.17951, with k = 1): the pairs
/// (0, 1), (2, 3), ... of tokens that are not protected, or (1, 2), (3, 4), ... for Parity 1. How many pairs merge is
/// that of a whole sequence, so this is not causal, although all pairs are neighbours.
template <Index Num, Index Den, int Parity = 0>
struct SequenceTopR : BipartiteSoftMatch<Num, Den, Parity> {
  static constexpr Index reach = 1;
  [[nodiscard]] static constexpr Index merged(Index tokens, Index free) {
    return std::min(Num * tokens / Den, std::max(free - Parity, Index{0}) / 2);
  }
};

/// PiToMe (arXiv 2405.16148): the energy of a token is the mean of f(cos) over all others, f(c) = c from `margin` on
/// and alpha (e^(c - margin) - 1) below; of the 2 floor(Num / Den N) tokens of largest energy, the redundant ones,
/// every second goes to the one of the others that is most like it. Tokens of low energy are not blended.
template <Index Num, Index Den, int Parity = 0>
struct EnergyMatch : BipartiteSoftMatch<Num, Den, Parity> {
  static constexpr MatchSides sides = MatchSides::by_energy;
  static constexpr double margin = 0.5, alpha = 1.0;  ///< of a type that derives from this one, others
};

/// Matching as it is recommended: half of the tokens.
struct DefaultMatching {
  using Match = BipartiteSoftMatch<1, 2>;
  using Protect = NoProtect;  ///< [MASK] of a masked language model
  /// That of a slot's first token: apart from all others and ascending, as slots are. Centroids of tokens that lie far
  /// from each other may be equal and change the order.
  using Position = FirstPosition;
  static constexpr bool proportional = true;  ///< attention weighs slots by their masses, as Weighted kinds do
};

/// Inflation of matched tokens: slots of a whole sequence have no order to be smoothed in, nor novelty to learn from.
/// CopyUnmerge is another one: that of ToMe-SD.
struct MatchedInflation : DefaultInflation {
  static constexpr bool smooths = false, confidence = false;
};

}  // namespace v1
}  // namespace guild
