// LayerNorm of one row by a team, and its gradients: of the input by rows, of weight and bias by sums over blocks of
// rows, then over blocks.
#pragma once

#include <cmath>
#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// What a row is normalised by: its mean, and 1 / sqrt(variance + epsilon), the variance around that mean.
template <class Real>
struct RowMoments {
  Real mean, factor;
};
template <class Real, Team T>
GUILD_TEAM_INLINE GUILD_HD RowMoments<Real> moments_of(T team, const Real* in, Index dim, Real epsilon) {
  const Real mean = team.sum(dim, [in](Index i) { return in[i]; }) / static_cast<Real>(dim);
  const Real squares = team.sum(dim, [=](Index i) { return (in[i] - mean) * (in[i] - mean); });
  return {mean, Real(1) / std::sqrt(squares / static_cast<Real>(dim) + epsilon)};
}

}  // namespace detail

/// y = (x - mean x) / sqrt(variance x + epsilon) * weight + bias. x and y may be the same rows.
template <class Real>
struct LayerNormRow {
  View<const Real> weight;
  View<const Real> bias;
  View<const Real, 2> x;
  View<Real, 2> y;
  Real epsilon;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Real* const in = x.data + row * x.pitch;
    Real* const out = y.data + row * y.pitch;
    const Real *const gain = weight.data, *const shift = bias.data;
    const auto [mean, factor] = detail::moments_of(team, in, x.cols, epsilon);
    const Real m = mean, r = factor;
    team.for_each(x.cols, [=](Index i) { out[i] = (in[i] - m) * r * gain[i] + shift[i]; });
  }
};

/// One block of rows. With z = (x - mean x) r and g = weight dy of a row: dx = r (g - mean g - z mean(g z));
/// partial[block] = the block's sums of dy z, and behind them of dy, in the order of rows. dx may be dy.
template <class Real>
struct LayerNormBackwardBlock {
  static constexpr Index rows = 32;  ///< of a block

  View<const Real> weight;
  View<const Real, 2> x;
  View<const Real, 2> dy;
  View<Real, 2> dx;
  View<Real, 2> partial;  ///< [blocks, 2 * D]
  Real epsilon;

  template <Team T>
  GUILD_HD void operator()(T team, Index block) const {
    const Index dim = x.cols, end = (block + 1) * rows < x.rows ? (block + 1) * rows : x.rows;
    const Real* const gain = weight.data;
    Real* const gains = partial.data + block * partial.pitch;
    Real* const shifts = gains + dim;
    team.for_each(2 * dim, [=](Index i) { gains[i] = Real(0); });
    team.sync();
    for (Index row = block * rows; row < end; ++row) {
      const Real* const in = x.data + row * x.pitch;
      const Real* const grad = dy.data + row * dy.pitch;
      Real* const out = dx.data + row * dx.pitch;
      const auto [mean, factor] = detail::moments_of(team, in, dim, epsilon);
      const Real m = mean, r = factor;
      const Real level = team.sum(dim, [=](Index i) { return gain[i] * grad[i]; }) / static_cast<Real>(dim);
      const Real along =
          team.sum(dim, [=](Index i) { return gain[i] * grad[i] * (in[i] - m) * r; }) / static_cast<Real>(dim);
      team.for_each(dim, [=](Index i) {
        const Real z = (in[i] - m) * r;
        gains[i] += grad[i] * z;
        shifts[i] += grad[i];
        out[i] = r * (gain[i] * grad[i] - level - z * along);
      });
    }
  }
};

}  // namespace v1
}  // namespace guild
