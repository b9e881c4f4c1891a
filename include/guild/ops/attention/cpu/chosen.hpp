// Chosen keys of tiles: 64 bits a row and tile.
#pragma once

#include <cstdint>
#include <guild/core/refuse.hpp>
#include <guild/ops/attention/job.hpp>

namespace guild {
inline namespace v1 {
namespace cpu {

[[nodiscard]] inline std::uint64_t low_bits(Index count) {
  return count >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << count) - 1;
}

/// The bits of the keys [first, first + count) of a row of bits, the first at the lowest place: first is a multiple of
/// 32, count in [0, 64]. Words behind them are not read.
[[nodiscard]] inline std::uint64_t chosen_bits(const std::uint32_t* row, Index first, Index count) {
  if (count <= 0) return 0;
  const std::uint64_t low = row[first / 32], high = count > 32 ? row[first / 32 + 1] : 0;
  return (low | high << 32) & low_bits(count);
}

/// Refuses lists that would lead out of the cache.
inline void check_chosen_lists(const CachedAttentionJob& job, Index tokens_per_key) {
  for (Index t = 0; t < job.q.rows; ++t) {
    const Index count = job.counts[t], visible = visible_keys(job.first_position + t, tokens_per_key);
    const Index least = visible > 0 ? 1 : 0;
    if (count < least || count > job.chosen.cols)
      detail::refuse(ErrorCode::op_argument,
                     {count, " keys are chosen for token ", t, ", expected between ", least, " and the ",
                      job.chosen.cols, " columns of the lists"},
                     "cached_attention: counts");
    Index before = -1;
    for (const std::int32_t key : job.chosen.row(t).slice(0, count)) {
      if (key <= before || key >= visible)
        detail::refuse(ErrorCode::op_argument,
                       {"key ", static_cast<Index>(key), " stands behind ", before, " among those of token ", t,
                        ", expected keys that ascend up to the last it may see, ", visible - 1},
                       "cached_attention: chosen");
      before = key;
    }
  }
}

}  // namespace cpu
}  // namespace v1
}  // namespace guild
