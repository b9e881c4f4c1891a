// Products with many rows of activations for AVX2 with FMA: a tile of 6 x 16 outputs stays in registers.
#pragma once

#include <guild/ops/linear/cpu/dot_avx2.hpp>
#include <guild/ops/linear/cpu/gemm_block.hpp>

#if defined(__x86_64__)

namespace guild {
inline namespace v1 {
namespace cpu::avx2 {

inline constexpr Index panel_rows = 16;  // outputs of a panel
inline constexpr Index tile_tokens = 6;  // 12 sums, 2 weights, 1 input: 15 of 16 registers

/// 8 rows of 8 floats, from_pitch apart, to 8 columns, to_pitch apart.
GUILD_AVX2_INLINE void transpose8(const float* from, Index from_pitch, float* to, Index to_pitch) {
  __m256 a[8], b[8];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) a[i] = _mm256_load_ps(from + i * from_pitch);
#pragma GCC unroll 4
  for (int i = 0; i < 8; i += 2) {
    b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
    b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
  }
#pragma GCC unroll 2
  for (int i = 0; i < 8; i += 4) {
    a[i] = _mm256_shuffle_ps(b[i], b[i + 2], 0x44);
    a[i + 1] = _mm256_shuffle_ps(b[i], b[i + 2], 0xee);
    a[i + 2] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0x44);
    a[i + 3] = _mm256_shuffle_ps(b[i + 1], b[i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    _mm256_store_ps(to + i * to_pitch, _mm256_permute2f128_ps(a[i], a[i + 4], 0x20));
    _mm256_store_ps(to + (i + 4) * to_pitch, _mm256_permute2f128_ps(a[i], a[i + 4], 0x31));
  }
}

/// Columns [k, k + depth) of 16 rows from `begin` on as a panel. Rows from `end` on repeat the last one.
GUILD_AVX2 inline void pack_weights(const WeightView& w, Index begin, Index end, Index k, Index depth, float* panel) {
  alignas(64) float rows[8 * expanded];
  for (Index half = 0; half < panel_rows; half += 8) {
    for (Index i = 0; i < 8; ++i) expand(w, std::min(begin + half + i, end - 1), k, depth, 0, rows + i * expanded);
    for (Index c = 0; c < depth; c += 8) transpose8(rows + c, expanded, panel + c * panel_rows + half, panel_rows);
  }
}

/// Rows [k, k + depth), columns [begin, end) of the weight as panels of 16 columns each, gemm_depth rows apart.
GUILD_AVX2 inline void pack_weight_rows(const WeightView& w, Index begin, Index end, Index k, Index depth,
                                        float* panels) {
  alignas(64) float row[gemm_rows];
  for (Index i = 0; i < depth; ++i) {
    expand(w, k + i, begin, end - begin, 0, row);
    for (Index c = 0; c < end - begin; c += panel_rows)
      std::copy_n(row + c, panel_rows, panels + c * gemm_depth + i * panel_rows);
  }
}

/// The same of rows of activations.
GUILD_AVX2 inline void pack_rows(const InputRows& x, Index begin, Index end, Index k, Index depth, float* panels) {
  for (Index i = 0; i < depth; ++i) {
    const float* from = x.row(k + i);
    for (Index c = begin; c < end; c += panel_rows) {
      float* to = panels + (c - begin) * gemm_depth + i * panel_rows;
      if (end - c >= panel_rows)
        std::copy_n(from + c, panel_rows, to);
      else
        std::fill(std::copy_n(from + c, end - c, to), to + panel_rows, 0.0f);
    }
  }
}

/// Columns [k, k + depth) of the inputs, row after row gemm_depth apart; rows up to `padded` are zero.
inline void pack_inputs(const InputRows& x, Index padded, Index k, Index depth, float* packed) {
  for (Index t = 0; t < padded; ++t) {
    if (t < x.rows)
      std::copy_n(x.row(t) + k, depth, packed + t * gemm_depth);
    else
      std::fill_n(packed + t * gemm_depth, depth, 0.0f);
  }
}

/// Columns [begin, end) of rows [k, k + depth) as inputs: the columns become rows, gemm_depth apart. Rows up to
/// `padded` are zero.
GUILD_AVX2 inline void pack_columns(const InputRows& x, Index begin, Index end, Index padded, Index k, Index depth,
                                    float* packed) {
  alignas(32) float copy[8 * 8] = {};
  for (Index i = 0; i < depth; i += 8) {
    for (Index c = 0; c < end - begin; c += 8) {
      const Index count = std::min(end - begin - c, Index{8});
      for (Index j = 0; j < 8; ++j)
        std::copy_n(x.row(std::min(k + i + j, x.rows - 1)) + begin + c, count, copy + j * 8);
      transpose8(copy, 8, packed + c * gemm_depth + i, gemm_depth);
    }
  }
  for (Index c = end - begin; c < padded; ++c) std::fill_n(packed + c * gemm_depth, depth, 0.0f);
}

/// Six inputs times the first 8 * Halves columns of a panel.
template <int Halves>
GUILD_AVX2 void gemm_tile(const float* x, const float* panel, Index depth, const TileSums& sums, Ahead) {
  __m256 sum[tile_tokens][Halves];
#pragma GCC unroll 6
  for (int t = 0; t < tile_tokens; ++t)
#pragma GCC unroll 2
    for (int h = 0; h < Halves; ++h) sum[t][h] = _mm256_setzero_ps();
  const Index out_rows = sums.after == nullptr ? std::min(tile_tokens, sums.rows) : 0;
  for (Index t = 0; t < out_rows; ++t)
    _mm_prefetch(reinterpret_cast<const char*>(sums.out + t * sums.pitch), _MM_HINT_T0);
  for (Index k = 0; k < depth; ++k) {
    __m256 w[Halves];
#pragma GCC unroll 2
    for (int h = 0; h < Halves; ++h) w[h] = _mm256_load_ps(panel + k * panel_rows + 8 * h);
#pragma GCC unroll 6
    for (int t = 0; t < tile_tokens; ++t) {
      const __m256 value = _mm256_broadcast_ss(x + t * gemm_depth + k);
#pragma GCC unroll 2
      for (int h = 0; h < Halves; ++h) sum[t][h] = _mm256_fmadd_ps(value, w[h], sum[t][h]);
    }
  }
#pragma GCC unroll 6
  for (int t = 0; t < tile_tokens; ++t) {
    if (sums.before != nullptr)
#pragma GCC unroll 2
      for (int h = 0; h < Halves; ++h)
        sum[t][h] = _mm256_add_ps(sum[t][h], _mm256_load_ps(sums.before + t * panel_rows + 8 * h));
    if (sums.after != nullptr) {
#pragma GCC unroll 2
      for (int h = 0; h < Halves; ++h) _mm256_store_ps(sums.after + t * panel_rows + 8 * h, sum[t][h]);
    } else if (t < sums.rows) {
      float* const out = sums.out + t * sums.pitch;
      if (sums.cols >= Index{8} * Halves) {
#pragma GCC unroll 2
        for (int h = 0; h < Halves; ++h) {
          if (sums.update == Update::add) sum[t][h] = _mm256_add_ps(_mm256_loadu_ps(out + 8 * h), sum[t][h]);
          _mm256_storeu_ps(out + 8 * h, sum[t][h]);
        }
      } else {
        alignas(32) float part[8 * Halves];
#pragma GCC unroll 2
        for (int h = 0; h < Halves; ++h) _mm256_store_ps(part + 8 * h, sum[t][h]);
        for (Index c = 0; c < sums.cols; ++c) out[c] = sums.update == Update::add ? out[c] + part[c] : part[c];
      }
    }
  }
}

inline constexpr GemmTiles tiles = {tile_tokens, tile_tokens* gemm_depth, panel_rows, gemm_tile<2>, gemm_tile<1>};

/// x W^T, or x W from all but fp8.
inline void gemm(const LinearBlock& block) {
  static_assert(expanded == gemm_depth && expanded == gemm_rows);
  const Index cols = block.end - block.begin, panels = (cols + panel_rows - 1) / panel_rows;
  float* panel = block.scratch;
  // More inputs than gemm_tokens come only with few columns: then all panels stay, and each is packed once.
  // Else one place serves all panels of x W^T, in the nearest cache.
  const bool stays = block.product == Product::x_w || block.x.rows > gemm_tokens;
  for (Index token = 0; token < block.x.rows; token += gemm_tokens) {
    const InputRows x = block.x.middle_rows(token, std::min(gemm_tokens, block.x.rows - token));
    GemmTarget target{block.matrices, {}, {block.pitch[0], block.pitch[1]}, x.rows, cols, x.cols, block.update};
    for (int i = 0; i < block.matrices; ++i) target.out[i] = block.out[i] + token * block.pitch[i];
    const auto pack = [&](Index k, Index depth, Index padded, float* to) {
      pack_inputs(x, padded, k, depth, to);
      if (block.product == Product::x_w && token == 0)
        pack_weight_rows(*block.weight[0], block.begin, block.end, k, depth, panel);
    };
    const auto panel_of = [&](Index k, Index depth, Index step) {
      float* to = panel + (stays ? step * panel_rows * gemm_depth : 0);
      if (block.product == Product::x_wt && token == 0)
        pack_weights(*block.weight[step / panels], block.begin + step % panels * panel_rows, block.end, k, depth, to);
      return GemmPanel{to, {}};
    };
    multiply_block(target, tiles, panel + gemm_rows * gemm_depth, pack, panel_of);
  }
}

/// dw += dy^T x
inline void gradient(const GradientBlock& block) {
  const Index rows = block.row_end - block.row_begin;
  const GemmTarget target{
      1, {block.dw, nullptr}, {block.pitch, 0}, rows, block.col_end - block.col_begin, block.dy.rows, Update::add};
  float* panels = block.scratch;
  const auto pack = [&](Index k, Index depth, Index padded, float* to) {
    pack_columns(block.dy, block.row_begin, block.row_end, padded, k, depth, to);
    pack_rows(block.x, block.col_begin, block.col_end, k, depth, panels);
  };
  const auto panel_of = [&](Index, Index, Index step) {
    return GemmPanel{panels + step * panel_rows * gemm_depth, {}};
  };
  multiply_block(target, tiles, panels + gemm_rows * gemm_depth, pack, panel_of);
}

inline constexpr LinearKernels kernels = {dot, gemm, axpy, gradient, gate};

}  // namespace cpu::avx2
}  // namespace v1
}  // namespace guild

#endif
