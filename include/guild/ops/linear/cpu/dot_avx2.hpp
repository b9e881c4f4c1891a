// Matrix products with few rows of activations for AVX2 with FMA: pieces of weight rows become float in the nearest
// cache, whatever their format, and meet all tokens there.
#pragma once

#include <guild/ops/linear/cpu/block.hpp>

#if defined(__x86_64__)

#include <immintrin.h>

namespace guild {
inline namespace v1 {
namespace cpu::avx2 {

#define GUILD_AVX2 [[gnu::target("avx2,fma,f16c")]]
#define GUILD_AVX2_INLINE [[gnu::target("avx2,fma,f16c"), gnu::always_inline]] inline

inline constexpr Index expanded = 256;  // columns expanded at a time: a multiple of scale_block, at most gemm_depth

/// 16 weights at p as float: two registers in order. fp8 values come out times 2^-8.
template <DType Type>
GUILD_AVX2_INLINE void load16(const std::byte* p, __m256& low, __m256& high) {
  if constexpr (Type == DType::f32) {
    low = _mm256_loadu_ps(reinterpret_cast<const float*>(p));
    high = _mm256_loadu_ps(reinterpret_cast<const float*>(p) + 8);
  } else if constexpr (Type == DType::f8_e4m3) {
    // As a 16-bit integer the code is sss sssss s eeee mmm: seven places up, and without bit 14, it is an f16 whose
    // exponent lacks 8. The code of NaN becomes one.
    const __m256i codes = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const __m256i halves = _mm256_and_si256(_mm256_slli_epi16(codes, 7), _mm256_set1_epi16(static_cast<short>(0xbfff)));
    const __m256i largest = _mm256_set1_epi16(0x3f80);
    const __m256i nan = _mm256_cmpeq_epi16(_mm256_and_si256(halves, largest), largest);
    const __m256i all = _mm256_or_si256(halves, nan);
    low = _mm256_cvtph_ps(_mm256_castsi256_si128(all));
    high = _mm256_cvtph_ps(_mm256_extracti128_si256(all, 1));
  } else {
    const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16));
    if constexpr (Type == DType::f16) {
      low = _mm256_cvtph_ps(first);
      high = _mm256_cvtph_ps(second);
    } else {
      low = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(first), 16));
      high = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(second), 16));
    }
  }
}

template <DType Type>
GUILD_AVX2 void expand_typed(const std::byte* p, Index count, Index ahead, const float* scale, Index to_block,
                             float* out) {
  constexpr Index step = 16 * bits(Type) / 8;
  alignas(32) std::byte tail[step] = {};
  __m256 factor = _mm256_setzero_ps();
  for (Index i = 0; i < count; i += 16, p += step) {
    _mm_prefetch(reinterpret_cast<const char*>(p + ahead), _MM_HINT_T0);
    const std::byte* from = p;
    if (count - i < 16) {
      std::copy_n(p, (count - i) * bits(Type) / 8, tail);
      from = tail;
    }
    __m256 low, high;
    load16<Type>(from, low, high);
    if constexpr (Type == DType::f8_e4m3) {
      if ((i + scale_block - to_block) % scale_block == 0 || i == 0)
        factor = _mm256_set1_ps(scale[(i + scale_block - to_block) / scale_block] * 256.0f);
      low = _mm256_mul_ps(low, factor);
      high = _mm256_mul_ps(high, factor);
    }
    _mm256_store_ps(out + i, low);
    _mm256_store_ps(out + i + 8, high);
  }
}

/// `count` <= expanded weights from column c on (a multiple of 64) as float, scales included, padded with zeros to 16.
/// Fetches what lies `ahead` bytes further into the cache.
inline void expand(const WeightView& w, Index r, Index c, Index count, Index ahead, float* out) {
  const std::byte* p = w.row<std::byte>(r) + c * bits(w.format.element) / 8;
  switch (w.format.element) {
    case DType::bf16:
      return expand_typed<DType::bf16>(p, count, ahead, nullptr, 0, out);
    case DType::f16:
      return expand_typed<DType::f16>(p, count, ahead, nullptr, 0, out);
    case DType::f8_e4m3: {
      const float* scale =
          static_cast<const float*>(w.scales) + (w.first_row + r) / scale_block * w.scale_pitch + c / scale_block;
      return expand_typed<DType::f8_e4m3>(p, count, ahead, scale, scale_block - c % scale_block, out);
    }
    default:
      return expand_typed<DType::f32>(p, count, ahead, nullptr, 0, out);
  }
}

/// Adds the products of `count` columns (padded with zeros to 16) of four expanded rows with M inputs to the lanes of
/// sum[token][row].
template <int M>
GUILD_AVX2 void dot_piece(const float* weights, const float* x, Index pitch, Index count, float* sum) {
  __m256 s[M][4];
#pragma GCC unroll 2
  for (int t = 0; t < M; ++t)
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) s[t][r] = _mm256_load_ps(sum + (t * 4 + r) * 8);
  for (Index k = 0; k < count; k += 8) {
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      const __m256 w = _mm256_load_ps(weights + r * expanded + k);
#pragma GCC unroll 2
      for (int t = 0; t < M; ++t) s[t][r] = _mm256_fmadd_ps(w, _mm256_load_ps(x + t * pitch + k), s[t][r]);
    }
  }
#pragma GCC unroll 2
  for (int t = 0; t < M; ++t)
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) _mm256_store_ps(sum + (t * 4 + r) * 8, s[t][r]);
}

/// The sum of eight lanes, added in a fixed order.
GUILD_AVX2_INLINE float sum_lanes(const float* lanes) {
  const __m128 q = _mm_add_ps(_mm_load_ps(lanes), _mm_load_ps(lanes + 4));
  const __m128 d = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(d, _mm_movehdup_ps(d)));
}

/// x W^T for up to dot_tokens inputs.
GUILD_AVX2 inline void dot(const LinearBlock& block) {
  alignas(64) float weights[4 * expanded];
  alignas(64) float sum[dot_tokens * 4 * 8];
  const Index tokens = block.x.rows, pitch = round_up(block.x.cols, 64);
  for (Index t = 0; t < tokens; ++t) {  // a copy padded with zeros: rows of x may end anywhere
    float* end = std::copy_n(block.x.row(t), block.x.cols, block.scratch + t * pitch);
    std::fill(end, block.scratch + (t + 1) * pitch, 0.0f);
  }
  for (int i = 0; i < block.matrices; ++i) {
    const WeightView& w = *block.weight[i];
    for (Index r = block.begin; r < block.end; r += 4) {
      const Index ahead = r + 8 <= block.end ? 4 * w.row_bytes() : 0;  // the same place in the next four rows
      std::fill_n(sum, tokens * 4 * 8, 0.0f);
      for (Index k = 0; k < w.cols; k += expanded) {
        const Index count = std::min(expanded, w.cols - k), padded = round_up(count, 16);
        for (Index j = 0; j < 4; ++j)
          expand(w, std::min(r + j, block.end - 1), k, count, ahead, weights + j * expanded);
        const float* x = block.scratch + k;
        Index t = 0;
        for (; t + 2 <= tokens; t += 2) dot_piece<2>(weights, x + t * pitch, pitch, padded, sum + t * 32);
        if (t < tokens) dot_piece<1>(weights, x + t * pitch, pitch, padded, sum + t * 32);
      }
      for (Index t = 0; t < tokens; ++t)
        for (Index j = 0; j < std::min(block.end - r, Index{4}); ++j)
          block.out[i][t * block.pitch[i] + (r - block.begin) + j] = sum_lanes(sum + (t * 4 + j) * 8);
    }
  }
}

/// x W: four rows of the weight at a time are added to all tokens' outputs.
GUILD_AVX2 inline void axpy(const LinearBlock& block) {
  alignas(64) float weights[4 * expanded];
  alignas(64) float sum[expanded];
  const WeightView& w = *block.weight[0];
  for (Index t = 0; t < block.x.rows; ++t)
    std::fill_n(block.out[0] + t * block.pitch[0], block.end - block.begin, 0.0f);
  for (Index c = block.begin; c < block.end; c += expanded) {
    const Index count = std::min(expanded, block.end - c);
    for (Index r = 0; r < w.rows; r += 4) {
      const Index rows = std::min(w.rows - r, Index{4});
      const Index ahead = r + 8 <= w.rows ? 4 * w.row_bytes() : 0;
      for (Index j = 0; j < 4; ++j) {
        if (j < rows)
          expand(w, r + j, c, count, ahead, weights + j * expanded);
        else
          std::fill_n(weights + j * expanded, expanded, 0.0f);
      }
      for (Index t = 0; t < block.x.rows; ++t) {
        __m256 in[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) in[j] = j < rows ? _mm256_set1_ps(block.x.row(t)[r + j]) : _mm256_setzero_ps();
        float* out = block.out[0] + t * block.pitch[0] + (c - block.begin);
        float* to = count % 8 == 0 ? out : std::copy_n(out, count, sum) - count;  // whole registers, also at the end
        for (Index i = 0; i < count; i += 8) {
          __m256 s = _mm256_loadu_ps(to + i);
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) s = _mm256_fmadd_ps(in[j], _mm256_load_ps(weights + j * expanded + i), s);
          _mm256_storeu_ps(to + i, s);
        }
        if (to != out) std::copy_n(sum, count, out);
      }
    }
  }
}

/// exp(x) to about 1 ulp where it is a normal float; 0 below about -87, infinity above 89; NaN stays NaN.
GUILD_AVX2_INLINE __m256 exp(__m256 x) {
  // With NaN in x, max and min return their second operand.
  x = _mm256_min_ps(_mm256_set1_ps(90.0f), _mm256_max_ps(_mm256_set1_ps(-100.0f), x));
  const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(0x1.715476p+0f)), 8);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.62e4p-1f), x);  // ln 2 in two parts, the first exact times n
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0x1.7f7d1cp-20f), r);
  // Taylor's polynomial on |r| <= ln 2 / 2: the first term left out is below 2^-26.
  __m256 p = _mm256_set1_ps(1.0f / 5040.0f);
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
  // 2^n in two factors: n runs from -144 to 130, beyond the exponents of float
  const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1), rest = _mm256_sub_epi32(whole, half);
  const __m256i bias = _mm256_set1_epi32(127);
  p = _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23)));
  return _mm256_mul_ps(p, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23)));
}

GUILD_AVX2 inline void gate(float* h, const float* up, Index count) {
  const __m256 one = _mm256_set1_ps(1.0f);
  for (Index i = 0; i < count; i += 8) {
    alignas(32) float z8[8] = {}, up8[8] = {};
    const Index n = std::min(count - i, Index{8});
    std::copy_n(h + i, n, z8);
    std::copy_n(up + i, n, up8);
    const __m256 z = _mm256_load_ps(z8);
    const __m256 silu = _mm256_div_ps(z, _mm256_add_ps(one, exp(_mm256_sub_ps(_mm256_setzero_ps(), z))));
    _mm256_store_ps(z8, _mm256_mul_ps(silu, _mm256_load_ps(up8)));
    std::copy_n(z8, n, h + i);
  }
}

}  // namespace cpu::avx2
}  // namespace v1
}  // namespace guild

#endif
