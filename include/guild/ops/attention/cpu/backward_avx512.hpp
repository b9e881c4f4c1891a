// The inner loops of attention's backward for AVX-512; see backward_tile.hpp for what they compute.
#pragma once

#include <guild/ops/attention/cpu/backward_tile.hpp>
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

struct Avx512AttentionBackward {
  GUILD_AVX512 static void product(const TileProduct& p) {
    Index j = 0;  // outside: a strip of b stays in L1 while all rows pass
    while (j < p.cols) {
      const Index left = p.cols - j;
      if (left == 16)
        j = strip<1>(p, j);
      else if (left == 32 || left == 64)
        j = strip<2>(p, j);
      else
        j = strip<3>(p, j);
    }
  }

  GUILD_AVX512 static void weigh(const TileWeights& w) {
    for (Index k = 0; k < w.count; ++k) {
      float* const score = w.score + k * backward_tile;
      float* const slope = w.slope + k * backward_tile;
      for (Index m = w.diagonal ? k / 16 * 16 : 0; m < w.lanes; m += 16) {
        const Index hidden = w.diagonal && k > m ? k - m : 0;  // lanes of this vector before the diagonal
        const auto sees = static_cast<__mmask16>(~avx512::mask16(hidden));
        const __m512 p = _mm512_maskz_mov_ps(
            sees, avx512::exp(_mm512_sub_ps(_mm512_loadu_ps(score + m), _mm512_loadu_ps(w.lse + m))));
        const __m512 pull = _mm512_sub_ps(_mm512_loadu_ps(slope + m), _mm512_loadu_ps(w.along + m));
        _mm512_storeu_ps(score + m, p);
        _mm512_storeu_ps(slope + m, _mm512_maskz_mul_ps(sees, p, pull));
      }
    }
  }

  GUILD_AVX512 static void scale(const float* from, float factor, Index count, Index padded, float* to) {
    const __m512 by = _mm512_set1_ps(factor);
    for (Index c = 0; c < padded; c += 16)
      _mm512_mask_storeu_ps(to + c, avx512::mask16(padded - c),
                            _mm512_mul_ps(by, _mm512_maskz_loadu_ps(avx512::mask16(count - c), from + c)));
  }
  GUILD_AVX512 static void add(const float* from, Index count, float* to) {
    for (Index c = 0; c < count; c += 16) {
      const __mmask16 mask = avx512::mask16(count - c);
      const __m512 sum = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, to + c), _mm512_maskz_loadu_ps(mask, from + c));
      _mm512_mask_storeu_ps(to + c, mask, sum);
    }
  }
  GUILD_AVX512 static float dot(const float* a, const float* b, Index count) {
    __m512 sum = _mm512_setzero_ps();
    for (Index c = 0; c < count; c += 16) {
      const __mmask16 mask = avx512::mask16(count - c);
      sum = _mm512_fmadd_ps(_mm512_maskz_loadu_ps(mask, a + c), _mm512_maskz_loadu_ps(mask, b + c), sum);
    }
    return _mm512_reduce_add_ps(sum);
  }

 private:
  template <int Vectors>
  GUILD_AVX512 static Index strip(const TileProduct& p, Index j) {
    for (Index i = 0; i < p.rows; i += row_step) block<Vectors>(p, i, j);
    return j + Vectors * 16;
  }

  // Every loop over registers is unrolled, or -O2 would keep the sums in memory.
  template <int Vectors>
  GUILD_AVX512 static void block(const TileProduct& p, Index i, Index j) {
    constexpr int rows = row_step;
    float* const c = p.c + i * p.c_pitch + j;
    __m512 sum[rows][Vectors];
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v)
        sum[r][v] = p.onto == Onto::sums ? _mm512_loadu_ps(c + r * p.c_pitch + v * 16) : _mm512_setzero_ps();
    const float* a = p.a + i * p.a_row;
    const float* b = p.b + j;
    const Index a_row = p.a_row, a_step = p.a_step, b_pitch = p.b_pitch;
    for (Index s = 0; s < p.steps; ++s, a += a_step, b += b_pitch) {
      __m512 x[Vectors];
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) x[v] = _mm512_loadu_ps(b + v * 16);
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {
        const __m512 y = _mm512_set1_ps(a[r * a_row]);
#pragma GCC unroll 8
        for (int v = 0; v < Vectors; ++v) sum[r][v] = _mm512_fmadd_ps(y, x[v], sum[r][v]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r)
#pragma GCC unroll 8
      for (int v = 0; v < Vectors; ++v) _mm512_storeu_ps(c + r * p.c_pitch + v * 16, sum[r][v]);
  }
};

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
