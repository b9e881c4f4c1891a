// What merging knew of a sequence after each of its last tokens.
#pragma once

#include <cassert>

#include <guild/core/view.hpp>
#include <guild/modules/merge_budget.hpp>
#include <guild/modules/ring_cache.hpp>

namespace guild {
inline namespace v1 {

/// A ring of the states after the last tokens of a sequence, in the host's memory: State::kept of them, which tokens to
/// come need, and as many more as Chunk may be taken in at once or be forgotten. It goes back as rings of rows do.
/// `State` is that of a budget. A SequenceCache.
template <Index Chunk, class State = MergeState>
class MergeStates : public RingCache<State, 1, State::kept + 1, 0, Chunk> {
  static_assert(State::kept > 0, "MergeStates: State::kept must be positive: a token goes on from the last state");
  using Ring = RingCache<State, 1, State::kept + 1, 0, Chunk>;

 public:
  using typename Ring::Mark;

  /// The state after `tokens` of them, 0 < tokens <= length(), of those that were appended. Others than the last will
  /// not be asked for, and are not kept.
  void write(Index tokens, const State& state) {
    if (tokens > this->first_kept()) *this->row(tokens - 1) = state;
  }

  /// The state after all tokens.
  [[nodiscard]] State state() const { return this->length() == 0 ? State{} : after(this->length()); }
  /// After the first `tokens`, to which the cache can go back. Throws op_argument.
  [[nodiscard]] State state(Index tokens) const {
    this->check_rewind({tokens});
    return tokens == 0 ? State{} : *this->row(tokens - 1, {tokens});
  }
  /// After the first `tokens`, even where the cache cannot go back to them: less than State::kept before where it can.
  [[nodiscard]] const State& after(Index tokens) const {
    assert(tokens > this->first_kept() && tokens <= this->length());
    return *this->row(tokens - 1, this->mark());
  }
  /// The fewest tokens to which the cache can go back, but 0, that closed at least `slots` groups; length() if none
  /// did.
  [[nodiscard]] Index fewest_tokens(Index slots) const {
    Index tokens = this->oldest();
    while (tokens < this->length() && (tokens == 0 ? 0 : after(tokens).slots) < slots) ++tokens;
    return tokens;
  }
};

}  // namespace v1
}  // namespace guild
