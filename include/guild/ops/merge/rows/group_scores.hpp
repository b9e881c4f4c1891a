// What a token weighs within its group, by pieces of tokens, and the way back.
#pragma once

#include <cmath>
#include <guild/ops/common/pieces.hpp>

namespace guild {
inline namespace v1 {

/// a = s + eta p, + log m where masses have data.
template <class Real>
struct GroupScoresPiece {
  View<const Real, 2> s;    ///< [n, 1]
  View<const Real> p;       ///< [n]
  View<const Real> eta;     ///< [1]
  View<const Real> masses;  ///< [n] or no data
  View<Real, 2> a;          ///< [n, 1]

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const PieceRange range = piece_range(piece, a.rows);
    const Index from_pitch = s.pitch, to_pitch = a.pitch;
    const Real* const from = s.data + range.begin * from_pitch;
    const Real* const more = p.data + range.begin;
    Real* const to = a.data + range.begin * to_pitch;
    const Real by = eta.data[0];
    if (masses.data == nullptr)
      return team.for_each(range.count, [=](Index i) { to[i * to_pitch] = from[i * from_pitch] + by * more[i]; });
    const Real* const mass = masses.data + range.begin;
    team.for_each(range.count,
                  [=](Index i) { to[i * to_pitch] = from[i * from_pitch] + by * more[i] + std::log(mass[i]); });
  }
};

/// ds = da; dp += eta da; of_eta = da p.
template <class Real>
struct GroupScoresBackwardPiece {
  View<const Real, 2> da;  ///< [n, 1]
  View<const Real> p;      ///< [n]
  View<const Real> eta;    ///< [1]
  View<Real, 2> ds;        ///< [n, 1]
  View<Real> dp;           ///< [n]
  View<Real> of_eta;       ///< [n]

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const PieceRange range = piece_range(piece, da.rows);
    const Index from_pitch = da.pitch, to_pitch = ds.pitch;
    const Real* const from = da.data + range.begin * from_pitch;
    const Real* const of_p = p.data + range.begin;
    Real* const to = ds.data + range.begin * to_pitch;
    Real* const to_p = dp.data + range.begin;
    Real* const to_eta = of_eta.data + range.begin;
    const Real by = eta.data[0];
    team.for_each(range.count, [=](Index i) {
      const Real along = from[i * from_pitch];
      to[i * to_pitch] = along;
      to_p[i] += by * along;
      to_eta[i] = along * of_p[i];
    });
  }
};

}  // namespace v1
}  // namespace guild
