// Experts that give their input, by teams: see guild/ops/experts/identities.hpp.
#pragma once

#include <cstdint>
#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

/// y[t] += (the sum of the weights of t's identities, in the order of k) * x[t].
template <class Real>
struct AddIdentitiesRow {
  Index first;                         ///< of the identities' numbers
  View<const std::int32_t, 2> chosen;  ///< [T, K]
  View<const Real, 2> weights;         ///< [T, K]
  View<const Real, 2> x;               ///< [T, D]
  View<Real, 2> y;                     ///< [T, D]

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    const std::int32_t* const expert = chosen.data + token * chosen.pitch;
    const Real* const weight = weights.data + token * weights.pitch;
    Real share = Real(0);  // by every member alike
    for (Index k = 0; k < chosen.cols; ++k) share += expert[k] >= first ? weight[k] : Real(0);
    if (share == Real(0)) return;
    const Real* const from = x.data + token * x.pitch;
    Real* const to = y.data + token * y.pitch;
    team.for_each(y.cols, [=](Index i) { to[i] += share * from[i]; });
  }
};

/// dweights[t, k] = <x[t], dy[t]> of t's identities; those of others stay.
template <class Real>
struct IdentityWeightsRow {
  Index first;
  View<const std::int32_t, 2> chosen;  ///< [T, K]
  View<const Real, 2> x;               ///< [T, D]
  View<const Real, 2> dy;              ///< [T, D]
  View<Real, 2> dweights;              ///< [T, K]

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    const std::int32_t* const expert = chosen.data + token * chosen.pitch;
    const Real* const a = x.data + token * x.pitch;
    const Real* const b = dy.data + token * dy.pitch;
    const Real along = team.sum(x.cols, [=](Index i) { return a[i] * b[i]; });
    Real* const to = dweights.data + token * dweights.pitch;
    const Index begin = first;
    team.for_each(chosen.cols, [=](Index k) {
      if (expert[k] >= begin) to[k] = along;
    });
  }
};

}  // namespace v1
}  // namespace guild
