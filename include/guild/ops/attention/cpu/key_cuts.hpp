// The keys of attention's backward in ranges, each work of its own.
#pragma once

#include <algorithm>
#include <guild/ops/attention/cpu/backward_tile.hpp>
#include <guild/ops/attention/job.hpp>

namespace guild {
inline namespace v1 {
namespace cpu {

/// How the keys of a sequence are cut into tasks: a function of their number, the heads and what is seen alone, so that
/// bits depend on nothing else. One task without keys has gradients of queries to write. A long sequence of few heads
/// gives about 32 tasks, of about equal numbers of visible pairs. Where heads share keys there may be fewer: each range
/// has a dq of all heads, and four of these must be enough.
class KeyCuts {
 public:
  KeyCuts(Index queries, Index length, const ExpandedAttentionSizes& sizes)
      : length_(length), triangle_(sizes.mask == AttentionMask::causal && sizes.keys.all()) {
    constexpr Index least_keys = 256, most_tasks = 32, most_shared = 4;
    const Index most = std::max(most_tasks / sizes.heads, std::min(most_tasks / sizes.key_heads(), most_shared));
    // Ranges of at least four tiles: as a tile is at most half of a range's pairs, no range is empty.
    count_ = queries == 0 ? 0 : std::clamp(length / least_keys, Index{1}, std::max(most, Index{1}));
  }
  [[nodiscard]] Index count() const { return count_; }
  /// First key of range r: a multiple of backward_tile, or the length for r = count().
  [[nodiscard]] Index begin(Index r) const {
    if (r >= count_) return length_;
    const Index blocks = (length_ + backward_tile - 1) / backward_tile;
    // Queries that see block b, in blocks of as many as its keys stand for: those from b on (causal), or as many for
    // each (bidirectional, windows).
    const auto before = [&](Index b) { return triangle_ ? b * blocks - b * (b - 1) / 2 : b * blocks; };
    Index b = 0;
    while (b < blocks && before(b) * count_ < before(blocks) * r) ++b;
    return b * backward_tile;
  }
  [[nodiscard]] Index longest() const {
    Index most = 0;
    for (Index r = 0; r < count_; ++r) most = std::max(most, begin(r + 1) - begin(r));
    return most;
  }

 private:
  Index length_;
  bool triangle_;
  Index count_;
};

}  // namespace cpu
}  // namespace v1
}  // namespace guild
