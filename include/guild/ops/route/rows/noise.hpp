// Noise of routers for one token by a team: see guild/ops/route/noise.hpp.
#pragma once

#include <guild/core/view.hpp>
#include <guild/device/team.hpp>
#include <guild/ops/common/exponential.hpp>
#include <guild/ops/common/rows/draws.hpp>
#include <guild/ops/route/rows/scores.hpp>

namespace guild {
inline namespace v1 {

namespace detail {
/// The deviation of a logit's noise is softplus(spread) + this (tensor2tensor, noisy_top_k_gating).
inline constexpr double least_deviation = 1e-2;

GUILD_HD inline double noise_deviation(double spread) { return softplus(spread) + least_deviation; }
/// In float a body that becomes vectors: log(1 + t) = 2 artanh(t / (2 + t)), t from 0 to 1.
GUILD_HD inline float noise_deviation(float spread) {
  const float t = exponential(spread < 0.0f ? spread : -spread), s = t / (2.0f + t), z = s * s;
  float p = 1.0f / 13.0f;
  p = p * z + 1.0f / 11.0f;
  p = p * z + 1.0f / 9.0f;
  p = p * z + 1.0f / 7.0f;
  p = p * z + 1.0f / 5.0f;
  p = p * z + 1.0f / 3.0f;
  return (spread > 0.0f ? spread : 0.0f) + 2.0f * s * (p * z + 1.0f) + static_cast<float>(least_deviation);
}
/// Its derivative: sigmoid(spread).
template <class Real>
GUILD_HD inline Real noise_deviation_slope(Real spread) {
  return Real(1) / (Real(1) + exponential(-spread));
}
}  // namespace detail

/// noisy = clean + z * deviation(spread), z standard normal.
template <class Real>
struct NoisyLogitsRow {
  Draws draws;
  View<const Real, 2> clean, spread;  ///< [T, E]
  View<Real, 2> noisy;                ///< [T, E]

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Real* const from = clean.data + row * clean.pitch;
    const Real* const wide = spread.data + row * spread.pitch;
    Real* const to = noisy.data + row * noisy.pitch;
    const Draws random = draws;
    team.for_each(noisy.cols, [=](Index e) {
      to[e] = from[e] + static_cast<Real>(random.normal(row, e)) * detail::noise_deviation(wide[e]);
    });
  }
};

/// noisy = logit + Gumbel noise.
template <class Real>
struct GumbelLogitsRow {
  Draws draws;
  View<const Real, 2> logits;  ///< [T, E]
  View<Real, 2> noisy;         ///< [T, E]

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Real* const from = logits.data + row * logits.pitch;
    Real* const to = noisy.data + row * noisy.pitch;
    const Draws random = draws;
    team.for_each(noisy.cols, [=](Index e) { to[e] = from[e] + static_cast<Real>(random.gumbel(row, e)); });
  }
};

/// y = x * u, u uniform in (1 - amount, 1 + amount).
template <class Real>
struct JitterRow {
  Draws draws;
  double amount;
  View<const Real, 2> x;  ///< [T, D]
  View<Real, 2> y;        ///< [T, D]

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Real* const from = x.data + row * x.pitch;
    Real* const to = y.data + row * y.pitch;
    const Draws random = draws;
    const double width = amount;
    team.for_each(y.cols, [=](Index i) {
      to[i] = from[i] * static_cast<Real>(1.0 + width * (2.0 * random.uniform(row, i) - 1.0));
    });
  }
};

/// dspread += dnoisy * z * sigmoid(spread): the same z.
template <class Real>
struct NoisyLogitsBackwardRow {
  Draws draws;
  View<const Real, 2> spread, dnoisy;  ///< [T, E]
  View<Real, 2> dspread;               ///< [T, E]

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Real* const wide = spread.data + row * spread.pitch;
    const Real* const from = dnoisy.data + row * dnoisy.pitch;
    Real* const to = dspread.data + row * dspread.pitch;
    const Draws random = draws;
    team.for_each(dspread.cols, [=](Index e) {
      to[e] += from[e] * static_cast<Real>(random.normal(row, e)) * detail::noise_deviation_slope(wide[e]);
    });
  }
};

}  // namespace v1
}  // namespace guild
