// Sums over the rows of a matrix in a fixed order, whatever the number of threads: over blocks of rows, then over
// blocks.
#pragma once

#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

/// partial[block] = the sum of the block's rows of x, in their order.
template <class Real>
struct SumBlockOfRows {
  static constexpr Index rows = 32;  ///< of a block

  View<const Real, 2> x;
  View<Real, 2> partial;  ///< [blocks, D]

  template <Team T>
  GUILD_HD void operator()(T team, Index block) const {
    const Index first = block * rows, count = x.rows - first < rows ? x.rows - first : rows, pitch = x.pitch;
    const Real* const from = x.data + first * pitch;
    Real* const to = partial.data + block * partial.pitch;
    team.for_each(x.cols, [=](Index i) { to[i] = from[i]; });
    for (Index row = 1; row < count; ++row) team.for_each(x.cols, [=](Index i) { to[i] += from[row * pitch + i]; });
  }
};

/// total[c] += the sum of partial's column c, in the order of its rows. A "row" of this kernel is a strip of columns.
template <class Real>
struct AddColumnSums {
  static constexpr bool prefers_warp = true;
  static constexpr Index strip = 32;  ///< columns

  View<const Real, 2> partial;
  View<Real> total;

  template <Team T>
  GUILD_HD void operator()(T team, Index number) const {
    const Index first = number * strip, cols = total.size - first < strip ? total.size - first : strip;
    const Real* const from = partial.data + first;
    Real* const to = total.data + first;
    const Index count = partial.rows, pitch = partial.pitch;
    team.for_each(cols, [=](Index i) {
      Real sum = Real(0);
      for (Index n = 0; n < count; ++n) sum += from[n * pitch + i];
      to[i] += sum;
    });
  }
};

}  // namespace v1
}  // namespace guild
