// AVX2 pieces shared by the kernels: exp.
#pragma once

#if defined(__x86_64__)

#include <immintrin.h>

namespace guild {
inline namespace v1 {
namespace cpu {

/// exp(x) for x <= 0, to 2 ulp; 0 below -87 (where results would be subnormal) and for -infinity, NaN for NaN.
[[gnu::target("avx2,fma"), gnu::always_inline]] inline void exp_avx2(__m256& x) {
  const __m256 low = _mm256_set1_ps(-87.0f);
  const __m256 in_range = _mm256_cmp_ps(x, low, _CMP_NLT_UQ);  // also true for NaN
  x = _mm256_max_ps(low, x);                                   // the second operand wins when it is NaN
  const __m256 n =
      _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693145752f), x);  // ln 2 in two parts
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(1.42860677e-6f), r);
  __m256 y = _mm256_set1_ps(1.0f / 5040);
  y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1.0f / 720));
  y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1.0f / 120));
  y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1.0f / 24));
  y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1.0f / 6));
  y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(0.5f));
  y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1.0f));
  y = _mm256_fmadd_ps(y, r, _mm256_set1_ps(1.0f));
  // Times 2^n: n is at least -126, so the power is a normal number made of exponent bits alone.
  const __m256i power = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
  x = _mm256_and_ps(_mm256_mul_ps(y, _mm256_castsi256_ps(power)), in_range);
}

}  // namespace cpu
}  // namespace v1
}  // namespace guild

#endif
