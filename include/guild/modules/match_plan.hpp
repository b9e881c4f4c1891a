// The groups of tokens that merge anywhere in their sequence, in an order in which each lies together.
#pragma once

#include <cstdint>
#include <span>

#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>
#include <guild/device/arena.hpp>
#include <guild/device/staged.hpp>
#include <guild/modules/batch.hpp>
#include <guild/modules/pass.hpp>

namespace guild {
inline namespace v1 {

/// A pass's tokens sorted by their slots. Slots of a sequence are in the order of their first tokens, and so are the
/// tokens of a slot: where nothing merges, nothing moves. Spans lie in memory that the device lends to the host for
/// the plan's life, as Staged. Places and rows are those of the pass.
template <class Device>
class MatchPlan {
 public:
  /// into [T]: the token, counted in its sequence, into which each merges, itself if it does not. Throws op_shape for
  /// chunks that are no whole sequences, and for a token that merges into one that is none or merges itself.
  MatchPlan(Device& device, const Batch& batch, View<const std::int32_t> into)
      : frame_(device.staging()),
        place_(frame_.template take<std::int32_t>(batch.size())),
        order_(frame_.template take<std::int32_t>(batch.size())),
        slot_(frame_.template take<std::int32_t>(batch.size())),
        single_(frame_.template take<std::int32_t>(batch.size())),
        first_(frame_.template take<std::int32_t>(batch.size())),
        last_(frame_.template take<std::int32_t>(batch.size())),
        leader_(frame_.template take<std::int32_t>(batch.size())),
        slot_of_(frame_.template take<std::int32_t>(batch.size())),
        chunks_(frame_.template take<Chunk>(batch.chunk_count())) {
    check(batch);
    check_whole(batch);
    if (into.size != batch.size())
      detail::refuse(ErrorCode::op_shape, {"a plan of ", batch.size(), " tokens needs as many, and has ", into.size});
    for (Index i = 0; i < batch.chunk_count(); ++i) {
      const Chunk& chunk = batch.chunks[static_cast<std::size_t>(i)];
      const Index begin = slots_;
      add(chunk, into.slice(chunk.begin, chunk.count));
      chunks_[i] = {chunk.sequence, begin, slots_ - begin, 0};
    }
  }
  MatchPlan(const MatchPlan&) = delete;
  MatchPlan& operator=(const MatchPlan&) = delete;

  /// [T]: where each token goes, a bijection within its chunk; and its inverse.
  [[nodiscard]] std::span<const std::int32_t> place() const { return list(place_, place_.size); }
  [[nodiscard]] std::span<const std::int32_t> order() const { return list(order_, order_.size); }
  // Of the tokens in their new order.
  /// [T]: its slot, counted in its sequence.
  [[nodiscard]] std::span<const std::int32_t> slot() const { return list(slot_, slot_.size); }
  /// [T]: 1 for tokens that are a slot of their own, 0 for others.
  [[nodiscard]] std::span<const std::int32_t> single() const { return list(single_, single_.size); }

  // Of each of the M slots, chunk by chunk.
  [[nodiscard]] Index size() const { return slots_; }
  /// [M]: the places of its first and last token, counted in their sequence.
  [[nodiscard]] std::span<const std::int32_t> first() const { return list(first_, slots_); }
  [[nodiscard]] std::span<const std::int32_t> last() const { return list(last_, slots_); }
  /// [M]: the row of its first token, before they moved.
  [[nodiscard]] std::span<const std::int32_t> leader() const { return list(leader_, slots_); }
  /// For each chunk of the pass its slots, as the chunk of a batch of slots.
  [[nodiscard]] std::span<const Chunk> chunks() const { return list(chunks_, chunks_.size); }

 private:
  template <class T>
  static std::span<const T> list(View<T> of, Index size) {
    return {of.data, static_cast<std::size_t>(size)};
  }

  void add(const Chunk& chunk, View<const std::int32_t> into) {
    const Index begin = slots_;
    for (Index t = 0; t < chunk.count; ++t) slot_of_[t] = -1;  // of tokens that receive, counted in the sequence
    for (Index t = 0; t < chunk.count; ++t) {
      const Index root = into[t];
      if (root < 0 || root >= chunk.count || into[root] != root)
        detail::refuse(ErrorCode::op_shape, {"token ", t, " of ", chunk.count, " merges into token ", root,
                                             ", which is none or merges itself"});
      if (slot_of_[root] < 0) {
        slot_of_[root] = static_cast<std::int32_t>(slots_ - begin);
        leader_[slots_] = static_cast<std::int32_t>(chunk.begin + t);
        last_[slots_++] = -1;
      }
      ++last_[begin + slot_of_[root]];  // of a slot of n tokens n - 1
    }
    std::int32_t next = 0;
    for (Index j = begin; j < slots_; ++j) {
      first_[j] = next;
      next += last_[j] + 1;
      last_[j] = first_[j];  // where the next token goes
    }
    for (Index t = 0; t < chunk.count; ++t) {
      const std::int32_t slot = slot_of_[into[t]];
      const Index to = chunk.begin + last_[begin + slot]++;
      place_[chunk.begin + t] = static_cast<std::int32_t>(to);
      order_[to] = static_cast<std::int32_t>(chunk.begin + t);
      slot_[to] = slot;
    }
    for (Index j = begin; j < slots_; ++j)
      for (Index at = first_[j]; at < last_[j]; ++at) single_[chunk.begin + at] = last_[j] - first_[j] == 1 ? 1 : 0;
    for (Index j = begin; j < slots_; ++j) --last_[j];
  }

  Arena::Frame frame_;
  View<std::int32_t> place_, order_, slot_, single_, first_, last_, leader_, slot_of_;
  View<Chunk> chunks_;
  Index slots_ = 0;
};

}  // namespace v1
}  // namespace guild
