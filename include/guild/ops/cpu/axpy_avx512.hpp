// Products x W with the weight not transposed (the absorbed key of latent attention), AVX-512.
#pragma once

#include <guild/ops/cpu/avx512.hpp>

#if defined(__x86_64__)

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // g++ 12 about its own intrinsics (GCC bug 105593)
#endif

namespace guild::inline v1::cpu::avx512 {

/// G * 64 columns from c on, M tokens: all rows of w, scale block by scale block.
template <DType Type, int M, int G>
GUILD_AVX512 void axpy_tile(const WeightView& w, Index c, Index count, const InputRows& x, Index token, Index tokens,
                            float* out, Index pitch) {
  constexpr Index size = bits(Type) / 8;
  const Fp8Tables tables = fp8_tables();
  const float* in[M];
#pragma GCC unroll 4
  for (int t = 0; t < M; ++t) in[t] = x.row(token + std::min(Index{t}, tokens - 1));
  for (Index begin = 0; begin < w.rows;) {
    Index end = w.rows;
    if constexpr (Type == DType::f8_e4m3)
      end = std::min(end, round_up(w.scale_row + begin + 1, scale_block) - w.scale_row);
    Float64s sum[M][G];
#pragma GCC unroll 4
    for (int t = 0; t < M; ++t)
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g)
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) sum[t][g].v[j] = _mm512_setzero_ps();
    for (Index r = begin; r < end; ++r) {
      const std::byte* row = w.row<std::byte>(r) + c * size;
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) {
        const Float64s weights = count >= 64 * (g + 1)
                                     ? load64<Type, true>(row + 64 * g * size, 64, tables)
                                     : load64<Type, false>(row + 64 * g * size, count - 64 * g, tables);
#pragma GCC unroll 4
        for (int t = 0; t < M; ++t)
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j)
            sum[t][g].v[j] = _mm512_fmadd_ps(weights.v[j], _mm512_set1_ps(in[t][r]), sum[t][g].v[j]);
      }
    }
#pragma GCC unroll 4
    for (int t = 0; t < M; ++t) {
      if (t >= tokens) break;
#pragma GCC unroll 4
      for (int g = 0; g < G; ++g) {
        Float64s part = sum[t][g];
        restore<Type>(part);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
          const __mmask16 mask = mask16(count - 64 * g - 16 * j);
          float* to = out + t * pitch + 64 * g + 16 * j;
          if constexpr (Type == DType::f8_e4m3) {
            const Index across = std::min(c + 64 * g, w.cols - 1) / scale_block;
            const __m512 scale = _mm512_set1_ps(w.scale[(w.scale_row + begin) / scale_block * w.scale_pitch + across]);
            const __m512 before = begin == 0 ? _mm512_setzero_ps() : _mm512_maskz_loadu_ps(mask, to);
            _mm512_mask_storeu_ps(to, mask, _mm512_fmadd_ps(part.v[j], scale, before));
          } else {
            _mm512_mask_storeu_ps(to, mask, part.v[j]);
          }
        }
      }
    }
    begin = end;
  }
}

template <DType Type>
void axpy_typed(const LinearBlock& block) {
  const WeightView& w = *block.weight[0];
  const Index tokens = block.x.rows;
  if (w.rows == 0) {
    for (Index t = 0; t < tokens; ++t) std::fill_n(block.out[0] + t * block.pitch[0], block.end - block.begin, 0.0f);
    return;
  }
  if (tokens == 1) {
    for (Index c = block.begin; c < block.end; c += 256)
      axpy_tile<Type, 1, 4>(w, c, std::min(block.end - c, Index{256}), block.x, 0, 1, block.out[0] + (c - block.begin),
                            block.pitch[0]);
    return;
  }
  for (Index c = block.begin; c < block.end; c += 64)
    for (Index t = 0; t < tokens; t += 4)
      axpy_tile<Type, 4, 1>(w, c, std::min(block.end - c, Index{64}), block.x, t, std::min(tokens - t, Index{4}),
                            block.out[0] + t * block.pitch[0] + (c - block.begin), block.pitch[0]);
}

inline void axpy(const LinearBlock& block) {
  switch (block.weight[0]->type) {
    case DType::bf16:
      return axpy_typed<DType::bf16>(block);
    case DType::f16:
      return axpy_typed<DType::f16>(block);
    case DType::f8_e4m3:
      return axpy_typed<DType::f8_e4m3>(block);
    default:
      return axpy_typed<DType::f32>(block);
  }
}

}  // namespace guild::inline v1::cpu::avx512

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#endif
