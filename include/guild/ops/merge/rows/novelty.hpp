// How new a token is beside the one before it, token by token, and the way back.
#pragma once

#include <cmath>
#include <guild/device/team.hpp>
#include <guild/ops/attention/job.hpp>
#include <guild/ops/common/pieces.hpp>

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
GUILD_TEAM_INLINE GUILD_HD RowAngle<Real> angle_of(T team, const Real* q, const Real* k, Index dim) {
  const Real least = static_cast<Real>(shortest_row);
  const Real q_length = std::sqrt(team.sum(dim, [q](Index i) { return q[i] * q[i]; }));
  const Real k_length = std::sqrt(team.sum(dim, [k](Index i) { return k[i] * k[i]; }));
  const Real product = team.sum(dim, [=](Index i) { return q[i] * k[i]; });
  const Real a = q_length < least ? least : q_length, b = k_length < least ? least : k_length;
  return {q_length, k_length, product / a / b};
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
    Real sum = Real(0);
    for (Index before = begin; before < position; ++before) {
      const Real cosine = detail::angle_of(team, own, x.data + ring.row_of(before) * x.pitch, x.cols).cosine;
      sum += cosine >= margin ? cosine : alpha * (std::exp(cosine - margin) - Real(1));
    }
    if (team.rank() == 0) e.data[token] = position > begin ? sum / static_cast<Real>(position - begin) : Real(0);
  }
};

/// p[t] = sigmoid(p[t] + offset), in place; 1 for the token at position 0. Pieces of tokens.
template <class Real>
struct SigmoidNoveltyJob {
  View<const Real> offset;  ///< [1]
  Index first = 0;          ///< position of token 0
  View<Real> p;             ///< [n]

  [[nodiscard]] GUILD_HD Index pieces() const { return pieces_of(p.size); }

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const PieceRange range = piece_range(piece, p.size);
    Real* const to = p.data + range.begin;
    const Real by = offset.data[0];
    const bool begins = first + range.begin == 0;
    team.for_each(range.count,
                  [=](Index i) { to[i] = begins && i == 0 ? Real(1) : Real(1) / (Real(1) + std::exp(-(to[i] + by))); });
  }
};

/// A whole sequence on the way back, in place: dp[t] *= p[t] (1 - p[t]), 0 for the first token.
template <class Real>
struct SigmoidNoveltyGradientJob {
  View<const Real> p;  ///< [n]
  View<Real> dp;       ///< [n]

  [[nodiscard]] GUILD_HD Index pieces() const { return pieces_of(dp.size); }

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const PieceRange range = piece_range(piece, dp.size);
    const Real* const of = p.data + range.begin;
    Real* const to = dp.data + range.begin;
    const bool begins = range.begin == 0;
    team.for_each(range.count, [=](Index i) { to[i] *= begins && i == 0 ? Real(0) : of[i] * (Real(1) - of[i]); });
  }
};

}  // namespace v1
}  // namespace guild
