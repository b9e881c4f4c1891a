// What the ratio loss of merging counts and pulls, by one team and by pieces of tokens.
#pragma once

#include <guild/ops/common/pieces.hpp>

namespace guild {
inline namespace v1 {

/// Of one span, summed over passes.
struct MergeTerms {
  double loss = 0.0;    ///< the ratio loss, without its weight
  double slots = 0.0;   ///< groups closed
  double tokens = 0.0;  ///< that could close them
  double novel = 0.0;   ///< of the tokens those whose novelty wants it, granted or not
  GUILD_HD MergeTerms& operator+=(const MergeTerms& other) {
    loss += other.loss;
    slots += other.slots;
    tokens += other.tokens;
    novel += other.novel;
    return *this;
  }
  /// The share of tokens that closed a group; 0 of none.
  [[nodiscard]] double share() const { return tokens > 0.0 ? slots / tokens : 0.0; }
};

/// novel G + familiar (1 - G), G the mean of p, summed in double; and what is counted beside it.
template <class Real>
struct RatioLossRow {
  View<const Real> p;      ///< [n]
  double novel, familiar;  ///< what the loss counts of G and of 1 - G
  MergeTerms counted;      ///< without its loss
  View<MergeTerms> terms;  ///< [1], added to

  template <Team T>
  GUILD_HD void operator()(T team, Index) const {
    const Real* const from = p.data;
    const double tokens = static_cast<double>(p.size);
    const double mean = team.sum(p.size, [from](Index i) { return static_cast<double>(from[i]); }) / tokens;
    if (team.rank() != 0) return;
    terms.data[0] += counted;
    terms.data[0].loss += novel * mean + familiar * (1.0 - mean);
  }
};

/// dp += slope.
template <class Real>
struct AddSlopePiece {
  View<Real> dp;  ///< [n]
  Real slope;

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const PieceRange range = piece_range(piece, dp.size);
    Real* const to = dp.data + range.begin;
    const Real by = slope;
    team.for_each(range.count, [=](Index i) { to[i] += by; });
  }
};

}  // namespace v1
}  // namespace guild
