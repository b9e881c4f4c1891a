// Which tokens of a pass are folded into the row of the token before: made on the host, of how novel each token is and
// what came before.
#pragma once

#include <cstdint>
#include <span>

#include <guild/core/refuse.hpp>
#include <guild/device/staged.hpp>
#include <guild/modules/batch.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/merge_budget.hpp>
#include <guild/modules/merge_states.hpp>

namespace guild {
inline namespace v1 {

/// Groups of consecutive tokens, each begun by its first one. The plan of a prefix is the prefix of the plan. All spans
/// lie in memory that the device lends to the host for the plan's life, as Staged.
template <class Device>
class RunningPlan {
 public:
  /// `wants(row)`: whether that token wants to begin a group. Continues the sequences of `states`, which takes in the
  /// chunks' tokens; without, the chunks are whole sequences. `in_force`: see MergeInput. Throws op_shape for a chunk
  /// that does not follow its states.
  template <MergeBudget Budget, class Wants, class States = MergeStates<1>>
  RunningPlan(Device& device, Budget, const Batch& batch, Wants&& wants, Caches<States> states = {},
              bool in_force = true)
      : counts_(device, batch.size()),
        groups_(device, batch.size()),
        masses_(device, batch.size() + batch.chunk_count()),
        before_(device, batch.chunk_count()) {
    if (states) detail::require_in_force(in_force);
    for (const Chunk& chunk : batch.chunks) {
      MergeState state{};
      if (states && chunk.count > 0) {
        if (states[chunk.sequence].length() != chunk.first_position)
          detail::refuse(ErrorCode::op_shape, {"a chunk starts at position ", chunk.first_position,
                                               ", but its cache holds ", states[chunk.sequence].length(), " tokens"});
        state = states[chunk.sequence].state();
        states[chunk.sequence].append(chunk.count);
      }
      before_.add(state);
      for (Index i = 0; i < chunk.count; ++i) {
        detail::take_token<Budget>(state, wants(chunk.begin + i), in_force);
        if (state.slots == 0)
          detail::refuse(ErrorCode::op_argument, "a budget must let the first token of a sequence begin a group",
                         "RunningPlan: Budget");
        if (states) states[chunk.sequence].write(state.tokens, state);
        counts_.add(static_cast<std::int32_t>(state.length + 1));
        groups_.add(static_cast<std::int32_t>(state.slots - 1));
        masses_.add(static_cast<float>(state.length + 1));
        merges_ = merges_ || state.length > 0;
      }
    }
    for (const MergeState& state : before_.ready()) masses_.add(static_cast<float>(state.length + 1));
  }

  /// [T]: how many tokens of its group there are up to each token: 1 where one begins.
  [[nodiscard]] std::span<const std::int32_t> counts() const { return counts_.ready(); }
  /// [T + chunks]: the same, and behind them that of the last token before each chunk.
  [[nodiscard]] std::span<const float> masses() const { return masses_.ready(); }
  /// The group of the token in a row of the pass, counted in its sequence.
  [[nodiscard]] Index group(Index row) const { return groups_.ready()[static_cast<std::size_t>(row)]; }
  [[nodiscard]] bool begins(Index row) const { return counts()[static_cast<std::size_t>(row)] == 1; }
  /// Of a row of a chunk: whether the pass has no later token of its group.
  [[nodiscard]] bool is_last(const Chunk& chunk, Index row) const {
    return row + 1 == chunk.begin + chunk.count || begins(row + 1);
  }
  /// Whether a row of the sequence stood for the token before the chunk, and for none of it.
  [[nodiscard]] bool follows_a_group(const Chunk& chunk) const {
    return chunk.count > 0 && chunk.first_position > 0 && begins(chunk.begin);
  }
  /// Whether a token of the chunk sees another row of its group than a later one does.
  [[nodiscard]] bool folds(const Chunk& chunk) const {
    for (Index row = chunk.begin + 1; row < chunk.begin + chunk.count; ++row)
      if (!begins(row)) return true;
    return false;
  }
  /// Whether any token is folded.
  [[nodiscard]] bool merges() const { return merges_; }

 private:
  Staged<Device, std::int32_t> counts_, groups_;
  Staged<Device, float> masses_;
  Staged<Device, MergeState> before_;
  bool merges_ = false;
};

}  // namespace v1
}  // namespace guild
