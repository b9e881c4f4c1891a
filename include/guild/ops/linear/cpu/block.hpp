// What the planner of matrix products hands to a kernel: a block of output, and the table of kernels of a variant.
#pragma once

#include <algorithm>
#include <cstdint>
#include <guild/core/weight.hpp>
#include <guild/ops/linear/job.hpp>

namespace guild {
inline namespace v1 {
namespace cpu {

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
/// input row; only `gemm` knows Update::add. Two matrices (gate and up) share the inputs. For Product::x_w, r counts
/// columns of the weight.
struct LinearBlock {
  Product product = Product::x_wt;
  Update update = Update::overwrite;
  int matrices = 1;
  const WeightView* weight[2] = {};
  float* out[2] = {};
  Index pitch[2] = {};
  Index begin = 0;
  Index end = 0;
  InputRows x;
  float* scratch = nullptr;  ///< 64-byte aligned, LinearKernels::scratch floats
};

/// dw[(o - row_begin) * pitch + (i - col_begin)] += sum_t dy[t, o] x[t, i] for o in [row_begin, row_end) and i in
/// [col_begin, col_end).
struct GradientBlock {
  InputRows dy;
  InputRows x;
  Index row_begin = 0;
  Index row_end = 0;
  Index col_begin = 0;
  Index col_end = 0;
  float* dw = nullptr;
  Index pitch = 0;
  float* scratch = nullptr;  ///< 64-byte aligned, gemm_scratch floats
};

/// Block sizes that the planner and the kernels agree on.
inline constexpr Index dot_tokens = 8;        ///< jobs of up to so many rows of x use `dot`, larger ones `gemm`
inline constexpr Index gemm_rows = 256;       ///< most weight rows of a gemm block, all matrices together
inline constexpr Index gemm_tokens = 224;     ///< most input rows of a gemm block
inline constexpr Index most_gemm_blocks = 8;  ///< times so many, if there are no more than gemm_depth columns
inline constexpr Index gemm_depth = 256;      ///< columns that gemm packs at a time: a multiple of scale_block
inline constexpr Index axpy_cols = 64;        ///< columns of a x_w block begin at a multiple of this

[[nodiscard]] constexpr Index round_up(Index n, Index step) { return (n + step - 1) / step * step; }

/// Floats of scratch for `dot` on m rows of x.
[[nodiscard]] constexpr Index dot_scratch(Index m, Index cols) { return m * round_up(cols, 64); }
/// Floats of scratch for `gemm` and `gradient`: all panels of a block, the packed inputs and the sums so far.
inline constexpr Index gemm_scratch = gemm_rows * gemm_depth + (gemm_tokens + 16) * (gemm_depth + 16 + gemm_rows);

/// True if the product of `rows` inputs is one for `gemm`.
[[nodiscard]] inline bool is_gemm(Product product, const Format& weight, Index rows) {
  return rows > dot_tokens && (product == Product::x_wt || !weight.scaled());
}

/// The kernels of one instruction set.
struct LinearKernels {
  void (*dot)(const LinearBlock&);   ///< x W^T, few rows of x: weights are streamed once and converted in registers
  void (*gemm)(const LinearBlock&);  ///< many rows of x: weights are expanded panel by panel; x W not from fp8
  void (*axpy)(const LinearBlock&);  ///< x W, few rows of x
  void (*gradient)(const GradientBlock&);
  /// h = silu(h) * up, element by element.
  void (*gate)(float* h, const float* up, Index count);
};

}  // namespace cpu
}  // namespace v1
}  // namespace guild
