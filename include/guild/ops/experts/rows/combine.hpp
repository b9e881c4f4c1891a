// The sum over the rows of a token's experts by a team.
#pragma once

#include <cstdint>
#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

/// out = sum over k of weights[k] * rows[slots[k]], k ascending, then + shared.
template <class Real>
struct CombineRow {
  View<const Real, 2> rows;
  View<const std::int32_t, 2> slots;
  View<const Real, 2> weights;
  View<const Real, 2> shared;  ///< no data: nothing is added
  View<Real, 2> out;

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    const std::int32_t* const slot = slots.data + token * slots.pitch;
    const Real* const weight = weights.data + token * weights.pitch;
    const Real* const plus = shared.data == nullptr ? nullptr : shared.data + token * shared.pitch;
    Real* const to = out.data + token * out.pitch;
    const Index chosen = slots.cols;
    const View<const Real, 2> from = rows;
    constexpr Index tile = 8;  // elements whose sums stay in registers while k runs
    const Index tiles = out.cols / tile;
    team.for_each(tiles, [=](Index n) {
      Real sum[tile] = {};
      for (Index k = 0; k < chosen; ++k) {
        const Real* const source = from.data + slot[k] * from.pitch + n * tile;
        const Real factor = weight[k];
        for (Index i = 0; i < tile; ++i) sum[i] += factor * source[i];
      }
      for (Index i = 0; i < tile; ++i) to[n * tile + i] = plus != nullptr ? sum[i] + plus[n * tile + i] : sum[i];
    });
    const Index rest = tiles * tile;
    team.for_each(out.cols - rest, [=](Index n) {
      Real sum = Real(0);
      for (Index k = 0; k < chosen; ++k) sum += weight[k] * from.data[slot[k] * from.pitch + rest + n];
      to[rest + n] = plus != nullptr ? sum + plus[rest + n] : sum;
    });
  }
};

}  // namespace v1
}  // namespace guild
