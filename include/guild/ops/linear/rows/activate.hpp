// The inner rows of networks without a gate, and their gradients, by a team.
#pragma once

#include <guild/device/team.hpp>
#include <guild/ops/linear/rows/activation.hpp>

namespace guild {
inline namespace v1 {

/// h = f(z). h may be z.
template <class Real>
struct ActivateRow {
  View<const Real, 2> z;
  View<Real, 2> h;
  ActivationConfig activation{};

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Real* const from = z.data + row * z.pitch;
    Real* const to = h.data + row * h.pitch;
    const Index count = h.cols;
    detail::with_activation<Real>(
        activation, [=](auto f) { team.for_each(count, [=](Index i) { to[i] = f(from[i], Real(1)).act; }); });
  }
};

/// For a row that counts `weights[row]` times: z becomes its gradient under weight * dh, dh becomes weight * f(z), and
/// dweights[row] = <f(z), dh>.
template <class Real>
struct ActivateBackwardRow {
  View<const Real> weights;  ///< no data: 1
  View<Real, 2> z;
  View<Real, 2> dh;
  View<Real> dweights;  ///< no data: not wanted
  ActivationConfig activation{};

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    Real* const at = z.data + row * z.pitch;
    Real* const d = dh.data + row * dh.pitch;
    const Real weight = weights.data != nullptr ? weights.data[row] : Real(1);
    Real* const to = dweights.data != nullptr ? dweights.data + row : nullptr;
    const Index count = z.cols;
    detail::with_activation<Real>(activation, [=](auto f) {
      const Real along = team.sum(count, [=](Index i) {  // calls each index once
        const auto value = f(at[i], Real(1));
        const Real dh_i = d[i];
        at[i] = weight * dh_i * value.act_slope;
        d[i] = weight * value.act;
        return value.act * dh_i;
      });
      if (to != nullptr && team.rank() == 0) *to = along;
    });
  }
};

}  // namespace v1
}  // namespace guild
