// Attention on the CPU: cuts jobs into tasks of one parallel region and runs each over tiles of 64 keys.
#pragma once

#include <algorithm>
#include <cmath>
#include <guild/device/cpu.hpp>
#include <guild/device/isa.hpp>
#include <guild/ops/attention/cpu/avx2.hpp>
#include <guild/ops/attention/cpu/avx512.hpp>
#include <guild/ops/attention/cpu/chosen.hpp>
#include <guild/ops/attention/cpu/plain.hpp>
#include <guild/ops/attention/cpu/query_tile.hpp>
#include <guild/ops/attention/cpu/tile.hpp>
#include <guild/ops/attention/job.hpp>
#include <span>

namespace guild {
inline namespace v1 {
namespace cpu {

[[nodiscard]] inline AttentionKernels attention_kernels_of(Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::avx512) return attention_kernels<Avx512Attention>(widen_avx512);
  if (isa == Isa::avx2) return attention_kernels<Avx2Attention>(widen_avx2);
#endif
  (void)isa;
  return attention_kernels<BaselineAttention>(widen_baseline);
}

/// How the keys that a row sees are cut: a function of the last of them (-1: none), which is its position where a key
/// stands for one token, so that a row's bits depend
/// neither on the other rows of its chunk nor on the batch. Parts begin at multiples of their size, those that hold
/// nothing a row sees change nothing for it, and the others are added up in their order. Long contexts are cut so that
/// one decoding sequence gives work to about 32 threads.
struct KeyRanges {
  Index size = 0;    ///< keys of a part; the last may have fewer
  Index pinned = 0;  ///< parts of the pinned keys, where others lie between them and the window
  Index first = 0;   ///< the first part that the window reaches
  Index count = 0;   ///< parts that are visited: the pinned ones, and all from `first` on

  /// Of rows whose last keys are from `position` to `last` and whose parts have one size.
  KeyRanges(const KeyWindow& keys, Index position, Index last, Index heads) {
    const Index most_keys = keys.all() ? position + 1 : std::min(position + 1, keys.window);
    const Index blocks = (heads + tile_rows - 1) / tile_rows;
    const Index least = blocks > 1 ? 256 : 128, most = std::clamp(32 / blocks, Index{1}, Index{16});
    size = std::max(least, ((most_keys + most - 1) / most + key_tile - 1) / key_tile * key_tile);
    first = keys.begin(position) / size;
    pinned = keys.all() ? 0 : std::min((keys.pinned + size - 1) / size, first);
    count = pinned + last / size + 1 - first;
  }
  /// The first key of the part that is visited as number v.
  [[nodiscard]] Index begin(Index v) const { return (v < pinned ? v : v - pinned + first) * size; }
};

/// Takes a part (weighted sum of values, peak and sum of its exponentials) into those before it. One function for all
/// who add parts: the bits do not depend on who does.
[[gnu::noinline]] inline void add_part(const float* part, float part_peak, float part_sum, Index count, float* out,
                                       float& peak, float& sum) {
  const float all = std::max(peak, part_peak), before = std::exp(peak - all), here = std::exp(part_peak - all);
  for (Index c = 0; c < count; ++c) out[c] = out[c] * before + part[c] * here;
  sum = sum * before + part_sum * here;
  peak = all;
}

/// One parallel region over jobs with a cache, and a second one that adds up parts that were computed side by side.
class CachedAttention {
 public:
  CachedAttention(const CachedAttentionSizes& sizes, const AttentionKernels& kernels)
      : sizes_(sizes),
        kernels_(kernels),
        within_key_(sizes.value_offset + sizes.value <= sizes.key),
        key_pitch_(lanes_up(within_key_ ? std::max(sizes.key, sizes.value_offset + lanes_up(sizes.value)) : sizes.key)),
        value_pitch_(within_key_ ? key_pitch_ : lanes_up(sizes.value)) {}

  void run(Cpu& device, std::span<const CachedAttentionJob> jobs) const {
    Index count = 0;
    for (const CachedAttentionJob& job : jobs)
      if (job.chosen.data != nullptr) check_chosen_lists(job, sizes_.tokens_per_key);
    for (const CachedAttentionJob& job : jobs) for_each_run(job, [&](Index, Index) { ++count; });
    auto frame = device.scratch();
    const View runs = frame.take<CachedAttentionJob>(count);
    count = 0;
    for (const CachedAttentionJob& job : jobs)
      for_each_run(job, [&](Index begin, Index rows) {
        CachedAttentionJob run = job;
        run.q = job.q.middle_rows(begin, rows);
        run.out = job.out.middle_rows(begin, rows);
        if (job.lse.data != nullptr) run.lse = job.lse.middle_rows(begin, rows);
        if (job.far_bias.data != nullptr) run.far_bias = job.far_bias.middle_rows(begin, rows);
        run.first_position = job.first_position + begin;
        if (job.chosen.data != nullptr) {  // the keys are numbered through, as if there were no others
          run.first_position = job.counts[begin] * sizes_.tokens_per_key - 1;
          run.chosen = job.chosen.middle_rows(begin, rows);
        }
        runs[count++] = run;
      });
    // Parts computed side by side wait in scratch: batches that need much of it are done in several rounds.
    constexpr Index most_floats = Index{1} << 24;
    for (Index begin = 0, end = 0; begin < count; begin = end) {
      for (Index floats = 0; end < count; ++end) {
        floats += part_floats(runs[end]);
        if (end > begin && floats > most_floats) break;
      }
      run_round(device, runs.slice(begin, end - begin));
    }
  }

 private:
  static constexpr Index few_tokens = 4;  ///< of so many, the parts of their keys are work for several threads

  [[nodiscard]] Index visible(Index position) const { return visible_keys(position, sizes_.tokens_per_key); }
  [[nodiscard]] KeyRanges ranges_of(Index position, Index last) const {
    return {sizes_.keys, visible(position) - 1, visible(last) - 1, sizes_.heads};
  }

  /// Calls f(begin, rows) for the stretches of a job's rows whose keys are cut alike: of tokens with chosen keys, one.
  template <class F>
  void for_each_run(const CachedAttentionJob& job, F&& f) const {
    if (job.chosen.data != nullptr) {
      for (Index row = 0; row < job.q.rows; ++row) f(row, Index{1});
      return;
    }
    for (Index begin = 0, end = 0; begin < job.q.rows; begin = end) {
      const auto size_at = [&](Index row) {
        const Index position = job.first_position + row;
        return ranges_of(position, position).size;
      };
      const Index size = size_at(begin);
      for (end = begin + 1; end < job.q.rows && size_at(end) == size; ++end) {}
      f(begin, end - begin);
    }
  }

  [[nodiscard]] KeyRanges ranges_of(const CachedAttentionJob& run) const {
    return ranges_of(run.first_position, run.first_position + run.q.rows - 1);
  }
  [[nodiscard]] Index rows_of(const CachedAttentionJob& run) const { return run.q.rows * sizes_.heads; }
  [[nodiscard]] bool is_spread(const CachedAttentionJob& run) const {
    return run.q.rows <= few_tokens && ranges_of(run).count > 1;
  }
  [[nodiscard]] Index part_floats(const CachedAttentionJob& run) const {
    return is_spread(run) ? ranges_of(run).count * rows_of(run) * (sizes_.value + 2) : 0;
  }
  [[nodiscard]] float* out_of(const CachedAttentionJob& run, Index row) const {
    return run.out.row(row / sizes_.heads).data + row % sizes_.heads * sizes_.value;
  }

  void run_round(Cpu& device, View<const CachedAttentionJob> runs) const {
    auto frame = device.scratch();
    View tasks = frame.take<Index>(runs.size + 1), parts = frame.take<Index>(runs.size + 1),
         rows = frame.take<Index>(runs.size + 1);
    tasks[0] = parts[0] = rows[0] = 0;
    for (Index i = 0; i < runs.size; ++i) {
      const Index blocks = (rows_of(runs[i]) + tile_rows - 1) / tile_rows;
      tasks[i + 1] = tasks[i] + blocks * (is_spread(runs[i]) ? ranges_of(runs[i]).count : 1);
      parts[i + 1] = parts[i] + part_floats(runs[i]);
      rows[i + 1] = rows[i] + (is_spread(runs[i]) ? rows_of(runs[i]) : 0);
    }
    const View part = frame.take<float>(parts[runs.size]);
    const Index packed = key_pitch_ + (within_key_ ? 0 : value_pitch_);
    const Index own = 2 * QueryTile::floats(sizes_.key, sizes_.value) + key_tile * (tile_rows + packed);
    const View memory = frame.take<float>(device.threads(), (own + 15) / 16 * 16);

    device.run(tasks[runs.size], [&](Index task, int worker) {
      const Index i = part_of(tasks, task);
      float* const own_memory = memory.row(worker).data;
      if (is_spread(runs[i]))
        attend_part(runs[i], task - tasks[i], part.data + parts[i], own_memory);
      else
        attend(runs[i], task - tasks[i], own_memory);
    });
    device.run(rows[runs.size], [&](Index row, int) {
      const Index i = part_of(rows, row);
      add_parts(runs[i], row - rows[i], part.data + parts[i]);
    });
  }

  /// A block of 32 rows over one part of its keys: the part waits for the others.
  void attend_part(const CachedAttentionJob& run, Index task, float* part, float* memory) const {
    const KeyRanges ranges = ranges_of(run);
    const Index value = sizes_.value, rows = rows_of(run);
    const Index begin = task / ranges.count * tile_rows, range = task % ranges.count;
    QueryTile tile;
    attend_range(run, begin, ranges, range, tile, memory);
    for (Index m = 0; m < tile.rows; ++m) {
      const float* const from = tile.out + m * tile.out_pitch;
      float* const to = part + (range * rows + begin + m) * (value + 2);
      std::copy(from, from + value, to);
      to[value] = tile.state.peak[m];
      to[value + 1] = tile.state.sum[m];
    }
  }

  /// A block of 32 rows over all of its keys, part by part.
  void attend(const CachedAttentionJob& run, Index task, float* memory) const {
    const KeyRanges ranges = ranges_of(run);
    const Index value = sizes_.value, begin = task * tile_rows;
    QueryTile tile;
    attend_range(run, begin, ranges, 0, tile, memory);
    float peak[tile_rows], sum[tile_rows];
    std::copy(tile.state.peak, tile.state.peak + tile_rows, peak);
    std::copy(tile.state.sum, tile.state.sum + tile_rows, sum);
    float* out = tile.out;
    if (ranges.count > 1) {
      float* const later_memory = memory + QueryTile::floats(sizes_.key, value);
      QueryTile later;
      for (Index range = 1; range < ranges.count && ranges.begin(range) < tile.most; ++range) {
        attend_range(run, begin, ranges, range, later, later_memory);
        for (Index m = 0; m < tile.rows; ++m)
          add_part(later.out + m * later.out_pitch, later.state.peak[m], later.state.sum[m], value,
                   out + m * tile.out_pitch, peak[m], sum[m]);
      }
    }
    for (Index m = 0; m < tile.rows; ++m) finish(run, begin + m, out + m * tile.out_pitch, sum[m], peak[m]);
  }
  /// From sums over all keys of a row to what is asked for.
  void finish(const CachedAttentionJob& run, Index row, const float* from, float sum, float peak) const {
    const Index head = row % sizes_.heads;
    const float* const sink = run.sinks.data == nullptr ? nullptr : &run.sinks[head];
    divide_row(from, denominator_of(sum, peak, sink), sizes_.value, out_of(run, row));
    if (run.lse.data != nullptr) run.lse(row / sizes_.heads, head) = log_denominator_of(sum, peak, sink);
  }

  /// One block of rows over one range of keys. The keys of a tile lie behind both tiles' memory, and their values
  /// behind them, where they are not columns of the keys.
  void attend_range(const CachedAttentionJob& run, Index begin, const KeyRanges& ranges, Index range, QueryTile& tile,
                    float* memory) const {
    const Index heads = sizes_.heads, width = sizes_.key, value = sizes_.value;
    const Index tiles = QueryTile::floats(width, value) * (range > 0 && !is_spread(run) ? 1 : 2);
    float* const score = memory + tiles;
    float* const keys = score + key_tile * tile_rows;
    float* const values = within_key_ ? keys + sizes_.value_offset : keys + key_tile * key_pitch_;
    tile.begin(kernels_, std::min(tile_rows, rows_of(run) - begin), width, value, memory, sizes_.keys.pinned);
    for (Index m = 0; m < tile.rows; ++m) {
      const Index t = (begin + m) / heads, h = (begin + m) % heads, position = run.first_position + t;
      tile.set_row(m, run.q.row(t).data + h * width, visible(position), sizes_.keys.begin(position));
      if (run.far_bias.data != nullptr) tile.set_bias(m, run.far_bias(t, h), sizes_.near.begin(position));
    }
    tile.near_pinned = sizes_.near.pinned;
    tile.pack(width, sizes_.scale);
    for (Index k = 0; k < key_tile; ++k) std::fill(keys + k * key_pitch_ + width, keys + (k + 1) * key_pitch_, 0.0f);
    for (Index k = 0; k < key_tile && !within_key_; ++k)
      std::fill(values + k * value_pitch_ + value, values + (k + 1) * value_pitch_, 0.0f);
    const Index end = std::min(ranges.begin(range) + ranges.size, tile.most);
    for (Index first = ranges.begin(range); first < end; first += key_tile) {
      const Index count = std::min(key_tile, end - first);
      if (!tile.reaches(first, first + count)) continue;
      for (Index k = 0; k < count; ++k) load(run, first + k, 0, width, keys + k * key_pitch_);
      pad_rows(keys, count, key_pitch_);
      if (!within_key_) {
        for (Index k = 0; k < count; ++k) load(run, first + k, sizes_.value_offset, value, values + k * value_pitch_);
        pad_rows(values, count, value_pitch_);
      }
      float bias[key_tile];
      const bool biased = run.key_bias.data != nullptr;
      for (Index k = 0; k < count && biased; ++k) bias[k] = run.key_bias(row_of(run, first + k), 0);
      tile.attend(keys, key_pitch_, width, values, value_pitch_, biased ? bias : nullptr, first, count, score);
    }
  }

  /// The cached row of a position, or of that chosen key.
  [[nodiscard]] static Index row_of(const CachedAttentionJob& run, Index position) {
    return run.chosen.data != nullptr ? run.chosen.data[position] : run.ring.row_of(position);
  }
  /// `count` columns of a row from `column` on, in float.
  void load(const CachedAttentionJob& run, Index position, Index column, Index count, float* to) const {
    const Index at = row_of(run, position) * run.cache_pitch + column;
    if (run.cache_type == DType::f32) {
      const float* const from = static_cast<const float*>(run.cache) + at;
      std::copy(from, from + count, to);
    } else {
      kernels_.widen(static_cast<const bf16*>(run.cache) + at, to, count);
    }
  }

  /// Adds the parts of one row in their order.
  void add_parts(const CachedAttentionJob& run, Index row, float* part) const {
    const KeyRanges ranges = ranges_of(run);
    const Index value = sizes_.value, stride = rows_of(run) * (value + 2);
    float* const first = part + row * (value + 2);
    float peak = first[value], sum = first[value + 1];
    for (Index r = 1; r < ranges.count; ++r) {
      const float* const from = first + r * stride;
      add_part(from, from[value], from[value + 1], value, first, peak, sum);
    }
    finish(run, row, first, sum, peak);
  }

  CachedAttentionSizes sizes_;
  AttentionKernels kernels_;
  bool within_key_;  ///< values are columns of the keys and need no packing of their own
  Index key_pitch_;
  Index value_pitch_;
};

/// One parallel region over the query blocks of all heads of all expanded jobs.
class ExpandedAttention {
 public:
  ExpandedAttention(const ExpandedAttentionSizes& sizes, const AttentionKernels& kernels)
      : sizes_(sizes), kernels_(kernels), width_(sizes.width()), value_pitch_(lanes_up(sizes.value)) {}

  void run(Cpu& device, std::span<const ExpandedAttentionJob> jobs) const {
    const auto count = static_cast<Index>(jobs.size());
    auto frame = device.scratch();
    View tasks = frame.take<Index>(count + 1);
    tasks[0] = 0;
    for (Index i = 0; i < count; ++i)
      tasks[i + 1] = tasks[i] + blocks_of(jobs[static_cast<std::size_t>(i)]) * sizes_.heads;
    const Index own = tiles * tile_floats() + key_tile * (tile_rows + width_ + value_pitch_);
    const View memory = frame.take<float>(device.threads(), (own + 15) / 16 * 16);
    device.run(tasks[count], [&](Index task, int worker) {
      const Index i = part_of(tasks, task);
      attend(jobs[static_cast<std::size_t>(i)], task - tasks[i], memory.row(worker).data);
    });
  }

 private:
  static constexpr Index tiles = 4;  ///< query tiles that share the keys of a block
  static constexpr Index block = tiles * tile_rows;

  [[nodiscard]] Index tile_floats() const { return QueryTile::floats(width_, sizes_.value); }
  [[nodiscard]] static Index blocks_of(const ExpandedAttentionJob& job) { return (job.q.rows + block - 1) / block; }

  void attend(const ExpandedAttentionJob& job, Index task, float* memory) const {
    // The last block sees the most keys: begun first, it does not keep one thread busy alone at the end.
    const Index begin = (blocks_of(job) - 1 - task / sizes_.heads) * block, head = task % sizes_.heads;
    const Index value = sizes_.value, nope = sizes_.nope;
    const bool causal = sizes_.mask == AttentionMask::causal;
    float* const score = memory + tiles * tile_floats();
    float* const key = score + key_tile * tile_rows;
    float* const values = key + key_tile * width_;
    QueryTile tile[tiles];
    Index used = 0, most = 0, earliest = 0;
    for (Index row = begin; used < tiles && row < job.q.rows; ++used, row += tile_rows) {
      QueryTile& one = tile[used];
      one.begin(kernels_, std::min(tile_rows, job.q.rows - row), width_, value, memory + used * tile_floats(),
                sizes_.keys.pinned);
      for (Index m = 0; m < one.rows; ++m) {
        const float* const q = job.q.row(row + m).data + head * width_;
        prefetch_row(q, width_);
        const Index position = job.first_position + row + m;
        // Rows of keys, not positions: of skipped positions there are none.
        one.set_row(m, q, causal ? visible_keys(position, sizes_.tokens_per_key) - job.skipped : job.v.rows,
                    std::max(sizes_.keys.begin(position) - job.skipped, Index{0}));
        if (job.far_bias.data != nullptr)
          one.set_bias(m, job.far_bias(row + m, head), std::max(sizes_.near.begin(position) - job.skipped, Index{0}));
      }
      one.near_pinned = sizes_.near.pinned;
      if (job.chosen.data != nullptr) one.chosen = job.chosen.row(row).data;
      one.chosen_pitch = job.chosen.pitch;
      one.pack(width_, sizes_.scale);
      most = one.most;
      earliest = used == 0 ? one.earliest : earliest;
    }
    const Index key_head = head / sizes_.heads_per_key;
    const Index key_column = key_head * (job.key_head_stride > 0 ? job.key_head_stride : nope);
    const Index value_column = key_head * (job.value_head_stride > 0 ? job.value_head_stride : value);
    for (Index k = 0; k < key_tile; ++k)
      std::fill(values + k * value_pitch_ + value, values + (k + 1) * value_pitch_, 0.0f);
    for (Index first = 0; first < most; first += key_tile) {
      const Index count = std::min(key_tile, most - first);
      if (first + count <= earliest && first >= sizes_.keys.pinned) continue;
      if (job.chosen.data != nullptr &&
          std::none_of(tile, tile + used, [&](const QueryTile& one) { return one.reaches(first, first + count); }))
        continue;
      float bias[key_tile] = {};
      const bool biased = job.key_bias.data != nullptr;
      for (Index k = 0; k < count; ++k) {
        float* const to = key + k * width_;
        if (first + k < earliest && first + k >= sizes_.keys.pinned) {  // no token of the block sees it: not read
          std::fill(to, to + width_, 0.0f);
          std::fill(values + k * value_pitch_, values + (k + 1) * value_pitch_, 0.0f);
          continue;
        }
        if (const Index next = first + k + prefetch_rows; next < most) {
          prefetch_row(job.k_nope.row(next).data + key_column, nope);
          prefetch_row(job.v.row(next).data + value_column, value);
        }
        copy(job.k_nope, first + k, key_column, nope, to);
        if (sizes_.rope > 0) copy(job.k_rope, first + k, 0, sizes_.rope, to + nope);
        copy(job.v, first + k, value_column, value, values + k * value_pitch_);
        if (biased) bias[k] = job.key_bias(first + k, 0);
      }
      pad_rows(key, count, width_);
      pad_rows(values, count, value_pitch_);
      for (Index i = 0; i < used; ++i)
        tile[i].attend(key, width_, width_, values, value_pitch_, biased ? bias : nullptr, first, count, score);
    }
    for (Index i = 0; i < used; ++i)
      for (Index m = 0; m < tile[i].rows; ++m) {
        const float* const from = tile[i].out + m * tile[i].out_pitch;
        float* const to = job.out.row(begin + i * tile_rows + m).data + head * value;
        const float peak = tile[i].state.peak[m], sum = tile[i].state.sum[m];
        const float* const sink = job.sinks.data == nullptr ? nullptr : &job.sinks[head];
        divide_row(from, denominator_of(sum, peak, sink), value, to);
        if (job.lse.data != nullptr) job.lse(begin + i * tile_rows + m, head) = log_denominator_of(sum, peak, sink);
      }
  }

  static void copy(const View<const float, 2>& from, Index row, Index column, Index count, float* to) {
    const float* const source = from.data + row * from.pitch + column;
    std::copy(source, source + count, to);
  }

  ExpandedAttentionSizes sizes_;
  AttentionKernels kernels_;
  Index width_;
  Index value_pitch_;
};

}  // namespace cpu

/// With kernels of a named variant, for tests and benchmarks.
inline void run_cached_attention(Cpu& device, std::span<const CachedAttentionJob> jobs,
                                 const CachedAttentionSizes& sizes, Isa isa) {
  cpu::CachedAttention(sizes, cpu::attention_kernels_of(isa)).run(device, jobs);
}

inline void run_expanded_attention(Cpu& device, std::span<const ExpandedAttentionJob> jobs,
                                   const ExpandedAttentionSizes& sizes, Isa isa) {
  cpu::ExpandedAttention(sizes, cpu::attention_kernels_of(isa)).run(device, jobs);
}

inline void run_cached_attention(Cpu& device, std::span<const CachedAttentionJob> jobs,
                                 const CachedAttentionSizes& sizes) {
  run_cached_attention(device, jobs, sizes, device.isa());
}
inline void run_expanded_attention(Cpu& device, std::span<const ExpandedAttentionJob> jobs,
                                   const ExpandedAttentionSizes& sizes) {
  run_expanded_attention(device, jobs, sizes, device.isa());
}
inline void run_expanded_attention(Cpu& device, std::span<const BasicExpandedAttentionJob<double>> jobs,
                                   const BasicExpandedAttentionSizes<double>& sizes) {
  cpu::plain_expanded_attention(device, jobs, sizes);
}

}  // namespace v1
}  // namespace guild
