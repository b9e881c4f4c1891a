// What the inner layers added to each slot, smoothed over slots, and the way back. Sums over slots run in their order,
// columns side by side.
#pragma once

#include <cstdint>
#include <guild/ops/common/pieces.hpp>

namespace guild {
inline namespace v1 {

/// No novelty counts as less when it weighs what a slot itself gives, and none as more than 1 less that where slots of
/// single tokens are no exception.
inline constexpr double least_smoothing_weight = 1e-4;

namespace detail {

/// Columns of slots that a piece takes.
inline constexpr Index smoothing_strip = 128;

/// The columns of a strip.
struct SlotStrip {
  Index first, count;
  GUILD_HD SlotStrip(Index piece, Index columns)
      : first(piece * smoothing_strip), count(columns - first < smoothing_strip ? columns - first : smoothing_strip) {}
  GUILD_HD static Index pieces(Index columns) { return (columns + smoothing_strip - 1) / smoothing_strip; }
};

/// Columns of what a slot gives: made - from, or all of made where `from` is null.
template <class Real>
struct SlotGift {
  const Real *made, *from;
  [[nodiscard]] GUILD_HD Real operator[](Index i) const { return from == nullptr ? made[i] : made[i] - from[i]; }
};

/// Of a novelty p: what it weighs, and whether that is p itself. `single`: where slots of single tokens are exceptions.
template <class Real>
struct SmoothingBounds {
  Real least, most;
  GUILD_HD explicit SmoothingBounds(bool singles)
      : least(static_cast<Real>(least_smoothing_weight)),
        most(singles ? Real(1) : static_cast<Real>(1.0 - least_smoothing_weight)) {}
  [[nodiscard]] GUILD_HD Real of(Real p) const { return p < least ? least : p > most ? most : p; }  // NaN stays
  [[nodiscard]] GUILD_HD bool inside(Real p) const { return p >= least && p <= most; }
};

}  // namespace detail

/// d[j] = P_j (y[j] - z[j]) + (1 - P_j) d[j - 1] for the slots of one sequence that a pass closed; without z,
/// P_j y[j] + (1 - P_j) d[j - 1]. A piece is a strip of columns.
template <class Real>
struct SmoothSlotsJob {
  View<const Real, 2> y;      ///< [M, D]: what the inner layers made of the slots
  View<const Real, 2> z{};    ///< [M, D]: the slots; or no data: zeros
  View<const Real> weights;   ///< [M]: P
  View<const Real> before{};  ///< [D]: d of the slot before slot 0, or no data: zeros
  View<Real, 2> d;            ///< [M, D]

  [[nodiscard]] GUILD_HD Index pieces() const { return d.rows > 0 ? detail::SlotStrip::pieces(d.cols) : 0; }

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const detail::SlotStrip strip(piece, d.cols);
    const Real* past = before.data == nullptr ? nullptr : before.data + strip.first;
    for (Index slot = 0; slot < d.rows; ++slot) {
      const detail::SlotGift<Real> gift{y.data + slot * y.pitch + strip.first,
                                        z.data == nullptr ? nullptr : z.data + slot * z.pitch + strip.first};
      Real* const to = d.data + slot * d.pitch + strip.first;
      const Real weight = weights.data[slot];
      if (weight == Real(1))
        team.for_each(strip.count, [=](Index i) { to[i] = gift[i]; });
      else if (past == nullptr)
        team.for_each(strip.count, [=](Index i) { to[i] = weight * gift[i]; });
      else
        team.for_each(strip.count, [=](Index i) { to[i] = weight * gift[i] + (Real(1) - weight) * past[i]; });
      past = to;
    }
  }
};

/// dd of a whole sequence becomes the gradient of d with all that follows from it: dd[j] += (1 - P_{j+1}) dd[j + 1],
/// from the last slot on. A piece is a strip of columns.
template <class Real>
struct SmoothSlotsAdjointJob {
  View<const Real> weights;  ///< [M]
  View<Real, 2> dd;          ///< [M, D]

  [[nodiscard]] GUILD_HD Index pieces() const { return dd.rows > 1 ? detail::SlotStrip::pieces(dd.cols) : 0; }

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const detail::SlotStrip strip(piece, dd.cols);
    for (Index slot = dd.rows - 2; slot >= 0; --slot) {
      const Real passed = Real(1) - weights.data[slot + 1];
      if (passed == Real(0)) continue;
      Real* const to = dd.data + slot * dd.pitch + strip.first;
      const Real* const later = to + dd.pitch;
      team.for_each(strip.count, [=](Index i) { to[i] += passed * later[i]; });
    }
  }
};

/// What each slot takes of it: dy += P dd, dz = -P dd, or 0 without z, dP = <dd, y - z - d before>. A piece is a slot.
template <class Real>
struct SmoothSlotsGradientJob {
  View<const Real, 2> y;     ///< [M, D]
  View<const Real, 2> z{};   ///< [M, D], or no data
  View<const Real> weights;  ///< [M]
  View<const Real, 2> d;     ///< [M, D]
  View<Real, 2> dd;          ///< [M, D]
  View<Real, 2> dy;          ///< [M, D]
  View<Real, 2> dz;          ///< [M, D]
  View<Real> dweights;       ///< [M]

  [[nodiscard]] GUILD_HD Index pieces() const { return d.rows; }

  template <Team T>
  GUILD_HD void operator()(T team, Index slot) const {
    const Index dim = d.cols;
    const bool whole = z.data == nullptr;
    const detail::SlotGift<Real> gift{y.data + slot * y.pitch, whole ? nullptr : z.data + slot * z.pitch};
    const Real* const along = dd.data + slot * dd.pitch;
    Real *const to_y = dy.data + slot * dy.pitch, *const to_z = dz.data + slot * dz.pitch;
    const Real weight = weights.data[slot];
    Real of_weight;
    if (slot == 0) {
      of_weight = team.sum(dim, [=](Index i) { return along[i] * gift[i]; });
    } else {
      const Real* const past = d.data + (slot - 1) * d.pitch;
      of_weight = team.sum(dim, [=](Index i) { return along[i] * (gift[i] - past[i]); });
    }
    if (team.rank() == 0) dweights.data[slot] = of_weight;
    team.for_each(dim, [=](Index i) {
      const Real of_difference = weight * along[i];
      to_y[i] += of_difference;
      to_z[i] = whole ? Real(0) : -of_difference;
    });
  }
};

/// weights[j] = p of the token that closed slot j, at least least_smoothing_weight; 1 where it closed it alone. Without
/// `single` p counts everywhere, up to 1 - least_smoothing_weight.
template <class Real>
struct SmoothingWeightsPiece {
  View<const Real> p;                ///< [n]
  View<const std::int32_t> closing;  ///< [M]
  View<const std::int32_t> single;   ///< [n], or no data
  View<Real> weights;                ///< [M]

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const PieceRange range = piece_range(piece, weights.size);
    const std::int32_t *const tokens = closing.data + range.begin, *const alone = single.data;
    const Real* const of_token = p.data;
    Real* const to = weights.data + range.begin;
    const detail::SmoothingBounds<Real> bounds(alone != nullptr);
    team.for_each(range.count, [=](Index i) {
      const Index token = tokens[i];
      to[i] = alone != nullptr && alone[token] != 0 ? Real(1) : bounds.of(of_token[token]);
    });
  }
};

/// dp[closing token of j] += dweights[j], where its p was the weight.
template <class Real>
struct SmoothingWeightsBackwardPiece {
  View<const Real> p;                ///< [n]
  View<const std::int32_t> closing;  ///< [M], all different
  View<const std::int32_t> single;   ///< [n], or no data
  View<const Real> dweights;         ///< [M]
  View<Real> dp;                     ///< [n]

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const PieceRange range = piece_range(piece, dweights.size);
    const std::int32_t *const tokens = closing.data + range.begin, *const alone = single.data;
    const Real *const from = dweights.data + range.begin, *const of_token = p.data;
    Real* const to = dp.data;
    const detail::SmoothingBounds<Real> bounds(alone != nullptr);
    team.for_each(range.count, [=](Index i) {
      const Index token = tokens[i];
      if ((alone == nullptr || alone[token] == 0) && bounds.inside(of_token[token])) to[token] += from[i];
    });
  }
};

}  // namespace v1
}  // namespace guild
