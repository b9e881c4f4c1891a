// The gradients of an index's scores on the CPU: tiles of 64 queries and 64 keys, with the products of attention's
// backward.
#pragma once

#include <algorithm>
#include <guild/device/cpu.hpp>
#include <guild/device/isa.hpp>
#include <guild/ops/attention/cpu/backward.hpp>
#include <guild/ops/attention/cpu/index_plain.hpp>
#include <guild/ops/attention/cpu/index_tile.hpp>
#include <guild/ops/attention/index_job.hpp>
#include <span>

namespace guild {
inline namespace v1 {
namespace cpu {

[[nodiscard]] constexpr Index row_steps_up(Index n) { return (n + row_step - 1) / row_step * row_step; }
[[nodiscard]] inline Index backward_blocks(Index n) { return (n + backward_tile - 1) / backward_tile; }

/// Two regions that each make the products anew, so that nothing waits in scratch but parts of dkeys: over the queries
/// of each head for dq and dweights, and over the keys, for a few groups of heads where there are few keys, for dkeys.
class IndexScoresBackward {
 public:
  using Job = IndexScoresGradientJob<float>;

  IndexScoresBackward(const IndexSizes& sizes, Isa isa)
      : sizes_(sizes),
        products_(attention_backward_kernels_of(isa)),
        kernels_(index_kernels_of(isa)),
        pitch_(lanes_up(sizes.dim)) {}

  void run(Cpu& device, std::span<const Job> jobs) const {
    const auto count = static_cast<Index>(jobs.size());
    auto frame = device.scratch();
    const View tasks = frame.take<Index>(count + 1), parts = frame.take<Index>(count + 1);
    const View memory = frame.take<float>(device.threads(), lanes_up(own_floats()));
    task_starts(jobs, tasks, [&](const Job& job) { return backward_blocks(job.q.rows) * sizes_.heads; });
    device.run(tasks[count], [&](Index task, int worker) {
      const Index i = part_of(tasks, task);
      of_queries(jobs[static_cast<std::size_t>(i)], task - tasks[i], place(memory.row(worker).data));
    });
    task_starts(jobs, tasks, [&](const Job& job) { return backward_blocks(job.keys.rows) * groups_of(job); });
    task_starts(jobs, parts, [&](const Job& job) { return groups_of(job) * job.keys.rows; });
    const View part = frame.take<float>(parts[count], sizes_.dim);
    device.run(tasks[count], [&](Index task, int worker) {
      const Index i = part_of(tasks, task);
      of_keys(jobs[static_cast<std::size_t>(i)], task - tasks[i], part.middle_rows(parts[i], parts[i + 1] - parts[i]),
              place(memory.row(worker).data));
    });
    task_starts(jobs, tasks, [](const Job& job) { return job.keys.rows; });
    device.run(tasks[count], [&](Index row, int) {
      const Index i = part_of(tasks, row), s = row - tasks[i];
      const Job& job = jobs[static_cast<std::size_t>(i)];
      float* const to = job.dkeys.row(s).data;
      std::copy_n(part.row(parts[i] + s).data, sizes_.dim, to);
      for (Index g = 1; g < groups_of(job); ++g)
        products_.add(part.row(parts[i] + g * job.keys.rows + s).data, sizes_.dim, to);
    });
  }

 private:
  struct Memory {
    float *key, *query;       ///< [tile][pitch_]: where rows are not as they must be
    float* sum;               ///< [tile][pitch_]: a gradient
    float* lanes;             ///< [dim][tile]: queries, scaled
    float *score, *slope;     ///< [key of the tile][query of the tile]
    float *weight, *dweight;  ///< [tile]
  };
  static constexpr Index tile_floats = backward_tile * backward_tile;

  [[nodiscard]] Index own_floats() const { return backward_tile * (3 * pitch_ + sizes_.dim + 2) + 2 * tile_floats; }
  [[nodiscard]] Memory place(float* memory) const {
    const auto take = [&memory](Index count) {
      float* const taken = memory;
      memory += count;
      return taken;
    };
    Memory own{};
    own.key = take(backward_tile * pitch_);
    own.query = take(backward_tile * pitch_);
    own.sum = take(backward_tile * pitch_);
    own.lanes = take(backward_tile * sizes_.dim);
    own.score = take(tile_floats);
    own.slope = take(tile_floats);
    own.weight = take(backward_tile);
    own.dweight = take(backward_tile);
    return own;
  }
  /// Keys that a query sees.
  [[nodiscard]] Index visible(Index query) const { return visible_keys(query, sizes_.tokens_per_key); }
  /// Of a job's heads, for dkeys: a function of its shape alone.
  [[nodiscard]] Index groups_of(const Job& job) const {
    constexpr Index most_tasks = 32, most = 4;
    const Index blocks = std::max(backward_blocks(job.keys.rows), Index{1});
    return std::clamp(most_tasks / blocks, Index{1}, std::min(most, sizes_.heads));
  }

  void of_queries(const Job& job, Index task, const Memory& own) const {
    // The last block sees the most keys: begun first, it does not keep one thread busy alone at the end.
    const Index first = (backward_blocks(job.q.rows) - 1 - task / sizes_.heads) * backward_tile;
    const Index head = task % sizes_.heads, queries = std::min(backward_tile, job.q.rows - first);
    load_queries(job, head, first, queries, own);
    std::fill(own.dweight, own.dweight + backward_tile, 0.0f);
    std::fill(own.sum, own.sum + backward_tile * pitch_, 0.0f);
    for (Index begin = 0; begin < visible(first + queries - 1); begin += backward_tile) {
      const Index keys = std::min(backward_tile, job.keys.rows - begin);
      if (!load_slopes(job, first, queries, begin, keys, own)) continue;
      const Rows key = rows_of(job.keys, 0, begin, keys, own.key);
      to_slopes(key, keys, queries, own);
      products_.product({own.score, 1, backward_tile, key.data, key.pitch, keys, own.sum, pitch_, row_steps_up(queries),
                         pitch_, Onto::sums});
    }
    for (Index m = 0; m < queries; ++m) {
      std::copy_n(own.sum + m * pitch_, sizes_.dim, job.dq.row(first + m).data + head * sizes_.dim);
      job.dweights(first + m, head) = own.dweight[m];
    }
  }

  void of_keys(const Job& job, Index task, View<float, 2> part, const Memory& own) const {
    const Index groups = groups_of(job), group = task % groups, begin = task / groups * backward_tile;
    const Index n = job.q.rows, length = job.keys.rows, keys = std::min(backward_tile, length - begin);
    const Rows key = rows_of(job.keys, 0, begin, keys, own.key);
    std::fill(own.sum, own.sum + backward_tile * pitch_, 0.0f);
    const Index first_seen = (begin + 1) * sizes_.tokens_per_key - 1;  // the first token that sees one of them
    for (Index first = first_seen / backward_tile * backward_tile; first < n; first += backward_tile) {
      const Index queries = std::min(backward_tile, n - first);
      if (!load_slopes(job, first, queries, begin, keys, own)) continue;
      for (Index head = group * sizes_.heads / groups; head < (group + 1) * sizes_.heads / groups; ++head) {
        load_queries(job, head, first, queries, own);
        to_slopes(key, keys, queries, own);
        const Rows query = rows_of(job.q, head * sizes_.dim, first, queries, own.query);
        products_.product({own.score, backward_tile, 1, query.data, query.pitch, queries, own.sum, pitch_,
                           row_steps_up(keys), pitch_, Onto::sums});
      }
    }
    for (Index s = 0; s < keys; ++s)
      std::copy_n(own.sum + s * pitch_, sizes_.dim, part.row(group * length + begin + s).data);
  }

  struct Rows {
    const float* data;
    Index pitch;
  };
  /// Rows that products may read up to a multiple of row_step and, in each, of 16 columns: where they are, or in `to`.
  [[nodiscard]] Rows rows_of(View<const float, 2> from, Index column, Index first, Index count, float* to) const {
    if (count % row_step == 0 && pitch_ == sizes_.dim) return {from.row(first).data + column, from.pitch};
    for (Index i = 0; i < count; ++i)
      products_.scale(from.row(first + i).data + column, 1.0f, sizes_.dim, pitch_, to + i * pitch_);
    std::fill(to + count * pitch_, to + row_steps_up(count) * pitch_, 0.0f);
    return {to, pitch_};
  }
  void load_queries(const Job& job, Index head, Index first, Index queries, const Memory& own) const {
    const float* rows[backward_tile];
    const auto scale = static_cast<float>(sizes_.scale);
    for (Index m = 0; m < queries; ++m) {
      rows[m] = job.q.row(first + m).data + head * sizes_.dim;
      own.weight[m] = job.weights(first + m, head) * scale;
    }
    if (queries < backward_tile) {
      std::fill(own.lanes, own.lanes + backward_tile * sizes_.dim, 0.0f);
      std::fill(own.weight + queries, own.weight + backward_tile, 0.0f);
    }
    transpose_rows(rows, queries, sizes_.dim, scale, backward_tile, own.lanes);
  }
  /// dscores of a tile into own.slope, 0 where there is no visible pair; false if all of them are.
  [[nodiscard]] bool load_slopes(const Job& job, Index first, Index queries, Index begin, Index keys,
                                 const Memory& own) const {
    float* const to = own.slope;
    const bool partly = visible(first) < begin + keys;
    if (partly || queries < backward_tile || keys < backward_tile) std::fill(to, to + tile_floats, 0.0f);
    if (partly) {
      for (Index m = 0; m < queries; ++m) {
        const Index seen = std::min(visible(first + m) - begin, keys);
        for (Index k = 0; k < seen; ++k) to[k * backward_tile + m] = job.dscores(first + m, begin + k);
      }
    } else {
      const float* rows[backward_tile];
      for (Index m = 0; m < queries; ++m) rows[m] = job.dscores.row(first + m).data + begin;
      transpose_rows(rows, queries, keys, 1.0f, backward_tile, to);
    }
    return std::any_of(to, to + tile_floats, [](float slope) { return slope != 0.0f; });
  }
  /// From keys and own.lanes to the gradients of their products in own.score.
  void to_slopes(const Rows& key, Index keys, Index queries, const Memory& own) const {
    const Index rows = row_steps_up(keys), lanes = lanes_up(queries);
    products_.product({key.data, key.pitch, 1, own.lanes, backward_tile, sizes_.dim, own.score, backward_tile, rows,
                       lanes, Onto::zero});
    kernels_.slopes(own.score, own.slope, own.weight, rows, lanes, own.dweight);
  }

  IndexSizes sizes_;
  AttentionBackwardKernels products_;
  IndexKernels kernels_;
  Index pitch_;
};

}  // namespace cpu

/// With kernels of a named variant, for tests and benchmarks.
inline void run_index_scores_backward(Cpu& device, std::span<const IndexScoresGradientJob<float>> jobs,
                                      const IndexSizes& sizes, Isa isa) {
  cpu::IndexScoresBackward(sizes, isa).run(device, jobs);
}
inline void run_index_scores_backward(Cpu& device, std::span<const IndexScoresGradientJob<float>> jobs,
                                      const IndexSizes& sizes) {
  run_index_scores_backward(device, jobs, sizes, device.isa());
}
inline void run_index_scores_backward(Cpu& device, std::span<const IndexScoresGradientJob<double>> jobs,
                                      const IndexSizes& sizes) {
  cpu::plain_index_scores_backward(device, jobs, sizes);
}

}  // namespace v1
}  // namespace guild
