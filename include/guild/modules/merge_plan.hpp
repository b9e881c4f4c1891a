// Which tokens of a pass become one slot: made on the host, of how novel each token is and what came before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <guild/core/refuse.hpp>
#include <guild/device/staged.hpp>
#include <guild/device/transfer.hpp>
#include <guild/modules/batch.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/merge_budget.hpp>
#include <guild/modules/merge_position.hpp>
#include <guild/modules/merge_states.hpp>
#include <guild/modules/merge_window.hpp>
#include <guild/modules/pass.hpp>

namespace guild {
inline namespace v1 {

/// What the plan of a pass over T tokens is made of, on the host.
struct MergeInput {
  std::span<const float> novelty{};         ///< [T]: p
  std::span<const std::int32_t> guarded{};  ///< [T]: 0 for tokens that are not protected; or empty: none is
  std::span<const std::int32_t> tokens{};   ///< [T]: ids, or empty: then slots have none
  /// [T]: of tokens that are slots themselves, or empty: they count up from their chunk's first
  std::span<const std::int32_t> positions{};
  std::span<const float> masses{};  ///< [T]: or empty: 1 each
  float threshold = 0.5f;           ///< tokens of no less novelty want to close their group
  bool in_force = true;             ///< or else budgets grant what is wanted (MergingOptions): of whole sequences alone
};

/// The groups of a pass: consecutive tokens of a sequence, each closed by its last one, which is novel, or all those of
/// a window by the token that completes it. A group may have begun in an earlier pass; the tokens after the last one
/// that closed have no slot yet. Slots of a sequence count
/// from 0 over all its passes. All spans lie in memory that the device lends to the host for the plan's life, as
/// Staged.
template <class Device>
class MergePlan {
 public:
  /// Continues the sequences of `states`, which takes in the chunks' tokens; without, the chunks are whole sequences.
  /// Throws op_shape for chunks and lists that do not go together.
  template <MergeBudget Budget, class States = MergeStates<1, MergeStateOf<Budget>>,
            MergePosition Position = LastPosition>
  MergePlan(Device& device, Budget, const Batch& batch, const MergeInput& input, Caches<States> states = {},
            Position = {})
      : MergePlan(device, batch, most_slots<Budget>(batch, input.in_force), WindowBudget<Budget>, input) {
    static_assert(Budget::causal && Budget::prefix_stable,
                  "MergePlan: a budget that looks ahead cannot tell what a token closes when it comes");
    if (!states) check_whole(batch);
    if (states) detail::require_in_force(input.in_force);
    for (const Chunk& chunk : batch.chunks) {
      MergeStateOf<Budget> state{};
      TokenWindow<detail::window_of<Budget>> open{};
      if (states) {
        States& cache = states[chunk.sequence];
        if (chunk.count > 0 && cache.length() != chunk.first_position)
          detail::refuse(ErrorCode::op_shape, {"a chunk starts at position ", chunk.first_position,
                                               ", but its tokens are merged up to ", cache.length()});
        state = cache.state();
        if constexpr (WindowBudget<Budget>)
          for (Index i = 0; i < state.length; ++i)
            open[static_cast<std::size_t>(i)] = cache.after(cache.length() - state.length + 1 + i).token;
        if (chunk.count > 0) cache.append(chunk.count);
        add<Budget, Position>(chunk, input, state, open, [&](const auto& now) { cache.write(now.tokens, now); });
      } else {
        add<Budget, Position>(chunk, input, state, open, [](const auto&) {});
      }
    }
  }

  // Of each token of the pass.
  /// [T]: 1 for tokens that close a group, 0 for others.
  [[nodiscard]] std::span<const std::int32_t> closes() const { return closes_.ready(); }
  /// [T]: the last slot of its sequence that is closed, by itself or before: there is one, but for windows.
  [[nodiscard]] std::span<const std::int32_t> slots() const { return slots_.ready(); }
  /// [T]: 1 for tokens that are a group of their own and close it themselves, 0 for others.
  [[nodiscard]] std::span<const std::int32_t> singles() const { return singles_.ready(); }

  /// How many tokens are novel enough to want to close a group, whether the budget let them or not.
  [[nodiscard]] Index novel() const { return novel_; }

  // Of each of the M slots that the pass closes, chunk by chunk.
  [[nodiscard]] Index size() const { return first_.size(); }
  /// [M]: its group's first and last token, counted in their sequence.
  [[nodiscard]] std::span<const std::int32_t> first() const { return first_.ready(); }
  [[nodiscard]] std::span<const std::int32_t> last() const { return last_.ready(); }
  /// [M]: the token that closed it: the last one, but for windows.
  [[nodiscard]] std::span<const std::int32_t> closed() const { return windows_ ? closed_.ready() : last(); }
  /// [M]: where the slots stand, as Position says; one that is its last token alone, as it is protected, where that
  /// does.
  [[nodiscard]] std::span<const std::int32_t> positions() const { return positions_.ready(); }
  /// [M]: 1 for slots that are their last token alone, as it is protected, 0 for others.
  [[nodiscard]] std::span<const std::int32_t> closing_only() const { return closing_only_.ready(); }
  /// [M]: ids of the last tokens; empty if the plan was given none.
  [[nodiscard]] std::span<const std::int32_t> tokens() const { return tokens_.ready(); }
  /// For each chunk of the pass its slots, as the chunk of a batch of slots: how many, behind how many earlier ones.
  [[nodiscard]] std::span<const Chunk> chunks() const { return chunks_.ready(); }

  /// The slots as a batch, of lists that lie here or in `memory`.
  template <class Memory>
  [[nodiscard]] Batch batch(Device& device, Memory& memory) const {
    return {.tokens = upload(device, tokens(), memory),
            .positions = upload(device, positions(), memory),
            .chunks = chunks()};
  }

 private:
  template <class T>
  using List = Staged<Device, T>;

  MergePlan(Device& device, const Batch& batch, Index slots, bool windows, const MergeInput& input)
      : closes_(device, checked(batch, input)),
        slots_(device, batch.size()),
        singles_(device, batch.size()),
        first_(device, slots),
        last_(device, slots),
        positions_(device, slots),
        closing_only_(device, slots),
        tokens_(device, input.tokens.empty() ? 0 : slots),
        closed_(device, windows ? slots : 0),
        chunks_(device, batch.chunk_count()),
        most_(slots),
        windows_(windows),
        names_(!input.tokens.empty()) {}

  template <class Budget>
  [[nodiscard]] static Index most_slots(const Batch& batch, bool in_force) {
    Index most = 0;
    for (const Chunk& chunk : batch.chunks) most += detail::most_slots<Budget>(chunk.count, in_force);
    return most;
  }
  /// T.
  [[nodiscard]] static Index checked(const Batch& batch, const MergeInput& input) {
    check(batch);
    const auto bad = [&](std::size_t size) { return static_cast<Index>(size) != batch.size(); };
    if (bad(input.novelty.size()) || (!input.guarded.empty() && bad(input.guarded.size())) ||
        (!input.tokens.empty() && bad(input.tokens.size())) ||
        (!input.positions.empty() && bad(input.positions.size())) ||
        (!input.masses.empty() && bad(input.masses.size())))
      detail::refuse(ErrorCode::op_shape,
                     {"a plan of ", batch.size(), " tokens needs as many of each list, and has ", input.novelty.size(),
                      " of novelty, ", input.guarded.size(), " of protection, ", input.tokens.size(), " of ids, ",
                      input.positions.size(), " of positions and ", input.masses.size(), " of masses"});
    return batch.size();
  }

  /// `open`: of a window that has begun, its tokens.
  template <class Budget, class Position, class Window, class Write>
  void add(const Chunk& chunk, const MergeInput& input, MergeStateOf<Budget> state, Window& open, Write&& write) {
    const Index begin = size(), before = state.slots;
    for (Index i = 0; i < chunk.count; ++i) {
      const auto row = static_cast<std::size_t>(chunk.begin + i);
      const bool guarded = !input.guarded.empty() && input.guarded[row] != 0;
      const float novelty = input.novelty[row];
      const Index token = chunk.first_position + i, group = state.length + 1;
      const OpenToken now{novelty, input.masses.empty() ? 1.0f : input.masses[row],
                          input.positions.empty() ? static_cast<std::int32_t>(token) : input.positions[row],
                          names_ ? input.tokens[row] : 0, guarded};
      if constexpr (WindowBudget<Budget>)
        state.token = open[static_cast<std::size_t>(state.length)] = now;
      else
        Position::take(state, now.position, now.mass);
      const bool novel = novelty >= input.threshold;
      novel_ += novel ? 1 : 0;
      const bool closes = detail::take_token<Budget>(state, Wish(novel, guarded), input.in_force);
      write(state);
      closes_.add(closes ? 1 : 0);
      slots_.add(static_cast<std::int32_t>(state.slots - 1));
      bool single = closes && group == 1;
      if constexpr (WindowBudget<Budget>)
        single = closes && add_window<Budget, Position>(open, token);
      else if (closes)
        add_group(token, token, group, now, Position::of(state));
      singles_.add(single ? 1 : 0);
    }
    if (state.slots - before != size() - begin)
      detail::refuse(ErrorCode::op_argument,
                     {"a budget counts ", state.slots - before, " slots where ", size() - begin, " groups close"},
                     "MergePlan: Budget");
    chunks_.add({chunk.sequence, begin, size() - begin, before});
  }
  /// The groups of a window that token `end` completes; returns whether that is a group of its own.
  template <class Budget, class Position, class Window>
  bool add_window(const Window& window, Index end) {
    const auto ends = Budget::ends(window);
    MergeState group{};
    Index length = 0;
    for (std::size_t i = 0; i < window.size(); ++i) {
      Position::take(group, window[i].position, window[i].mass);
      length = group.length + 1;
      if (group.take(ends[i]))
        add_group(end + 1 - Budget::window + Index(i), end, length, window[i], Position::of(group));
    }
    return length == 1;
  }
  /// `length` tokens up to `last`, at a position, closed by token `closing`.
  void add_group(Index last, Index closing, Index length, const OpenToken& of_last, Index position) {
    if (size() == most_)
      detail::refuse(ErrorCode::op_argument,
                     {"a budget closes more groups than the ", most_, " that its max_slots says of these tokens"},
                     "MergePlan: Budget");
    first_.add(static_cast<std::int32_t>(last + 1 - length));
    last_.add(static_cast<std::int32_t>(last));
    positions_.add(of_last.guarded ? of_last.position : static_cast<std::int32_t>(position));
    closing_only_.add(of_last.guarded ? 1 : 0);
    if (names_) tokens_.add(of_last.id);
    if (windows_) closed_.add(static_cast<std::int32_t>(closing));
  }

  List<std::int32_t> closes_, slots_, singles_, first_, last_, positions_, closing_only_;
  List<std::int32_t> tokens_, closed_;
  List<Chunk> chunks_;
  Index most_;
  bool windows_, names_;  ///< whether groups close by windows, and slots have ids
  Index novel_ = 0;
};

}  // namespace v1
}  // namespace guild
