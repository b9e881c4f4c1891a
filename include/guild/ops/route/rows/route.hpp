// The choice of experts for one token by a team.
#pragma once

#include <cmath>
#include <cstdint>
#include <guild/core/config.hpp>
#include <guild/device/team.hpp>
#include <guild/ops/route/rows/scores.hpp>
#include <limits>

namespace guild {
inline namespace v1 {

/// Scores, limits to groups, chooses top_k experts and weighs them: see `route` for the contract.
/// A row with a logit that is not finite gets indices -1 and weights 0. Choices that were given are weighed alone; one
/// outside of the experts has weight 0.
template <class Real>
struct RouterRow {
  static constexpr bool prefers_warp = true;  ///< on CUDA: many reductions over few experts

  TopKConfig config;
  View<const Real, 2> logits;     ///< [T, E]
  View<const Real> bias;          ///< [E] or empty
  View<Real, 2> work;             ///< [T, E + groups]: choice of each expert, then score of each group
  View<std::int32_t, 2> indices;  ///< [T, K]
  View<Real, 2> weights;          ///< [T, K]
  bool given = false;             ///< indices are read, not written

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    constexpr Real lowest = -std::numeric_limits<Real>::infinity();
    const Index experts = config.experts;
    const Index top_k = config.top_k;
    const Real* const logit = logits.data + row * logits.pitch;
    const Real* const shift = bias.data;
    Real* const choice = work.data + row * work.pitch;
    std::int32_t* const chosen = indices.data + row * indices.pitch;
    Real* const weight = weights.data + row * weights.pitch;

    // x - x is 0 for finite x and NaN otherwise, and one NaN makes the sum NaN.
    const Real finite = team.sum(experts, [logit](Index e) { return logit[e] - logit[e]; });
    if (finite != finite) {
      team.for_each(top_k, [=](Index k) {
        chosen[k] = -1;
        weight[k] = Real(0);
      });
      return;
    }

    const bool softmax = config.scoring == Scoring::softmax;
    const Real peak = softmax ? team.max(experts, [logit](Index e) { return logit[e]; }) : Real(0);
    const Real total = softmax ? team.sum(experts, [=](Index e) { return std::exp(logit[e] - peak); }) : Real(1);
    const bool root = config.scoring == Scoring::sqrt_softplus;
    const auto score = [=](Index e) {
      if (root) return std::sqrt(detail::softplus(logit[e]));
      // One exponential and one division for both: exp(x - peak) / total, or 1 / (1 + exp(-x)).
      const Real power = std::exp(softmax ? logit[e] - peak : -logit[e]);
      return (softmax ? power : Real(1)) / (softmax ? total : Real(1) + power);
    };
    if (given) {
      team.for_each(top_k,
                    [=](Index k) { weight[k] = chosen[k] >= 0 && chosen[k] < experts ? score(chosen[k]) : Real(0); });
      team.sync();
      return weigh(team, weight, top_k);
    }
    team.for_each(experts, [=](Index e) { choice[e] = shift != nullptr ? score(e) + shift[e] : score(e); });
    team.sync();
    if (config.selection != Selection::greedy && config.groups > 1) keep_best_groups(team, choice, experts);

    for (Index k = 0; k < top_k; ++k) {
      const Index best = team.argmax(experts, [choice](Index e) { return choice[e]; });
      team.sync();  // nobody still reads what is changed next
      if (team.rank() == 0) {
        chosen[k] = static_cast<std::int32_t>(best);
        weight[k] = score(best);
        choice[best] = lowest;
      }
      team.sync();
    }

    weigh(team, weight, top_k);
  }

 private:
  /// From scores to weights.
  template <Team T>
  GUILD_HD void weigh(T team, Real* weight, Index top_k) const {
    // Added in the order of choice by every member alike: top_k is small, and the order does not depend on the team.
    Real sum = Real(1);
    if (config.normalize) {
      sum = Real(1e-20);
      for (Index k = 0; k < top_k; ++k) sum += weight[k];
    }
    const auto scale = static_cast<Real>(config.scale);
    team.sync();
    team.for_each(top_k, [=](Index k) { weight[k] = weight[k] / sum * scale; });
  }

  /// Sets the choice of every expert outside the best groups to -infinity.
  template <Team T>
  GUILD_HD void keep_best_groups(T team, Real* choice, Index experts) const {
    constexpr Real lowest = -std::numeric_limits<Real>::infinity();
    const Index groups = config.groups, size = experts / groups;
    const bool sum_of_two = config.selection == Selection::noaux_tc;
    Real* const group = choice + experts;
    team.for_each(groups, [=](Index g) {
      Real first = lowest, second = lowest;
      for (Index e = g * size; e < (g + 1) * size; ++e) {
        const Real value = choice[e];
        if (value > first) {
          second = first;
          first = value;
        } else if (value > second) {
          second = value;
        }
      }
      group[g] = sum_of_two ? first + second : first;
    });
    team.sync();
    for (Index k = 0; k < config.top_groups; ++k) {
      const Index best = team.argmax(groups, [group](Index g) { return group[g]; });
      team.sync();
      if (team.rank() == 0) group[best] = std::numeric_limits<Real>::quiet_NaN();  // marks it; NaN never wins again
      team.sync();
    }
    const auto divisor = static_cast<std::int32_t>(size);  // 64-bit division is slow on CUDA
    team.for_each(experts, [=](Index e) {
      const std::int32_t g = static_cast<std::int32_t>(e) / divisor;
      if (group[g] == group[g]) choice[e] = lowest;
    });
    team.sync();
  }
};

/// From the gradients of the chosen weights to those of all logits: see `route_backward`. With w = scale * s / N and
/// N = (sum of the chosen s) + 1e-20 if normalised, or 1:
///   ds_k = (scale * dw_k - sum_j dw_j w_j) / N, or scale * dw_k;
///   sigmoid: dlogit_k = ds_k s_k (1 - s_k); softmax: dlogit_e = s_e (ds_e - sum_j ds_j s_j) over all experts;
///   sqrt_softplus: dlogit_k = ds_k sigmoid(logit_k) / (2 s_k).
/// A choice outside of the experts (-1: a row that was not routed) has no gradient.
template <class Real>
struct RouteBackwardRow {
  static constexpr bool prefers_warp = true;

  TopKConfig config;
  View<const Real, 2> logits;           ///< [T, E]
  View<const std::int32_t, 2> indices;  ///< [T, K]
  View<const Real, 2> weights;          ///< [T, K]
  View<const Real, 2> dweights;         ///< [T, K]
  View<Real, 2> dlogits;                ///< [T, E]

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index experts = dlogits.cols, top_k = indices.cols;
    const Real* const logit = logits.data + row * logits.pitch;
    const std::int32_t* const chosen = indices.data + row * indices.pitch;
    const Real* const weight = weights.data + row * weights.pitch;
    const Real* const dweight = dweights.data + row * dweights.pitch;
    Real* const dlogit = dlogits.data + row * dlogits.pitch;

    const Scoring kind = config.scoring;
    const bool softmax = kind == Scoring::softmax, root = kind == Scoring::sqrt_softplus;
    const Real peak = softmax ? team.max(experts, [logit](Index e) { return logit[e]; }) : Real(0);
    const Real total = softmax ? team.sum(experts, [=](Index e) { return std::exp(logit[e] - peak); }) : Real(1);
    const auto score = [=](Index e) {
      if (root) return std::sqrt(detail::softplus(logit[e]));
      const Real power = std::exp(softmax ? logit[e] - peak : -logit[e]);
      return (softmax ? power : Real(1)) / (softmax ? total : Real(1) + power);
    };
    const auto exists = [=](Index k) { return chosen[k] >= 0 && chosen[k] < experts; };

    // Sums over the few choices: by every member alike, in the order of choice.
    Real norm = Real(1), pull = Real(0);
    if (config.normalize) {
      norm = Real(1e-20);
      for (Index k = 0; k < top_k; ++k) {
        if (!exists(k)) continue;
        norm += score(chosen[k]);
        pull += dweight[k] * weight[k];
      }
    }
    const auto scale = static_cast<Real>(config.scale);
    const auto dscore = [=](Index k) { return (scale * dweight[k] - pull) / norm; };
    Real along = Real(0);
    for (Index k = 0; softmax && k < top_k; ++k)
      if (exists(k)) along += dscore(k) * score(chosen[k]);

    team.for_each(experts, [=](Index e) { dlogit[e] = softmax ? -score(e) * along : Real(0); });
    team.sync();
    team.for_each(top_k, [=](Index k) {
      if (!exists(k)) return;
      const Real s = score(chosen[k]);
      const Real slope = detail::log_score_slope(kind, logit[chosen[k]]);
      dlogit[chosen[k]] += dscore(k) * s * slope;
    });
  }
};

}  // namespace v1
}  // namespace guild
