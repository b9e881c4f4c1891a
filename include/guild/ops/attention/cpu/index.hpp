// The scores of sparse attention's index on the CPU: products of tiles of heads and 64 keys, as attention's, and sums
// over the heads.
#pragma once

#include <algorithm>
#include <guild/device/cpu.hpp>
#include <guild/device/isa.hpp>
#include <guild/ops/attention/cpu/attention.hpp>
#include <guild/ops/attention/cpu/index_plain.hpp>
#include <guild/ops/attention/cpu/index_tile.hpp>
#include <guild/ops/attention/cpu/tile.hpp>
#include <guild/ops/attention/index_job.hpp>
#include <span>
#include <type_traits>

namespace guild {
inline namespace v1 {
namespace cpu {

/// One parallel region over blocks of tokens and ranges of keys of all jobs. The heads of a token lie in the lanes of
/// tiles, so that no bit of a score depends on other tokens.
template <class Key>
class IndexScores {
 public:
  using Job = BasicIndexScoresJob<float, Key>;

  IndexScores(const IndexSizes& sizes, Isa isa)
      : sizes_(sizes),
        attention_(attention_kernels_of(isa)),
        kernels_(index_kernels_of(isa)),
        lanes_(sizes.heads / tile_rows * tile_rows + lanes_up(sizes.heads % tile_rows)) {}

  void run(Cpu& device, std::span<const Job> jobs) const {
    const auto count = static_cast<Index>(jobs.size());
    auto frame = device.scratch();
    const View tasks = frame.take<Index>(count + 1);
    task_starts(jobs, tasks, [&](const Job& job) { return blocks_of(job) * ranges_of(job); });
    const Index own = token_block * lanes_ * (sizes_.dim + 1) + key_tile * (sizes_.dim + tile_rows + index_lanes);
    const View memory = frame.take<float>(device.threads(), (own + 15) / 16 * 16);
    device.run(tasks[count], [&](Index task, int worker) {
      const Index i = part_of(tasks, task);
      score(jobs[static_cast<std::size_t>(i)], task - tasks[i], memory.row(worker).data);
    });
  }

 private:
  static constexpr Index token_block = 8;  ///< tokens that share the keys of a tile
  static constexpr Index key_range = 512;

  [[nodiscard]] static Index blocks_of(const Job& job) { return (job.q.rows + token_block - 1) / token_block; }
  /// Keys that token t of a job sees.
  [[nodiscard]] Index visible(const Job& job, Index t) const {
    return visible_keys(job.first_position + t, sizes_.tokens_per_key);
  }
  [[nodiscard]] Index ranges_of(const Job& job) const {
    return job.q.rows == 0 ? 0 : (visible(job, job.q.rows - 1) + key_range - 1) / key_range;
  }

  void score(const Job& job, Index task, float* memory) const {
    const Index block = blocks_of(job) - 1 - task / ranges_of(job), begin = task % ranges_of(job) * key_range;
    const Index token = block * token_block, tokens = std::min(token_block, job.q.rows - token);
    const Index end = std::min(begin + key_range, visible(job, token + tokens - 1));
    if (begin >= end) return;
    float* const query = memory;
    float* const weights = query + token_block * lanes_ * sizes_.dim;
    float* const keys = weights + token_block * lanes_;
    float* const products = keys + key_tile * sizes_.dim;
    float* const part = products + key_tile * tile_rows;
    for (Index t = 0; t < tokens; ++t) {
      pack(job.q.row(token + t).data, query + t * lanes_ * sizes_.dim);
      const float* const from = job.weights.row(token + t).data;
      std::fill(std::copy(from, from + sizes_.heads, weights + t * lanes_), weights + (t + 1) * lanes_, 0.0f);
    }
    for (Index first = begin; first < end; first += key_tile) {
      const Index count = std::min(key_tile, end - first);
      const auto [key, pitch] = load(job, first, count, keys);
      for (Index next = first + key_tile; next < std::min(end, first + 2 * key_tile); ++next)
        prefetch_keys(job.keys.row(next).data);
      for (Index t = 0; t < tokens; ++t) {
        const Index seen = std::min(count, visible(job, token + t) - first);
        if (seen <= 0) continue;
        const Index padded = (seen + key_step - 1) / key_step * key_step;
        std::fill(part, part + padded * index_lanes, 0.0f);
        for_each_tile([&](Index head, Index lanes) {
          const float* const of_tile = query + (t * lanes_ + head) * sizes_.dim;
          (lanes == tile_rows ? attention_.tile32 : attention_.tile16)
              .scores(of_tile, key, pitch, sizes_.dim, padded, products);
          kernels_.weigh(products, weights + t * lanes_ + head, lanes, padded, part);
        });
        kernels_.sum(part, seen, job.scores.row(token + t).data + first);
      }
    }
  }

  /// Calls f(head, lanes) for the tiles of a token's heads.
  template <class F>
  void for_each_tile(F&& f) const {
    for (Index head = 0; head < lanes_; head += tile_rows) f(head, std::min(tile_rows, lanes_ - head));
  }
  void pack(const float* q, float* to) const {
    for_each_tile([&](Index head, Index lanes) {
      const Index heads = std::min(tile_rows, sizes_.heads - head);
      const float* rows[tile_rows];
      for (Index h = 0; h < heads; ++h) rows[h] = q + (head + h) * sizes_.dim;
      float* const tile = to + head * sizes_.dim;
      if (heads < lanes) std::fill(tile, tile + lanes * sizes_.dim, 0.0f);
      transpose_rows(rows, heads, sizes_.dim, static_cast<float>(sizes_.scale), lanes, tile);
    });
  }

  /// Of the next tile, while the products of this one are made.
  void prefetch_keys([[maybe_unused]] const Key* row) const {
#if defined(__GNUC__)
    for (Index c = 0; c < sizes_.dim; c += 64 / static_cast<Index>(sizeof(Key))) __builtin_prefetch(row + c);
#endif
  }

  struct Keys {
    const float* data;
    Index pitch;
  };
  /// Keys in float with rows up to a multiple of key_step: where they are, or in `to`.
  [[nodiscard]] Keys load(const Job& job, Index first, Index count, float* to) const {
    const Index dim = sizes_.dim;
    if constexpr (std::is_same_v<Key, float>) {
      if (count % key_step == 0) return {job.keys.data + first * job.keys.pitch, job.keys.pitch};
      for (Index k = 0; k < count; ++k) std::copy_n(job.keys.row(first + k).data, dim, to + k * dim);
    } else {
      for (Index k = 0; k < count; ++k) attention_.widen(job.keys.row(first + k).data, to + k * dim, dim);
    }
    pad_rows(to, count, dim);
    return {to, dim};
  }

  IndexSizes sizes_;
  AttentionKernels attention_;
  IndexKernels kernels_;
  Index lanes_;  ///< of all tiles of a token
};

}  // namespace cpu

/// With kernels of a named variant, for tests and benchmarks.
template <class Key>
void run_index_scores(Cpu& device, std::span<const BasicIndexScoresJob<float, Key>> jobs, const IndexSizes& sizes,
                      Isa isa) {
  cpu::IndexScores<Key>(sizes, isa).run(device, jobs);
}
inline void run_index_scores(Cpu& device, std::span<const BasicIndexScoresJob<float, float>> jobs,
                             const IndexSizes& sizes) {
  run_index_scores(device, jobs, sizes, device.isa());
}
inline void run_index_scores(Cpu& device, std::span<const BasicIndexScoresJob<float, bf16>> jobs,
                             const IndexSizes& sizes) {
  run_index_scores(device, jobs, sizes, device.isa());
}
inline void run_index_scores(Cpu& device, std::span<const BasicIndexScoresJob<double, double>> jobs,
                             const IndexSizes& sizes) {
  cpu::plain_index_scores(device, jobs, sizes);
}

}  // namespace v1
}  // namespace guild
