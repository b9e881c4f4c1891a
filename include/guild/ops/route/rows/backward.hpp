// Gradient of one token's routing weights by a team.
#pragma once

#include <cmath>
#include <cstdint>
#include <guild/core/config.hpp>
#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

/// From the gradients of the chosen weights to those of all logits: see `route_backward`. With w = scale * s / N and
/// N = (sum of the chosen s) + 1e-20 if normalised, or 1:
///   ds_k = (scale * dw_k - sum_j dw_j w_j) / N, or scale * dw_k;
///   sigmoid: dlogit_k = ds_k s_k (1 - s_k); softmax: dlogit_e = s_e (ds_e - sum_j ds_j s_j) over all experts.
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

    const bool softmax = config.scoring == Scoring::softmax;
    const Real peak = softmax ? team.max(experts, [logit](Index e) { return logit[e]; }) : Real(0);
    const Real total = softmax ? team.sum(experts, [=](Index e) { return std::exp(logit[e] - peak); }) : Real(1);
    const auto score = [=](Index e) {
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
      // 1 - sigmoid(x) is sigmoid(-x): no digits are lost where the score is near 1.
      const Real slope = softmax ? Real(1) : Real(1) / (Real(1) + std::exp(logit[chosen[k]]));
      dlogit[chosen[k]] += dscore(k) * s * slope;
    });
  }
};

}  // namespace v1
}  // namespace guild
