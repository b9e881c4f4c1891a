// Products x W with the weight not transposed (the absorbed key of latent attention), AVX-512. Four rows of weights
// become float in the nearest cache, whatever their format, and are added to the outputs of all tokens.
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

/// Columns expanded at a time: 8 KB of floats for four rows.
inline constexpr Index expanded = 512;

/// The order in which bytes are taken so that pairs of 16-bit weights i and 16 + i lie side by side: the two halves of
/// each 32-bit word are then floats in order. For bf16, and for fp8 as `fp8_to_bf16` leaves it.
struct PairOrder {
  alignas(64) std::uint8_t bf16[64];
  alignas(64) std::uint8_t fp8[64];
};
inline constexpr PairOrder pair_order = [] {
  PairOrder order{};
  for (int i = 0; i < 64; ++i) {
    order.bf16[i] = static_cast<std::uint8_t>(2 * (i / 4) + 32 * (i / 2 % 2) + i % 2);
    order.fp8[i] = static_cast<std::uint8_t>(32 * (i / 8 % 2) + 4 * (i / 16) + i % 8 / 2 + 16 * (i % 2));
  }
  return order;
}();

/// 64 weights of the bytes at p as float, times `scale`.
template <DType Type>
GUILD_AVX512_INLINE void expand64(const std::byte* p, __m512 scale, const Fp8Tables& tables, float* out) {
  if constexpr (Type == DType::bf16) {
    const __m512i order = _mm512_load_si512(pair_order.bf16);
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const __m512i pairs = _mm512_permutexvar_epi8(order, _mm512_loadu_si512(p + 64 * j));
      _mm512_store_ps(out + 32 * j, even_bf16(pairs));
      _mm512_store_ps(out + 32 * j + 16, odd_bf16(pairs));
    }
  } else if constexpr (Type == DType::f8_e4m3) {
    __m512i first, second;
    fp8_to_bf16(_mm512_permutexvar_epi8(_mm512_load_si512(pair_order.fp8), _mm512_loadu_si512(p)), tables, first,
                second);
    _mm512_store_ps(out, _mm512_mul_ps(scale, even_bf16(first)));
    _mm512_store_ps(out + 16, _mm512_mul_ps(scale, odd_bf16(first)));
    _mm512_store_ps(out + 32, _mm512_mul_ps(scale, even_bf16(second)));
    _mm512_store_ps(out + 48, _mm512_mul_ps(scale, odd_bf16(second)));
  } else {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)
      _mm512_store_ps(out + 16 * j,
                      Type == DType::f16
                          ? _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32 * j)))
                          : _mm512_loadu_ps(p + 64 * j));
  }
}

template <DType Type>
GUILD_AVX512 void expand_typed(const std::byte* p, Index count, Index ahead, const float* scale, float* out) {
  constexpr Index step = 64 * bits(Type) / 8;
  const Fp8Tables tables = fp8_tables();
  alignas(64) std::byte tail[step];
  for (Index i = 0; i < count; i += 64, p += step) {
#pragma GCC unroll 4
    for (Index line = 0; line < step; line += 64)
      _mm_prefetch(reinterpret_cast<const char*>(p + ahead + line), _MM_HINT_T0);
    const __m512 s = Type == DType::f8_e4m3 ? _mm512_set1_ps(scale[i / scale_block]) : _mm512_setzero_ps();
    if (count - i < 64) {
      std::fill_n(std::copy_n(p, (count - i) * bits(Type) / 8, tail), (64 - (count - i)) * bits(Type) / 8,
                  std::byte{0});
      expand64<Type>(tail, s, tables, out + i);
      return;
    }
    expand64<Type>(p, s, tables, out + i);
  }
}

/// `count` <= expanded weights from column c on (a multiple of 64) as float, scales included, padded with zeros to 64.
/// Fetches what lies `ahead` bytes further into the cache.
inline void expand(const WeightView& w, Index r, Index c, Index count, Index ahead, float* out) {
  const std::byte* p = w.row<std::byte>(r) + c * bits(w.format.element) / 8;
  switch (w.format.element) {
    case DType::bf16:
      return expand_typed<DType::bf16>(p, count, ahead, nullptr, out);
    case DType::f16:
      return expand_typed<DType::f16>(p, count, ahead, nullptr, out);
    case DType::f8_e4m3: {
      // c may lie in the middle of a block: whole blocks are counted from there
      const float* scale =
          static_cast<const float*>(w.scales) + (w.first_row + r) / scale_block * w.scale_pitch + c / scale_block;
      if (c % scale_block == 0) return expand_typed<DType::f8_e4m3>(p, count, ahead, scale, out);
      const Index first = std::min(count, scale_block - c % scale_block);
      expand_typed<DType::f8_e4m3>(p, first, ahead, scale, out);
      if (first < count) expand_typed<DType::f8_e4m3>(p + first, count - first, ahead, scale + 1, out + first);
      return;
    }
    default:
      return expand_typed<DType::f32>(p, count, ahead, nullptr, out);
  }
}

/// x W: each four rows of the weight are added to all tokens' outputs.
GUILD_AVX512 inline void axpy(const LinearBlock& block) {
  alignas(64) float weights[4 * expanded];
  const WeightView& w = *block.weight[0];
  for (Index t = 0; t < block.x.rows; ++t)
    std::fill_n(block.out[0] + t * block.pitch[0], block.end - block.begin, 0.0f);
  for (Index c = block.begin; c < block.end; c += expanded) {
    const Index count = std::min(expanded, block.end - c);
    for (Index r = 0; r < w.rows; r += 4) {
      const Index rows = std::min(w.rows - r, Index{4});
      const Index ahead = r + 8 <= w.rows ? 4 * w.row_bytes() : 0;
      for (Index j = 0; j < 4; ++j) {
        if (j < rows)
          expand(w, r + j, c, count, ahead, weights + j * expanded);
        else
          std::fill_n(weights + j * expanded, round_up(count, 16), 0.0f);
      }
      for (Index t = 0; t < block.x.rows; ++t) {
        __m512 in[4];
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) in[j] = j < rows ? _mm512_set1_ps(block.x.row(t)[r + j]) : _mm512_setzero_ps();
        float* out = block.out[0] + t * block.pitch[0] + (c - block.begin);
        for (Index i = 0; i < count; i += 16) {
          const __mmask16 mask = mask16(count - i);
          __m512 sum = _mm512_maskz_loadu_ps(mask, out + i);
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) sum = _mm512_fmadd_ps(in[j], _mm512_load_ps(weights + j * expanded + i), sum);
          _mm512_mask_storeu_ps(out + i, mask, sum);
        }
      }
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
