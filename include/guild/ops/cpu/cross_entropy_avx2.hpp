// Cross entropy's rows for AVX2 with FMA: eight logits at a time, with a vector exponential.
#pragma once

#include <guild/ops/cpu/avx2.hpp>
#include <guild/ops/rows/cross_entropy.hpp>
#include <limits>

#if defined(__x86_64__)

#include <immintrin.h>

namespace guild::inline v1::cpu::avx2 {

#define GUILD_LOSS_AVX2 gnu::target("avx2,fma")

/// The largest of x; a NaN never wins.
[[GUILD_LOSS_AVX2]] inline float largest(const float* x, Index count) {
  __m256 best = _mm256_set1_ps(-std::numeric_limits<float>::infinity());
  Index i = 0;
  for (; i + 8 <= count; i += 8) best = _mm256_max_ps(_mm256_loadu_ps(x + i), best);  // the second wins against NaN
  alignas(32) float lanes[8];
  _mm256_store_ps(lanes, best);
  float all = lanes[0];
  for (const float lane : lanes) all = lane > all ? lane : all;
  for (; i < count; ++i) all = x[i] > all ? x[i] : all;
  return all;
}

/// The sum of exp(x - peak), in double; writes them over x if asked to.
[[GUILD_LOSS_AVX2]] inline double exponentials(float* x, Index count, float peak, LossWork work) {
  const __m256 shift = _mm256_set1_ps(peak);
  __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();
  const bool writes = work == LossWork::gradient;
  Index i = 0;
  for (; i + 8 <= count; i += 8) {
    __m256 power = _mm256_sub_ps(_mm256_loadu_ps(x + i), shift);
    exp_avx2(power);
    if (writes) _mm256_storeu_ps(x + i, power);
    low = _mm256_add_pd(low, _mm256_cvtps_pd(_mm256_castps256_ps128(power)));
    high = _mm256_add_pd(high, _mm256_cvtps_pd(_mm256_extractf128_ps(power, 1)));
  }
  alignas(32) double lanes[4];
  _mm256_store_pd(lanes, _mm256_add_pd(low, high));
  double sum = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
  for (; i < count; ++i) {
    const float power = std::exp(x[i] - peak);
    if (writes) x[i] = power;
    sum += static_cast<double>(power);
  }
  return sum;
}

[[GUILD_LOSS_AVX2]] inline void multiply(float* x, Index count, float factor) {
  const __m256 by = _mm256_set1_ps(factor);
  Index i = 0;
  for (; i + 8 <= count; i += 8) _mm256_storeu_ps(x + i, _mm256_mul_ps(_mm256_loadu_ps(x + i), by));
  for (; i < count; ++i) x[i] *= factor;
}

#undef GUILD_LOSS_AVX2

/// The row kernel with these loops, for teams of one.
struct CrossEntropyRow8 {
  CrossEntropyRow<float> row;

  void operator()(SerialTeam team, Index r) const {
    const Index vocab = row.logits.cols, target = row.targets.data[r];
    if (target < 0 || target >= vocab) return row(team, r);
    float* const x = row.logits.data + r * row.logits.pitch;
    const float peak = largest(x, vocab), at_target = x[target];
    bool correct = at_target == peak;
    for (Index i = 0; correct && i < target; ++i) correct = x[i] != peak;
    const double total = exponentials(x, vocab, peak, row.work);
    const double log_sum = static_cast<double>(peak) + std::log(total);
    row.out.loss.data[r] = log_sum - static_cast<double>(at_target);
    row.out.log_sum_squared.data[r] = log_sum * log_sum;
    row.out.correct.data[r] = correct ? 1 : 0;
    if (row.work == LossWork::value) return;
    multiply(x, vocab, static_cast<float>(row.scale * (1.0 + 2.0 * row.z_loss * log_sum) / total));
    x[target] -= static_cast<float>(row.scale);
  }
};

}  // namespace guild::inline v1::cpu::avx2

#endif
