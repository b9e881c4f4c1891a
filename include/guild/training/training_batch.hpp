// What one training step learns from: packed sequences and the token that should follow each of theirs.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/modules/pass.hpp>

namespace guild {
inline namespace v1 {

/// Sequences one after the other, without padding: T tokens in all. Attention never crosses a sequence.
struct TrainingBatch {
  static constexpr std::int32_t ignored = -1;  ///< a target that is not learned from

  std::vector<std::int32_t> tokens;     ///< [T]
  std::vector<std::int32_t> positions;  ///< [T], from 0 in each sequence
  std::vector<std::int32_t> targets;  ///< [T]: the token after (or, for masked language models, below) each; or ignored
  std::vector<Chunk> chunks;          ///< one for each sequence

  [[nodiscard]] Index size() const { return static_cast<Index>(tokens.size()); }
  [[nodiscard]] Batch batch() const {
    return {{tokens.data(), size()},
            {positions.data(), static_cast<Index>(positions.size())},
            std::span<const Chunk>(chunks)};
  }
  [[nodiscard]] View<const std::int32_t> target_view() const { return {targets.data(), size()}; }
  /// How many targets are learned from.
  [[nodiscard]] Index supervised() const {
    Index count = 0;
    for (const std::int32_t target : targets) count += target >= 0 ? 1 : 0;
    return count;
  }

  void clear() {
    tokens.clear();
    positions.clear();
    targets.clear();
    chunks.clear();
  }
  /// Appends a sequence: tokens and targets of equal length. Throws op_shape if they differ.
  void append(std::span<const std::int32_t> sequence, std::span<const std::int32_t> its_targets) {
    if (sequence.size() != its_targets.size())
      detail::refuse(ErrorCode::op_shape, {"a sequence of ", sequence.size(), " tokens came with ", its_targets.size(),
                                           " targets; give one for each token"});
    const auto count = static_cast<Index>(sequence.size());
    chunks.push_back({static_cast<int>(chunks.size()), size(), count, 0});
    tokens.insert(tokens.end(), sequence.begin(), sequence.end());
    targets.insert(targets.end(), its_targets.begin(), its_targets.end());
    for (Index i = 0; i < count; ++i) positions.push_back(static_cast<std::int32_t>(i));
  }
};

/// Throws op_shape unless every token has a position and a target, and the chunks are whole sequences, one after the
/// other. Tokens and targets are compared with the vocabulary where they are used.
inline void check(const TrainingBatch& batch) {
  check(batch.batch());
  check_positions(batch.batch(), {batch.positions.data(), static_cast<Index>(batch.positions.size())});
  check_whole(batch.batch());
  if (batch.targets.size() != batch.tokens.size())
    detail::refuse(ErrorCode::op_shape, {"the batch has ", batch.tokens.size(), " tokens and ", batch.targets.size(),
                                         " targets; give one for each token"});
}

}  // namespace v1
}  // namespace guild
