// Products with few rows of activations (decoding), AVX-512: weights stream once from memory through registers.
#pragma once

#include <guild/ops/common/cpu/avx512.hpp>
#include <guild/ops/linear/cpu/block.hpp>

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12 about its own intrinsics (GCC bug 105593)
#endif

namespace guild {
inline namespace v1 {
namespace cpu::avx512 {

/// Four registers, 64 floats. Weights come out of `load64` in the order that is cheapest for their format:
/// f32, f16: as stored. bf16: of each 32, the even ones and then the odd ones. f8_e4m3: of each 16 bytes, bytes 0 2 4 6
/// go to the first register, 1 3 5 7 to the second, 8 10 12 14 to the third, 9 11 13 15 to the fourth.
struct Float64s {
  __m512 v[4];
};

/// 64 weights as float, without scales.
template <DType Type>
GUILD_AVX512_INLINE Float64s load64(const std::byte* p, const Fp8Tables& tables) {
  Float64s w;
  if constexpr (Type == DType::f32) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) w.v[j] = _mm512_loadu_ps(p + 64 * j);
  } else if constexpr (Type == DType::f16) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)
      w.v[j] = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32 * j)));
  } else {
    __m512i first, second;
    if constexpr (Type == DType::bf16) {
      first = _mm512_loadu_si512(p);
      second = _mm512_loadu_si512(p + 64);
    } else {
      fp8_to_bf16(_mm512_loadu_si512(p), tables, first, second);
    }
    w.v[0] = even_bf16(first);
    w.v[1] = odd_bf16(first);
    w.v[2] = even_bf16(second);
    w.v[3] = odd_bf16(second);
  }
  return w;
}

/// Exchanges 128-bit lanes: lane i of register j with lane j of register i.
GUILD_AVX512_INLINE void transpose_lanes(Float64s& a) {
  const __m512 t0 = _mm512_shuffle_f32x4(a.v[0], a.v[1], 0x88), t1 = _mm512_shuffle_f32x4(a.v[2], a.v[3], 0x88);
  const __m512 t2 = _mm512_shuffle_f32x4(a.v[0], a.v[1], 0xdd), t3 = _mm512_shuffle_f32x4(a.v[2], a.v[3], 0xdd);
  a.v[0] = _mm512_shuffle_f32x4(t0, t1, 0x88);
  a.v[1] = _mm512_shuffle_f32x4(t2, t3, 0x88);
  a.v[2] = _mm512_shuffle_f32x4(t0, t1, 0xdd);
  a.v[3] = _mm512_shuffle_f32x4(t2, t3, 0xdd);
}

/// From stored order to the order of `load64`.
template <DType Type>
GUILD_AVX512_INLINE void arrange(Float64s& a) {
  if constexpr (Type == DType::bf16) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
#pragma GCC unroll 2
    for (int j = 0; j < 4; j += 2) {
      const __m512 first = a.v[j];
      a.v[j] = _mm512_permutex2var_ps(first, even, a.v[j + 1]);
      a.v[j + 1] = _mm512_permutex2var_ps(first, odd, a.v[j + 1]);
    }
  } else if constexpr (Type == DType::f8_e4m3) {
    const __m512i order = _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
#pragma GCC unroll 4
    for (auto& v : a.v) v = _mm512_permutexvar_ps(order, v);
    transpose_lanes(a);
  }
}

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

/// Rows [begin, end) of w (within one row of scale blocks) times M of the packed inputs, of which `tokens` are stored.
template <DType Type, int M>
GUILD_AVX512 void dot_rows(const WeightView& w, Index begin, Index end, const float* packed, Index packed_pitch,
                           Index tokens, float* out, Index pitch) {
  constexpr Index step = 64 * bits(Type) / 8;
  const Fp8Tables tables = fp8_tables();
  const Index row_bytes = w.row_bytes();
  alignas(64) std::byte tail[4 * step] = {};
  const float* x[M];
#pragma GCC unroll 4
  for (int t = 0; t < M; ++t) x[t] = packed + std::min(Index{t}, tokens - 1) * packed_pitch;
  for (Index r = begin; r < end; r += 4) {
    const std::byte* row[4];
    for (int i = 0; i < 4; ++i) row[i] = w.row<std::byte>(std::min(r + i, end - 1));
    Index ahead = r + 8 <= end ? 4 * row_bytes : 0;  // the same place in the next four rows
    __m512 sum[M][4];
#pragma GCC unroll 4
    for (int t = 0; t < M; ++t)
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) sum[t][i] = _mm512_setzero_ps();
    for (Index k = 0; k < w.cols; k += 64) {
      if (w.cols - k < 64) {  // the ends of the rows, padded with zeros
        const Index bytes = (w.cols - k) * bits(Type) / 8;
        for (int i = 0; i < 4; ++i) row[i] = std::copy_n(row[i], bytes, tail + i * step) - bytes;
        ahead = 0;
      }
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
#pragma GCC unroll 4
        for (Index line = 0; line < step; line += 64)
          _mm_prefetch(reinterpret_cast<const char*>(row[i] + ahead + line), _MM_HINT_T0);
        const Float64s weights = load64<Type>(row[i], tables);
        row[i] += step;
#pragma GCC unroll 4
        for (int t = 0; t < M; ++t)
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j)
            sum[t][i] = _mm512_fmadd_ps(weights.v[j], _mm512_load_ps(x[t] + k + 16 * j), sum[t][i]);
      }
    }
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
      const Index blocks = (w.first_row + begin) / scale_block;
      end = std::min(end, (blocks + 1) * scale_block - w.first_row);
      scale = static_cast<const float*>(w.scales) + blocks * w.scale_pitch;
    }
    pack_dot_inputs<Type>(block.x, scale, block.scratch, packed_pitch);
    // Tokens beyond the first four find the chunk's weights in the cache.
    for (Index t = 0; t < block.x.rows; t += 4) {
      const Index tokens = std::min(block.x.rows - t, Index{4});
      const float* packed = block.scratch + t * packed_pitch;
      float* to = out + t * pitch + (begin - block.begin);
      if (tokens == 1)
        dot_rows<Type, 1>(w, begin, end, packed, packed_pitch, tokens, to, pitch);
      else
        dot_rows<Type, 4>(w, begin, end, packed, packed_pitch, tokens, to, pitch);
    }
    begin = end;
  }
}

inline void dot(const LinearBlock& block) {
  for (int i = 0; i < block.matrices; ++i) {
    const WeightView& w = *block.weight[i];
    switch (w.format.element) {
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

}  // namespace cpu::avx512
}  // namespace v1
}  // namespace guild

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif
