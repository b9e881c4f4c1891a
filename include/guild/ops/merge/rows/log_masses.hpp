// Logarithms of what tokens weigh, by pieces of tokens.
#pragma once

#include <cmath>
#include <guild/ops/common/pieces.hpp>

namespace guild {
inline namespace v1 {

/// to = log(masses).
template <class Real>
struct LogMassesPiece {
  View<const float> masses;  ///< [n]
  View<Real, 2> to;          ///< [n, 1]

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const PieceRange range = piece_range(piece, to.rows);
    const float* const from = masses.data + range.begin;
    const Index pitch = to.pitch;
    Real* const out = to.data + range.begin * pitch;
    team.for_each(range.count, [=](Index i) { out[i * pitch] = std::log(static_cast<Real>(from[i])); });
  }
};

}  // namespace v1
}  // namespace guild
