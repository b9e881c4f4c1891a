// The inner loops of attention for AVX2 with FMA; see tile.hpp for what they compute.
#pragma once

#include <guild/ops/attention/cpu/tile.hpp>
#include <guild/ops/common/cpu/avx2.hpp>

#if defined(__x86_64__)
#include <immintrin.h>

#if defined(__CUDACC__)
#pragma nv_diagnostic push
#pragma nv_diag_suppress 1675  // its front end does not know "GCC unroll"; the host compiler behind it does
#endif

namespace guild {
inline namespace v1 {
namespace cpu {

#define GUILD_ATTENTION_AVX2 gnu::target("avx2,fma")

template <int M>
struct Avx2Attention {
  static constexpr int vectors = M / 8;

  [[GUILD_ATTENTION_AVX2]] static void scores(const float* query, const float* key, Index key_pitch, Index width,
                                              Index count, float* score) {
    constexpr int keys = 8 / vectors;  // 8 sums in registers; unrolled, or -O2 would keep them in memory
    for (Index k = 0; k < count; k += keys) {
      __m256 sum[keys][vectors];
#pragma GCC unroll 8
      for (int i = 0; i < keys; ++i)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) sum[i][v] = _mm256_setzero_ps();
      const float* const first = key + k * key_pitch;
      for (Index c = 0; c < width; ++c) {
#pragma GCC unroll 8
        for (int i = 0; i < keys; ++i) {
          const __m256 x = _mm256_set1_ps(first[i * key_pitch + c]);
#pragma GCC unroll 8
          for (int v = 0; v < vectors; ++v)
            sum[i][v] = _mm256_fmadd_ps(x, _mm256_loadu_ps(query + c * M + v * 8), sum[i][v]);
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < keys; ++i)
#pragma GCC unroll 8
        for (int v = 0; v < vectors; ++v) _mm256_storeu_ps(score + (k + i) * M + v * 8, sum[i][v]);
    }
  }

  [[GUILD_ATTENTION_AVX2]] static void soften(float* score, Index count, SoftmaxState& state) {
    for (int m = 0; m < M; m += 8) {
      const __m256 before = _mm256_loadu_ps(state.peak + m);
      __m256 peak = before;
      for (Index k = 0; k < count; ++k) peak = _mm256_max_ps(_mm256_loadu_ps(score + k * M + m), peak);
      __m256 keep = _mm256_sub_ps(before, peak);
      exp_avx2(keep);
      __m256 sum = _mm256_mul_ps(_mm256_loadu_ps(state.sum + m), keep);
      for (Index k = 0; k < count; ++k) {
        __m256 p = _mm256_sub_ps(_mm256_loadu_ps(score + k * M + m), peak);
        exp_avx2(p);
        _mm256_storeu_ps(score + k * M + m, p);
        sum = _mm256_add_ps(sum, p);
      }
      _mm256_storeu_ps(state.peak + m, peak);
      _mm256_storeu_ps(state.sum + m, sum);
      _mm256_storeu_ps(state.keep + m, keep);
    }
  }

  [[GUILD_ATTENTION_AVX2]] static void accumulate(const float* score, const float* value, Index value_pitch,
                                                  Index count, Index cols, Index rows, const float* keep, float* out,
                                                  Index out_pitch) {
    for (Index c = 0; c < cols; c += 16)  // outside: a strip of the values stays in L1 while all rows pass
      for (Index m = 0; m < rows; m += 4)
        accumulate_block(score + m, value + c, value_pitch, count, keep + m, out + m * out_pitch + c, out_pitch);
  }

 private:
  [[GUILD_ATTENTION_AVX2]] static void accumulate_block(const float* score, const float* value, Index value_pitch,
                                                        Index count, const float* keep, float* out, Index out_pitch) {
    constexpr int rows = 4;
    __m256 a[rows], b[rows];
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      a[i] = _mm256_mul_ps(_mm256_loadu_ps(out + i * out_pitch), _mm256_set1_ps(keep[i]));
      b[i] = _mm256_mul_ps(_mm256_loadu_ps(out + i * out_pitch + 8), _mm256_set1_ps(keep[i]));
    }
    for (Index k = 0; k < count; ++k) {
      const __m256 x = _mm256_loadu_ps(value + k * value_pitch), y = _mm256_loadu_ps(value + k * value_pitch + 8);
#pragma GCC unroll 8
      for (int i = 0; i < rows; ++i) {
        const __m256 p = _mm256_set1_ps(score[k * M + i]);
        a[i] = _mm256_fmadd_ps(p, x, a[i]);
        b[i] = _mm256_fmadd_ps(p, y, b[i]);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      _mm256_storeu_ps(out + i * out_pitch, a[i]);
      _mm256_storeu_ps(out + i * out_pitch + 8, b[i]);
    }
  }
};

[[GUILD_ATTENTION_AVX2]] inline void widen_avx2(const bf16* from, float* to, Index count) {
  Index i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i narrow = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    const __m256i wide = _mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16);
    _mm256_storeu_ps(to + i, _mm256_castsi256_ps(wide));
  }
  for (; i < count; ++i) to[i] = static_cast<float>(from[i]);
}

#undef GUILD_ATTENTION_AVX2

}  // namespace cpu
}  // namespace v1
}  // namespace guild

#if defined(__CUDACC__)
#pragma nv_diagnostic pop
#endif
#endif
