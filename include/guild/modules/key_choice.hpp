// Which keys of a sequence its tokens chose, and how the index that chooses them is trained.
#pragma once

#include <cstdint>

#include <guild/core/view.hpp>
#include <guild/modules/batch.hpp>
#include <guild/ops/attention/job.hpp>

namespace guild {
inline namespace v1 {

/// Of T tokens, up to K keys each. Tokens of sequences of up to K keys see all of them: nothing is written for them,
/// unless keys are chosen `everywhere`.
struct KeyChoice {
  DeviceView<std::int32_t, 2> chosen{};  ///< [T, K]: keys in ascending order, positions where each stands for one token
  DeviceView<std::int32_t> counts{};     ///< [T]: how many
  bool everywhere = false;

  /// True if tokens in a context of `length` see chosen keys alone.
  [[nodiscard]] bool limits(Index length) const {
    return chosen.data != nullptr && (everywhere || length > chosen.cols);
  }
  [[nodiscard]] KeyChoice rows(const Chunk& chunk) const {
    return {chosen.middle_rows(chunk.begin, chunk.count), counts.slice(chunk.begin, chunk.count), everywhere};
  }
};

/// Keys of the sequence of a chunk up to its end, where each stands for `tokens_per_key` tokens.
[[nodiscard]] inline Index keys_up_to(const Chunk& chunk, Index tokens_per_key = 1) {
  return (chunk.first_position + chunk.count) / tokens_per_key;
}

/// True if the tokens of a chunk see fewer keys than there are.
[[nodiscard]] inline bool must_choose(const Chunk& chunk, Index top_k, Index tokens_per_key = 1) {
  return chunk.count > 0 && keys_up_to(chunk, tokens_per_key) > top_k;
}

/// Room in `memory` for what the tokens of a batch choose; none if all of them see all keys.
template <class Memory>
[[nodiscard]] KeyChoice room_for_choice(const Batch& batch, Index top_k, Memory& memory, Index tokens_per_key = 1) {
  for (const Chunk& chunk : batch.chunks)
    if (must_choose(chunk, top_k, tokens_per_key))
      return {memory.template take<std::int32_t>(batch.size(), top_k),
              memory.template take<std::int32_t>(batch.size())};
  return {};
}

/// Chosen keys of whole sequences as bits, one sequence behind the other; of those alone that have more than K keys.
class ChosenBits {
 public:
  ChosenBits(DeviceView<std::uint32_t> all, Index top_k, Index tokens_per_key = 1)
      : rest_(all), top_k_(top_k), tokens_per_key_(tokens_per_key) {}

  /// Words of the bits of all chunks of a batch; 0 if none has more than K keys.
  [[nodiscard]] static Index words(const Batch& batch, Index top_k, Index tokens_per_key = 1) {
    Index sum = 0;
    for (const Chunk& chunk : batch.chunks) sum += words(chunk, top_k, tokens_per_key);
    return sum;
  }
  /// [n, words of its keys] of the next chunk; no data: its tokens see all keys.
  [[nodiscard]] DeviceView<std::uint32_t, 2> next(const Chunk& chunk) {
    const Index size = words(chunk, top_k_, tokens_per_key_);
    if (rest_.size == 0 || size == 0) return {};
    const DeviceView<std::uint32_t, 2> bits{rest_.data, chunk.count, size / chunk.count};
    rest_ = rest_.slice(size, rest_.size - size);
    return bits;
  }

 private:
  [[nodiscard]] static Index words(const Chunk& chunk, Index top_k, Index tokens_per_key) {
    const Index keys = chunk.count / tokens_per_key;
    return keys > top_k ? chunk.count * chosen_words(keys) : 0;
  }

  DeviceView<std::uint32_t> rest_;
  Index top_k_;
  Index tokens_per_key_;
};

/// Which keys attention sees where an index is trained.
enum class KeySight : std::uint8_t {
  chosen,  ///< those that the index chose, as always
  all,     ///< all: while the index is warmed up and chooses nothing of worth yet
};

/// The objective of indices in a pass (DeepSeek-V3.2-Exp report, equations 3 and 4): for each token the divergence of
/// the index's softmax from what attention looked at, over the keys that attention saw. It has no gradient for anything
/// but the weights of indices, and nothing else has one for these.
struct IndexingOptions {
  double weight = 0.0;  ///< of the mean over the pass's tokens; 0: indices are not trained
  KeySight sight = KeySight::chosen;
  DeviceView<double> loss_l{};  ///< [layers], or no data: backward adds the objective, without the weight
};

}  // namespace v1
}  // namespace guild
