// Sums of squares by pieces, in double.
#pragma once

#include <guild/ops/common/pieces.hpp>

namespace guild {
inline namespace v1 {

/// partial[piece] = sum of x^2 over the piece.
template <class Real>
struct SumOfSquaresJob {
  View<const Real> x;
  View<double> partial;  ///< [pieces_of(x.size)]

  [[nodiscard]] GUILD_HD Index pieces() const { return pieces_of(x.size); }

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const PieceRange range = piece_range(piece, x.size);
    const Real* const values = x.data + range.begin;
    const double sum = team.sum(range.count, [values](Index i) {
      const auto value = static_cast<double>(values[i]);
      return value * value;
    });
    if (team.rank() == 0) partial.data[piece] = sum;
  }
};

/// total[0] = sum of the partial sums, in order.
struct SumOfPartialsJob {
  View<const double> partial;
  View<double> total;  ///< [1]

  [[nodiscard]] GUILD_HD Index pieces() const { return 1; }

  template <Team T>
  GUILD_HD void operator()(T team, Index) const {
    const double* const values = partial.data;
    const double sum = team.sum(partial.size, [values](Index i) { return values[i]; });
    if (team.rank() == 0) total.data[0] = sum;
  }
};

}  // namespace v1
}  // namespace guild
