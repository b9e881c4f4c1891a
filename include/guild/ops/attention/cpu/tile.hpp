// The inner loops of attention on packed tiles, in plain C++, and the table through which every variant is called.
// A tile holds M query rows (16 or 32) in the lanes of vectors: query[c][m], score[k][m]. So the softmax over keys runs
// down the columns, and no vector is ever summed across its lanes.
#pragma once

#include <algorithm>
#include <cmath>
#include <guild/core/types.hpp>
#include <guild/core/view.hpp>
#include <guild/ops/attention/job.hpp>
#include <limits>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

namespace guild {
inline namespace v1 {
namespace cpu {

inline constexpr Index key_tile = attention_tile;  ///< keys of a tile; their number in use is a multiple of key_step
inline constexpr Index key_step = 8;
inline constexpr Index tile_rows = 32;    ///< most query rows of a tile
inline constexpr float no_peak = -1e30f;  ///< the running maximum before any key; finite, so that differences are

/// Finds the part that holds `index`, where part i covers [starts[i], starts[i + 1]).
[[nodiscard]] inline Index part_of(View<const Index> starts, Index index) {
  return std::upper_bound(starts.begin(), starts.end(), index) - starts.begin() - 1;
}

/// The running softmax of the rows of a tile.
struct SoftmaxState {
  float peak[tile_rows];  ///< largest score so far
  float sum[tile_rows];   ///< sum of exp(score - peak)
  float keep[tile_rows];  ///< what the last `soften` says earlier results must be multiplied by
};

[[nodiscard]] constexpr Index lanes_up(Index n) { return (n + 15) / 16 * 16; }

/// to[c * lanes + m] = source[m][c] * scale, for m < rows and c < width.
inline void transpose_rows(const float* const* source, Index rows, Index width, float scale, Index lanes, float* to) {
  Index m = 0;
#if defined(__SSE__)
  const __m128 factor = _mm_set1_ps(scale);
  for (; m + 4 <= rows; m += 4) {
    Index c = 0;
    for (; c + 4 <= width; c += 4) {
      __m128 a = _mm_loadu_ps(source[m] + c), b = _mm_loadu_ps(source[m + 1] + c);
      __m128 d = _mm_loadu_ps(source[m + 2] + c), e = _mm_loadu_ps(source[m + 3] + c);
      _MM_TRANSPOSE4_PS(a, b, d, e);
      float* const at = to + c * lanes + m;
      _mm_storeu_ps(at, _mm_mul_ps(a, factor));
      _mm_storeu_ps(at + lanes, _mm_mul_ps(b, factor));
      _mm_storeu_ps(at + 2 * lanes, _mm_mul_ps(d, factor));
      _mm_storeu_ps(at + 3 * lanes, _mm_mul_ps(e, factor));
    }
    for (; c < width; ++c)
      for (Index i = m; i < m + 4; ++i) to[c * lanes + i] = source[i][c] * scale;
  }
#endif
  for (; m < rows; ++m)
    for (Index c = 0; c < width; ++c) to[c * lanes + m] = source[m][c] * scale;
}

/// to[c] = from[c] / by. Quotients of vectors and of single numbers have the same bits.
inline void divide_row(const float* from, float by, Index count, float* to) {
  Index c = 0;
#if defined(__SSE__)
  const __m128 divisor = _mm_set1_ps(by);
  for (; c + 4 <= count; c += 4) _mm_storeu_ps(to + c, _mm_div_ps(_mm_loadu_ps(from + c), divisor));
#endif
  for (; c < count; ++c) to[c] = from[c] / by;
}

/// What the weighted values of a row are divided by: the softmax's denominator as a multiple of exp(peak), with the one
/// more logit of a sink (null: none) that no value belongs to. Without a key they are 0, whatever divides them.
[[nodiscard]] inline float denominator_of(float sum, float peak, const float* sink) {
  if (sink != nullptr) return sum + std::exp(*sink - peak);
  return sum == 0.0f ? 1.0f : sum;
}
/// The logarithm of the denominator.
[[nodiscard]] inline float log_denominator_of(float sum, float peak, const float* sink) {
  if (sink == nullptr) return peak + std::log(sum);
  const float all = std::max(peak, *sink);  // with a sink far above all keys the sum in their measure would overflow
  return all + std::log(sum * std::exp(peak - all) + std::exp(*sink - all));
}
/// What probabilities are made of anew: infinity, and so no share, for a row without a denominator.
template <class Real>
[[nodiscard]] Real log_denominator_again(Real lse) {
  return lse == -std::numeric_limits<Real>::infinity() ? -lse : lse;
}

/// Rows of a head are short pieces far apart, which processors do not fetch ahead by themselves.
inline constexpr Index prefetch_rows = 8;
inline void prefetch_row([[maybe_unused]] const float* from, [[maybe_unused]] Index count) {
#if defined(__GNUC__)
  for (Index c = 0; c < count; c += 16) __builtin_prefetch(from + c);
#endif
}

/// Loops for tiles of M rows. Buffers are contiguous; `count` is a multiple of key_step.
struct AttentionTile {
  /// score[k][m] = sum over c < width of key[k][c] * query[c][m].
  void (*scores)(const float* query, const float* key, Index key_pitch, Index width, Index count, float* score);
  /// Replaces scores by exp(score - peak) and brings the state up to date. A score of -infinity becomes 0.
  void (*soften)(float* score, Index count, SoftmaxState& state);
  /// out[m][c] = out[m][c] * keep[m] + sum over k of score[k][m] * value[k][c], for c < cols (a multiple of 16) and at
  /// least the first `rows` rows m.
  void (*accumulate)(const float* score, const float* value, Index value_pitch, Index count, Index cols, Index rows,
                     const float* keep, float* out, Index out_pitch);
};

/// One variant: tiles of 16 and of 32 rows, and the conversion of stored rows.
struct AttentionKernels {
  AttentionTile tile16;
  AttentionTile tile32;
  void (*widen)(const bf16* from, float* to, Index count);
};

template <int M>
struct BaselineAttention {
  static void scores(const float* query, const float* key, Index key_pitch, Index width, Index count, float* score) {
    for (Index k = 0; k < count; k += 2) {
      float a[M] = {}, b[M] = {};
      const float* const key_a = key + k * key_pitch;
      const float* const key_b = key_a + key_pitch;
      for (Index c = 0; c < width; ++c) {
        const float x = key_a[c], y = key_b[c];
        const float* const q = query + c * M;
        for (int m = 0; m < M; ++m) a[m] += x * q[m];
        for (int m = 0; m < M; ++m) b[m] += y * q[m];
      }
      for (int m = 0; m < M; ++m) score[k * M + m] = a[m];
      for (int m = 0; m < M; ++m) score[(k + 1) * M + m] = b[m];
    }
  }

  static void soften(float* score, Index count, SoftmaxState& state) {
    for (int m = 0; m < M; ++m) {
      float peak = state.peak[m];
      for (Index k = 0; k < count; ++k)
        if (score[k * M + m] > peak) peak = score[k * M + m];
      const float keep = std::exp(state.peak[m] - peak);
      float sum = state.sum[m] * keep;
      for (Index k = 0; k < count; ++k) sum += score[k * M + m] = std::exp(score[k * M + m] - peak);
      state.peak[m] = peak;
      state.sum[m] = sum;
      state.keep[m] = keep;
    }
  }

  static void accumulate(const float* score, const float* value, Index value_pitch, Index count, Index cols, Index rows,
                         const float* keep, float* out, Index out_pitch) {
    constexpr int lanes = 16;
    for (Index m = 0; m < rows; ++m)
      for (Index c = 0; c < cols; c += lanes) {
        float* const to = out + m * out_pitch + c;
        float sum[lanes];
        for (int i = 0; i < lanes; ++i) sum[i] = to[i] * keep[m];
        for (Index k = 0; k < count; ++k) {
          const float p = score[k * M + m];
          const float* const v = value + k * value_pitch + c;
          for (int i = 0; i < lanes; ++i) sum[i] += p * v[i];
        }
        for (int i = 0; i < lanes; ++i) to[i] = sum[i];
      }
  }
};

inline void widen_baseline(const bf16* from, float* to, Index count) {
  for (Index i = 0; i < count; ++i) to[i] = static_cast<float>(from[i]);
}

/// The loops of a variant as a table.
template <template <int> class Variant>
constexpr AttentionKernels attention_kernels(void (*widen)(const bf16*, float*, Index)) {
  return {{Variant<16>::scores, Variant<16>::soften, Variant<16>::accumulate},
          {Variant<32>::scores, Variant<32>::soften, Variant<32>::accumulate},
          widen};
}

}  // namespace cpu
}  // namespace v1
}  // namespace guild
