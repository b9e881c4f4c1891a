// SwiGLU and its gradients by rows.
#pragma once

#include <guild/device/team.hpp>
#include <guild/ops/common/exponential.hpp>

namespace guild {
inline namespace v1 {

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

namespace detail {

/// silu(g) and its derivative: with s = sigmoid(g), g s and s (1 + g (1 - s)). Finite for every finite g.
template <class Real>
GUILD_HD inline void silu_and_slope(Real g, Real& silu, Real& slope) {
  const Real below = Real(1) + exponential(-g);
  silu = g / below;  // as in the forward
  const Real s = Real(1) / below;
  slope = s * (Real(1) + g * (Real(1) - s));
}

}  // namespace detail

/// gate and up become their gradients; h, where it has data, silu(gate) * up. h may be dh.
template <class Real>
struct SwigluBackwardRow {
  View<Real, 2> gate;
  View<Real, 2> up;
  View<const Real, 2> dh;
  View<Real, 2> h;  ///< no data: not wanted

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    Real* const g = gate.data + row * gate.pitch;
    Real* const u = up.data + row * up.pitch;
    const Real* const from = dh.data + row * dh.pitch;
    Real* const to = h.data == nullptr ? nullptr : h.data + row * h.pitch;
    team.for_each(gate.cols, [=](Index i) {
      Real silu, slope;
      detail::silu_and_slope(g[i], silu, slope);
      const Real up_i = u[i], dh_i = from[i];
      g[i] = dh_i * up_i * slope;
      u[i] = dh_i * silu;
      if (to != nullptr) to[i] = silu * up_i;
    });
  }
};

}  // namespace v1
}  // namespace guild
