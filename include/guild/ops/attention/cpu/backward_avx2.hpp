// The inner loops of attention's backward for AVX2 with FMA; see backward_tile.hpp for what they compute.
#pragma once

#include <guild/ops/attention/cpu/avx2.hpp>
#include <guild/ops/attention/cpu/backward_tile.hpp>

#if defined(__x86_64__)

#if defined(__CUDACC__)
#pragma nv_diagnostic push
#pragma nv_diag_suppress 1675  // its front end does not know "GCC unroll"; the host compiler behind it does
#endif

namespace guild {
inline namespace v1 {
namespace cpu {

#define GUILD_ATTENTION_AVX2 gnu::target("avx2,fma")

struct Avx2AttentionBackward {
  [[GUILD_ATTENTION_AVX2]] static void product(const TileProduct& p) {
    if (p.cols % 24 == 0)
      strips<3>(p);
    else
      strips<2>(p);
  }

  [[GUILD_ATTENTION_AVX2]] static void weigh(const TileWeights& w) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (Index k = 0; k < w.count; ++k) {
      float* const score = w.score + k * backward_tile;
      float* const slope = w.slope + k * backward_tile;
      for (Index m = w.diagonal ? k / 16 * 16 : 0; m < w.lanes; m += 8) {
        const auto hidden = static_cast<int>(w.diagonal ? k - m : 0);  // lanes of this vector before the diagonal
        const __m256 sees = _mm256_castsi256_ps(_mm256_cmpgt_epi32(lane, _mm256_set1_epi32(hidden - 1)));
        __m256 p = _mm256_sub_ps(_mm256_loadu_ps(score + m), _mm256_loadu_ps(w.lse + m));
        exp_avx2(p);
        p = _mm256_and_ps(p, sees);
        const __m256 pull = _mm256_sub_ps(_mm256_loadu_ps(slope + m), _mm256_loadu_ps(w.along + m));
        _mm256_storeu_ps(score + m, p);
        _mm256_storeu_ps(slope + m, _mm256_and_ps(_mm256_mul_ps(p, pull), sees));
      }
    }
  }

  [[GUILD_ATTENTION_AVX2]] static void scale(const float* from, float factor, Index count, Index padded, float* to) {
    const __m256 by = _mm256_set1_ps(factor);
    Index c = 0;
    for (; c + 8 <= count; c += 8) _mm256_storeu_ps(to + c, _mm256_mul_ps(by, _mm256_loadu_ps(from + c)));
    for (; c < count; ++c) to[c] = from[c] * factor;
    for (; c < padded; ++c) to[c] = 0.0f;
  }
  [[GUILD_ATTENTION_AVX2]] static void add(const float* from, Index count, float* to) {
    Index c = 0;
    for (; c + 8 <= count; c += 8)
      _mm256_storeu_ps(to + c, _mm256_add_ps(_mm256_loadu_ps(to + c), _mm256_loadu_ps(from + c)));
    for (; c < count; ++c) to[c] += from[c];
  }
  [[GUILD_ATTENTION_AVX2]] static float dot(const float* a, const float* b, Index count) {
    __m256 sum = _mm256_setzero_ps();
    Index c = 0;
    for (; c + 8 <= count; c += 8) sum = _mm256_fmadd_ps(_mm256_loadu_ps(a + c), _mm256_loadu_ps(b + c), sum);
    float lanes[8];
    _mm256_storeu_ps(lanes, sum);
    float total = ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
    for (; c < count; ++c) total += a[c] * b[c];
    return total;
  }

 private:
  template <int Vectors>
  [[GUILD_ATTENTION_AVX2]] static void strips(const TileProduct& p) {
    for (Index j = 0; j < p.cols; j += Vectors * 8)  // outside: a strip of b stays in L1 while all rows pass
      for (Index i = 0; i < p.rows; i += 4) block<Vectors>(p, i, j);
  }

  // Every loop over registers is unrolled, or -O2 would keep the sums in memory.
  template <int Vectors>
  [[GUILD_ATTENTION_AVX2]] static void block(const TileProduct& p, Index i, Index j) {
    constexpr int rows = 4;
    float* const c = p.c + i * p.c_pitch + j;
    __m256 sum[rows][Vectors];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v)
        sum[r][v] = p.onto == Onto::sums ? _mm256_loadu_ps(c + r * p.c_pitch + v * 8) : _mm256_setzero_ps();
    const float* a = p.a + i * p.a_row;
    const float* b = p.b + j;
    const Index a_row = p.a_row, a_step = p.a_step, b_pitch = p.b_pitch;
    for (Index s = 0; s < p.steps; ++s, a += a_step, b += b_pitch) {
      __m256 x[Vectors];
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) x[v] = _mm256_loadu_ps(b + v * 8);
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {
        const __m256 y = _mm256_set1_ps(a[r * a_row]);
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v) sum[r][v] = _mm256_fmadd_ps(y, x[v], sum[r][v]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) _mm256_storeu_ps(c + r * p.c_pitch + v * 8, sum[r][v]);
  }
};

#undef GUILD_ATTENTION_AVX2

}  // namespace cpu
}  // namespace v1
}  // namespace guild

#if defined(__CUDACC__)
#pragma nv_diagnostic pop
#endif
#endif
