// Products with many rows of activations on processors with bf16 dot products (vdpbf16ps): twice the arithmetic of
// float. The activations are rounded to bf16; sums stay in float. Serves bf16 and fp8 weights; fp8 codes are exact as
// bf16 and their scales multiply the sum of each block of 128 columns.
#pragma once

#include <guild/ops/linear/cpu/gemm_avx512.hpp>

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12 about its own intrinsics (GCC bug 105593)
#endif

namespace guild {
inline namespace v1 {
namespace cpu::avx512_bf16 {

#define GUILD_AVX512_BF16 [[gnu::target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512bf16")]]

inline constexpr Index panel_rows = avx512::panel_rows;
inline constexpr Index pair_depth = gemm_depth / 2;  ///< pairs of columns, each a 32-bit word

/// Columns [k, k + depth) of 32 rows from `begin` on as pairs: panel[pair * 32 + row]. Rows from `end` on repeat the
/// last.
GUILD_AVX512_BF16 inline void pack_weights(const WeightView& w, Index begin, Index end, Index k, Index depth,
                                           std::uint32_t* panel) {
  alignas(64) std::byte converted[16 * gemm_depth * 2];
  for (Index r = begin; r < begin + panel_rows; r += 16, panel += 16) {
    const std::byte* row[16];
    for (Index i = 0; i < 16; ++i) row[i] = w.row<std::byte>(std::min(r + i, end - 1)) + k * bits(w.format.element) / 8;
    if (w.format.element != DType::bf16 || depth % 32 != 0)
      avx512::convert_rows(w.format.element, row, depth, converted);
    for (Index c = 0; c < depth; c += 32) {
      __m512i column[16];
      avx512::transpose16(row, c * 2, column);
#pragma GCC unroll 16
      for (int i = 0; i < 16; ++i) _mm512_store_si512(panel + (c / 2 + i) * panel_rows, column[i]);
    }
  }
}

/// Columns [k, k + depth) of the inputs as bf16, padded with zeros to 32; rows up to `padded` are zero.
GUILD_AVX512_BF16 inline void pack_inputs(const InputRows& x, Index padded, Index k, Index depth,
                                          std::uint32_t* packed) {
  for (Index t = 0; t < padded; ++t) {
    const float* from = t < x.rows ? x.row(t) + k : nullptr;
    for (Index i = 0; i < depth; i += 32) {
      __m512 low = _mm512_setzero_ps(), high = low;
      if (from != nullptr) {
        low = _mm512_maskz_loadu_ps(avx512::mask16(depth - i), from + i);
        high = _mm512_maskz_loadu_ps(avx512::mask16(depth - i - 16), from + i + 16);
      }
      const __m512bh rounded = _mm512_cvtne2ps_pbh(high, low);
      __builtin_memcpy(packed + t * pair_depth + i / 2, &rounded, sizeof rounded);
    }
  }
}

/// M tokens times `pairs` pairs of columns of a panel, times the scale of each row: adds to (or, `first`, overwrites)
/// `rows` x `cols` of out.
template <int M>
GUILD_AVX512_BF16 void gemm_tile(const std::uint32_t* x, const std::uint32_t* panel, Index pairs, const float* scale,
                                 float* out, Index pitch, Index rows, Index cols, bool first) {
  __m512 sum[M][2];
#pragma GCC unroll 16
  for (int t = 0; t < M; ++t) sum[t][0] = sum[t][1] = _mm512_setzero_ps();
  for (Index k = 0; k < pairs; ++k) {
    __m512bh w0, w1;
    __builtin_memcpy(&w0, panel + k * panel_rows, sizeof w0);
    __builtin_memcpy(&w1, panel + k * panel_rows + 16, sizeof w1);
#pragma GCC unroll 16
    for (int t = 0; t < M; ++t) {
      const __m512i both = _mm512_set1_epi32(static_cast<int>(x[t * pair_depth + k]));
      __m512bh value;
      __builtin_memcpy(&value, &both, sizeof value);
      sum[t][0] = _mm512_dpbf16_ps(sum[t][0], value, w0);
      sum[t][1] = _mm512_dpbf16_ps(sum[t][1], value, w1);
    }
  }
  const __mmask16 mask0 = avx512::mask16(cols), mask1 = avx512::mask16(cols - 16);
  const __m512 scale0 = _mm512_loadu_ps(scale), scale1 = _mm512_loadu_ps(scale + 16);
#pragma GCC unroll 16
  for (int t = 0; t < M; ++t) {
    if (t >= rows) break;
    float* to = out + t * pitch;
    const __m512 before0 = first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask0, to);
    const __m512 before1 = first ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask1, to + 16);
    _mm512_mask_storeu_ps(to, mask0, _mm512_fmadd_ps(sum[t][0], scale0, before0));
    _mm512_mask_storeu_ps(to + 16, mask1, _mm512_fmadd_ps(sum[t][1], scale1, before1));
  }
}

inline void gemm(const LinearBlock& block) {
  if (block.product == Product::x_w) return avx512::gemm(block);
  for (int i = 0; i < block.matrices; ++i)
    if (block.weight[i]->format.element != DType::bf16 && block.weight[i]->format.element != DType::f8_e4m3)
      return avx512::gemm(block);
  if (multiply_in_pieces(block, gemm, block.scratch + gemm_scratch - (gemm_tokens + 16) * gemm_rows)) return;
  const InputRows& x = block.x;
  const Index tiles = (x.rows + 13) / 14, height = std::max(Index{8}, round_up((x.rows + tiles - 1) / tiles, 2));
  const auto tile = height == 14   ? gemm_tile<14>
                    : height == 12 ? gemm_tile<12>
                    : height == 10 ? gemm_tile<10>
                                   : gemm_tile<8>;
  auto* panel = reinterpret_cast<std::uint32_t*>(block.scratch);
  std::uint32_t* inputs = panel + panel_rows * pair_depth;
  for (Index k = 0; k == 0 || k < x.cols; k += gemm_depth) {
    const Index depth = std::min(gemm_depth, x.cols - k);
    pack_inputs(x, tiles * height, k, depth, inputs);
    for (int i = 0; i < block.matrices; ++i) {
      const WeightView& w = *block.weight[i];
      const bool scaled = w.format.element == DType::f8_e4m3;
      const Index part_depth = scaled ? scale_block : gemm_depth;
      for (Index r = block.begin; r < block.end; r += panel_rows) {
        pack_weights(w, r, block.end, k, depth, panel);
        for (Index part = 0; part == 0 || part < depth; part += part_depth) {
          float scale[panel_rows];
          std::fill_n(scale, panel_rows, 1.0f);
          if (scaled && w.cols > 0) {
            for (Index j = 0; j < panel_rows; ++j)
              scale[j] = static_cast<const float*>(
                  w.scales)[(w.first_row + std::min(r + j, block.end - 1)) / scale_block * w.scale_pitch +
                            (k + part) / scale_block];
          }
          const Index pairs = (std::min(part_depth, depth - part) + 1) / 2;
          for (Index t = 0; t < x.rows; t += height)
            tile(inputs + t * pair_depth + part / 2, panel + part / 2 * panel_rows, pairs, scale,
                 block.out[i] + t * block.pitch[i] + (r - block.begin), block.pitch[i], x.rows - t, block.end - r,
                 k == 0 && part == 0);
        }
      }
    }
  }
}

}  // namespace cpu::avx512_bf16
}  // namespace v1
}  // namespace guild

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif
