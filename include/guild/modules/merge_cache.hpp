// The cache of a span of layers that run on merged tokens.
#pragma once

#include <algorithm>

#include <guild/core/view.hpp>
#include <guild/modules/merge_states.hpp>
#include <guild/modules/merge_window.hpp>
#include <guild/modules/ring_cache.hpp>
#include <guild/modules/sequence_cache.hpp>

namespace guild {
inline namespace v1 {

/// Counts tokens; the caches of the inner layers count slots. Rings hold what tokens to come need of those before: the
/// rows of the open group, the last slot with what was added to it, and what merging knew after each of the last
/// tokens. A SequenceCache whose memory beside the inner caches does not grow.
template <class Merging, class InnerCache>
struct MergeCache {
  using Policy = typename Merging::Policy;
  using Budget = typename Merging::Budget;
  using Tokens = RingCache<float, Merging::hidden + Merging::rank, Merging::kept, 0, Policy::chunk>;  ///< [x | k]
  using Scores = RingCache<float, 2, Merging::kept, 0, Policy::chunk>;  ///< [logit | mass]
  using States = MergeStates<Policy::chunk, MergeStateOf<Budget>>;
  static constexpr Index slots_at_once = std::max(Policy::chunk, Budget::max_slots(Policy::chunk));
  using Slots = RingCache<float, 2 * Merging::hidden, 2, 0, slots_at_once>;  ///< [slot | what was added, smoothed]
  struct Mark {
    typename Tokens::Mark tokens{};
    typename Scores::Mark scores{};
    typename States::Mark states{};
    typename Slots::Mark slots{};
    typename InnerCache::Mark inner{};
  };
  Tokens tokens{};
  Scores scores{};
  States states{};
  Slots slots{};
  InnerCache inner{};

  [[nodiscard]] Index length() const { return tokens.length(); }
  /// Whatever so many tokens close has room: of a copy, whose inner caches may have none behind what they hold, few
  /// more than its length.
  [[nodiscard]] Index reserved() const {
    return tokens_that_fit<Budget>(length(), tokens.reserved(), inner.reserved());
  }
  void reserve(Index count) {
    const Index most = Budget::max_slots(count);
    inner.reserve(most);
    slots.reserve(most);
    states.reserve(count);
    scores.reserve(count);
    tokens.reserve(count);
  }
  [[nodiscard]] Mark mark() const { return {tokens.mark(), scores.mark(), states.mark(), slots.mark(), inner.mark()}; }
  [[nodiscard]] Mark mark(Index count) const {
    if (count == length()) return mark();
    const Index closed = count == 0 ? 0 : states.state(count).slots;
    return {tokens.mark(count), scores.mark(count), states.mark(count), slots.mark(closed), inner.mark(closed)};
  }
  [[nodiscard]] Index oldest() const {
    const Index of_slots = std::max(slots.oldest(), inner.oldest());
    const Index of_tokens = std::max({tokens.oldest(), scores.oldest(), states.oldest()});
    return of_slots == 0 ? of_tokens : std::max(of_tokens, states.fewest_tokens(of_slots));
  }
  /// Throws what a part does that cannot go back so far.
  void check_rewind(const Mark& mark) const {
    tokens.check_rewind(mark.tokens);
    scores.check_rewind(mark.scores);
    states.check_rewind(mark.states);
    slots.check_rewind(mark.slots);
    detail::check_rewind(inner, mark.inner);
  }
  /// Throws as `check_rewind` does, and then changes nothing.
  void rewind(const Mark& mark) {
    check_rewind(mark);
    tokens.rewind(mark.tokens);
    scores.rewind(mark.scores);
    states.rewind(mark.states);
    slots.rewind(mark.slots);
    inner.rewind(mark.inner);
  }
  /// Bytes of the rows of `count` tokens, of as many slots as they may close.
  [[nodiscard]] static constexpr Index bytes(Index count) {
    const Index most = Budget::max_slots(count);
    return Tokens::bytes(count) + Scores::bytes(count) + States::bytes(count) + Slots::bytes(most) +
           InnerCache::bytes(most);
  }
};

}  // namespace v1
}  // namespace guild
