// Tokens of several sequences, flattened: one forward serves them all, prefill and decode mixed.
#pragma once

#include <cstdint>
#include <span>

#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

/// Consecutive rows of a batch that continue one sequence.
struct Chunk {
  int sequence = 0;          ///< which cache they extend
  Index begin = 0;           ///< first row in the batch
  Index count = 0;           ///< rows
  Index first_position = 0;  ///< position of the first row; its cache holds this many tokens already
};

/// A ragged batch of T tokens. Attention never crosses a chunk's sequence.
struct Batch {
  DeviceView<const std::int32_t> tokens;     ///< [T]
  DeviceView<const std::int32_t> positions;  ///< [T]
  std::span<const Chunk> chunks;             ///< cover the rows 0..T in order

  [[nodiscard]] Index size() const { return tokens.size; }
  [[nodiscard]] Index chunk_count() const { return static_cast<Index>(chunks.size()); }
};

/// Rows of whole sequences, one sequence behind the other: of each, a row for every `tokens` tokens.
template <class Element>
class SequenceRows {
 public:
  SequenceRows(DeviceView<Element, 2> all, Index tokens) : rest_(all), tokens_(tokens) {}

  /// Those of the next chunk.
  [[nodiscard]] DeviceView<Element, 2> next(const Chunk& chunk) {
    const Index count = chunk.count / tokens_;
    const DeviceView<Element, 2> rows = rest_.middle_rows(0, count);
    rest_ = rest_.middle_rows(count, rest_.rows - count);
    return rows;
  }

 private:
  DeviceView<Element, 2> rest_;
  Index tokens_;
};

/// Throws op_shape unless the chunks cover the rows in order.
inline void check(const Batch& batch) {
  const auto bad = [](const char* what) { detail::refuse(ErrorCode::op_shape, what); };
  if (batch.positions.size != batch.tokens.size) bad("a batch needs one position for each token");
  Index row = 0;
  for (const Chunk& chunk : batch.chunks) {
    if (chunk.begin != row || chunk.count < 0 || chunk.count > batch.size() - row)
      bad("the chunks of a batch must cover its rows in order, without gaps");
    row += chunk.count;
  }
  if (row != batch.size()) bad("the chunks of a batch must cover all of its rows");
}
/// Throws op_shape unless `positions`, those of a batch as the host reads them, agree with its chunks.
inline void check_positions(const Batch& batch, View<const std::int32_t> positions) {
  for (const Chunk& chunk : batch.chunks)
    for (Index i = 0; i < chunk.count; ++i)
      if (positions[chunk.begin + i] != chunk.first_position + i)
        detail::refuse(ErrorCode::op_shape, "the positions of a chunk must count up from its first position");
}

}  // namespace v1
}  // namespace guild
