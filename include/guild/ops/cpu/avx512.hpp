// AVX-512 pieces shared by the kernels: 64 weights at a time from any storage format to float registers.
#pragma once

#if defined(__x86_64__)

#include <immintrin.h>

#include <guild/ops/cpu/linear_block.hpp>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12 about its own intrinsics (GCC bug 105593)
#endif

namespace guild::inline v1::cpu::avx512 {

/// On every function below: callers compile with plain flags, and only a processor that has these runs them.
#define GUILD_AVX512 [[gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]]
#define GUILD_AVX512_INLINE [[gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi"), gnu::always_inline]] inline

/// Four registers, 64 floats. Weights come out of `load64` in the order that is cheapest for their format:
/// f32, f16: as stored. bf16: of each 32, the even ones and then the odd ones. f8_e4m3: of each 16 bytes, bytes 0 2 4 6
/// go to the first register, 1 3 5 7 to the second, 8 10 12 14 to the third, 9 11 13 15 to the fourth.
struct Float64s {
  __m512 v[4];
};

/// Lowest n bits set; n may be negative or beyond 64.
GUILD_AVX512_INLINE std::uint64_t mask64(Index n) {
  return n >= 64 ? ~std::uint64_t{0} : n <= 0 ? 0 : (std::uint64_t{1} << n) - 1;
}
GUILD_AVX512_INLINE __mmask16 mask16(Index n) { return static_cast<__mmask16>(mask64(n)); }

/// Tables from the seven lower bits of an fp8 code to the upper two bytes of its value as a float.
struct Fp8Tables {
  __m512i high0, high1, low0, low1;
};
struct Fp8Bytes {
  alignas(64) std::uint8_t high[128];
  alignas(64) std::uint8_t low[128];
};
inline constexpr Fp8Bytes fp8_bytes = [] {
  Fp8Bytes bytes{};
  for (int code = 0; code < 128; ++code) {
    fp8_e4m3 value;
    value.bits = static_cast<std::uint8_t>(code);
    const bf16 same(static_cast<float>(value));  // exact: 3 of 7 bits of mantissa
    bytes.high[code] = static_cast<std::uint8_t>(same.bits >> 8);
    bytes.low[code] = static_cast<std::uint8_t>(same.bits & 0xff);
  }
  return bytes;
}();
GUILD_AVX512_INLINE Fp8Tables fp8_tables() {
  return {_mm512_load_si512(fp8_bytes.high), _mm512_load_si512(fp8_bytes.high + 64), _mm512_load_si512(fp8_bytes.low),
          _mm512_load_si512(fp8_bytes.low + 64)};
}

/// 64 fp8 codes to bf16: `first` has bytes 0..7 of each 16, `second` bytes 8..15.
GUILD_AVX512_INLINE void fp8_to_bf16(__m512i codes, const Fp8Tables& tables, __m512i& first, __m512i& second) {
  const __m512i low = _mm512_permutex2var_epi8(tables.low0, codes, tables.low1);
  __m512i high = _mm512_permutex2var_epi8(tables.high0, codes, tables.high1);
  high =
      _mm512_ternarylogic_epi32(high, codes, _mm512_set1_epi8(static_cast<char>(0x80)), 0xf8);  // high | (codes & 0x80)
  first = _mm512_unpacklo_epi8(low, high);
  second = _mm512_unpackhi_epi8(low, high);
}

/// The even and the odd bf16 of 32 as floats.
GUILD_AVX512_INLINE __m512 even_bf16(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
GUILD_AVX512_INLINE __m512 odd_bf16(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000U))));
}

/// 64 weights (the first `count`, the others 0) as float, without scales. `Whole`: count is 64.
template <DType Type, bool Whole>
GUILD_AVX512_INLINE Float64s load64(const void* data, Index count, const Fp8Tables& tables) {
  Float64s w;
  const auto* p = static_cast<const std::byte*>(data);
  if constexpr (Type == DType::f32) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)
      w.v[j] = Whole ? _mm512_loadu_ps(p + 64 * j) : _mm512_maskz_loadu_ps(mask16(count - 16 * j), p + 64 * j);
  } else if constexpr (Type == DType::f16) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)
      w.v[j] = _mm512_cvtph_ps(Whole ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32 * j))
                                     : _mm256_maskz_loadu_epi16(mask16(count - 16 * j), p + 32 * j));
  } else if constexpr (Type == DType::bf16) {
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const __m512i pairs = Whole
                                ? _mm512_loadu_si512(p + 64 * j)
                                : _mm512_maskz_loadu_epi16(static_cast<__mmask32>(mask64(count - 32 * j)), p + 64 * j);
      w.v[2 * j] = even_bf16(pairs);
      w.v[2 * j + 1] = odd_bf16(pairs);
    }
  } else {
    __m512i first, second;
    fp8_to_bf16(Whole ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi8(mask64(count), p), tables, first, second);
    w.v[0] = even_bf16(first);
    w.v[1] = odd_bf16(first);
    w.v[2] = even_bf16(second);
    w.v[3] = odd_bf16(second);
  }
  return w;
}

/// Exchanges 128-bit lanes: lane i of register j with lane j of register i.
GUILD_AVX512_INLINE void transpose_lanes(Float64s& a) {
  const __m512 t0 = _mm512_shuffle_f32x4(a.v[0], a.v[1], 0x88), t1 = _mm512_shuffle_f32x4(a.v[2], a.v[3], 0x88);
  const __m512 t2 = _mm512_shuffle_f32x4(a.v[0], a.v[1], 0xdd), t3 = _mm512_shuffle_f32x4(a.v[2], a.v[3], 0xdd);
  a.v[0] = _mm512_shuffle_f32x4(t0, t1, 0x88);
  a.v[1] = _mm512_shuffle_f32x4(t2, t3, 0x88);
  a.v[2] = _mm512_shuffle_f32x4(t0, t1, 0xdd);
  a.v[3] = _mm512_shuffle_f32x4(t2, t3, 0xdd);
}

/// From stored order to the order of `load64`.
template <DType Type>
GUILD_AVX512_INLINE void arrange(Float64s& a) {
  if constexpr (Type == DType::bf16) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
#pragma GCC unroll 2
    for (int j = 0; j < 4; j += 2) {
      const __m512 first = a.v[j];
      a.v[j] = _mm512_permutex2var_ps(first, even, a.v[j + 1]);
      a.v[j + 1] = _mm512_permutex2var_ps(first, odd, a.v[j + 1]);
    }
  } else if constexpr (Type == DType::f8_e4m3) {
    const __m512i order = _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
#pragma GCC unroll 4
    for (auto& v : a.v) v = _mm512_permutexvar_ps(order, v);
    transpose_lanes(a);
  }
}

/// From the order of `load64` back to stored order.
template <DType Type>
GUILD_AVX512_INLINE void restore(Float64s& a) {
  if constexpr (Type == DType::bf16) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
#pragma GCC unroll 2
    for (int j = 0; j < 4; j += 2) {
      const __m512 even = a.v[j];
      a.v[j] = _mm512_permutex2var_ps(even, low, a.v[j + 1]);
      a.v[j + 1] = _mm512_permutex2var_ps(even, high, a.v[j + 1]);
    }
  } else if constexpr (Type == DType::f8_e4m3) {
    const __m512i order = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
    transpose_lanes(a);
#pragma GCC unroll 4
    for (auto& v : a.v) v = _mm512_permutexvar_ps(order, v);
  }
}

/// exp(x) to about 1 ulp; 0 below -104, infinity above 89; NaN stays NaN.
GUILD_AVX512_INLINE __m512 exp(__m512 x) {
  // With NaN in x, max and min return their second operand.
  x = _mm512_min_ps(_mm512_set1_ps(104.0f), _mm512_max_ps(_mm512_set1_ps(-110.0f), x));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(0x1.715476p+0f)), 8);
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.62e4p-1f), x);  // ln 2 in two parts, the first exact times n
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0x1.7f7d1cp-20f), r);
  // Taylor's polynomial on |r| <= ln 2 / 2: the first term left out is below 2^-26.
  __m512 p = _mm512_set1_ps(1.0f / 5040.0f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 720.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 120.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 24.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f / 6.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.5f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

GUILD_AVX512 inline void gate(float* h, const float* up, Index count) {
  const __m512 one = _mm512_set1_ps(1.0f);
  for (Index i = 0; i < count; i += 16) {
    const __mmask16 mask = mask16(count - i);
    const __m512 z = _mm512_maskz_loadu_ps(mask, h + i);
    const __m512 silu = _mm512_div_ps(z, _mm512_add_ps(one, exp(_mm512_sub_ps(_mm512_setzero_ps(), z))));
    _mm512_mask_storeu_ps(h + i, mask, _mm512_mul_ps(silu, _mm512_maskz_loadu_ps(mask, up + i)));
  }
}

}  // namespace guild::inline v1::cpu::avx512

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif
