// A stack of equal matrices of weights, as grouped products read it: the experts of a layer.
#pragma once

#include <cassert>
#include <cstddef>

#include <guild/core/weight_view.hpp>

namespace guild {
inline namespace v1 {

/// [count, rows, cols]: matrices of one shape and format, described on the host. Either they lie evenly, one every
/// `step` bytes, or scattered (each a tensor of its own in mapped files), and a table says where. Without zero points.
struct StackView {
  WeightView first;                   ///< matrix 0
  Index count = 0;                    ///< matrices
  Index step = 0;                     ///< bytes from a matrix to the next
  Index scale_step = 0;               ///< bytes from the scales of a matrix to those of the next
  const WeightView* table = nullptr;  ///< [count]; with it the steps mean nothing

  [[nodiscard]] GUILD_HD WeightView operator[](Index e) const {
    assert(e >= 0 && e < count);
    if (table != nullptr) return table[e];
    WeightView matrix = first;
    matrix.data = static_cast<const std::byte*>(first.data) + e * step;
    if (first.scales != nullptr) matrix.scales = static_cast<const std::byte*>(first.scales) + e * scale_step;
    return matrix;
  }
};

}  // namespace v1
}  // namespace guild
