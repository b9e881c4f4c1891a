// How new a token is beside the one before it, token by token, and the way back.
#pragma once

#include <cmath>
#include <guild/device/team.hpp>
#include <guild/ops/attention/job.hpp>
#include <guild/ops/merge/rows/energy.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// No row counts as shorter than this when it is normalised.
inline constexpr double shortest_row = 1e-12;

/// What the angle between two rows needs.
template <class Real>
struct RowAngle {
  Real q_length, k_length, cosine;
};
template <class Real, Team T>
GUILD_TEAM_INLINE GUILD_HD Real length_of(T team, const Real* row, Index dim) {
  return std::sqrt(team.sum(dim, [row](Index i) { return row[i] * row[i]; }));
}
template <class Real, Team T>
GUILD_TEAM_INLINE GUILD_HD RowAngle<Real> angle_of(T team, const Real* q, Real q_length, const Real* k, Index dim) {
  const Real least = static_cast<Real>(shortest_row);
  const Real k_length = length_of(team, k, dim);
  const Real product = team.sum(dim, [=](Index i) { return q[i] * k[i]; });
  const Real a = q_length < least ? least : q_length, b = k_length < least ? least : k_length;
  return {q_length, k_length, product / a / b};
}
template <class Real, Team T>
GUILD_TEAM_INLINE GUILD_HD RowAngle<Real> angle_of(T team, const Real* q, const Real* k, Index dim) {
  return angle_of(team, q, length_of(team, q, dim), k, dim);
}

}  // namespace detail

/// p[t] = (1 - cos(q[t], k[before t])) / 2, see novelty. A piece is a token.
template <class Real>
struct NoveltyJob {
  View<const Real, 2> q;     ///< [n, R]
  View<const Real, 2> keys;  ///< [.., R]: the k of each position, as `ring` says
  Index first = 0;           ///< position of token 0: positions up to first + n have their k, or had
  View<Real> p;              ///< [n]
  RingRows ring{};

  [[nodiscard]] GUILD_HD Index pieces() const { return q.rows; }

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    const Index position = first + token;
    Real novelty = Real(1);
    if (position > 0) {
      const Real* const before = keys.data + ring.row_of(position - 1) * keys.pitch;
      novelty = (Real(1) - detail::angle_of(team, q.data + token * q.pitch, before, q.cols).cosine) / Real(2);
      novelty = novelty < Real(0) ? Real(0) : novelty > Real(1) ? Real(1) : novelty;  // NaN stays
    }
    if (team.rank() == 0) p.data[token] = novelty;
  }
};

/// A whole sequence of n tokens on the way back; dq and dk are overwritten. A piece is a token with the k before it:
/// dq = -dp / 2 (k / |k| - cos q / |q|) / |q|, and dk with q and k exchanged; a row that counts as longer than it is
/// has a gradient of the product alone.
template <class Real>
struct NoveltyGradientJob {
  View<const Real, 2> q;  ///< [n, R]
  View<const Real, 2> k;  ///< [n, R]
  View<const Real> dp;    ///< [n]
  View<Real, 2> dq;       ///< [n, R]
  View<Real, 2> dk;       ///< [n, R]

  [[nodiscard]] GUILD_HD Index pieces() const { return q.rows; }

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    const Index dim = q.cols, before = token == 0 ? q.rows - 1 : token - 1;
    Real* const to_q = dq.data + token * dq.pitch;
    Real* const to_k = dk.data + before * dk.pitch;
    if (token == 0) {  // new whatever it is, and no token follows the last k
      team.for_each(dim, [=](Index i) { to_q[i] = to_k[i] = Real(0); });
      return;
    }
    const Real* const of_q = q.data + token * q.pitch;
    const Real* const of_k = k.data + before * k.pitch;
    const detail::RowAngle<Real> angle = detail::angle_of(team, of_q, of_k, dim);
    const Real least = static_cast<Real>(detail::shortest_row), along = -dp.data[token] / Real(2);
    const Real a = Real(1) / (angle.q_length < least ? least : angle.q_length);
    const Real b = Real(1) / (angle.k_length < least ? least : angle.k_length);
    const Real pull_q = angle.q_length < least ? Real(0) : angle.cosine;
    const Real pull_k = angle.k_length < least ? Real(0) : angle.cosine;
    team.for_each(dim, [=](Index i) {
      const Real unit_q = of_q[i] * a, unit_k = of_k[i] * b;
      to_q[i] = along * a * (unit_k - pull_q * unit_q);
      to_k[i] = along * b * (unit_q - pull_k * unit_k);
    });
  }
};

/// e[t] = the mean of f(cos(x[t], x[s])) over the `window` tokens s before t, see token_energy. A piece is a token.
template <class Real>
struct TokenEnergyJob {
  View<const Real, 2> x;  ///< [.., D]: the row of each position, as `ring` says
  Index first = 0;        ///< position of token 0
  Index window = 0;
  Real margin, alpha;
  View<Real> e;  ///< [n]
  RingRows ring{};

  [[nodiscard]] GUILD_HD Index pieces() const { return e.size; }

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    const Index position = first + token, begin = position > window ? position - window : 0;
    const Real* const own = x.data + ring.row_of(position) * x.pitch;
    const Real length = detail::length_of(team, own, x.cols);
    Real sum = Real(0);
    for (Index before = begin; before < position; ++before) {
      const Real* const other = x.data + ring.row_of(before) * x.pitch;
      sum += detail::energy_of(detail::angle_of(team, own, length, other, x.cols).cosine, margin, alpha);
    }
    if (team.rank() == 0) e.data[token] = position > begin ? sum / static_cast<Real>(position - begin) : Real(0);
  }
};

}  // namespace v1
}  // namespace guild
