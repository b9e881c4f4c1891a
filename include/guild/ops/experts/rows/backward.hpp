// SwiGLU backward by rows with a routing weight on each.
#pragma once

#include <guild/device/team.hpp>
#include <guild/ops/linear/rows/swiglu.hpp>

namespace guild {
inline namespace v1 {

/// As SwigluBackwardRow for a row that counts `weights[row]` times: dweights[row] = <h, dh>; gate and up become the
/// gradients under weight * dh; dh becomes weight * h.
template <class Real>
struct ExpertSwigluBackwardRow {
  View<const Real> weights;
  View<Real, 2> gate;
  View<Real, 2> up;
  View<Real, 2> dh;
  View<Real> dweights;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    Real* const g = gate.data + row * gate.pitch;
    Real* const u = up.data + row * up.pitch;
    Real* const d = dh.data + row * dh.pitch;
    const Real weight = weights.data[row];
    // The sum calls each index once, so the elements are written in passing: one exponential each.
    const Real along = team.sum(gate.cols, [=](Index i) {
      Real silu, slope;
      detail::silu_and_slope(g[i], silu, slope);
      const Real up_i = u[i], dh_i = d[i], h_i = silu * up_i;
      g[i] = weight * dh_i * up_i * slope;
      u[i] = weight * dh_i * silu;
      d[i] = weight * h_i;
      return h_i * dh_i;
    });
    if (team.rank() == 0) dweights.data[row] = along;
  }
};

}  // namespace v1
}  // namespace guild
