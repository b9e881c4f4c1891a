#include <gtest/gtest.h>

#include <guild/device/cpu.hpp>
#include <guild/ops/route/route.hpp>
#include <limits>

#include "../gradient_check.hpp"

namespace route_backward_test {
using namespace guild_test;
using guild::Scoring;
using guild::Selection;

/// Logits in steps of 1 / 8, all different within a row: far from ties.
Matrix<double> distinct_logits(Index tokens, Index experts) {
  Matrix<double> logits(tokens, experts, experts + 2);
  for (Index t = 0; t < tokens; ++t)
    for (Index e = 0; e < experts; ++e) logits(t, e) = double((e * 7 + t * 5) % experts) / 8.0 - double(experts) / 16.0;
  return logits;
}

void expect_central_differences(const guild::TopKConfig& config, const std::vector<double>& bias) {
  guild::Cpu device({.threads = 2});
  std::mt19937 random(3);
  const Index tokens = 4, experts = config.experts, top_k = config.top_k;
  auto logits = distinct_logits(tokens, experts);
  Matrix<double> weights(tokens, top_k, top_k + 1), dweights(tokens, top_k), dlogits(tokens, experts, experts + 1);
  Matrix<std::int32_t> indices(tokens, top_k), kept(tokens, top_k);
  dweights.fill_normal(random);
  const auto value = [&] {
    guild::route(device, config, logits.view(), view_of(bias), indices.view(), weights.view());
    if (indices.data != kept.data) throw std::runtime_error("the choice changed: logits are too near to a tie");
    return dot(weights, dweights);
  };
  guild::route(device, config, logits.view(), view_of(bias), kept.view(), weights.view());
  guild::route_backward(device, config, logits.view(), kept.view(), weights.view(), dweights.view(), dlogits.view());
  EXPECT_TRUE(dlogits.padding_is_untouched());
  expect_gradient(logits, dlogits, value, "logit");

  auto logits_f = cast<float>(logits), weights_f = cast<float>(weights), dweights_f = cast<float>(dweights),
       dlogits_f = cast<float>(dlogits);
  guild::route_backward(device, config, logits_f.view(), kept.view(), weights_f.view(), dweights_f.view(),
                        dlogits_f.view());
  expect_near(dlogits_f, dlogits, 3e-6);
}

TEST(RouteBackward, EqualsCentralDifferencesForEveryKindOfRouter) {
  for (Scoring scoring : {Scoring::sigmoid, Scoring::softmax, Scoring::sqrt_softplus})
    for (bool normalize : {false, true})
      for (Selection selection : {Selection::greedy, Selection::group_limited_greedy, Selection::noaux_tc}) {
        SCOPED_TRACE(std::to_string(int(scoring)) + std::to_string(normalize) + std::to_string(int(selection)));
        const guild::TopKConfig config{.experts = 12,
                                       .top_k = 3,
                                       .groups = 3,
                                       .top_groups = 2,
                                       .scoring = scoring,
                                       .selection = selection,
                                       .normalize = normalize,
                                       .scale = 2.5};
        expect_central_differences(config, {});
        std::vector<double> bias(12);
        for (std::size_t e = 0; e < 12; ++e) bias[e] = 0.3 * double(e % 4) + 0.001 * double(e);
        expect_central_differences(config, bias);
      }
}

TEST(RouteBackward, GivesNothingToExpertsThatSigmoidScoresDidNotChoose) {
  guild::Cpu device({.threads = 1});
  const guild::TopKConfig config{.experts = 6, .top_k = 2};
  auto logits = distinct_logits(3, 6);
  Matrix<double> weights(3, 2), dweights(3, 2), dlogits(3, 6);
  Matrix<std::int32_t> indices(3, 2);
  for (double& value : dweights.data) value = 1.0;
  dweights(0, 0) = 2.0;
  guild::route(device, config, logits.view(), {}, indices.view(), weights.view());
  guild::route_backward(device, config, logits.view(), indices.view(), weights.view(), dweights.view(), dlogits.view());
  for (Index t = 0; t < 3; ++t)
    for (Index e = 0; e < 6; ++e)
      if (e != indices(t, 0) && e != indices(t, 1)) { EXPECT_EQ(dlogits(t, e), 0.0); }
  // Weights that sum to one have no common gradient.
  for (Index e = 0; e < 6; ++e) EXPECT_NEAR(dlogits(1, e), 0.0, 1e-15);
  EXPECT_GT(std::abs(dlogits(0, indices(0, 0))), 0.01);
}

TEST(RouteBackward, StaysFiniteForLogitsOfAnySizeAndForRowsWithoutAChoice) {
  guild::Cpu device({.threads = 1});
  for (Scoring scoring : {Scoring::sigmoid, Scoring::softmax, Scoring::sqrt_softplus}) {
    const guild::TopKConfig config{.experts = 4, .top_k = 2, .scoring = scoring};
    Matrix<float> logits(2, 4), weights(2, 2), dweights(2, 2), dlogits(2, 4);
    Matrix<std::int32_t> indices(2, 2);
    const float values[] = {-3e38f, 3e38f, -200.0f, 200.0f};
    for (Index e = 0; e < 4; ++e) logits(0, e) = logits(1, e) = values[e];
    for (float& value : dweights.data) value = 1.5f;
    guild::route(device, config, logits.view(), {}, indices.view(), weights.view());
    indices(1, 0) = indices(1, 1) = -1;
    guild::route_backward(device, config, logits.view(), indices.view(), weights.view(), dweights.view(),
                          dlogits.view());
    for (Index e = 0; e < 4; ++e) {
      EXPECT_TRUE(std::isfinite(dlogits(0, e))) << e;
      EXPECT_EQ(dlogits(1, e), 0.0f) << e;
    }
  }
}

TEST(RouteBackward, StaysFiniteWhereTheRootOfSoftplusUnderflows) {
  for (const float logit : {-41.0f, -200.0f, -3e38f})
    EXPECT_EQ(guild::detail::log_score_slope(Scoring::sqrt_softplus, logit), 0.5f) << logit;
  EXPECT_NEAR(guild::detail::log_score_slope(Scoring::sqrt_softplus, -39.9), 0.5, 1e-15);
}

TEST(RouteBackward, RefusesShapesThatDoNotFit) {
  guild::Cpu device({.threads = 1});
  const guild::TopKConfig config{.experts = 4, .top_k = 2};
  Matrix<float> logits(3, 4), weights(3, 2), dweights(3, 2), dlogits(3, 4), wide(3, 5);
  Matrix<std::int32_t> indices(3, 2);
  for (auto& index : indices.data) index = 0;
  for (float& value : logits.data) value = 0;
  const auto code = [&](auto& a, auto& b, auto& c, auto& d) {
    return code_of(
        [&] { guild::route_backward(device, config, a.view(), indices.view(), b.view(), c.view(), d.view()); });
  };
  EXPECT_EQ(code(logits, weights, dweights, dlogits), guild::ErrorCode::count_);
  EXPECT_EQ(code(wide, weights, dweights, dlogits), guild::ErrorCode::op_shape);
  EXPECT_EQ(code(logits, wide, dweights, dlogits), guild::ErrorCode::op_shape);
  EXPECT_EQ(code(logits, weights, wide, dlogits), guild::ErrorCode::op_shape);
  EXPECT_EQ(code(logits, weights, dweights, wide), guild::ErrorCode::op_shape);
}

}  // namespace route_backward_test
