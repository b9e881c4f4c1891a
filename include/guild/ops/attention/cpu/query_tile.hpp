// Rows of queries in the lanes of a tile, on their way along the keys.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <guild/ops/attention/cpu/chosen.hpp>
#include <guild/ops/attention/cpu/tile.hpp>
#include <limits>

namespace guild {
inline namespace v1 {
namespace cpu {

/// Up to 32 query rows on their way along the keys. Row m sees the keys [begins[m], visible[m]) and those before
/// `pinned` (visible: 0 for lanes without a row). Its bias is added to the scores of the keys before its `near` that
/// are not before `near_pinned`. Where there are bits of chosen keys it sees those alone whose bit is set.
struct QueryTile {
  const AttentionTile* loops = nullptr;
  Index lanes = 0;  ///< 16 or 32
  Index rows = 0;   ///< lanes in use
  Index visible[tile_rows] = {};
  Index begins[tile_rows] = {};
  Index near[tile_rows] = {};
  float bias[tile_rows] = {};
  Index pinned = 0, near_pinned = 0;
  Index most = 0, least = 0;              ///< of `visible` over the rows in use
  Index earliest = 0, latest = 0;         ///< of `begins`
  Index latest_near = 0, least_near = 0;  ///< of `near` where there are biases
  const float* source[tile_rows] = {};
  const std::uint32_t* chosen = nullptr;  ///< bits of row 0, or null
  Index chosen_pitch = 0;
  float* query = nullptr;  ///< [width][lanes], already scaled
  float* out = nullptr;    ///< [lanes][out_pitch]
  Index out_pitch = 0;
  SoftmaxState state{};

  static Index floats(Index width, Index out_cols) { return tile_rows * (width + lanes_up(out_cols)); }

  void begin(const AttentionKernels& kernels, Index rows_, Index width, Index out_cols, float* memory,
             Index pinned_ = 0) {
    rows = rows_;
    pinned = pinned_;
    chosen = nullptr;
    lanes = rows > 16 ? 32 : 16;
    loops = rows > 16 ? &kernels.tile32 : &kernels.tile16;
    out_pitch = lanes_up(out_cols);
    query = memory;
    out = memory + lanes * width;
    std::fill(out, out + lanes * out_pitch, 0.0f);
    if (rows < lanes) std::fill(query, out, 0.0f);
    for (Index m = 0; m < tile_rows; ++m) {
      visible[m] = begins[m] = near[m] = 0;
      state.peak[m] = no_peak;
      state.sum[m] = 0.0f;
    }
    most = least = earliest = latest = latest_near = least_near = 0;
  }
  void set_row(Index m, const float* q, Index sees, Index from = 0) {
    source[m] = q;
    visible[m] = sees;
    begins[m] = from;
    most = std::max(most, sees);
    least = m == 0 ? sees : std::min(least, sees);
    earliest = m == 0 ? from : std::min(earliest, from);
    latest = std::max(latest, from);
  }
  /// Of a row that is set.
  void set_bias(Index m, float of_row, Index from) {
    bias[m] = of_row;
    near[m] = from;
    latest_near = std::max(latest_near, from);
    least_near = m == 0 ? from : std::min(least_near, from);
  }
  /// True if some row may see some of the keys [first, last), of one tile of keys.
  [[nodiscard]] bool reaches(Index first, Index last) const {
    return first < most && (last > earliest || first < pinned) && (chosen == nullptr || chooses(first, last));
  }
  /// Transposes the rows into `query`.
  void pack(Index width, float scale) { transpose_rows(source, rows, width, scale, lanes, query); }

  /// Takes in the keys [first, first + count), packed with zero rows up to a multiple of key_step. `key_bias` has
  /// `count` numbers, or is null.
  void attend(const float* key, Index key_pitch, Index width, const float* value, Index value_pitch,
              const float* key_bias, Index first, Index count, float* score) {
    if (!reaches(first, first + count)) return;
    count = std::min(count, most - first);
    const Index padded = (count + key_step - 1) / key_step * key_step;
    loops->scores(query, key, key_pitch, width, padded, score);
    if (first < latest_near) add_bias(first, count, score);
    for (Index k = 0; k < count && key_bias != nullptr; ++k)
      for (Index m = 0; m < lanes; ++m) score[k * lanes + m] += key_bias[k];
    if (first + padded > least || count != padded) {
      for (Index m = 0; m < rows; ++m)
        for (Index k = std::clamp(visible[m] - first, Index{0}, count); k < padded; ++k)
          score[k * lanes + m] = -std::numeric_limits<float>::infinity();
    }
    if (first < latest) {
      for (Index m = 0; m < rows; ++m)
        for (Index k = std::max(pinned - first, Index{0}); k < std::min(begins[m] - first, count); ++k)
          score[k * lanes + m] = -std::numeric_limits<float>::infinity();
    }
    if (chosen != nullptr) hide_others(first, count, score);
    loops->soften(score, padded, state);
    loops->accumulate(score, value, value_pitch, padded, out_pitch, rows, state.keep, out, out_pitch);
  }

 private:
  /// The bits of row m for the keys [first, first + count), of one tile of keys, the first at the lowest place.
  [[nodiscard]] std::uint64_t bits_of(Index m, Index first, Index count) const {
    return chosen_bits(chosen + m * chosen_pitch, first, std::min(count, std::max(visible[m] - first, Index{0})));
  }
  [[nodiscard]] bool chooses(Index first, Index last) const {
    for (Index m = 0; m < rows; ++m)
      if (bits_of(m, first, last - first) != 0) return true;
    return false;
  }
  void hide_others(Index first, Index count, float* score) const {
    for (Index m = 0; m < rows; ++m) {
      std::uint64_t others = ~bits_of(m, first, count) & low_bits(count);
      for (; others != 0; others &= others - 1)
        score[std::countr_zero(others) * lanes + m] = -std::numeric_limits<float>::infinity();
    }
  }
  void add_bias(Index first, Index count, float* score) const {
    const Index begin = std::clamp(near_pinned - first, Index{0}, count);
    const Index all = std::clamp(least_near - first, begin, count);
    for (Index k = begin; k < all; ++k)
      for (Index m = 0; m < rows; ++m) score[k * lanes + m] += bias[m];
    for (Index m = 0; m < rows; ++m)
      for (Index k = all; k < std::min(near[m] - first, count); ++k) score[k * lanes + m] += bias[m];
  }
};

/// Fills rows [count, multiple of key_step) with zeros: their scores are masked, and zero times a value must be zero.
inline void pad_rows(float* rows, Index count, Index pitch) {
  const Index padded = (count + key_step - 1) / key_step * key_step;
  std::fill(rows + count * pitch, rows + padded * pitch, 0.0f);
}

}  // namespace cpu
}  // namespace v1
}  // namespace guild
