// Scores of a router's logits: what rows of routing and of balancing have in common.
#pragma once

#include <cmath>
#include <guild/core/config/feed_forward.hpp>
#include <guild/core/types.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// log(1 + exp(x)), with all digits and finite for every finite x.
template <class Real>
GUILD_HD inline Real softplus(Real x) {
  return x < Real(0) ? std::log1p(std::exp(x)) : x + std::log1p(std::exp(-x));
}

/// log(sigmoid(x)), finite for every finite x.
template <class Real>
GUILD_HD inline Real log_sigmoid(Real x) {
  return x < Real(0) ? x - std::log1p(std::exp(x)) : -std::log1p(std::exp(-x));
}

/// Below this the softplus of x is exp(x) to the last bit of a double.
inline constexpr int exponential_below = -40;

/// The router's scores as a softmax of something: of the logits, or of the logarithm of scores that stand for
/// themselves, whose softmax is score / sum of scores. So scores that are all tiny still sum to one, and need no guard
/// in a denominator. Of softmax it is the logit itself.
template <class Real>
GUILD_HD inline Real log_score(Scoring scoring, Real logit) {
  if (scoring == Scoring::softmax) return logit;
  if (scoring == Scoring::sigmoid) return log_sigmoid(logit);
  return Real(0.5) * (logit < Real(exponential_below) ? logit : std::log(softplus(logit)));
}

/// Its derivative by the logit. Of sigmoid scores 1 - sigmoid(x), which is sigmoid(-x): no digits are lost where the
/// score is near 1. Of sqrt_softplus sigmoid(x) / (2 softplus(x)).
template <class Real>
GUILD_HD inline Real log_score_slope(Scoring scoring, Real logit) {
  if (scoring == Scoring::softmax) return Real(1);
  if (scoring == Scoring::sigmoid) return Real(1) / (Real(1) + std::exp(logit));
  if (logit < Real(exponential_below)) return Real(0.5);
  return Real(0.5) / ((Real(1) + std::exp(-logit)) * softplus(logit));
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
