// Sums over one token's rows by a team.
#pragma once

#include <cmath>
#include <cstdint>
#include <guild/device/team.hpp>
#include <guild/ops/rows/exponential.hpp>

namespace guild::inline v1 {

/// x += y.
template <class Real>
struct AddRow {
  View<Real, 2> x;
  View<const Real, 2> y;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    Real* const to = x.data + row * x.pitch;
    const Real* const from = y.data + row * y.pitch;
    team.for_each(x.cols, [=](Index i) { to[i] += from[i]; });
  }
};

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

/// h = silu(gate) * up.
template <class Real>
struct SwigluRow {
  View<const Real, 2> gate;
  View<const Real, 2> up;
  View<Real, 2> h;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Real* const g = gate.data + row * gate.pitch;
    const Real* const u = up.data + row * up.pitch;
    Real* const to = h.data + row * h.pitch;
    team.for_each(h.cols, [=](Index i) { to[i] = g[i] / (Real(1) + detail::exponential(-g[i])) * u[i]; });
  }
};

/// Every element of a row becomes `value`.
template <class Real>
struct FillRow {
  View<Real, 2> to;
  Real value;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    Real* const out = to.data + row * to.pitch;
    const Real same = value;
    team.for_each(to.cols, [=](Index i) { out[i] = same; });
  }
};

}  // namespace guild::inline v1
