// Biases of experts by a team: each slot meets the one of the expert that owns it.
#pragma once

#include <cstdint>
#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

namespace detail {
/// The expert that owns slot s: the last one whose slots do not begin after it. offsets [E + 1].
GUILD_HD inline Index expert_of(View<const std::int32_t> offsets, Index s) {
  Index low = 0, high = offsets.size - 2;
  while (low < high) {
    const Index middle = (low + high + 1) / 2;
    if (offsets.data[middle] <= s)
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}
}  // namespace detail

/// y[s] += bias[expert of s].
template <class Real>
struct AddSlotBiasRow {
  View<const std::int32_t> offsets;  ///< [E + 1]
  View<const Real, 2> bias;          ///< [E, D]
  View<Real, 2> y;                   ///< [S, D]

  template <Team T>
  GUILD_HD void operator()(T team, Index s) const {
    const Real* const more = bias.data + detail::expert_of(offsets, s) * bias.pitch;
    Real* const to = y.data + s * y.pitch;
    team.for_each(y.cols, [=](Index i) { to[i] += more[i]; });
  }
};

/// dweights[s] += <bias[expert of s], dy[token[s]]>.
template <class Real>
struct SlotBiasWeightRow {
  View<const std::int32_t> offsets;  ///< [E + 1]
  View<const std::int32_t> token;    ///< [S]
  View<const Real, 2> bias;          ///< [E, D]
  View<const Real, 2> dy;            ///< [T, D]
  View<Real> dweights;               ///< [S]

  template <Team T>
  GUILD_HD void operator()(T team, Index s) const {
    const Real* const own = bias.data + detail::expert_of(offsets, s) * bias.pitch;
    const Real* const from = dy.data + token.data[s] * dy.pitch;
    const Real along = team.sum(bias.cols, [=](Index i) { return own[i] * from[i]; });
    if (team.rank() == 0) dweights.data[s] += along;
  }
};

/// dbias[e] += the sum over the slots s of expert e, in their order, of weights[s] * dy[token[s]]. A "row" is an
/// expert.
template <class Real>
struct SlotBiasGradient {
  View<const std::int32_t> offsets;  ///< [E + 1]
  View<const std::int32_t> token;    ///< [S]; no data: row s
  View<const Real> weights;          ///< [S]; no data: 1
  View<const Real, 2> dy;
  View<Real, 2> dbias;  ///< [E, D]

  template <Team T>
  GUILD_HD void operator()(T team, Index e) const {
    const Index begin = offsets.data[e], end = offsets.data[e + 1];
    Real* const to = dbias.data + e * dbias.pitch;
    for (Index s = begin; s < end; ++s) {
      const Real* const from = dy.data + (token.data != nullptr ? Index{token.data[s]} : s) * dy.pitch;
      const Real weight = weights.data != nullptr ? weights.data[s] : Real(1);
      team.for_each(dbias.cols, [=](Index i) { to[i] += weight * from[i]; });
    }
  }
};

}  // namespace v1
}  // namespace guild
