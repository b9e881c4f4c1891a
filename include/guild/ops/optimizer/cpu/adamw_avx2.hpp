// AdamW for AVX2: eight elements at a time. A compiler leaves the loop of AdamWJob scalar, because a square root may
// have to set errno. Without fused products, so that it rounds as that loop does on any x86-64.
#pragma once

#include <guild/ops/optimizer/rows/adamw.hpp>

#if defined(__x86_64__)

#include <immintrin.h>

namespace guild {
inline namespace v1 {
namespace cpu::avx2 {

/// The whole groups of eight among the elements of a range of a job; returns how many elements are done.
[[gnu::target("avx2")]] inline Index adamw(const AdamWJob<float>& job, PieceRange range) {
  float* const w = job.weight.data + range.begin;
  const float* const dw = job.gradient.data + range.begin;
  float* const m = job.first.data + range.begin;
  float* const v = job.second.data + range.begin;
  const __m256 scale = _mm256_set1_ps(job.gradient_scale), keep = _mm256_set1_ps(job.beta2);
  const __m256 take1 = _mm256_set1_ps(1.0f - job.beta1), take2 = _mm256_set1_ps(1.0f - job.beta2);
  const __m256 step = _mm256_set1_ps(job.rate), root_scale = _mm256_set1_ps(job.second_scale);
  const __m256 floor = _mm256_set1_ps(job.epsilon), shrink = _mm256_set1_ps(job.decay);
  Index i = 0;
  for (; i + 8 <= range.count; i += 8) {
    const __m256 g = _mm256_mul_ps(_mm256_loadu_ps(dw + i), scale);
    const __m256 old = _mm256_loadu_ps(m + i), weight = _mm256_loadu_ps(w + i);
    const __m256 mean = _mm256_add_ps(old, _mm256_mul_ps(_mm256_sub_ps(g, old), take1));
    const __m256 square =
        _mm256_add_ps(_mm256_mul_ps(_mm256_loadu_ps(v + i), keep), _mm256_mul_ps(_mm256_mul_ps(g, g), take2));
    const __m256 divisor = _mm256_add_ps(_mm256_mul_ps(_mm256_sqrt_ps(square), root_scale), floor);
    const __m256 change =
        _mm256_add_ps(_mm256_mul_ps(shrink, weight), _mm256_div_ps(_mm256_mul_ps(step, mean), divisor));
    _mm256_storeu_ps(m + i, mean);
    _mm256_storeu_ps(v + i, square);
    _mm256_storeu_ps(w + i, _mm256_sub_ps(weight, change));
  }
  return i;
}

/// AdamWJob with these loops, for teams of one.
struct AdamWJob8 {
  AdamWJob<float> job;

  [[nodiscard]] Index pieces() const { return job.pieces(); }
  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {  // what a GUILD_HD function calls must be one for nvcc
#if !defined(__CUDA_ARCH__)
    const PieceRange range = piece_range(piece, job.weight.size);
    const Index done = adamw(job, range);
    job.run(team, {range.begin + done, range.count - done});
#else
    job(team, piece);
#endif
  }
};

}  // namespace cpu::avx2
}  // namespace v1
}  // namespace guild

#endif
