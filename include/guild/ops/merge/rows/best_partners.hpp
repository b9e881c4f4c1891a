// How alike tokens of a sequence are: the partner of each, and how redundant it is among all. Rows have a length of 1,
// so products are cosines.
#pragma once

#include <cmath>
#include <cstdint>
#include <guild/device/team.hpp>
#include <guild/ops/merge/rows/energy.hpp>

namespace guild {
inline namespace v1 {

/// Below every cosine: the similarity of a token without a partner.
inline constexpr float no_similarity = -2.0f;

/// unit = x / |x|, zeros for a row of zeros or of what is no number. A row is a token.
template <class Real>
struct UnitRow {
  View<const Real, 2> x;  ///< [n, D]
  View<Real, 2> unit;     ///< [n, D]

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Real* const in = x.data + row * x.pitch;
    Real* const out = unit.data + row * unit.pitch;
    const Real length = std::sqrt(team.sum(x.cols, [in](Index i) { return in[i] * in[i]; }));
    if (!(length > Real(0))) return team.for_each(x.cols, [=](Index i) { out[i] = Real(0); });
    team.for_each(x.cols, [=](Index i) { out[i] = in[i] / length; });
  }
};

/// partner[i] = the row of the list `to` that is most like row from[i], the first of equals. A piece is an i.
template <class Real>
struct BestPartnersJob {
  View<const Real, 2> unit;       ///< [n, D]: of a sequence
  View<const std::int32_t> from;  ///< [A]: rows of it
  View<const std::int32_t> to;    ///< [B]
  Index reach = 0;                ///< from[i] sees to[j] of |j - i - shift| < reach alone; 0: all
  Index shift = 0;                ///< see reach
  View<std::int32_t> partner;     ///< [A]: a row of the sequence, -1: none
  View<float> similarity;         ///< [A]: the cosine, or no_similarity

  [[nodiscard]] GUILD_HD Index pieces() const { return from.size; }

  template <Team T>
  GUILD_HD void operator()(T team, Index i) const {
    const Real* const row = unit.data + from.data[i] * unit.pitch;
    const Index middle = i + shift;
    const Index begin = reach == 0 || middle < reach ? 0 : middle - reach + 1;
    const Index end = reach == 0 || middle + reach > to.size ? to.size : middle + reach;
    Real best = static_cast<Real>(no_similarity);
    Index at = -1;
    for (Index j = begin; j < end; ++j) {
      const Real* const other = unit.data + to.data[j] * unit.pitch;
      const Real cosine = team.sum(unit.cols, [=](Index c) { return row[c] * other[c]; });
      if (cosine > best) best = cosine, at = j;  // never for NaN
    }
    if (team.rank() != 0) return;
    partner.data[i] = at < 0 ? -1 : to.data[at];
    similarity.data[i] = static_cast<float>(best);
  }
};

/// energy[i] = the mean over j other than i of f(cos(row i, row j)) with f(c) = c from `margin` on, and
/// alpha (e^(c - margin) - 1) below it. A piece is an i.
template <class Real>
struct MatchEnergyJob {
  View<const Real, 2> unit;     ///< [n, D]: of a sequence
  View<const std::int32_t> of;  ///< [U]: rows of it
  Real margin, alpha;
  View<float> energy;  ///< [U]: no_similarity where it is no number

  [[nodiscard]] GUILD_HD Index pieces() const { return of.size; }

  template <Team T>
  GUILD_HD void operator()(T team, Index i) const {
    const Real* const row = unit.data + of.data[i] * unit.pitch;
    Real sum = Real(0);
    for (Index j = 0; j < of.size; ++j) {
      if (j == i) continue;
      const Real* const other = unit.data + of.data[j] * unit.pitch;
      const Real cosine = team.sum(unit.cols, [=](Index c) { return row[c] * other[c]; });
      sum += detail::energy_of(cosine, margin, alpha);
    }
    if (team.rank() != 0) return;
    const Real mean = of.size > 1 ? sum / static_cast<Real>(of.size - 1) : Real(0);
    energy.data[i] = mean > static_cast<Real>(no_similarity) ? static_cast<float>(mean) : no_similarity;
  }
};

}  // namespace v1
}  // namespace guild
