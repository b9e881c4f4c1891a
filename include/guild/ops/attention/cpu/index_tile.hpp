// The loops of the index of sparse attention that are no products, on tiles of attention's forward and backward: bodies
// in plain C++, compiled for each variant.
#pragma once

#include <guild/device/isa.hpp>
#include <guild/device/team.hpp>
#include <guild/ops/attention/cpu/backward_tile.hpp>
#include <guild/ops/attention/cpu/tile.hpp>
#include <guild/ops/common/cpu/avx512.hpp>

namespace guild {
inline namespace v1 {
namespace cpu {

inline constexpr int index_lanes = 16;  ///< partial sums of a score over heads

struct IndexKernels {
  /// part[k][m % 16] += weights[m] * relu(score[k][m]), for the heads m < lanes (16 or 32) of keys k < count.
  void (*weigh)(const float* score, const float* weights, Index lanes, Index count, float* part);
  /// out[k] = sum over i of part[k][i]
  void (*sum)(const float* part, Index count, float* out);
  /// Of products z = score[k][m] to the gradients by them, in place: z > 0 ? slope[k][m] * weights[m] : 0, and
  /// dweights[m] += slope[k][m] * relu(z), for k < count and m < lanes, a multiple of 16. Pitch backward_tile.
  void (*slopes)(float* score, const float* slope, const float* weights, Index count, Index lanes, float* dweights);
};

namespace index_loops {

/// What is not a number stays so.
[[gnu::always_inline]] inline float relu(float x) { return 0.0f > x ? 0.0f : x; }

[[gnu::always_inline]] inline void weigh(const float* score, const float* weights, Index lanes, Index count,
                                         float* part) {
  for (Index k = 0; k < count; ++k) {
    float* const to = part + k * index_lanes;
    for (Index m = 0; m < lanes; m += index_lanes) {
      const float* const from = score + k * lanes + m;
      const float* const weight = weights + m;
      GUILD_INDEPENDENT for (int i = 0; i < index_lanes; ++i) to[i] += weight[i] * relu(from[i]);
    }
  }
}

[[gnu::always_inline]] inline void sum(const float* part, Index count, float* out) {
  for (Index k = 0; k < count; ++k) {
    const float* const from = part + k * index_lanes;
    float half[8], quarter[4];
    GUILD_INDEPENDENT for (int i = 0; i < 8; ++i) half[i] = from[i] + from[i + 8];
    GUILD_INDEPENDENT for (int i = 0; i < 4; ++i) quarter[i] = half[i] + half[i + 4];
    out[k] = (quarter[0] + quarter[2]) + (quarter[1] + quarter[3]);
  }
}

[[gnu::always_inline]] inline void slopes(float* score, const float* slope, const float* weights, Index count,
                                          Index lanes, float* dweights) {
  for (Index k = 0; k < count; ++k)
    for (Index m = 0; m < lanes; m += index_lanes) {
      float* const z = score + k * backward_tile + m;
      const float* const by = slope + k * backward_tile + m;
      const float* const weight = weights + m;
      float* const to = dweights + m;
      GUILD_INDEPENDENT for (int i = 0; i < index_lanes; ++i) {
        to[i] += by[i] * relu(z[i]);
        z[i] = z[i] > 0.0f ? by[i] * weight[i] : 0.0f;
      }
    }
}

}  // namespace index_loops

struct BaselineIndex {
  static void weigh(const float* score, const float* weights, Index lanes, Index count, float* part) {
    index_loops::weigh(score, weights, lanes, count, part);
  }
  static void sum(const float* part, Index count, float* out) { index_loops::sum(part, count, out); }
  static void slopes(float* score, const float* slope, const float* weights, Index count, Index lanes,
                     float* dweights) {
    index_loops::slopes(score, slope, weights, count, lanes, dweights);
  }
};

#if defined(__x86_64__)
#define GUILD_INDEX_AVX2 gnu::target("avx2,fma")
struct Avx2Index {
  [[GUILD_INDEX_AVX2]] static void weigh(const float* score, const float* weights, Index lanes, Index count,
                                         float* part) {
    index_loops::weigh(score, weights, lanes, count, part);
  }
  [[GUILD_INDEX_AVX2]] static void sum(const float* part, Index count, float* out) {
    index_loops::sum(part, count, out);
  }
  [[GUILD_INDEX_AVX2]] static void slopes(float* score, const float* slope, const float* weights, Index count,
                                          Index lanes, float* dweights) {
    index_loops::slopes(score, slope, weights, count, lanes, dweights);
  }
};
#undef GUILD_INDEX_AVX2

struct Avx512Index {
  GUILD_AVX512 static void weigh(const float* score, const float* weights, Index lanes, Index count, float* part) {
    index_loops::weigh(score, weights, lanes, count, part);
  }
  GUILD_AVX512 static void sum(const float* part, Index count, float* out) { index_loops::sum(part, count, out); }
  GUILD_AVX512 static void slopes(float* score, const float* slope, const float* weights, Index count, Index lanes,
                                  float* dweights) {
    index_loops::slopes(score, slope, weights, count, lanes, dweights);
  }
};
#endif

template <class Variant>
constexpr IndexKernels index_kernels() {
  return {Variant::weigh, Variant::sum, Variant::slopes};
}

[[nodiscard]] inline IndexKernels index_kernels_of(Isa isa) {
#if defined(__x86_64__)
  if (isa >= Isa::avx512) return index_kernels<Avx512Index>();
  if (isa == Isa::avx2) return index_kernels<Avx2Index>();
#endif
  (void)isa;
  return index_kernels<BaselineIndex>();
}

}  // namespace cpu
}  // namespace v1
}  // namespace guild
