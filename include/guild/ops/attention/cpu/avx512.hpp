// The inner loops of attention for AVX-512; see tile.hpp for what they compute.
#pragma once

#include <guild/ops/attention/cpu/tile.hpp>
#include <guild/ops/common/cpu/avx512.hpp>

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"  // g++ 12 about its own intrinsics (GCC bug 105593)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#if defined(__CUDACC__)
#pragma nv_diagnostic push
#pragma nv_diag_suppress 1675  // its front end does not know "GCC unroll"; the host compiler behind it does
#endif

namespace guild {
inline namespace v1 {
namespace cpu {

template <int M>
struct Avx512Attention {
  static constexpr int vectors = M / 16;

  GUILD_AVX512 static void scores(const float* query, const float* key, Index key_pitch, Index width, Index count,
                                  float* score) {
    constexpr Index depth = 4096 / M;  // columns of the queries that stay in L1 while all keys pass
    for (Index c = 0; c < width; c += depth) {
      const Index part = width - c < depth ? width - c : depth;
      for (Index k = 0; k < count; k += key_step)
        scores_block(query + c * M, key + k * key_pitch + c, key_pitch, part, c > 0, score + k * M);
    }
  }

  GUILD_AVX512 static void soften(float* score, Index count, SoftmaxState& state) {
    for (int m = 0; m < M; m += 16) {
      const __m512 before = _mm512_loadu_ps(state.peak + m);
      __m512 peak = before;
      for (Index k = 0; k < count; ++k) peak = _mm512_max_ps(_mm512_loadu_ps(score + k * M + m), peak);
      __m512 keep = _mm512_sub_ps(before, peak);
      keep = avx512::exp(keep);
      __m512 sum = _mm512_mul_ps(_mm512_loadu_ps(state.sum + m), keep);
      for (Index k = 0; k < count; ++k) {
        __m512 p = _mm512_sub_ps(_mm512_loadu_ps(score + k * M + m), peak);
        p = avx512::exp(p);
        _mm512_storeu_ps(score + k * M + m, p);
        sum = _mm512_add_ps(sum, p);
      }
      _mm512_storeu_ps(state.peak + m, peak);
      _mm512_storeu_ps(state.sum + m, sum);
      _mm512_storeu_ps(state.keep + m, keep);
    }
  }

  GUILD_AVX512 static void accumulate(const float* score, const float* value, Index value_pitch, Index count,
                                      Index cols, Index rows, const float* keep, float* out, Index out_pitch) {
    Index c = 0;  // outside: a strip of the values stays in L1 while all rows pass
    for (; c + 32 <= cols; c += 32)
      for (Index m = 0; m < rows; m += 8)
        accumulate_block<2>(score + m, value + c, value_pitch, count, keep + m, out + m * out_pitch + c, out_pitch);
    for (; c < cols; c += 16)
      for (Index m = 0; m < rows; m += 8)
        accumulate_block<1>(score + m, value + c, value_pitch, count, keep + m, out + m * out_pitch + c, out_pitch);
  }

 private:
  // Every loop over registers is unrolled, or -O2 would keep the sums in memory.
  /// Eight keys against M queries, each product summed in the order of columns: a row's bits do not depend on how many
  /// rows share its tile.
  GUILD_AVX512 static void scores_block(const float* query, const float* key, Index key_pitch, Index width,
                                        bool resumes, float* score) {
    constexpr int keys = key_step;
    __m512 sum[keys][vectors];
#pragma GCC unroll 8
    for (int i = 0; i < keys; ++i)
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v)
        sum[i][v] = resumes ? _mm512_loadu_ps(score + i * M + v * 16) : _mm512_setzero_ps();
    for (Index c = 0; c < width; ++c) {
      __m512 q[vectors];
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) q[v] = _mm512_loadu_ps(query + c * M + v * 16);
#pragma GCC unroll 8
      for (int i = 0; i < keys; ++i) {
        const __m512 x = _mm512_set1_ps(key[i * key_pitch + c]);
#pragma GCC unroll 2
        for (int v = 0; v < vectors; ++v) sum[i][v] = _mm512_fmadd_ps(x, q[v], sum[i][v]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < keys; ++i)
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) _mm512_storeu_ps(score + i * M + v * 16, sum[i][v]);
  }

  template <int Vectors>
  GUILD_AVX512 static void accumulate_block(const float* score, const float* value, Index value_pitch, Index count,
                                            const float* keep, float* out, Index out_pitch) {
    constexpr int rows = 8;
    __m512 sum[rows][Vectors];
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 16
      for (int v = 0; v < Vectors; ++v)
        sum[i][v] = _mm512_mul_ps(_mm512_loadu_ps(out + i * out_pitch + v * 16), _mm512_set1_ps(keep[i]));
    for (Index k = 0; k < count; ++k) {
      __m512 x[Vectors];
#pragma GCC unroll 16
      for (int v = 0; v < Vectors; ++v) x[v] = _mm512_loadu_ps(value + k * value_pitch + v * 16);
#pragma GCC unroll 16
      for (int i = 0; i < rows; ++i) {
        const __m512 p = _mm512_set1_ps(score[k * M + i]);
#pragma GCC unroll 16
        for (int v = 0; v < Vectors; ++v) sum[i][v] = _mm512_fmadd_ps(p, x[v], sum[i][v]);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 16
      for (int v = 0; v < Vectors; ++v) _mm512_storeu_ps(out + i * out_pitch + v * 16, sum[i][v]);
  }
};

GUILD_AVX512 inline void widen_avx512(const bf16* from, float* to, Index count) {
  for (Index i = 0; i < count; i += 16) {
    const auto left = static_cast<unsigned>(count - i < 16 ? count - i : 16);
    const auto mask = static_cast<__mmask16>((1U << left) - 1U);
    const __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from + i)), 16);
    _mm512_mask_storeu_ps(to + i, mask, _mm512_castsi512_ps(wide));
  }
}

}  // namespace cpu
}  // namespace v1
}  // namespace guild

#if defined(__CUDACC__)
#pragma nv_diagnostic pop
#endif

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif
