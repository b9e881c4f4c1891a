// What the planner of matrix products hands to a kernel: a block of output, and the table of kernels of a variant.
#pragma once

#include <algorithm>
#include <cstdint>
#include <guild/core/weight.hpp>

namespace guild::inline v1::cpu {

/// The activation rows of a block: row t is row gather[t] of x, or row t without gather.
struct InputRows {
  const float* data = nullptr;
  Index pitch = 0;
  const std::int32_t* gather = nullptr;
  Index rows = 0;
  Index cols = 0;

  [[nodiscard]] const float* row(Index t) const { return data + (gather != nullptr ? Index{gather[t]} : t) * pitch; }
  [[nodiscard]] InputRows middle_rows(Index begin, Index count) const {
    if (gather != nullptr) return {data, pitch, gather + begin, count, cols};
    return {data + begin * pitch, pitch, nullptr, count, cols};
  }
};

/// out[i][t * pitch[i] + (r - begin)] = product of input row t and row r of weight[i], for r in [begin, end) and every
/// input row. Two matrices (gate and up) share the inputs. For Product::x_w, r counts columns of the weight.
struct LinearBlock {
  int matrices = 1;
  const WeightView* weight[2] = {};
  float* out[2] = {};
  Index pitch[2] = {};
  Index begin = 0;
  Index end = 0;
  InputRows x;
  float* scratch = nullptr;  ///< 64-byte aligned, LinearKernels::scratch floats
};

/// Block sizes that the planner and the kernels agree on.
inline constexpr Index dot_tokens = 8;     ///< jobs of up to so many rows of x use `dot`, larger ones `gemm`
inline constexpr Index gemm_rows = 256;    ///< most weight rows of a gemm block, all matrices together
inline constexpr Index gemm_tokens = 224;  ///< most input rows of a gemm block
inline constexpr Index gemm_depth = 256;   ///< columns that gemm packs at a time: a multiple of scale_block
inline constexpr Index axpy_cols = 64;     ///< columns of a x_w block begin at a multiple of this

[[nodiscard]] constexpr Index round_up(Index n, Index step) { return (n + step - 1) / step * step; }

/// Floats of scratch for `dot` on m rows of x.
[[nodiscard]] constexpr Index dot_scratch(Index m, Index cols) { return m * round_up(cols, 64); }
/// Floats of scratch for `gemm`: a panel of at most 32 weight rows, the packed inputs and the sums so far.
inline constexpr Index gemm_scratch = (32 + gemm_tokens + 16) * gemm_depth + (gemm_tokens + 16) * gemm_rows;

/// The kernels of one instruction set.
struct LinearKernels {
  void (*dot)(const LinearBlock&);   ///< x W^T, few rows of x: weights are streamed once and converted in registers
  void (*gemm)(const LinearBlock&);  ///< x W^T, many rows of x: weights are expanded panel by panel
  void (*axpy)(const LinearBlock&);  ///< x W
  /// h = silu(h) * up, element by element.
  void (*gate)(float* h, const float* up, Index count);
};

}  // namespace guild::inline v1::cpu
