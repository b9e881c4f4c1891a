// Gated networks' inner rows and their gradients.
#pragma once

#include <guild/device/team.hpp>
#include <guild/ops/linear/rows/activation.hpp>

namespace guild {
inline namespace v1 {

/// h = f(gate) * up.
template <class Real>
struct SwigluRow {
  View<const Real, 2> gate;
  View<const Real, 2> up;
  View<Real, 2> h;
  ActivationConfig activation{};

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Real* const g = gate.data + row * gate.pitch;
    const Real* const u = up.data + row * up.pitch;
    Real* const to = h.data + row * h.pitch;
    const Index count = h.cols;
    detail::with_gate<Real>(activation, [=](auto joined) {
      team.for_each(count, [=](Index i) {
        const auto at = joined(g[i], u[i]);
        to[i] = at.act * at.up;
      });
    });
  }
};

/// gate and up become their gradients; h, where it has data, f(gate) * up. h may be dh.
template <class Real>
struct SwigluBackwardRow {
  View<Real, 2> gate;
  View<Real, 2> up;
  View<const Real, 2> dh;
  View<Real, 2> h;  ///< no data: not wanted
  ActivationConfig activation{};

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    Real* const g = gate.data + row * gate.pitch;
    Real* const u = up.data + row * up.pitch;
    const Real* const from = dh.data + row * dh.pitch;
    Real* const to = h.data == nullptr ? nullptr : h.data + row * h.pitch;
    const Index count = gate.cols;
    detail::with_gate<Real>(activation, [=](auto joined) {
      team.for_each(count, [=](Index i) {
        const auto at = joined(g[i], u[i]);
        const Real dh_i = from[i];
        g[i] = dh_i * at.up * at.act_slope;
        u[i] = dh_i * at.act * at.up_slope;
        if (to != nullptr) to[i] = at.act * at.up;
      });
    });
  }
};

}  // namespace v1
}  // namespace guild
