// AVX-512 pieces shared by the kernels: conversions of stored weights to float, exp, SwiGLU.
#pragma once

#if defined(__x86_64__)

#include <immintrin.h>

#include <array>

#include <cstdint>
#include <guild/core/types.hpp>
#include <guild/core/view.hpp>

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12 about its own intrinsics (GCC bug 105593)
#endif

namespace guild {
inline namespace v1 {
namespace cpu::avx512 {

/// On every function below: callers compile with plain flags, and only a processor that has these runs them.
#define GUILD_AVX512 [[gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]]
#define GUILD_AVX512_INLINE [[gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi"), gnu::always_inline]] inline

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

/// exp(x) to about 1 ulp; 0 below -104, infinity above 89; NaN stays NaN.
GUILD_AVX512_INLINE __m512 exp(__m512 x) {
  // Lanes whose result is 0 do not go through scalef: its underflow costs more than a hundred cycles, and masked scores
  // are such lanes.
  const __mmask16 counts = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-104.0f), _CMP_NLT_UQ);  // also true for NaN
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
  return _mm512_maskz_scalef_ps(counts, p, n);
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

}  // namespace cpu::avx512
}  // namespace v1
}  // namespace guild

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif
