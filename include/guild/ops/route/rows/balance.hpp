// What the losses that balance experts need of each token and each expert, by teams: see `balance_losses`.
#pragma once

#include <cmath>
#include <cstdint>
#include <guild/core/config.hpp>
#include <guild/device/team.hpp>
#include <guild/ops/route/rows/noise.hpp>
#include <guild/ops/route/rows/scores.hpp>
#include <limits>

namespace guild {
inline namespace v1 {

namespace detail {

/// Which experts a token would choose by its logits alone, and how nearly.
template <class Real>
struct TopKBorder {
  const Real* logit;
  std::int32_t last;  ///< the k-th best expert
  std::int32_t next;  ///< the one after it

  GUILD_HD bool inside(Index e) const { return logit[e] > logit[last] || (logit[e] == logit[last] && e <= last); }
  /// The best (or, outside, the worst) that e would have to beat.
  GUILD_HD Index rival(Index e) const { return inside(e) ? next : last; }
};

/// -p log p, which is 0 at 0.
template <class Real>
GUILD_HD inline Real entropy_term(Real p) {
  return p > Real(0) ? -p * std::log(p) : Real(0);
}

}  // namespace detail

/// Logits whose noise was drawn, for the load that they might have had: the logits [T, E] before it, and what its
/// deviation follows from, softplus(spread) + 1e-2; and where the gradients of these two are added.
template <class Real>
struct DrawnNoise {
  View<const Real, 2> clean{}, spread{};
  View<Real, 2> dclean{}, dspread{};
};

/// Views of one batch that the kernels below share. Those without data belong to losses that are off.
template <class Real>
struct BalanceViews {
  TopKConfig config;
  Real noise;                          ///< deviation of the load's smooth step
  View<const Real, 2> logits;          ///< [T, E]
  View<const std::int32_t, 2> chosen;  ///< [T, K]
  View<Real, 2> probability;           ///< [T, E]: scores over their sum
  View<double> log_sum;                ///< [T]: log sum exp of the logits
  View<double> entropy;                ///< [T]: of the probabilities
  View<std::int32_t, 2> border;        ///< [T, 2]: k-th and (k + 1)-th best logit
  View<Real, 2> gates;                 ///< [T, K]: routing weights before the scale
  DrawnNoise<Real> drawn{};            ///< without data: `logits` have none, and `noise` is the deviation of all

  GUILD_HD detail::TopKBorder<Real> border_of(Index token) const {
    const std::int32_t* const at = border.data + token * border.pitch;
    return {logits.data + token * logits.pitch, at[0], at[1]};
  }
  /// The deviation of the noise of expert e.
  GUILD_HD Real deviation(Index token, Index e) const {
    return drawn.spread.data == nullptr ? noise : detail::noise_deviation(drawn.spread(token, e));
  }
  /// By how many deviations e is above what it would have to beat; negative outside of the best.
  GUILD_HD Real distance(const detail::TopKBorder<Real>& best, Index token, Index e) const {
    const Real own = drawn.clean.data == nullptr ? best.logit[e] : drawn.clean(token, e);
    return (own - best.logit[best.rival(e)]) / deviation(token, e);
  }
};

/// Fills probability, and of log_sum, entropy, border and gates what has data, for one token.
template <class Real>
struct BalanceTokenRow {
  static constexpr bool prefers_warp = true;

  BalanceViews<Real> at;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index experts = at.logits.cols, top_k = at.chosen.cols;
    const Scoring kind = at.config.scoring;
    const bool softmax = kind == Scoring::softmax;
    const Real* const logit = at.logits.data + row * at.logits.pitch;
    Real* const p = at.probability.data + row * at.probability.pitch;
    if (at.border.data != nullptr) find_border(team, logit, p, row);

    const Real peak = team.max(experts, [=](Index e) { return logit[e]; });
    if (at.log_sum.data != nullptr) {
      const Real total = team.sum(experts, [=](Index e) { return std::exp(logit[e] - peak); });
      if (team.rank() == 0) at.log_sum.data[row] = static_cast<double>(peak) + std::log(static_cast<double>(total));
    }
    const Real top = detail::log_score(kind, peak);
    const Real total =
        team.sum(experts, [=](Index e) { return p[e] = std::exp(detail::log_score(kind, logit[e]) - top); });
    team.sync();
    team.for_each(experts, [=](Index e) { p[e] /= total; });
    if (at.entropy.data != nullptr) {
      team.sync();
      const Real sum = team.sum(experts, [=](Index e) { return detail::entropy_term(p[e]); });
      if (team.rank() == 0) at.entropy.data[row] = static_cast<double>(sum);
    }
    if (at.gates.data == nullptr) return;

    // By every member alike, in the order of choice, as in the router.
    const std::int32_t* const expert = at.chosen.data + row * at.chosen.pitch;
    Real* const gate = at.gates.data + row * at.gates.pitch;
    const bool normalize = at.config.normalize;
    Real best = -std::numeric_limits<Real>::infinity();
    for (Index k = 0; k < top_k; ++k)
      if (expert[k] >= 0 && expert[k] < experts && logit[expert[k]] > best) best = logit[expert[k]];
    const Real shift = normalize ? detail::log_score(kind, best) : softmax ? top + std::log(total) : Real(0);
    Real sum = normalize ? Real(0) : Real(1);
    const auto share = [=](Index k) {
      return expert[k] >= 0 && expert[k] < experts ? std::exp(detail::log_score(kind, logit[expert[k]]) - shift)
                                                   : Real(0);
    };
    for (Index k = 0; normalize && k < top_k; ++k) sum += share(k);
    team.for_each(top_k, [=](Index k) { gate[k] = sum > Real(0) ? share(k) / sum : Real(0); });
  }

 private:
  /// `work` is overwritten.
  template <Team T>
  GUILD_HD void find_border(T team, const Real* logit, Real* work, Index row) const {
    const Index experts = at.logits.cols, top_k = at.chosen.cols;
    std::int32_t* const border = at.border.data + row * at.border.pitch;
    team.for_each(experts, [=](Index e) { work[e] = logit[e]; });
    team.sync();
    for (Index k = 0; k <= top_k && k < experts; ++k) {
      const Index best = team.argmax(experts, [=](Index e) { return work[e]; });
      team.sync();
      if (team.rank() == 0) {
        if (k + 1 == top_k) border[0] = border[1] = static_cast<std::int32_t>(best);
        if (k == top_k) border[1] = static_cast<std::int32_t>(best);
        work[best] = -std::numeric_limits<Real>::infinity();
      }
      team.sync();
    }
  }
};

/// Sums over the tokens of a sequence, in their order and in double, for one block of experts. A "row" of this kernel
/// is (sequence, block). sums [sequences * kinds, E]: row sequence * kinds + kind.
template <class Real>
struct BalanceColumns {
  static constexpr bool prefers_warp = true;
  static constexpr Index block = 8;
  enum Kind : Index { probability, best, count, gate, load, kinds };

  BalanceViews<Real> at;
  View<const Index> offsets;  ///< [sequences + 1]
  View<double, 2> sums;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index experts = at.logits.cols, blocks = (experts + block - 1) / block;
    const Index sequence = row / blocks, first = row % blocks * block;
    const Index begin = offsets.data[sequence], end = offsets.data[sequence + 1];
    double* const to = sums.data + sequence * kinds * sums.pitch;
    const Index pitch = sums.pitch;
    const BalanceViews<Real> from = at;
    team.for_each(experts - first < block ? experts - first : block, [=](Index i) {
      const Index e = first + i;
      double sum[kinds] = {};
      for (Index t = begin; t < end; ++t) {
        sum[probability] += static_cast<double>(from.probability.data[t * from.probability.pitch + e]);
        for (Index k = 0; k < from.chosen.cols; ++k) {
          if (from.chosen.data[t * from.chosen.pitch + k] != e) continue;
          sum[count] += 1.0;
          if (from.gates.data != nullptr) sum[gate] += static_cast<double>(from.gates.data[t * from.gates.pitch + k]);
        }
        if (from.border.data == nullptr) continue;
        const auto border = from.border_of(t);
        sum[best] += border.inside(e) ? 1.0 : 0.0;
        if (from.noise > Real(0))
          sum[load] += 0.5 * std::erfc(-static_cast<double>(from.distance(border, t, e)) * 0.70710678118654752);
      }
      for (Index kind = 0; kind < kinds; ++kind) to[kind * pitch + e] = sum[kind];
    });
  }
};

/// dlogits += the gradient of all losses, from their derivatives by the sums of BalanceColumns. Those without data, and
/// dlog_sum and dentropy 0, belong to losses that are off.
template <class Real>
struct BalanceGradientRow {
  BalanceViews<Real> at;
  View<const double, 2> dprobability;  ///< [sequences, E]
  View<const Index> offsets;           ///< [sequences + 1]
  View<const double> dgate;            ///< [E]
  View<const double> dload;            ///< [E]
  double dlog_sum;                     ///< times the token's log sum
  double dentropy;                     ///< of each token
  View<Real, 2> dlogits;               ///< [T, E]

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index experts = at.logits.cols, top_k = at.chosen.cols;
    const Scoring kind = at.config.scoring;
    const bool softmax = kind == Scoring::softmax, normalize = at.config.normalize;
    const Real* const logit = at.logits.data + row * at.logits.pitch;
    const Real* const p = at.probability.data + row * at.probability.pitch;
    Real* const to = dlogits.data + row * dlogits.pitch;
    // From the gradient by log_score to that by the logit.
    const auto slope = [=](Index e) { return detail::log_score_slope(kind, logit[e]); };

    const double* const dp =
        dprobability.data == nullptr ? nullptr : dprobability.data + sequence_of(row) * dprobability.pitch;
    const Real along = dp == nullptr ? Real(0) : team.sum(experts, [=](Index e) { return p[e] * Real(dp[e]); });

    const double* const dg = dgate.data;
    const std::int32_t* const expert = at.chosen.data + row * at.chosen.pitch;
    const Real* const gate = dg == nullptr ? nullptr : at.gates.data + row * at.gates.pitch;
    Real pull = Real(0);  // by every member alike
    for (Index k = 0; dg != nullptr && k < top_k; ++k)
      if (expert[k] >= 0 && expert[k] < experts) pull += gate[k] * Real(dg[expert[k]]);
    const bool pull_all = softmax && !normalize;  // the gates' denominator: all experts, the chosen, or none

    const double* const dl = dload.data;
    const auto border = dl == nullptr ? detail::TopKBorder<Real>{logit, 0, 0} : at.border_of(row);
    const BalanceViews<Real> from = at;
    const auto load_slope = [=](Index e) {
      const Real z = from.distance(border, row, e);
      return Real(dl[e]) * std::exp(Real(-0.5) * z * z) * Real(0.3989422804014327) / from.deviation(row, e);
    };
    const Real of_next = dl == nullptr
                             ? Real(0)
                             : team.sum(experts, [=](Index e) { return border.inside(e) ? load_slope(e) : Real(0); });
    const Real of_last = dl == nullptr
                             ? Real(0)
                             : team.sum(experts, [=](Index e) { return border.inside(e) ? Real(0) : load_slope(e); });

    const bool has_z = dlog_sum != 0.0;
    const Real log_sum = has_z ? Real(at.log_sum.data[row]) : Real(0), dz = Real(dlog_sum) * log_sum;
    const bool has_entropy = dentropy != 0.0;
    const Real entropy = has_entropy ? Real(at.entropy.data[row]) : Real(0), sure = Real(dentropy);
    team.for_each(experts, [=](Index e) {
      Real dscore = dp == nullptr ? Real(0) : p[e] * (Real(dp[e]) - along);
      if (pull_all) dscore -= p[e] * pull;
      if (has_entropy) dscore += sure * (detail::entropy_term(p[e]) - p[e] * entropy);
      Real sum = dscore * slope(e);
      if (has_z) sum += dz * std::exp(logit[e] - log_sum);
      if (dl != nullptr && from.drawn.clean.data == nullptr) sum += load_slope(e);
      to[e] += sum;
      if (dl == nullptr || from.drawn.clean.data == nullptr) return;
      const Real slope_here = load_slope(e);
      from.drawn.dclean(row, e) += slope_here;
      from.drawn.dspread(row, e) -=
          slope_here * from.distance(border, row, e) * detail::noise_deviation_slope(from.drawn.spread(row, e));
    });
    team.sync();
    if (team.rank() != 0) return;
    for (Index k = 0; dg != nullptr && k < top_k; ++k)
      if (expert[k] >= 0 && expert[k] < experts)
        to[expert[k]] += gate[k] * (Real(dg[expert[k]]) - (normalize ? pull : Real(0))) * slope(expert[k]);
    if (dl != nullptr) {
      to[border.next] -= of_next;
      to[border.last] -= of_last;
    }
  }

 private:
  GUILD_HD Index sequence_of(Index row) const {  // the last that begins at or before the row: some may be empty
    Index low = 0, high = offsets.size - 1;
    while (high - low > 1) {
      const Index middle = low + (high - low) / 2;
      (offsets.data[middle] <= row ? low : high) = middle;
    }
    return low;
  }
};

}  // namespace v1
}  // namespace guild
