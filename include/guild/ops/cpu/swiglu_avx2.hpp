// SwiGLU's rows for AVX2 with FMA: eight elements at a time, with a vector exponential. What is left at the end of a
// row goes through the loops of the row kernels.
#pragma once

#include <guild/ops/cpu/avx2.hpp>
#include <guild/ops/rows/combine.hpp>
#include <guild/ops/rows/expert_backward.hpp>
#include <guild/ops/rows/swiglu_backward.hpp>

#if defined(__x86_64__)

#include <immintrin.h>

namespace guild::inline v1::cpu::avx2 {

#define GUILD_SWIGLU_AVX2 gnu::target("avx2,fma")

/// sigmoid(g), from exp(-|g|), which never overflows.
[[GUILD_SWIGLU_AVX2, gnu::always_inline]] inline __m256 sigmoid(__m256 g) {
  const __m256 one = _mm256_set1_ps(1.0f);
  __m256 power = _mm256_or_ps(g, _mm256_set1_ps(-0.0f));
  exp_avx2(power);
  return _mm256_div_ps(_mm256_blendv_ps(one, power, g), _mm256_add_ps(one, power));
}

/// The derivative of silu at g where s is sigmoid(g).
[[GUILD_SWIGLU_AVX2, gnu::always_inline]] inline __m256 silu_slope(__m256 g, __m256 s) {
  const __m256 one = _mm256_set1_ps(1.0f);
  return _mm256_mul_ps(s, _mm256_fmadd_ps(g, _mm256_sub_ps(one, s), one));
}

/// The functions below do whole groups of eight elements and return how many elements are done.
[[GUILD_SWIGLU_AVX2]] inline Index swiglu(const float* gate, const float* up, float* h, Index count) {
  Index i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 g = _mm256_loadu_ps(gate + i);
    _mm256_storeu_ps(h + i, _mm256_mul_ps(_mm256_mul_ps(g, sigmoid(g)), _mm256_loadu_ps(up + i)));
  }
  return i;
}

[[GUILD_SWIGLU_AVX2]] inline Index swiglu_backward(float* gate, float* up, const float* dh, float* h, Index count) {
  Index i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 g = _mm256_loadu_ps(gate + i), u = _mm256_loadu_ps(up + i), d = _mm256_loadu_ps(dh + i);
    const __m256 s = sigmoid(g), silu = _mm256_mul_ps(g, s);
    _mm256_storeu_ps(gate + i, _mm256_mul_ps(_mm256_mul_ps(d, u), silu_slope(g, s)));
    _mm256_storeu_ps(up + i, _mm256_mul_ps(d, silu));
    if (h != nullptr) _mm256_storeu_ps(h + i, _mm256_mul_ps(silu, u));
  }
  return i;
}

/// Adds <h, dh> to `along`.
[[GUILD_SWIGLU_AVX2]] inline Index expert_swiglu_backward(float weight, float* gate, float* up, float* dh, Index count,
                                                          float& along) {
  const __m256 w = _mm256_set1_ps(weight);
  __m256 sum = _mm256_setzero_ps();
  Index i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256 g = _mm256_loadu_ps(gate + i), u = _mm256_loadu_ps(up + i), d = _mm256_loadu_ps(dh + i);
    const __m256 s = sigmoid(g), silu = _mm256_mul_ps(g, s), h = _mm256_mul_ps(silu, u), wd = _mm256_mul_ps(w, d);
    _mm256_storeu_ps(gate + i, _mm256_mul_ps(_mm256_mul_ps(wd, u), silu_slope(g, s)));
    _mm256_storeu_ps(up + i, _mm256_mul_ps(wd, silu));
    _mm256_storeu_ps(dh + i, _mm256_mul_ps(w, h));
    sum = _mm256_fmadd_ps(h, d, sum);
  }
  alignas(32) float lanes[8];
  _mm256_store_ps(lanes, sum);
  for (const float lane : lanes) along += lane;
  return i;
}

#undef GUILD_SWIGLU_AVX2

template <class T>
View<T, 2> rest_of(View<T, 2> view, Index done) {
  return {view.data + done, view.rows, view.cols - done, view.pitch};
}

/// The row kernels with these loops, for teams of one.
struct SwigluRow8 {
  SwigluRow<float> row;
  void operator()(SerialTeam team, Index r) const {
    const Index done = swiglu(row.gate.data + r * row.gate.pitch, row.up.data + r * row.up.pitch,
                              row.h.data + r * row.h.pitch, row.h.cols);
    SwigluRow<float>{rest_of(row.gate, done), rest_of(row.up, done), rest_of(row.h, done)}(team, r);
  }
};
struct SwigluBackwardRow8 {
  SwigluBackwardRow<float> row;
  void operator()(SerialTeam team, Index r) const {
    const bool wants_h = row.h.data != nullptr;
    const Index done = swiglu_backward(row.gate.data + r * row.gate.pitch, row.up.data + r * row.up.pitch,
                                       row.dh.data + r * row.dh.pitch, wants_h ? row.h.data + r * row.h.pitch : nullptr,
                                       row.gate.cols);
    SwigluBackwardRow<float>{rest_of(row.gate, done), rest_of(row.up, done), rest_of(row.dh, done),
                             wants_h ? rest_of(row.h, done) : row.h}(team, r);
  }
};
struct ExpertSwigluBackwardRow8 {
  ExpertSwigluBackwardRow<float> row;
  void operator()(SerialTeam team, Index r) const {
    float along = 0.0f;
    const Index done =
        expert_swiglu_backward(row.weights.data[r], row.gate.data + r * row.gate.pitch, row.up.data + r * row.up.pitch,
                               row.dh.data + r * row.dh.pitch, row.gate.cols, along);
    ExpertSwigluBackwardRow<float>{row.weights, rest_of(row.gate, done), rest_of(row.up, done), rest_of(row.dh, done),
                                   row.dweights}(team, r);
    row.dweights.data[r] += along;
  }
};

}  // namespace guild::inline v1::cpu::avx2

#endif
