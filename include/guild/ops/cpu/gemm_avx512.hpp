// Products with many rows of activations (prefill, batches), AVX-512: weights are expanded to float in panels of 32
// rows, column by column, and a tile of up to 14 x 32 outputs stays in registers.
#pragma once

#include <guild/ops/cpu/avx512.hpp>

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12 about its own intrinsics (GCC bug 105593)
#endif

namespace guild::inline v1::cpu::avx512 {

inline constexpr Index panel_rows = 32;

GUILD_AVX512_INLINE __m128i load128(const std::byte* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }

/// 16 rows x 16 elements of 32 bits, of which the rows start at `row[i] + offset` bytes, to columns of 16 rows.
GUILD_AVX512_INLINE void transpose16(const std::byte* const (&row)[16], Index offset, __m512i (&column)[16]) {
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {  // elements 4q .. 4q + 3
    __m512i a[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {  // lane l: row 4l + i
      a[i] = _mm512_castsi128_si512(load128(row[i] + offset + 16 * q));
      a[i] = _mm512_inserti32x4(a[i], load128(row[4 + i] + offset + 16 * q), 1);
      a[i] = _mm512_inserti32x4(a[i], load128(row[8 + i] + offset + 16 * q), 2);
      a[i] = _mm512_inserti32x4(a[i], load128(row[12 + i] + offset + 16 * q), 3);
    }
    const __m512i t0 = _mm512_unpacklo_epi32(a[0], a[1]), t1 = _mm512_unpackhi_epi32(a[0], a[1]);
    const __m512i t2 = _mm512_unpacklo_epi32(a[2], a[3]), t3 = _mm512_unpackhi_epi32(a[2], a[3]);
    column[4 * q] = _mm512_unpacklo_epi64(t0, t2);
    column[4 * q + 1] = _mm512_unpackhi_epi64(t0, t2);
    column[4 * q + 2] = _mm512_unpacklo_epi64(t1, t3);
    column[4 * q + 3] = _mm512_unpackhi_epi64(t1, t3);
  }
}

/// 16 rows of bf16, `depth` columns, to panel[k * 32 + row] as float, times the scale of each row.
template <bool Scaled>
GUILD_AVX512 inline void pack_bf16(const std::byte* const (&row)[16], Index depth, __m512 scale, float* panel) {
  for (Index k = 0; k < depth; k += 32) {
    __m512i column[16];
    transpose16(row, k * 2, column);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      const __m512 even = even_bf16(column[i]), odd = odd_bf16(column[i]);
      float* to = panel + (k + 2 * i) * panel_rows;
      _mm512_store_ps(to, Scaled ? _mm512_mul_ps(even, scale) : even);
      _mm512_store_ps(to + panel_rows, Scaled ? _mm512_mul_ps(odd, scale) : odd);
    }
  }
}

/// 16 rows of float, `depth` columns, to panel[k * 32 + row].
GUILD_AVX512 inline void pack_f32(const std::byte* const (&row)[16], Index depth, float* panel) {
  for (Index k = 0; k < depth; k += 16) {
    __m512i column[16];
    transpose16(row, k * 4, column);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) _mm512_store_si512(panel + (k + i) * panel_rows, column[i]);
  }
}

/// Columns [k, k + depth) of row r, padded with zeros, in `to`: fp8 as bf16, f16 as float, the others as they are.
GUILD_AVX512 inline void convert_row(const WeightView& w, Index r, Index k, Index depth, const Fp8Tables& tables, std::byte* to) {
  const std::byte* from = w.row<std::byte>(r) + k * bits(w.type) / 8;
  switch (w.type) {
    case DType::f8_e4m3: {
      // unpacking takes the lower and upper halves of each lane: put the bytes where that restores their order
      const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
      for (Index i = 0; i < depth; i += 64) {
        const __m512i codes = _mm512_maskz_loadu_epi8(mask64(depth - i), from + i);
        __m512i first, second;
        fp8_to_bf16(_mm512_permutexvar_epi64(order, codes), tables, first, second);
        _mm512_store_si512(to + 2 * i, first);
        _mm512_store_si512(to + 2 * i + 64, second);
      }
      return;
    }
    case DType::f16:
      for (Index i = 0; i < depth; i += 16)
        _mm512_store_ps(to + 4 * i, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask16(depth - i), from + 2 * i)));
      return;
    case DType::bf16:
      for (Index i = 0; i < depth; i += 32)
        _mm512_store_si512(to + 2 * i, _mm512_maskz_loadu_epi16(static_cast<__mmask32>(mask64(depth - i)), from + 2 * i));
      return;
    default:
      for (Index i = 0; i < depth; i += 16)
        _mm512_store_si512(to + 4 * i, _mm512_maskz_loadu_epi32(mask16(depth - i), from + 4 * i));
  }
}

/// Columns [k, k + depth) of the rows [begin, end) as float panels: panel i at packed + i * 32 * gemm_depth.
/// Rows beyond `end` in the last panel repeat the last row.
GUILD_AVX512 inline void pack_weights(const WeightView& w, Index begin, Index end, Index k, Index depth, float* packed) {
  alignas(64) std::byte converted[16 * gemm_depth * sizeof(float)];
  const Fp8Tables tables = fp8_tables();
  const bool fp8 = w.type == DType::f8_e4m3, pairs = fp8 || w.type == DType::bf16;
  const bool direct = (w.type == DType::bf16 && depth % 32 == 0) || (w.type == DType::f32 && depth % 16 == 0);
  for (Index r = begin; r < round_up(end - begin, panel_rows) + begin; r += 16) {
    const std::byte* row[16];
    for (Index i = 0; i < 16; ++i) {
      const Index source = std::min(r + i, end - 1);
      row[i] = w.row<std::byte>(source) + k * bits(w.type) / 8;
      if (direct) continue;
      std::byte* to = converted + i * gemm_depth * (pairs ? 2 : 4);
      convert_row(w, source, k, depth, tables, to);
      row[i] = to;
    }
    float* panel = packed + (r - begin) / panel_rows * panel_rows * gemm_depth + (r - begin) % panel_rows;
    if (!pairs) {
      pack_f32(row, depth, panel);
    } else if (!fp8) {
      pack_bf16<false>(row, depth, _mm512_setzero_ps(), panel);
    } else {
      for (Index part = 0; part < depth; part += scale_block) {
        alignas(64) float scale[16];
        for (Index i = 0; i < 16; ++i) {
          const Index source = std::min(r + i, end - 1);
          scale[i] = w.scale[(w.scale_row + source) / scale_block * w.scale_pitch + (k + part) / scale_block];
        }
        pack_bf16<true>(row, std::min(depth - part, scale_block), _mm512_load_ps(scale), panel + part * panel_rows);
        for (auto& p : row) p += scale_block * 2;
      }
    }
  }
}

/// Columns [k, k + depth) of the inputs, row after row gemm_depth apart; rows up to `padded` are zero.
GUILD_AVX512 inline void pack_inputs(const InputRows& x, Index padded, Index k, Index depth, float* packed) {
  for (Index t = 0; t < padded; ++t) {
    const float* from = t < x.rows ? x.row(t) + k : nullptr;
    for (Index i = 0; i < depth; i += 16)
      _mm512_store_ps(packed + t * gemm_depth + i,
                      from == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask16(depth - i), from + i));
  }
}

/// M tokens times a panel: adds to (or, `first`, overwrites) `rows` x `cols` of out.
template <int M>
GUILD_AVX512 void gemm_tile(const float* x, const float* panel, Index depth, float* out, Index pitch, Index rows, Index cols,
                            bool first) {
  __m512 sum[M][2];
#pragma GCC unroll 16
  for (int t = 0; t < M; ++t) sum[t][0] = sum[t][1] = _mm512_setzero_ps();
  for (Index k = 0; k < depth; ++k) {
    const __m512 w0 = _mm512_load_ps(panel + k * panel_rows), w1 = _mm512_load_ps(panel + k * panel_rows + 16);
#pragma GCC unroll 16
    for (int t = 0; t < M; ++t) {
      const __m512 value = _mm512_set1_ps(x[t * gemm_depth + k]);
      sum[t][0] = _mm512_fmadd_ps(value, w0, sum[t][0]);
      sum[t][1] = _mm512_fmadd_ps(value, w1, sum[t][1]);
    }
  }
  const __mmask16 mask0 = mask16(cols), mask1 = mask16(cols - 16);
#pragma GCC unroll 16
  for (int t = 0; t < M; ++t) {
    if (t >= rows) break;
    float* to = out + t * pitch;
    if (!first) {
      sum[t][0] = _mm512_add_ps(sum[t][0], _mm512_maskz_loadu_ps(mask0, to));
      sum[t][1] = _mm512_add_ps(sum[t][1], _mm512_maskz_loadu_ps(mask1, to + 16));
    }
    _mm512_mask_storeu_ps(to, mask0, sum[t][0]);
    _mm512_mask_storeu_ps(to + 16, mask1, sum[t][1]);
  }
}

inline void gemm(const LinearBlock& block) {
  const InputRows& x = block.x;
  // Tiles of equal height, even, at most 14: 48 tokens are four tiles of 12.
  const Index tiles = (x.rows + 13) / 14, height = std::max(Index{8}, round_up((x.rows + tiles - 1) / tiles, 2));
  const auto tile = height == 14 ? gemm_tile<14> : height == 12 ? gemm_tile<12> : height == 10 ? gemm_tile<10> : gemm_tile<8>;
  float* weights = block.scratch;
  float* inputs = block.scratch + gemm_rows * gemm_depth;
  for (Index k = 0; k == 0 || k < x.cols; k += gemm_depth) {
    const Index depth = std::min(gemm_depth, x.cols - k);
    pack_inputs(x, tiles * height, k, depth, inputs);
    for (int i = 0; i < block.matrices; ++i) {
      pack_weights(*block.weight[i], block.begin, block.end, k, depth, weights);
      for (Index c = 0; c < block.end - block.begin; c += panel_rows)
        for (Index t = 0; t < x.rows; t += height)
          tile(inputs + t * gemm_depth, weights + c * gemm_depth, depth, block.out[i] + t * block.pitch[i] + c,
               block.pitch[i], x.rows - t, block.end - block.begin - c, k == 0);
    }
  }
}

}  // namespace guild::inline v1::cpu::avx512

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif
