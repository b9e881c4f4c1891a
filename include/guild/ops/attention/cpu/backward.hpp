// Gradients of expanded attention on the CPU: tiles of 64 queries and 64 keys, whose probabilities are made anew.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <guild/device/cpu.hpp>
#include <guild/device/isa.hpp>
#include <guild/ops/attention/cpu/backward_avx2.hpp>
#include <guild/ops/attention/cpu/backward_avx512.hpp>
#include <guild/ops/attention/cpu/backward_tile.hpp>
#include <guild/ops/attention/cpu/chosen.hpp>
#include <guild/ops/attention/cpu/key_cuts.hpp>
#include <guild/ops/attention/cpu/plain.hpp>
#include <guild/ops/attention/cpu/tile.hpp>
#include <guild/ops/attention/job.hpp>
#include <limits>
#include <span>

namespace guild {
inline namespace v1 {
namespace cpu {

[[nodiscard]] inline AttentionBackwardKernels attention_backward_kernels_of(Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::avx512) return attention_backward_kernels<Avx512AttentionBackward>();
  if (isa == Isa::avx2) return attention_backward_kernels<Avx2AttentionBackward>();
#endif
  (void)isa;
  return attention_backward_kernels<BaselineAttentionBackward>();
}

/// Memory of one thread: the packed keys of a range with their gradients, and the queries of a tile.
class BackwardScratch {
 public:
  using Job = ExpandedAttentionGradientJob<float>;

  BackwardScratch(Index key_width, Index value_width, Index keys)
      : width(key_width),
        value(value_width),
        width_pitch(lanes_up(key_width)),
        value_pitch(lanes_up(value_width)),
        keys_(keys) {}

  [[nodiscard]] Index floats() const {
    return keys_ * (2 * (width_pitch + value_pitch) + 1) +
           backward_tile * (2 * width_pitch + value_pitch + width + value + 2 * backward_tile + 4);
  }
  void place(float* memory, const Job& job) {
    const auto take = [&memory](Index count) {
      float* const taken = memory;
      memory += count;
      return taken;
    };
    key = take(keys_ * width_pitch);
    dkey = take(keys_ * width_pitch);
    values = take(keys_ * value_pitch);
    dvalues = take(keys_ * value_pitch);
    query = take(backward_tile * width_pitch);
    dquery = take(backward_tile * width_pitch);
    dout = take(backward_tile * value_pitch);
    query_lanes = take(backward_tile * width);
    dout_lanes = take(backward_tile * value);
    score = take(backward_tile * backward_tile);
    slope = take(backward_tile * backward_tile);
    lse = take(backward_tile);
    along = take(backward_tile);
    bias = take(backward_tile);
    dbias = take(backward_tile);
    key_bias = job.key_bias.data != nullptr ? take(keys_) : nullptr;
  }

  Index width, value, width_pitch, value_pitch;
  float *key, *dkey;                ///< [keys][width_pitch]
  float *values, *dvalues;          ///< [keys][value_pitch]
  float *query, *dquery;            ///< [tile][width_pitch]; query and query_lanes are scaled
  float* dout;                      ///< [tile][value_pitch]
  float *query_lanes, *dout_lanes;  ///< [width][tile], [value][tile]
  float *score, *slope;             ///< [key of the tile][query of the tile]
  float *lse, *along;               ///< [tile]
  float *bias, *dbias;              ///< [tile], where there is a far bias
  float* key_bias;                  ///< [keys], or null

 private:
  Index keys_;
};

/// Tasks are (sequence, key head, range of keys). A task owns the gradients of its keys and takes the heads that share
/// them one after the other. dq and dfar_bias of the first range go to their places, of other ranges to scratch, and
/// every key head's dk_rope to scratch; a second region adds them up in order.
class ExpandedAttentionBackward {
 public:
  using Job = ExpandedAttentionGradientJob<float>;

  ExpandedAttentionBackward(const ExpandedAttentionSizes& sizes, const AttentionBackwardKernels& kernels)
      : sizes_(sizes), kernels_(kernels), width_(sizes.width()) {}

  void run(Cpu& device, std::span<const Job> jobs) const {
    constexpr Index most_floats = Index{1} << 24;  // batches that need more scratch are done in several rounds
    while (!jobs.empty()) {
      std::size_t taken = 0;
      for (Index floats = 0; taken < jobs.size(); ++taken) {
        floats += part_floats(jobs[taken]);
        if (taken > 0 && floats > most_floats) break;
      }
      run_round(device, jobs.first(taken));
      jobs = jobs.subspan(taken);
    }
  }

 private:
  [[nodiscard]] bool causal() const { return sizes_.mask == AttentionMask::causal; }
  /// Keys that the mask shows to a query.
  [[nodiscard]] Index visible(Index query) const { return visible_keys(query, sizes_.tokens_per_key); }
  [[nodiscard]] KeyCuts cuts_of(const Job& job) const { return {job.q.rows, job.v.rows, sizes_}; }
  /// dk_rope of each key head [G][n][R], then of each range but the first dq [ranges - 1][n][H * (N + R)] and, where
  /// there is a far bias, its gradient [ranges - 1][n][H].
  [[nodiscard]] Index rope_floats(const Job& job) const { return sizes_.key_heads() * job.q.rows * sizes_.rope; }
  [[nodiscard]] Index query_floats(const Job& job) const { return job.q.rows * sizes_.heads * width_; }
  [[nodiscard]] Index bias_floats(const Job& job) const {
    return job.far_bias.data != nullptr ? job.q.rows * sizes_.heads : 0;
  }
  [[nodiscard]] static Index later(const KeyCuts& cuts) { return std::max(cuts.count(), Index{1}) - 1; }
  [[nodiscard]] Index part_floats(const Job& job) const {
    return rope_floats(job) + later(cuts_of(job)) * (query_floats(job) + bias_floats(job));
  }

  void run_round(Cpu& device, std::span<const Job> jobs) const {
    const auto count = static_cast<Index>(jobs.size());
    auto frame = device.scratch();
    const View tasks = frame.take<Index>(count + 1), parts = frame.take<Index>(count + 1),
               blocks = frame.take<Index>(count + 1);
    task_starts(jobs, tasks, [&](const Job& job) { return sizes_.key_heads() * cuts_of(job).count(); });
    task_starts(jobs, parts, [&](const Job& job) { return part_floats(job); });
    task_starts(jobs, blocks, [&](const Job& job) { return (job.q.rows + backward_tile - 1) / backward_tile; });
    Index longest = 0;
    for (const Job& job : jobs) longest = std::max(longest, cuts_of(job).longest());
    const View part = frame.take<float>(parts[count]);
    const BackwardScratch layout(width_, sizes_.value, (longest + row_step - 1) / row_step * row_step);
    const View memory = frame.take<float>(device.threads(), lanes_up(layout.floats()));

    device.run(tasks[count], [&](Index task, int worker) {
      const Index i = part_of(tasks, task);
      BackwardScratch own = layout;
      const Job& job = jobs[static_cast<std::size_t>(i)];
      own.place(memory.row(worker).data, job);
      attend(job, task - tasks[i], part.data + parts[i], own);
    });
    device.run(blocks[count], [&](Index block, int) {
      const Index i = part_of(blocks, block);
      add_parts(jobs[static_cast<std::size_t>(i)], block - blocks[i], part.data + parts[i]);
    });
  }

  void attend(const Job& job, Index task, float* part, const BackwardScratch& own) const {
    const KeyCuts cuts = cuts_of(job);
    const Index range = task / sizes_.key_heads(), key_head = task % sizes_.key_heads();
    const Index begin = cuts.begin(range), end = cuts.begin(range + 1), first = key_head * sizes_.heads_per_key;
    load_keys(job, key_head, begin, end, own);
    const Gradients to = range == 0 ? Gradients{} : parts_of(job, cuts, range, part);
    for (Index head = first; head < first + sizes_.heads_per_key; ++head) attend_head(job, head, begin, end, to, own);
    store_keys(job, key_head, begin, end, part, own);
  }

  /// The first tile of queries of which some see key `begin`, the first of a range: the first range has all queries.
  [[nodiscard]] Index queries_begin(Index begin) const {
    if (!causal() || begin == 0) return 0;
    return ((begin + 1) * sizes_.tokens_per_key - 1) / backward_tile * backward_tile;
  }
  /// The queries behind the last that sees one of the keys [begin, end), in whole tiles.
  [[nodiscard]] Index queries_end(Index begin, Index end, Index n) const {
    if (sizes_.keys.all() || begin < sizes_.keys.pinned) return n;
    const Index last = end - 1 + sizes_.keys.window;
    return std::min(n, (last + backward_tile - 1) / backward_tile * backward_tile);
  }

  /// Where a range's gradients of queries and of their far bias go, [n][H * (N + R)] and [n][H]; null: to their places.
  struct Gradients {
    float* query = nullptr;
    float* bias = nullptr;
  };
  [[nodiscard]] Gradients parts_of(const Job& job, const KeyCuts& cuts, Index range, float* part) const {
    float* const queries = part + rope_floats(job);
    return {queries + (range - 1) * query_floats(job),
            queries + later(cuts) * query_floats(job) + (range - 1) * bias_floats(job)};
  }

  /// The queries of a head against the packed keys.
  void attend_head(const Job& job, Index head, Index begin, Index end, Gradients later,
                   const BackwardScratch& own) const {
    const Index n = job.q.rows, stop = later.query == nullptr ? n : queries_end(begin, end, n);
    for (Index first = queries_begin(begin); first < stop; first += backward_tile) {
      const Index rows = std::min(backward_tile, n - first);
      load_queries(job, head, first, rows, own);
      const Index last = causal() ? std::min(end, visible(first + rows - 1)) : end;
      const Index oldest = sizes_.keys.begin(first), pinned = sizes_.keys.pinned;
      Tile tile{0, 0, rows, Onto::zero};
      for (Index k = begin; k < last; k += backward_tile) {
        tile.first = k - begin;
        tile.keys = std::min({backward_tile, end - k, steps_up(last - k)});
        if (k + tile.keys <= oldest && k >= pinned) continue;  // no query sees any
        const Chosen chosen = chosen_of(job, tile, first, k);
        if (chosen == Chosen::none) continue;
        if (chosen == Chosen::some) {
          chosen_tile(job, own, tile, first, k);
          tile.onto = Onto::sums;
          continue;
        }
        const bool far = job.far_bias.data != nullptr && begins_in(sizes_.near, tile, first, k);
        const bool partly = causal() && visible(first) < k + tile.keys;  // visible, but for a window
        if (far || begins_in(sizes_.keys, tile, first, k) || (partly && sizes_.tokens_per_key > 1))
          cut_tile(own, tile, first, k, far);
        else if (partly)
          diagonal_tile(own, tile);
        else
          full_tile(own, tile);
        tile.onto = Onto::sums;
      }
      if (tile.onto == Onto::zero) std::fill(own.dquery, own.dquery + rows * own.width_pitch, 0.0f);
      for (Index m = 0; m < rows; ++m) {
        const float* const from = own.dquery + m * own.width_pitch;
        float* const to = later.query == nullptr ? job.dq.row(first + m).data + head * width_
                                                 : later.query + ((first + m) * sizes_.heads + head) * width_;
        kernels_.scale(from, sizes_.scale, width_, width_, to);
      }
      for (Index m = 0; m < rows && job.far_bias.data != nullptr; ++m)
        *(later.query == nullptr ? &job.dfar_bias(first + m, head) : later.bias + (first + m) * sizes_.heads + head) =
            own.dbias[m];
    }
  }

  struct Tile {
    Index first, keys;  ///< in the range; `keys` in use, of rows padded with zeros
    Index queries;
    Onto onto;  ///< what happens to dquery
  };

  void full_tile(const BackwardScratch& own, const Tile& tile) const {
    whole_tile(
        own, tile, [] {}, [] {});
  }
  /// True if some of the pairs of the queries from `query` and the keys from `key` on are before a window, and not
  /// pinned.
  [[nodiscard]] static bool begins_in(const KeyWindow& window, const Tile& tile, Index query, Index key) {
    return window.begin(query + tile.queries - 1) > key && key + tile.keys > window.pinned;
  }
  /// Calls f(k, m) for the keys of the tile and the first of its queries that key k is far of.
  template <class F>
  void for_each_far(const Tile& tile, Index query, Index key, F&& f) const {
    for (Index k = std::clamp(sizes_.near.pinned - key, Index{0}, tile.keys); k < tile.keys; ++k)
      f(k, std::clamp(key + k + sizes_.near.window - query, Index{0}, tile.queries));
  }
  void hide_unseen(const BackwardScratch& own, const Tile& tile, Index query, Index key) const {
    for (Index m = 0; m < tile.queries; ++m) {
      const Index seen = visible(query + m);
      for (Index k = 0; k < tile.keys; ++k)
        if (key + k >= seen || !sizes_.keys.sees(query + m, key + k))
          own.score[k * backward_tile + m] = -std::numeric_limits<float>::infinity();
    }
  }
  /// Where a window begins within the tile, some pairs have the far bias, or keys stand for several tokens.
  void cut_tile(const BackwardScratch& own, const Tile& tile, Index query, Index key, bool far) const {
    const bool hides = key + tile.keys > visible(query) || begins_in(sizes_.keys, tile, query, key);
    const auto change = [&] {
      if (hides) hide_unseen(own, tile, query, key);
      if (far)
        for_each_far(tile, query, key, [&](Index k, Index first) {
          for (Index m = first; m < tile.queries; ++m) own.score[k * backward_tile + m] += own.bias[m];
        });
    };
    const auto after = [&] {
      if (far)
        for_each_far(tile, query, key, [&](Index k, Index first) {
          for (Index m = first; m < tile.queries; ++m) own.dbias[m] += own.slope[k * backward_tile + m];
        });
    };
    whole_tile(own, tile, change, after);
  }
  /// How many of the visible pairs of a tile have bits, in a job with chosen keys.
  enum class Chosen : std::uint8_t { none, some, all };
  [[nodiscard]] std::uint64_t visible_bits(Index query, Index key, Index keys) const {
    return low_bits(std::clamp(visible(query) - key, Index{0}, keys));
  }
  [[nodiscard]] Chosen chosen_of(const Job& job, const Tile& tile, Index query, Index key) const {
    if (job.chosen.data == nullptr) return Chosen::all;
    bool any = false, all = true;
    for (Index m = 0; m < tile.queries; ++m) {
      const std::uint64_t visible = visible_bits(query + m, key, tile.keys);
      const std::uint64_t seen = chosen_bits(job.chosen.row(query + m).data, key, tile.keys) & visible;
      any = any || seen != 0;
      all = all && seen == visible;
    }
    return all ? Chosen::all : any ? Chosen::some : Chosen::none;
  }
  void chosen_tile(const Job& job, const BackwardScratch& own, const Tile& tile, Index query, Index key) const {
    const auto hide = [&] {
      for (Index m = 0; m < tile.queries; ++m) {
        const std::uint64_t visible = visible_bits(query + m, key, tile.keys);
        std::uint64_t others = ~(chosen_bits(job.chosen.row(query + m).data, key, tile.keys) & visible);
        for (others &= low_bits(tile.keys); others != 0; others &= others - 1)
          own.score[std::countr_zero(others) * backward_tile + m] = -std::numeric_limits<float>::infinity();
      }
    };
    whole_tile(own, tile, hide, [] {});
  }
  /// `change` sees the scores before they are weighed, those of pairs that are not visible become -infinity; `after`
  /// the slopes.
  template <class Change, class After>
  void whole_tile(const BackwardScratch& own, const Tile& tile, Change&& change, After&& after) const {
    constexpr Index pitch = backward_tile;
    const Index wide = own.width_pitch, deep = own.value_pitch, lanes = lanes_up(tile.queries);
    const Index keys = steps_up(tile.keys);
    float* const key = own.key + tile.first * wide;
    float* const value = own.values + tile.first * deep;
    kernels_.product({key, wide, 1, own.query_lanes, pitch, width_, own.score, pitch, keys, lanes, Onto::zero});
    kernels_.product({value, deep, 1, own.dout_lanes, pitch, own.value, own.slope, pitch, keys, lanes, Onto::zero});
    add_key_bias(own, tile, [](Index) { return Index{0}; });
    change();
    kernels_.weigh({own.score, own.slope, own.lse, own.along, keys, lanes, false});
    after();
    kernels_.product({own.score, pitch, 1, own.dout, deep, tile.queries, own.dvalues + tile.first * deep, deep, keys,
                      deep, Onto::sums});
    kernels_.product({own.slope, pitch, 1, own.query, wide, tile.queries, own.dkey + tile.first * wide, wide, keys,
                      wide, Onto::sums});
    kernels_.product(
        {own.slope, 1, pitch, key, wide, tile.keys, own.dquery, wide, steps_up(tile.queries), wide, tile.onto});
  }

  /// To the scores of each key of a tile with the queries from that of `first_of` on.
  template <class First>
  static void add_key_bias(const BackwardScratch& own, const Tile& tile, First&& first_of) {
    for (Index k = 0; k < tile.keys && own.key_bias != nullptr; ++k)
      for (Index m = first_of(k); m < lanes_up(tile.queries); ++m)
        own.score[k * backward_tile + m] += own.key_bias[tile.first + k];
  }

  /// Eight rows at a time, each only as far as there are visible pairs.
  void diagonal_tile(const BackwardScratch& own, const Tile& tile) const {
    constexpr Index pitch = backward_tile;
    const Index wide = own.width_pitch, deep = own.value_pitch, lanes = lanes_up(tile.queries);
    const Index keys = steps_up(tile.keys);
    float* const key = own.key + tile.first * wide;
    float* const value = own.values + tile.first * deep;
    for (Index k = 0; k < keys; k += row_step) {
      const Index lane = k / 16 * 16, at = k * pitch + lane;
      kernels_.product({key + k * wide, wide, 1, own.query_lanes + lane, pitch, width_, own.score + at, pitch, row_step,
                        lanes - lane, Onto::zero});
      kernels_.product({value + k * deep, deep, 1, own.dout_lanes + lane, pitch, own.value, own.slope + at, pitch,
                        row_step, lanes - lane, Onto::zero});
    }
    add_key_bias(own, tile, [](Index k) { return k / 16 * 16; });
    kernels_.weigh({own.score, own.slope, own.lse, own.along, keys, lanes, true});
    for (Index k = 0; k < tile.keys; k += row_step) {
      const Index row = tile.first + k, at = k * pitch + k, queries = tile.queries - k;
      kernels_.product({own.score + at, pitch, 1, own.dout + k * deep, deep, queries, own.dvalues + row * deep, deep,
                        row_step, deep, Onto::sums});
      kernels_.product({own.slope + at, pitch, 1, own.query + k * wide, wide, queries, own.dkey + row * wide, wide,
                        row_step, wide, Onto::sums});
    }
    for (Index m = 0; m < tile.queries; m += row_step)
      kernels_.product({own.slope + m, 1, pitch, key, wide, std::min(tile.keys, m + row_step), own.dquery + m * wide,
                        wide, row_step, wide, tile.onto});
  }

  [[nodiscard]] static constexpr Index steps_up(Index n) { return (n + row_step - 1) / row_step * row_step; }
  [[nodiscard]] Index key_column(const Job& job, Index key_head) const {
    return key_head * (job.key_head_stride > 0 ? job.key_head_stride : sizes_.nope);
  }
  [[nodiscard]] Index value_column(const Job& job, Index key_head) const {
    return key_head * (job.value_head_stride > 0 ? job.value_head_stride : sizes_.value);
  }

  void load_keys(const Job& job, Index key_head, Index begin, Index end, const BackwardScratch& own) const {
    const Index keys = end - begin, nope = sizes_.nope;
    for (Index s = 0; s < keys; ++s) {
      const Index row = begin + s;
      if (s + prefetch_rows < keys) {
        prefetch_row(job.k_nope.row(row + prefetch_rows).data + key_column(job, key_head), nope);
        prefetch_row(job.v.row(row + prefetch_rows).data + value_column(job, key_head), own.value);
      }
      float* const key = own.key + s * own.width_pitch;
      copy(job.k_nope.row(row).data + key_column(job, key_head), nope, nope, key);
      copy(sizes_.rope > 0 ? job.k_rope.row(row).data : nullptr, sizes_.rope, own.width_pitch - nope, key + nope);
      copy(job.v.row(row).data + value_column(job, key_head), own.value, own.value_pitch,
           own.values + s * own.value_pitch);
      if (own.key_bias != nullptr) own.key_bias[s] = job.key_bias(row, 0);
    }
    std::fill(own.key + keys * own.width_pitch, own.key + steps_up(keys) * own.width_pitch, 0.0f);
    std::fill(own.values + keys * own.value_pitch, own.values + steps_up(keys) * own.value_pitch, 0.0f);
    std::fill(own.dkey, own.dkey + steps_up(keys) * own.width_pitch, 0.0f);
    std::fill(own.dvalues, own.dvalues + steps_up(keys) * own.value_pitch, 0.0f);
  }

  void copy(const float* from, Index count, Index padded, float* to) const {
    kernels_.scale(from, 1.0f, count, padded, to);
  }

  void load_queries(const Job& job, Index head, Index first, Index rows, const BackwardScratch& own) const {
    const float* query[backward_tile];
    const float* dout[backward_tile];
    for (Index m = 0; m < rows; ++m) {
      query[m] = job.q.row(first + m).data + head * width_;
      dout[m] = job.dout.row(first + m).data + head * own.value;
      if (m + prefetch_rows < rows) {
        prefetch_row(job.q.row(first + m + prefetch_rows).data + head * width_, width_);
        prefetch_row(job.dout.row(first + m + prefetch_rows).data + head * own.value, own.value);
        prefetch_row(job.out.row(first + m + prefetch_rows).data + head * own.value, own.value);
      }
      kernels_.scale(query[m], sizes_.scale, width_, own.width_pitch, own.query + m * own.width_pitch);
      copy(dout[m], own.value, own.value_pitch, own.dout + m * own.value_pitch);
      own.along[m] = kernels_.dot(dout[m], job.out.row(first + m).data + head * own.value, own.value);
      own.lse[m] = log_denominator_again(job.lse(first + m, head));
      own.bias[m] = job.far_bias.data != nullptr ? job.far_bias(first + m, head) : 0.0f;
      own.dbias[m] = 0.0f;
    }
    if (rows < backward_tile) {
      std::fill(own.query_lanes, own.query_lanes + width_ * backward_tile, 0.0f);
      std::fill(own.dout_lanes, own.dout_lanes + own.value * backward_tile, 0.0f);
      std::fill(own.along + rows, own.along + backward_tile, 0.0f);
      std::fill(own.lse + rows, own.lse + backward_tile, std::numeric_limits<float>::infinity());
    }
    transpose_rows(query, rows, width_, sizes_.scale, backward_tile, own.query_lanes);
    transpose_rows(dout, rows, own.value, 1.0f, backward_tile, own.dout_lanes);
  }

  void store_keys(const Job& job, Index key_head, Index begin, Index end, float* part,
                  const BackwardScratch& own) const {
    const Index nope = sizes_.nope, rope = sizes_.rope;
    for (Index s = begin; s < end; ++s) {
      const float* const key = own.dkey + (s - begin) * own.width_pitch;
      const float* const value = own.dvalues + (s - begin) * own.value_pitch;
      copy(key, nope, nope, job.dk_nope.row(s).data + key_column(job, key_head));
      copy(key + nope, rope, rope, part + (key_head * job.q.rows + s) * rope);
      copy(value, own.value, own.value, job.dv.row(s).data + value_column(job, key_head));
    }
  }

  /// Up to 64 tokens: the key heads' dk_rope, the ranges' dq and dfar_bias where there are several, and the sinks'
  /// gradients.
  void add_parts(const Job& job, Index block, float* part) const {
    const KeyCuts cuts = cuts_of(job);
    const Index n = job.q.rows, rope = sizes_.rope, cols = sizes_.heads * width_;
    const Index first = block * backward_tile, end = std::min(n, first + backward_tile);
    for (Index t = first; t < end && rope > 0; ++t) {
      float* const to = job.dk_rope.row(t).data;
      copy(part + t * rope, rope, rope, to);
      for (Index g = 1; g < sizes_.key_heads(); ++g) kernels_.add(part + (g * n + t) * rope, rope, to);
    }
    for (Index r = 1; r < cuts.count(); ++r) {
      if (first < queries_begin(cuts.begin(r))) break;  // these tokens see none of this range's keys
      if (first >= queries_end(cuts.begin(r), cuts.begin(r + 1), n)) continue;  // or none any more
      for (Index t = first; t < end; ++t) {
        const Gradients from = parts_of(job, cuts, r, part);
        kernels_.add(from.query + t * cols, cols, job.dq.row(t).data);
        if (job.far_bias.data != nullptr)
          kernels_.add(from.bias + t * sizes_.heads, sizes_.heads, job.dfar_bias.row(t).data);
      }
    }
    for (Index t = first; t < end && job.sinks.data != nullptr; ++t)
      for (Index head = 0; head < sizes_.heads; ++head) {
        const float along = kernels_.dot(job.dout.row(t).data + head * sizes_.value,
                                         job.out.row(t).data + head * sizes_.value, sizes_.value);
        job.dsinks(t, head) = -std::exp(job.sinks[head] - log_denominator_again(job.lse(t, head))) * along;
      }
  }

  ExpandedAttentionSizes sizes_;
  AttentionBackwardKernels kernels_;
  Index width_;
};

}  // namespace cpu

/// With kernels of a named variant, for tests and benchmarks.
inline void run_expanded_attention_backward(Cpu& device, std::span<const ExpandedAttentionGradientJob<float>> jobs,
                                            const ExpandedAttentionSizes& sizes, Isa isa) {
  cpu::ExpandedAttentionBackward(sizes, cpu::attention_backward_kernels_of(isa)).run(device, jobs);
}
inline void run_expanded_attention_backward(Cpu& device, std::span<const ExpandedAttentionGradientJob<float>> jobs,
                                            const ExpandedAttentionSizes& sizes) {
  run_expanded_attention_backward(device, jobs, sizes, device.isa());
}
inline void run_expanded_attention_backward(Cpu& device, std::span<const ExpandedAttentionGradientJob<double>> jobs,
                                            const BasicExpandedAttentionSizes<double>& sizes) {
  cpu::plain_expanded_attention_backward(device, jobs, sizes);
}

}  // namespace v1
}  // namespace guild
