// Rounds of Sinkhorn's iteration over tokens and experts: see guild/ops/route/sinkhorn.hpp.
#pragma once

#include <cmath>
#include <guild/core/view.hpp>
#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

/// What the kernels share.
template <class Real>
struct SinkhornViews {
  View<const Real, 2> logits;  ///< [T, E]
  View<double, 2> cost;        ///< [T, E]: exp(logit - largest of the token)
  View<double> rows;           ///< [T]: d0
  View<double> columns;        ///< [E]: d1
  View<double> change;         ///< [E]: of d1 in the last round
  View<double> done;           ///< [1]: 1 where the rounds are over: later ones do nothing
};

/// cost of a token.
template <class Real>
struct SinkhornCostRow {
  SinkhornViews<Real> at;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Real* const logit = at.logits.data + row * at.logits.pitch;
    double* const to = at.cost.data + row * at.cost.pitch;
    const Index experts = at.logits.cols;
    const Real peak = team.max(experts, [=](Index e) { return logit[e]; });
    team.for_each(experts, [=](Index e) { to[e] = std::exp(static_cast<double>(logit[e] - peak)); });
  }
};

/// d0 of a token = 1 / (T sum_e d1_e cost_te).
template <class Real>
struct SinkhornTokenRow {
  SinkhornViews<Real> at;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    if (at.done.data[0] > 0.0) return;
    const double* const cost = at.cost.data + row * at.cost.pitch;
    const double* const column = at.columns.data;
    const double sum = team.sum(at.cost.cols, [=](Index e) { return column[e] * cost[e]; });
    if (team.rank() == 0) at.rows.data[row] = 1.0 / (static_cast<double>(at.cost.rows) * sum);
  }
};

/// d1 of a block of experts = 1 / (E (sum_t d0_t cost_te + 1e-8)), over tokens in their order.
template <class Real>
struct SinkhornExpertsRow {
  static constexpr bool prefers_warp = true;
  static constexpr Index block = 8;

  SinkhornViews<Real> at;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    if (at.done.data[0] > 0.0) return;
    const SinkhornViews<Real> from = at;
    const Index experts = at.cost.cols, first = row * block;
    team.for_each(experts - first < block ? experts - first : block, [=](Index i) {
      const Index e = first + i;
      double sum = 1e-8;
      for (Index t = 0; t < from.cost.rows; ++t) sum += from.rows.data[t] * from.cost.data[t * from.cost.pitch + e];
      const double fresh = 1.0 / (static_cast<double>(experts) * sum);
      from.change.data[e] = std::fabs(from.columns.data[e] - fresh);
      from.columns.data[e] = fresh;
    });
  }
};

/// Are the rounds over?
template <class Real>
struct SinkhornStopRow {
  SinkhornViews<Real> at;
  double tolerance;

  template <Team T>
  GUILD_HD void operator()(T team, Index) const {
    const double* const change = at.change.data;
    const double sum = team.sum(at.change.size, [=](Index e) { return change[e]; });
    if (team.rank() == 0 && sum <= tolerance * static_cast<double>(at.change.size)) at.done.data[0] = 1.0;
  }
};

/// balanced = logit + log d1: the logarithm of the normalised matrix, up to a constant of each token.
template <class Real>
struct SinkhornLogitsRow {
  SinkhornViews<Real> at;
  View<Real, 2> balanced;  ///< [T, E]

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Real* const logit = at.logits.data + row * at.logits.pitch;
    Real* const to = balanced.data + row * balanced.pitch;
    const double* const column = at.columns.data;
    team.for_each(balanced.cols,
                  [=](Index e) { to[e] = static_cast<Real>(static_cast<double>(logit[e]) + std::log(column[e])); });
  }
};

}  // namespace v1
}  // namespace guild
