// Products with many rows of activations (prefill, batches, training), AVX-512: weights are expanded to float in panels
// of 32 outputs, column by column, and a tile of up to 14 x 32 outputs stays in registers.
#pragma once

#include <guild/ops/common/cpu/avx512.hpp>
#include <guild/ops/linear/cpu/gemm_block.hpp>

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12 about its own intrinsics (GCC bug 105593)
#endif

namespace guild {
inline namespace v1 {
namespace cpu::avx512 {

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

/// Columns [k, k + depth) of 32 rows from `begin` on as a panel of floats. Rows from `end` on repeat the last one; the
/// second half stays as it was if all its rows do.
GUILD_AVX512 inline void pack_weights(const WeightView& w, Index begin, Index end, Index k, Index depth, float* panel) {
  alignas(64) std::byte converted[16 * gemm_depth * sizeof(float)];
  for (Index r = begin; r < std::min(begin + panel_rows, end); r += 16, panel += 16) {
    const std::byte* row[16];
    for (Index i = 0; i < 16; ++i) row[i] = w.row<std::byte>(std::min(r + i, end - 1)) + k * bits(w.format.element) / 8;
    if (w.format.element == DType::bf16) {
      if (depth % 32 != 0) convert_rows(w.format.element, row, depth, converted);
      pack_bf16<false>(row, depth, _mm512_setzero_ps(), panel);
    } else if (w.format.element != DType::f8_e4m3) {
      if (w.format.element == DType::f16 || depth % 16 != 0) convert_rows(w.format.element, row, depth, converted);
      pack_f32(row, depth, panel);
    } else {
      convert_rows(w.format.element, row, depth, converted);
      for (Index part = 0; part < depth; part += scale_block) {
        alignas(64) float scale[16];
        const float* scales = static_cast<const float*>(w.scales) + (k + part) / scale_block;
        for (Index i = 0; i < 16; ++i)
          scale[i] = scales[(w.first_row + std::min(r + i, end - 1)) / scale_block * w.scale_pitch];
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

/// 16 weights of columns c .. c + 15 of a row as float; those from `count` on are zero. Not for fp8.
GUILD_AVX512_INLINE __m512 load16(const WeightView& w, Index r, Index c, Index count) {
  const __mmask16 mask = mask16(count);
  const std::byte* p = w.row<std::byte>(r) + c * bits(w.format.element) / 8;
  if (w.format.element == DType::f32) return _mm512_maskz_loadu_ps(mask, p);
  const __m256i half = _mm256_maskz_loadu_epi16(mask, p);
  return w.format.element == DType::f16 ? _mm512_cvtph_ps(half)
                                        : _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/// Rows [k, k + depth), columns [begin, end) of the weight as panels of 32 columns each, gemm_depth rows apart.
GUILD_AVX512 inline void pack_weight_rows(const WeightView& w, Index begin, Index end, Index k, Index depth,
                                          float* panels) {
  for (Index i = 0; i < depth; ++i) {
    const std::byte* next = w.row<std::byte>(std::min(k + i + 8, w.rows - 1));
    for (Index c = begin; c < end; c += 16) {
      _mm_prefetch(reinterpret_cast<const char*>(next + c * bits(w.format.element) / 8), _MM_HINT_T0);
      _mm512_store_ps(
          panels + (c - begin) / panel_rows * panel_rows * gemm_depth + i * panel_rows + (c - begin) % panel_rows,
          load16(w, k + i, c, end - c));
    }
  }
}

/// The same of rows of activations.
GUILD_AVX512 inline void pack_rows(const InputRows& x, Index begin, Index end, Index k, Index depth, float* panels) {
  for (Index i = 0; i < depth; ++i) {
    const float* from = x.row(k + i);
    const auto* next = reinterpret_cast<const char*>(x.row(std::min(k + i + 8, x.rows - 1)));
    for (Index c = begin; c < end; c += 16) {
      _mm_prefetch(next + 4 * c, _MM_HINT_T0);
      _mm512_store_ps(
          panels + (c - begin) / panel_rows * panel_rows * gemm_depth + i * panel_rows + (c - begin) % panel_rows,
          _mm512_maskz_loadu_ps(mask16(end - c), from + c));
    }
  }
}

/// Columns [begin, end) of rows [k, k + depth) as inputs, those of a tile side by side: tile[k * height + column].
/// The columns that the last tile lacks are zero.
GUILD_AVX512 inline void pack_columns(const InputRows& x, Index begin, Index end, Index k, Index depth, Index height,
                                      Index tile_pitch, float* packed) {
  for (Index i = 0; i < depth; ++i) {
    const float* from = x.row(k + i) + begin;
    const auto* next = reinterpret_cast<const char*>(x.row(std::min(k + i + 8, x.rows - 1)) + begin);
    float* to = packed + i * height;  // what is stored beyond the height is overwritten in the next round, or unused
    for (Index c = 0; c < end - begin; c += height, to += tile_pitch) {
      _mm_prefetch(next + 4 * c, _MM_HINT_T0);
      _mm512_storeu_ps(to, _mm512_maskz_loadu_ps(mask16(end - begin - c), from + c));
    }
  }
}

/// How the packed inputs of a tile lie.
enum class Packed { rows, columns };

/// M inputs times the first 16 * Halves columns of a panel. The inputs are rows, gemm_depth apart, or columns.
template <int M, int Halves, Packed Layout>
GUILD_AVX512 void gemm_tile(const float* x, const float* panel, Index depth, const TileSums& sums, Ahead ahead) {
  __m512 sum[M][Halves];
#pragma GCC unroll 16
  for (int t = 0; t < M; ++t)
#pragma GCC unroll 2
    for (int h = 0; h < Halves; ++h) sum[t][h] = _mm512_setzero_ps();
  // The lines of the outputs come nearer in time: writing to memory would stop the sums of the next tile.
  const Index out_rows = sums.after == nullptr ? std::min(Index{M}, sums.rows) : 0;
  const Index out_step = (out_rows * 32 + depth - 1) / std::max(depth, Index{1});
  Index offset = 0, out_row = 0;
  const std::byte* next = ahead.row < ahead.end ? ahead.at() : nullptr;
  for (Index part = 0; part < depth; part += 32) {
    for (Index i = 0; i < ahead.lines && next != nullptr; ++i) {
      _mm_prefetch(reinterpret_cast<const char*>(next + offset), _MM_HINT_T1);
      offset += 64;
      if (offset < ahead.bytes) continue;
      offset = 0;
      next = ++ahead.row < ahead.end ? ahead.at() : nullptr;
    }
    for (Index i = 0; i < out_step && out_row < out_rows; ++i, ++out_row) {
      const float* line = sums.out + out_row * sums.pitch;
#pragma GCC unroll 2
      for (int h = 0; h < Halves; ++h) _mm_prefetch(reinterpret_cast<const char*>(line + 16 * h), _MM_HINT_T0);
    }
    const Index end = std::min(part + 32, depth);
    for (Index k = part; k < end; ++k) {
      __m512 w[Halves];
#pragma GCC unroll 2
      for (int h = 0; h < Halves; ++h) w[h] = _mm512_load_ps(panel + k * panel_rows + 16 * h);
#pragma GCC unroll 16
      for (int t = 0; t < M; ++t) {
        const __m512 value = _mm512_set1_ps(Layout == Packed::rows ? x[t * gemm_depth + k] : x[k * M + t]);
#pragma GCC unroll 2
        for (int h = 0; h < Halves; ++h) sum[t][h] = _mm512_fmadd_ps(value, w[h], sum[t][h]);
      }
    }
  }
#pragma GCC unroll 16
  for (int t = 0; t < M; ++t) {
#pragma GCC unroll 2
    for (int h = 0; h < Halves; ++h) {
      if (sums.before != nullptr)
        sum[t][h] = _mm512_add_ps(sum[t][h], _mm512_load_ps(sums.before + t * panel_rows + 16 * h));
      if (sums.after != nullptr) {
        _mm512_store_ps(sums.after + t * panel_rows + 16 * h, sum[t][h]);
      } else if (t < sums.rows) {
        const __mmask16 mask = mask16(sums.cols - 16 * h);
        float* out = sums.out + t * sums.pitch + 16 * h;
        if (sums.update == Update::add) sum[t][h] = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out), sum[t][h]);
        _mm512_mask_storeu_ps(out, mask, sum[t][h]);
      }
    }
  }
}

template <int M, Packed Layout>
inline constexpr GemmTiles tiles_of_height = {M, M* gemm_depth + (Layout == Packed::rows ? 0 : 16), panel_rows,
                                              gemm_tile<M, 2, Layout>, gemm_tile<M, 1, Layout>};

/// The even height of at most 14 that leaves the least work beyond `rows`.
template <Packed Layout>
GemmTiles tiles_of(Index rows) {
  constexpr GemmTiles heights[] = {tiles_of_height<14, Layout>, tiles_of_height<12, Layout>,
                                   tiles_of_height<10, Layout>, tiles_of_height<8, Layout>};
  const GemmTiles* best = heights;
  // A tile costs about half an input more than its inputs.
  const auto cost = [rows](const GemmTiles& tiles) {
    return (rows + tiles.height - 1) / tiles.height * (2 * tiles.height + 1);
  };
  for (const GemmTiles& tiles : heights)
    if (cost(tiles) < cost(*best)) best = &tiles;
  return *best;
}

/// x W^T, or x W from all but fp8.
inline void gemm(const LinearBlock& block) {
  const Index cols = block.end - block.begin, panels = (cols + panel_rows - 1) / panel_rows;
  const Index steps = panels * block.matrices, all = block.x.cols;
  float* panel = block.scratch;
  // More inputs than gemm_tokens come only with few columns: then all panels stay, and each is packed once.
  // Else one place serves all panels of x W^T, in the nearest cache.
  const bool stays = block.product == Product::x_w || block.x.rows > gemm_tokens;
  for (Index token = 0; token < block.x.rows; token += gemm_tokens) {
    const InputRows x = block.x.middle_rows(token, std::min(gemm_tokens, block.x.rows - token));
    const Index rest = block.x.rows - token - x.rows;
    const InputRows next_x = rest > 0 ? block.x.middle_rows(token + x.rows, std::min(gemm_tokens, rest)) : InputRows{};
    GemmTarget target{block.matrices, {}, {block.pitch[0], block.pitch[1]}, x.rows, cols, all, block.update};
    for (int i = 0; i < block.matrices; ++i) target.out[i] = block.out[i] + token * block.pitch[i];
    const auto pack = [&](Index k, Index depth, Index padded, float* to) {
      pack_inputs(x, padded, k, depth, to);
      if (block.product == Product::x_w && token == 0)
        pack_weight_rows(*block.weight[0], block.begin, block.end, k, depth, panel);
    };
    const auto panel_of = [&](Index k, Index depth, Index step) {
      float* to = panel + (stays ? step * panel_rows * gemm_depth : 0);
      GemmPanel made{to, {}};
      const Index next_k = k + gemm_depth, next_end = std::min(next_k + gemm_depth, all);
      if (rest > 0) made.ahead = ahead_of(next_x, 0, all).share(step, steps);
      if (block.product == Product::x_w) {
        if (next_k < all)
          made.ahead = ahead_of_both(ahead_of(x, next_k, next_end),
                                     ahead_of(*block.weight[0], next_k, next_end, block.begin, block.end), step, steps);
        return made;
      }
      if (token > 0) return made;
      const Index i = step / panels, r = block.begin + step % panels * panel_rows;
      pack_weights(*block.weight[i], r, block.end, k, depth, to);
      // The weights of the next step come from memory in short pieces that the processor does not foresee.
      const bool last = step + 1 == steps;
      const Index next = last ? 0 : step + 1, next_row = block.begin + next % panels * panel_rows;
      if (rest == 0 && (!last || next_k < all))
        made.ahead = ahead_of(*block.weight[next / panels], next_row, std::min(next_row + panel_rows, block.end),
                              last ? next_k : k, last ? next_end : k + depth);
      return made;
    };
    multiply_block(target, tiles_of<Packed::rows>(x.rows), panel + gemm_rows * gemm_depth, pack, panel_of);
  }
}

/// dw += dy^T x
inline void gradient(const GradientBlock& block) {
  const Index rows = block.row_end - block.row_begin;
  const GemmTarget target{
      1, {block.dw, nullptr}, {block.pitch, 0}, rows, block.col_end - block.col_begin, block.dy.rows, Update::add};
  float* panels = block.scratch;
  const GemmTiles tiles = tiles_of<Packed::columns>(rows);
  const auto pack = [&](Index k, Index depth, Index, float* to) {
    pack_columns(block.dy, block.row_begin, block.row_end, k, depth, tiles.height, tiles.pitch, to);
    pack_rows(block.x, block.col_begin, block.col_end, k, depth, panels);
  };
  const Index steps = (target.cols + panel_rows - 1) / panel_rows;
  const auto panel_of = [&](Index k, Index depth, Index step) {
    GemmPanel made{panels + step * panel_rows * gemm_depth, {}};
    const Index next = k + depth, rest = std::min(target.depth - next, gemm_depth);
    if (rest > 0)
      made.ahead =
          ahead_of_both(ahead_of(block.dy.middle_rows(next, rest), block.row_begin, block.row_end),
                        ahead_of(block.x.middle_rows(next, rest), block.col_begin, block.col_end), step, steps);
    return made;
  };
  multiply_block(target, tiles, panels + gemm_rows * gemm_depth, pack, panel_of);
}

}  // namespace cpu::avx512
}  // namespace v1
}  // namespace guild

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif
