// What merging knew of a sequence after each of its last tokens.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

#include <guild/core/refuse.hpp>
#include <guild/modules/merge_budget.hpp>

namespace guild {
inline namespace v1 {

/// The states after the last Chunk + 1 tokens of a sequence, in the host's memory: as those of a RingCache, Chunk
/// tokens may be taken in at once, or be forgotten, and more at once forgotten all together until the next are taken
/// in. `State` is that of a budget. A SequenceCache that allocates nothing.
template <Index Chunk, class State = MergeState>
class MergeStates {
  static_assert(Chunk > 0, "MergeStates: Chunk must be positive");

 public:
  static constexpr Index chunk = Chunk, ring = Chunk + 1;
  struct Mark {
    Index length = 0;
  };

  [[nodiscard]] Index length() const { return now_.length; }
  [[nodiscard]] Index reserved() const { return room_; }
  /// None: the states lie in the cache itself.
  [[nodiscard]] static constexpr Index bytes(Index) { return 0; }
  void reserve(Index tokens) { room_ = std::max(room_, tokens); }

  /// Takes in `tokens` more tokens, whose states are to be written. Throws op_shape without room for them.
  void append(Index tokens) {
    if (tokens < 0 || tokens > room_ - now_.length)
      detail::refuse(ErrorCode::op_shape, {tokens, " tokens do not fit a cache that holds ", now_.length, " of ", room_,
                                           "; reserve room first"});
    can_undo_ = tokens > Chunk;
    if (can_undo_) before_ = now_;
    now_.length += tokens;
    now_.written = std::max(now_.written, now_.length);
  }
  /// The state after `tokens` of them, 0 < tokens <= length().
  void write(Index tokens, const State& state) {
    if (tokens + Chunk >= now_.length) now_.states[row_of(tokens)] = state;  // others will not be asked for
  }

  /// The state after all tokens.
  [[nodiscard]] State state() const { return now_.after(now_.length); }
  /// After the first `tokens`, to which the cache can go back. Throws op_argument.
  [[nodiscard]] State state(Index tokens) const {
    if (undoes(tokens)) return before_.after(tokens);
    check(tokens);
    return now_.after(tokens);
  }
  /// The fewest tokens to which the cache can go back, but 0, that closed at least `slots` groups; length() if none
  /// did.
  [[nodiscard]] Index fewest_tokens(Index slots) const {
    Index tokens = oldest();
    while (tokens < now_.length && now_.after(tokens).slots < slots) ++tokens;
    return tokens;
  }

  [[nodiscard]] Mark mark() const { return {now_.length}; }
  [[nodiscard]] Mark mark(Index tokens) const { return {tokens}; }
  [[nodiscard]] Index oldest() const { return now_.written <= ring ? 0 : now_.written - Chunk; }
  /// Throws op_argument for a mark of states that are not there, or no longer.
  void check_rewind(const Mark& mark) const {
    if (!undoes(mark.length)) check(mark.length);
  }
  /// Throws as `check_rewind` does.
  void rewind(const Mark& mark) {
    check_rewind(mark);
    if (undoes(mark.length)) now_ = before_;
    now_.length = mark.length;
    if (now_.length == 0) now_.written = 0;
    can_undo_ = false;
  }

 private:
  [[nodiscard]] static constexpr std::size_t row_of(Index tokens) { return static_cast<std::size_t>(tokens % ring); }
  struct Ring {
    std::array<State, std::size_t{ring}> states{};
    Index length = 0;
    Index written = 0;  ///< tokens whose states were written: more than length once it went back, until it is as long

    [[nodiscard]] State after(Index tokens) const { return tokens == 0 ? State{} : states[row_of(tokens)]; }
  };

  [[nodiscard]] bool undoes(Index tokens) const {
    return can_undo_ && tokens == before_.length && tokens != now_.length;
  }
  void check(Index tokens) const {
    if (tokens < 0 || tokens > now_.length || (tokens > 0 && tokens < oldest()))
      detail::refuse(ErrorCode::op_argument,
                     {"the states of a sequence of ", now_.length, " tokens, which can go back to ", oldest(),
                      " or to the beginning, do not go back to ", tokens});
  }

  Ring now_{};
  Ring before_{};
  bool can_undo_ = false;
  Index room_ = 0;
};

}  // namespace v1
}  // namespace guild
