// Products with few rows of activations (decoding), AVX-512: weights stream once from memory through registers.
#pragma once

#include <guild/ops/cpu/avx512.hpp>

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12 about its own intrinsics (GCC bug 105593)
#endif

namespace guild::inline v1::cpu::avx512 {

/// out[i] = sums of the lanes of a[i], added in a fixed order.
GUILD_AVX512_INLINE __m128 sum_lanes(const __m512 a[4]) {
  __m128 q[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a[i]), _mm512_extractf32x8_ps(a[i], 1));
    q[i] = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  }
  const __m128 t0 = _mm_unpacklo_ps(q[0], q[1]), t1 = _mm_unpackhi_ps(q[0], q[1]);
  const __m128 t2 = _mm_unpacklo_ps(q[2], q[3]), t3 = _mm_unpackhi_ps(q[2], q[3]);
  return _mm_add_ps(_mm_add_ps(_mm_movelh_ps(t0, t2), _mm_movehl_ps(t2, t0)),
                    _mm_add_ps(_mm_movelh_ps(t1, t3), _mm_movehl_ps(t3, t1)));
}

/// Adds the products of 64 columns of 4 rows with M tokens.
template <DType Type, int M, bool Whole>
GUILD_AVX512_INLINE void dot_step(__m512 (&sum)[M][4], const std::byte* const (&row)[4], const float* const (&x)[M],
                                  Index k, Index cols, const Fp8Tables& tables) {
  constexpr Index size = bits(Type) / 8;
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    const Float64s w = load64<Type, Whole>(row[r] + k * size, cols - k, tables);
#pragma GCC unroll 4
    for (int t = 0; t < M; ++t)
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) sum[t][r] = _mm512_fmadd_ps(w.v[j], _mm512_load_ps(x[t] + k + 16 * j), sum[t][r]);
  }
}

/// Rows [begin, end) of w (within one row of scale blocks) times M of the packed inputs, of which `tokens` are stored.
template <DType Type, int M>
GUILD_AVX512 void dot_rows(const WeightView& w, Index begin, Index end, const float* packed, Index packed_pitch,
                           Index tokens, float* out, Index pitch) {
  const Fp8Tables tables = fp8_tables();
  const Index row_bytes = w.row_bytes();
  const float* x[M];
#pragma GCC unroll 4
  for (int t = 0; t < M; ++t) x[t] = packed + std::min(Index{t}, tokens - 1) * packed_pitch;
  for (Index r = begin; r < end; r += 4) {
    const std::byte* row[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) row[i] = w.row<std::byte>(std::min(r + i, end - 1));
    const Index ahead = r + 8 <= end ? 4 * row_bytes : 0;  // the same place in the next four rows
    __m512 sum[M][4];
#pragma GCC unroll 4
    for (int t = 0; t < M; ++t)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) sum[t][i] = _mm512_setzero_ps();
    Index k = 0;
    for (; k + 64 <= w.cols; k += 64) {
      constexpr Index size = bits(Type) / 8;
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i)
#pragma GCC unroll 4
        for (Index line = 0; line < size; ++line)
          _mm_prefetch(reinterpret_cast<const char*>(row[i] + ahead + k * size + 64 * line), _MM_HINT_T0);
      dot_step<Type, M, true>(sum, row, x, k, w.cols, tables);
    }
    if (k < w.cols) dot_step<Type, M, false>(sum, row, x, k, w.cols, tables);
    const auto valid = static_cast<__mmask8>(mask64(std::min(end - r, Index{4})));
#pragma GCC unroll 4
    for (int t = 0; t < M; ++t)
      if (t < tokens) _mm_mask_storeu_ps(out + t * pitch + (r - begin), valid, sum_lanes(sum[t]));
  }
}

/// Copies the inputs in the order of `load64`, each 128 columns times their scale, padded with zeros to 64 columns.
template <DType Type>
GUILD_AVX512 void pack_dot_inputs(const InputRows& x, const float* scale, float* packed, Index pitch) {
  for (Index t = 0; t < x.rows; ++t) {
    const float* from = x.row(t);
    float* to = packed + t * pitch;
    for (Index k = 0; k < x.cols; k += 64) {
      Float64s a;
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) a.v[j] = _mm512_maskz_loadu_ps(mask16(x.cols - k - 16 * j), from + k + 16 * j);
      arrange<Type>(a);
      if constexpr (Type == DType::f8_e4m3) {
        const __m512 s = _mm512_set1_ps(scale[k / scale_block]);
#pragma GCC unroll 4
        for (auto& v : a.v) v = _mm512_mul_ps(v, s);
      }
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) _mm512_store_ps(to + k + 16 * j, a.v[j]);
    }
  }
}

template <DType Type>
GUILD_AVX512 void dot_typed(const LinearBlock& block, const WeightView& w, float* out, Index pitch) {
  const Index packed_pitch = round_up(w.cols, 64);
  for (Index begin = block.begin; begin < block.end;) {
    Index end = block.end;
    const float* scale = nullptr;
    if constexpr (Type == DType::f8_e4m3) {
      const Index blocks = (w.scale_row + begin) / scale_block;
      end = std::min(end, (blocks + 1) * scale_block - w.scale_row);
      scale = w.scale + blocks * w.scale_pitch;
    }
    pack_dot_inputs<Type>(block.x, scale, block.scratch, packed_pitch);
    // Four rows at a time meet all tokens while they are in the nearest cache.
    for (Index t = 0; t < block.x.rows; t += 4) {
      const Index tokens = std::min(block.x.rows - t, Index{4});
      const float* packed = block.scratch + t * packed_pitch;
      float* to = out + t * pitch + (begin - block.begin);
      if (tokens == 1)
        dot_rows<Type, 1>(w, begin, end, packed, packed_pitch, tokens, to, pitch);
      else if (tokens == 2)
        dot_rows<Type, 2>(w, begin, end, packed, packed_pitch, tokens, to, pitch);
      else
        dot_rows<Type, 4>(w, begin, end, packed, packed_pitch, tokens, to, pitch);
    }
    begin = end;
  }
}

inline void dot(const LinearBlock& block) {
  for (int i = 0; i < block.matrices; ++i) {
    const WeightView& w = *block.weight[i];
    switch (w.type) {
      case DType::bf16:
        dot_typed<DType::bf16>(block, w, block.out[i], block.pitch[i]);
        break;
      case DType::f16:
        dot_typed<DType::f16>(block, w, block.out[i], block.pitch[i]);
        break;
      case DType::f8_e4m3:
        dot_typed<DType::f8_e4m3>(block, w, block.out[i], block.pitch[i]);
        break;
      default:
        dot_typed<DType::f32>(block, w, block.out[i], block.pitch[i]);
    }
  }
}

}  // namespace guild::inline v1::cpu::avx512

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif
