// Sums of squares by blocks, in double.
#pragma once

#include <guild/ops/common/blocks.hpp>

namespace guild {
inline namespace v1 {

/// partial[block] = sum of x^2 over the block.
template <class Real>
struct SumOfSquaresJob {
  View<const Real> x;
  View<double> partial;  ///< [blocks_of(x.size)]

  [[nodiscard]] GUILD_HD Index blocks() const { return blocks_of(x.size); }

  template <Team T>
  GUILD_HD void operator()(T team, Index block) const {
    const BlockRange range = block_range(block, x.size);
    const Real* const values = x.data + range.begin;
    const double sum = team.sum(range.count, [values](Index i) {
      const auto value = static_cast<double>(values[i]);
      return value * value;
    });
    if (team.rank() == 0) partial.data[block] = sum;
  }
};

/// total[0] = sum of the partial sums, in order.
struct SumOfPartialsJob {
  View<const double> partial;
  View<double> total;  ///< [1]

  [[nodiscard]] GUILD_HD Index blocks() const { return 1; }

  template <Team T>
  GUILD_HD void operator()(T team, Index) const {
    const double* const values = partial.data;
    const double sum = team.sum(partial.size, [values](Index i) { return values[i]; });
    if (team.rank() == 0) total.data[0] = sum;
  }
};

}  // namespace v1
}  // namespace guild
