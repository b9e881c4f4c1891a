// RMSNorm of one row by a team.
#pragma once

#include <cmath>
#include <guild/core/config/trunk.hpp>
#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

namespace detail {
/// What normalised value i is multiplied by. Weights are not read where there are none.
template <NormGain Gain, class Real>
GUILD_HD constexpr Real gain_of(const Real* weight, Index i) {
  if constexpr (Gain == NormGain::one)
    return (void)weight, (void)i, Real(1);
  else if constexpr (Gain == NormGain::one_plus_weight)
    return Real(1) + weight[i];
  else
    return weight[i];
}
}  // namespace detail

/// y = x * rsqrt(mean x^2 + epsilon) * weight, or 1 + weight, or 1. x and y may be the same rows.
template <class Real, NormGain Gain = NormGain::weight>
struct RmsNormRow {
  View<const Real> weight;
  View<const Real, 2> x;
  View<Real, 2> y;
  Real epsilon;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index dim = x.cols;
    const Real* in = x.data + row * x.pitch;
    Real* out = y.data + row * y.pitch;
    const Real* gain = weight.data;
    const Real squares = team.sum(dim, [in](Index i) { return in[i] * in[i]; });
    const Real factor = Real(1) / std::sqrt(squares / static_cast<Real>(dim) + epsilon);
    team.for_each(dim, [=](Index i) { out[i] = in[i] * factor * detail::gain_of<Gain>(gain, i); });
  }
};

}  // namespace v1
}  // namespace guild
