// The loss of an index on the CPU: the probabilities of attention made anew in tiles of 64 queries and 64 keys, with
// the products of its backward.
#pragma once

#include <algorithm>
#include <guild/device/cpu.hpp>
#include <guild/device/isa.hpp>
#include <guild/ops/attention/cpu/backward.hpp>
#include <guild/ops/attention/cpu/chosen.hpp>
#include <guild/ops/attention/cpu/index_backward.hpp>
#include <guild/ops/attention/cpu/index_plain.hpp>
#include <guild/ops/attention/index_job.hpp>
#include <limits>
#include <span>

namespace guild {
inline namespace v1 {
namespace cpu {

/// One parallel region over blocks of 64 tokens. What all heads of a token give each key is summed up in the memory of
/// the thread, 64 floats a key.
class IndexLoss {
 public:
  using Job = IndexLossJob<float>;

  IndexLoss(const ExpandedAttentionSizes& sizes, Isa isa)
      : sizes_(sizes), products_(attention_backward_kernels_of(isa)), width_(sizes.width()) {}

  void run(Cpu& device, std::span<const Job> jobs, float weight) const {
    const auto count = static_cast<Index>(jobs.size());
    auto frame = device.scratch();
    const View tasks = frame.take<Index>(count + 1);
    task_starts(jobs, tasks, [](const Job& job) { return backward_blocks(job.q.rows); });
    Index longest = 0;
    for (const Job& job : jobs) longest = std::max(longest, backward_blocks(job.k_nope.rows) * backward_tile);
    const Index own = (backward_tile + 1) * longest + backward_tile * (2 * width_ + 2 * backward_tile + 2);
    const View memory = frame.take<float>(device.threads(), lanes_up(own));
    device.run(tasks[count], [&](Index task, int worker) {
      const Index i = part_of(tasks, task);
      const Job& job = jobs[static_cast<std::size_t>(i)];
      float* const shares = memory.row(worker).data;
      const Index first = (backward_blocks(job.q.rows) - 1 - (task - tasks[i])) * backward_tile;
      sum_shares(job, first, shares, shares + (backward_tile + 1) * longest);
      for (Index t = first; t < std::min(first + backward_tile, job.q.rows); ++t) {
        float* const row = shares + backward_tile * longest;
        const Index seen = visible(t);
        for (Index s = 0; s < seen; ++s) row[s] = sees(job, t, s) ? shares[s * backward_tile + t - first] : -1.0f;
        index_loss_row(row, job.scores.row(t).data, seen, weight, job.dscores.row(t).data, job.loss[t]);
      }
    });
  }

 private:
  /// Keys up to a token.
  [[nodiscard]] Index visible(Index t) const { return visible_keys(t, sizes_.tokens_per_key); }
  [[nodiscard]] static bool sees(const Job& job, Index t, Index s) {
    return job.chosen.data == nullptr || (job.chosen.data[t * job.chosen.pitch + s / 32] >> (s % 32) & 1U) != 0;
  }

  /// shares[s][m] = sum over the heads of the probability that token first + m gives key s, for the keys up to it;
  /// others hold anything.
  void sum_shares(const Job& job, Index first, float* shares, float* memory) const {
    constexpr Index pitch = backward_tile;
    const Index queries = std::min(backward_tile, job.q.rows - first), lanes = lanes_up(queries);
    const Index most = visible(first + queries - 1);
    const Index nope = sizes_.nope, stride = job.key_head_stride > 0 ? job.key_head_stride : nope;
    float* const query = memory;
    float* const key = query + pitch * width_;
    float* const score = key + pitch * width_;
    float* const slope = score + pitch * pitch;  // unused
    float* const lse = slope + pitch * pitch;
    float* const along = lse + pitch;
    std::fill(slope, slope + pitch * pitch, 0.0f);
    std::fill(along, along + pitch, 0.0f);
    std::fill(shares, shares + backward_blocks(most) * pitch * pitch, 0.0f);
    for (Index head = 0; head < sizes_.heads; ++head) {
      const float* rows[backward_tile];
      std::fill(lse, lse + pitch, std::numeric_limits<float>::infinity());
      for (Index m = 0; m < queries; ++m) {
        rows[m] = job.q.row(first + m).data + head * width_;
        lse[m] = log_denominator_again(job.lse(first + m, head));
      }
      if (queries < pitch) std::fill(query, query + pitch * width_, 0.0f);
      transpose_rows(rows, queries, width_, sizes_.scale, pitch, query);
      const Index column = head / sizes_.heads_per_key * stride;
      for (Index begin = 0; begin < most; begin += pitch) {
        const Index keys = std::min(pitch, job.k_nope.rows - begin), padded = row_steps_up(keys);
        if (!reaches(job, first, queries, begin, keys)) continue;
        for (Index k = 0; k < keys; ++k) {
          std::copy_n(job.k_nope.row(begin + k).data + column, nope, key + k * width_);
          if (sizes_.rope > 0) std::copy_n(job.k_rope.row(begin + k).data, sizes_.rope, key + k * width_ + nope);
        }
        std::fill(key + keys * width_, key + padded * width_, 0.0f);
        products_.product({key, width_, 1, query, pitch, width_, score, pitch, padded, lanes, Onto::zero});
        for (Index k = 0; k < keys && job.key_bias.data != nullptr; ++k)
          for (Index m = 0; m < lanes; ++m) score[k * pitch + m] += job.key_bias(begin + k, 0);
        products_.weigh({score, slope, lse, along, padded, lanes, begin == first});
        for (Index k = 0; k < keys; ++k) products_.add(score + k * pitch, lanes, shares + (begin + k) * pitch);
      }
    }
  }
  /// True if some token of the block sees some of the keys.
  [[nodiscard]] bool reaches(const Job& job, Index first, Index queries, Index begin, Index keys) const {
    if (job.chosen.data == nullptr) return true;
    for (Index m = 0; m < queries; ++m)
      if (chosen_bits(job.chosen.row(first + m).data, begin, std::min(keys, visible(first + m) - begin)) != 0)
        return true;
    return false;
  }

  ExpandedAttentionSizes sizes_;
  AttentionBackwardKernels products_;
  Index width_;
};

}  // namespace cpu

inline void run_index_loss(Cpu& device, std::span<const IndexLossJob<float>> jobs, const ExpandedAttentionSizes& sizes,
                           float weight) {
  cpu::IndexLoss(sizes, device.isa()).run(device, jobs, weight);
}
inline void run_index_loss(Cpu& device, std::span<const IndexLossJob<double>> jobs,
                           const BasicExpandedAttentionSizes<double>& sizes, double weight) {
  cpu::plain_index_loss(device, jobs, sizes, weight);
}

}  // namespace v1
}  // namespace guild
