// The inner loops of attention's backward on packed tiles of up to 64 queries and 64 keys, in plain C++, and the table
// through which every variant is called. Scores and their gradients lie as [key][query]: queries in the lanes of
// vectors, as in the forward (attention_tile.hpp).
#pragma once

#include <cmath>
#include <cstdint>
#include <guild/core/view.hpp>
#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {
namespace cpu {

inline constexpr Index backward_tile = 64;  ///< queries and keys of a tile; the pitch of score tiles
inline constexpr Index row_step = 8;        ///< rows of a product are a multiple of it

enum class Onto : std::uint8_t { zero, sums };

/// c[i][j] = (c[i][j] or 0) + sum over s < steps of a[i * a_row + s * a_step] * b[s * b_pitch + j], for i < rows, a
/// multiple of row_step, and j < cols, a multiple of 16. All five products of the backward are of this form.
struct TileProduct {
  const float* a;
  Index a_row, a_step;
  const float* b;
  Index b_pitch;
  Index steps;
  float* c;
  Index c_pitch;
  Index rows, cols;
  Onto onto;
};

/// From scaled scores and products dout . v to P = exp(score - lse) and dS = P * (product - along), in place, for keys
/// k < count and lanes < lanes. Where the tile lies on the diagonal, key k is seen by lanes m >= k alone: both are 0
/// for others in the same vector, and vectors of none but such lanes are not touched.
struct TileWeights {
  float* score;
  float* slope;
  const float* lse;    ///< [lanes]; infinity for lanes without a query
  const float* along;  ///< [lanes]: dout . out
  Index count, lanes;
  bool diagonal;
};

struct AttentionBackwardKernels {
  void (*product)(const TileProduct& product);
  void (*weigh)(const TileWeights& weights);
  /// to[c] = from[c] * factor for c < count, 0 up to `padded`.
  void (*scale)(const float* from, float factor, Index count, Index padded, float* to);
  /// to[c] += from[c]
  void (*add)(const float* from, Index count, float* to);
  float (*dot)(const float* a, const float* b, Index count);
};

struct BaselineAttentionBackward {
  static void product(const TileProduct& p) {
    constexpr int lanes = 16;
    for (Index j = 0; j < p.cols; j += lanes)
      for (Index i = 0; i < p.rows; i += 2) {
        float* const c = p.c + i * p.c_pitch + j;
        float* const d = c + p.c_pitch;
        float sum[lanes] = {}, other[lanes] = {};
        if (p.onto == Onto::sums)
          for (int l = 0; l < lanes; ++l) sum[l] = c[l];
        if (p.onto == Onto::sums)
          for (int l = 0; l < lanes; ++l) other[l] = d[l];
        for (Index s = 0; s < p.steps; ++s) {
          const float x = p.a[i * p.a_row + s * p.a_step], y = p.a[(i + 1) * p.a_row + s * p.a_step];
          const float* const b = p.b + s * p.b_pitch + j;
          for (int l = 0; l < lanes; ++l) sum[l] += x * b[l];
          for (int l = 0; l < lanes; ++l) other[l] += y * b[l];
        }
        for (int l = 0; l < lanes; ++l) c[l] = sum[l];
        for (int l = 0; l < lanes; ++l) d[l] = other[l];
      }
  }

  static void weigh(const TileWeights& w) {
    for (Index k = 0; k < w.count; ++k) {
      float* const score = w.score + k * backward_tile;
      float* const slope = w.slope + k * backward_tile;
      for (Index m = w.diagonal ? k / 16 * 16 : 0; m < w.lanes; ++m) {
        const bool sees = !w.diagonal || m >= k;
        score[m] = sees ? std::exp(score[m] - w.lse[m]) : 0.0f;
        slope[m] = sees ? score[m] * (slope[m] - w.along[m]) : 0.0f;
      }
    }
  }

  static void scale(const float* from, float factor, Index count, Index padded, float* to) {
    for (Index c = 0; c < count; ++c) to[c] = from[c] * factor;
    for (Index c = count; c < padded; ++c) to[c] = 0.0f;
  }
  static void add(const float* from, Index count, float* to) {
    for (Index c = 0; c < count; ++c) to[c] += from[c];
  }
  static float dot(const float* a, const float* b, Index count) {
    return SerialTeam{}.sum(count, [=](Index c) { return a[c] * b[c]; });
  }
};

template <class Variant>
constexpr AttentionBackwardKernels attention_backward_kernels() {
  return {Variant::product, Variant::weigh, Variant::scale, Variant::add, Variant::dot};
}

}  // namespace cpu
}  // namespace v1
}  // namespace guild
