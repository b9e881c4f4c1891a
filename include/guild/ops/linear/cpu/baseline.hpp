// Matrix products in portable C++: the reference for the other variants, and what runs where there is none: on other
// processors, and for formats that have a codec (core/codec.hpp) and no kernels of their own.
#pragma once

#include <cmath>
#include <guild/ops/linear/cpu/gemm_block.hpp>

namespace guild {
inline namespace v1 {
namespace cpu {

namespace baseline {

/// Sum of a[i] * b[i], in 16 partial sums.
inline float dot_product(const float* a, const float* b, Index n) {
  float partial[16] = {};
  Index i = 0;
  for (; i + 16 <= n; i += 16)
    for (Index lane = 0; lane < 16; ++lane) partial[lane] += a[i + lane] * b[i + lane];
  for (Index lane = 0; i < n; ++i, ++lane) partial[lane] += a[i] * b[i];
  for (Index half = 8; half > 0; half /= 2)
    for (Index lane = 0; lane < half; ++lane) partial[lane] += partial[lane + half];
  return partial[0];
}

inline void dot(const LinearBlock& block) {
  alignas(64) float weights[scale_block];
  for (int i = 0; i < block.matrices; ++i) {
    const WeightView& w = *block.weight[i];
    for (Index r = block.begin; r < block.end; ++r) {
      float* out = block.out[i] + (r - block.begin);
      for (Index t = 0; t < block.x.rows; ++t) out[t * block.pitch[i]] = 0.0f;
      for (Index c = 0; c < w.cols; c += scale_block) {
        const Index count = std::min(scale_block, w.cols - c);
        expand_row(w, r, c, count, weights);
        for (Index t = 0; t < block.x.rows; ++t)
          out[t * block.pitch[i]] += dot_product(block.x.row(t) + c, weights, count);
      }
    }
  }
}

inline void axpy(const LinearBlock& block) {
  alignas(64) float weights[scale_block];
  const WeightView& w = *block.weight[0];
  for (Index t = 0; t < block.x.rows; ++t)
    std::fill_n(block.out[0] + t * block.pitch[0], block.end - block.begin, 0.0f);
  for (Index c = block.begin; c < block.end;) {
    const Index count = std::min(scale_block - c % scale_block, block.end - c);
    for (Index r = 0; r < w.rows; ++r) {
      expand_row(w, r, c, count, weights);
      for (Index t = 0; t < block.x.rows; ++t) {
        const float x = block.x.row(t)[r];
        float* out = block.out[0] + t * block.pitch[0] + (c - block.begin);
        for (Index i = 0; i < count; ++i) out[i] += x * weights[i];
      }
    }
    c += count;
  }
}

inline void gemm(const LinearBlock& block) {
  if (multiply_in_pieces(block, gemm, block.scratch)) return;
  if (block.product == Product::x_w) return axpy(block);
  dot(block);
}

/// dw += dy^T x: the sums of four rows of dw at a time over all inputs.
inline void gradient(const GradientBlock& block) {
  const Index cols = block.col_end - block.col_begin;
  for (Index o = block.row_begin; o < block.row_end; o += 4) {
    const Index rows = std::min(block.row_end - o, Index{4});
    float* sums = block.scratch;
    std::fill_n(sums, rows * cols, 0.0f);
    for (Index t = 0; t < block.dy.rows; ++t) {
      const float* dy = block.dy.row(t) + o;
      const float* x = block.x.row(t) + block.col_begin;
      for (Index r = 0; r < rows; ++r)
        for (Index i = 0; i < cols; ++i) sums[r * cols + i] += dy[r] * x[i];
    }
    for (Index r = 0; r < rows; ++r)
      for (Index i = 0; i < cols; ++i) block.dw[(o - block.row_begin + r) * block.pitch + i] += sums[r * cols + i];
  }
}

inline void gate(float* h, const float* up, Index count) {
  for (Index i = 0; i < count; ++i) h[i] = h[i] / (1.0f + std::exp(-h[i])) * up[i];
}

inline constexpr LinearKernels kernels = {dot, gemm, axpy, gradient, gate};

}  // namespace baseline
}  // namespace cpu
}  // namespace v1
}  // namespace guild
