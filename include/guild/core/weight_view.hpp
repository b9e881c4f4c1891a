// A matrix of weights in its stored format, as products read it: pointers and sizes, nothing owned.
#pragma once

#include <cassert>
#include <cstddef>

#include <guild/core/format.hpp>
#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

/// [rows = outputs, cols = inputs], row-major. With scales, element (r, c) belongs to the block at row
/// (first_row + r) / block_rows and column c / block_cols of the grid of scales. What it is worth its codec says:
/// core/codec.hpp.
struct WeightView {
  Format format;
  const void* data = nullptr;
  Index rows = 0;
  Index cols = 0;
  const void* scales = nullptr;
  Index scale_pitch = 0;        ///< scales from one row of blocks to the next, at least ceil(cols / block_cols)
  Index first_row = 0;          ///< where row 0 lies in the grid of blocks
  const void* zeros = nullptr;  ///< zero points, in the grid of the scales

  [[nodiscard]] GUILD_HD Index row_bytes() const { return cols * bits(format.element) / 8; }
  template <class T>
  [[nodiscard]] GUILD_HD const T* row(Index r) const {
    return reinterpret_cast<const T*>(static_cast<const std::byte*>(data) + r * row_bytes());
  }
  /// The scales of row r: one for each block of columns.
  template <class T>
  [[nodiscard]] GUILD_HD const T* scale_row(Index r) const {
    return static_cast<const T*>(scales) + (first_row + r) / format.block_rows * scale_pitch;
  }
  /// The rows [begin, begin + count) as a matrix of their own.
  [[nodiscard]] WeightView middle_rows(Index begin, Index count) const {
    assert(begin >= 0 && count >= 0 && begin + count <= rows);
    WeightView part = *this;
    part.data = static_cast<const std::byte*>(data) + begin * row_bytes();
    part.rows = count;
    part.first_row = first_row + begin;
    return part;
  }
  /// One element, scales included: for tests, not for products. Zero in a format without a codec.
  template <class Real = float>
  [[nodiscard]] Real at(Index r, Index c) const;
};

}  // namespace v1
}  // namespace guild
