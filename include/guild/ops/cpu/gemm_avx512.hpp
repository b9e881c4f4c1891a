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

/// Columns [k, k + depth) of 16 rows, padded with zeros, to 16 rows of gemm_depth elements in `to`: fp8 becomes bf16,
/// f16 becomes float, the others stay as they are. Sets `row` to where the rows lie now.
GUILD_AVX512 inline void convert_rows(DType type, const std::byte* (&row)[16], Index depth, std::byte* to) {
  const Fp8Tables tables = fp8_tables();
  // Unpacking takes the lower and upper halves of each lane: put the bytes where that restores their order.
  const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
  for (auto& from : row) {
    if (type == DType::f8_e4m3) {
      for (Index i = 0; i < depth; i += 64) {
        const __m512i codes = _mm512_maskz_loadu_epi8(mask64(depth - i), from + i);
        __m512i first, second;
        fp8_to_bf16(_mm512_permutexvar_epi64(order, codes), tables, first, second);
        _mm512_store_si512(to + 2 * i, first);
        _mm512_store_si512(to + 2 * i + 64, second);
      }
    } else if (type == DType::f16) {
      for (Index i = 0; i < depth; i += 16)
        _mm512_store_ps(to + 4 * i, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask16(depth - i), from + 2 * i)));
    } else {
      const Index bytes = depth * bits(type) / 8;
      for (Index i = 0; i < bytes; i += 64)
        _mm512_store_si512(to + i, _mm512_maskz_loadu_epi8(mask64(bytes - i), from + i));
    }
    from = to;
    to += gemm_depth * (type == DType::f8_e4m3 || type == DType::bf16 ? 2 : 4);
  }
}

/// Columns [k, k + depth) of 32 rows from `begin` on as a panel of floats. Rows from `end` on repeat the last one.
GUILD_AVX512 inline void pack_weights(const WeightView& w, Index begin, Index end, Index k, Index depth, float* panel) {
  alignas(64) std::byte converted[16 * gemm_depth * sizeof(float)];
  for (Index r = begin; r < begin + panel_rows; r += 16, panel += 16) {
    const std::byte* row[16];
    for (Index i = 0; i < 16; ++i) row[i] = w.row<std::byte>(std::min(r + i, end - 1)) + k * bits(w.type) / 8;
    if (w.type == DType::bf16) {
      if (depth % 32 != 0) convert_rows(w.type, row, depth, converted);
      pack_bf16<false>(row, depth, _mm512_setzero_ps(), panel);
    } else if (w.type != DType::f8_e4m3) {
      if (w.type == DType::f16 || depth % 16 != 0) convert_rows(w.type, row, depth, converted);
      pack_f32(row, depth, panel);
    } else {
      convert_rows(w.type, row, depth, converted);
      for (Index part = 0; part < depth; part += scale_block) {
        alignas(64) float scale[16];
        const float* scales = w.scale + (k + part) / scale_block;
        for (Index i = 0; i < 16; ++i)
          scale[i] = scales[(w.scale_row + std::min(r + i, end - 1)) / scale_block * w.scale_pitch];
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
    const auto* next = reinterpret_cast<const char*>(x.row(std::min(t + 4, x.rows - 1)) + k);  // rows lie far apart
    for (Index i = 0; i < depth; i += 16) {
      _mm_prefetch(next + 4 * i, _MM_HINT_T0);
      _mm512_store_ps(packed + t * gemm_depth + i,
                      from == nullptr ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask16(depth - i), from + i));
    }
  }
}

/// Memory that is read next, brought nearer while a tile computes: rows of `bytes` bytes, `pitch` apart.
struct Ahead {
  const std::byte* row = nullptr;
  Index pitch = 0;
  Index bytes = 0;
  Index lines = 0;  ///< how many of 64 bytes for each 32 columns of the tile
};

/// M tokens times a panel. The sums of earlier columns come from `before` (null: none); they go on to `after`, or,
/// where that is null, `rows` x `cols` of them to out. Both hold M x 32 floats: outputs would lie too far apart for the
/// caches.
template <int M>
GUILD_AVX512 void gemm_tile(const float* x, const float* panel, Index depth, const float* before, float* after,
                            float* out, Index pitch, Index rows, Index cols, Ahead ahead) {
  __m512 sum[M][2];
#pragma GCC unroll 16
  for (int t = 0; t < M; ++t) sum[t][0] = sum[t][1] = _mm512_setzero_ps();
  Index offset = 0;
  for (Index part = 0; part < depth; part += 32) {
    for (Index i = 0; i < ahead.lines; ++i) {
      _mm_prefetch(reinterpret_cast<const char*>(ahead.row + offset), _MM_HINT_T1);
      offset += 64;
      if (offset >= ahead.bytes) offset = 0, ahead.row += ahead.pitch;
    }
    const Index end = std::min(part + 32, depth);
    for (Index k = part; k < end; ++k) {
      const __m512 w0 = _mm512_load_ps(panel + k * panel_rows), w1 = _mm512_load_ps(panel + k * panel_rows + 16);
#pragma GCC unroll 16
      for (int t = 0; t < M; ++t) {
        const __m512 value = _mm512_set1_ps(x[t * gemm_depth + k]);
        sum[t][0] = _mm512_fmadd_ps(value, w0, sum[t][0]);
        sum[t][1] = _mm512_fmadd_ps(value, w1, sum[t][1]);
      }
    }
  }
  const __mmask16 mask0 = mask16(cols), mask1 = mask16(cols - 16);
#pragma GCC unroll 16
  for (int t = 0; t < M; ++t) {
    if (before != nullptr) {  // added at the end: shorter chains of sums round less
      sum[t][0] = _mm512_add_ps(sum[t][0], _mm512_load_ps(before + t * panel_rows));
      sum[t][1] = _mm512_add_ps(sum[t][1], _mm512_load_ps(before + t * panel_rows + 16));
    }
    if (after != nullptr) {
      _mm512_store_ps(after + t * panel_rows, sum[t][0]);
      _mm512_store_ps(after + t * panel_rows + 16, sum[t][1]);
    } else if (t < rows) {
      _mm512_mask_storeu_ps(out + t * pitch, mask0, sum[t][0]);
      _mm512_mask_storeu_ps(out + t * pitch + 16, mask1, sum[t][1]);
    }
  }
}

inline void gemm(const LinearBlock& block) {
  const InputRows& x = block.x;
  // Tiles of equal height, even, at most 14: 48 tokens are four tiles of 12.
  const Index tiles = (x.rows + 13) / 14, height = std::max(Index{8}, round_up((x.rows + tiles - 1) / tiles, 2));
  const auto tile = height == 14   ? gemm_tile<14>
                    : height == 12 ? gemm_tile<12>
                    : height == 10 ? gemm_tile<10>
                                   : gemm_tile<8>;
  float* panel = block.scratch;
  float* inputs = panel + panel_rows * gemm_depth;
  float* sums = inputs + tiles * height * gemm_depth;
  const Index panels = (block.end - block.begin + panel_rows - 1) / panel_rows, steps = panels * block.matrices;
  for (Index k = 0; k == 0 || k < x.cols; k += gemm_depth) {
    const Index depth = std::min(gemm_depth, x.cols - k);
    pack_inputs(x, tiles * height, k, depth, inputs);
    for (Index step = 0; step < steps; ++step) {
      const Index i = step / panels, r = block.begin + step % panels * panel_rows;
      pack_weights(*block.weight[i], r, block.end, k, depth, panel);  // stays in the nearest cache for all tokens
      // The weights of the next step come from memory in short pieces that the processor does not foresee.
      const Index next = (step + 1) % steps, next_k = step + 1 < steps ? k : k + gemm_depth;
      const WeightView& w = *block.weight[next / panels];
      Ahead ahead;
      if (next_k < x.cols) {
        ahead.pitch = w.row_bytes();
        ahead.row = w.row<std::byte>(block.begin + next % panels * panel_rows) + next_k * bits(w.type) / 8;
        ahead.bytes = std::min(gemm_depth, x.cols - next_k) * bits(w.type) / 8;
      }
      const Index ahead_rows = (panel_rows + tiles - 1) / tiles;
      ahead.lines = (ahead_rows * ahead.bytes + 64 * 8 - 1) / (64 * 8);
      float* sum = sums + step * tiles * height * panel_rows;
      for (Index t = 0; t < x.rows; t += height, sum += height * panel_rows) {
        tile(inputs + t * gemm_depth, panel, depth, k == 0 ? nullptr : sum, k + depth < x.cols ? sum : nullptr,
             block.out[i] + t * block.pitch[i] + (r - block.begin), block.pitch[i], x.rows - t, block.end - r, ahead);
        ahead.row += ahead_rows * ahead.pitch;
      }
    }
  }
}

}  // namespace guild::inline v1::cpu::avx512

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif
