#include <gtest/gtest.h>

#include <algorithm>
#include <guild/device/cpu.hpp>
#include <guild/device/host_team.hpp>
#include <guild/ops/route/balance.hpp>
#include <guild/ops/route/route.hpp>
#include <numeric>

#include "../gradient_check.hpp"

namespace balance_test {
using namespace guild_test;
using guild::BalanceOptions;
using guild::BalanceTerms;
using guild::ErrorCode;
using guild::Scoring;
using guild::TopKConfig;

/// Logits of tokens, the experts that `route` chooses for them under a bias, and two sequences of 4 and the rest.
struct Case {
  TopKConfig config;
  Matrix<double> logits;
  Matrix<std::int32_t> chosen;
  std::vector<Index> offsets;

  Case(const TopKConfig& config_, Index tokens, unsigned seed)
      : config(config_),
        logits(tokens, config.experts, config.experts + 3),
        chosen(tokens, config.top_k, config.top_k + 1),
        offsets{0, 4, 4, tokens} {
    std::mt19937 random(seed);
    std::vector<Index> order(static_cast<std::size_t>(config.experts));
    std::iota(order.begin(), order.end(), Index{0});
    for (Index t = 0; t < tokens; ++t) {  // steps of 1 / 4 within a token: far from ties
      std::shuffle(order.begin(), order.end(), random);
      for (Index e = 0; e < config.experts; ++e)
        logits(t, e) = double(order[std::size_t(e)]) / 4.0 - 1.0 + 0.3 * double(e % 3) / 8.0;
    }
    std::vector<double> bias(static_cast<std::size_t>(config.experts));
    for (std::size_t e = 0; e < bias.size(); ++e) bias[e] = 0.2 * double(e % 3);
    Matrix<double> weights(tokens, config.top_k);
    guild::Cpu device({.threads = 1});
    guild::route(device, config, logits.view(), view_of(std::as_const(bias)), chosen.view(), weights.view());
  }

  template <class Real = double>
  BalanceTerms run(const BalanceOptions& options, Matrix<Real>* dlogits = nullptr, Real scale = 1,
                   int threads = 2) const {
    guild::Cpu device({.threads = threads});
    const auto x = cast<Real>(logits);
    BalanceTerms terms;
    guild::balance_losses(device, config, options, x.view(), chosen.view(), offsets, static_cast<double>(scale),
                          dlogits != nullptr ? dlogits->view() : View<Real, 2>{}, View<BalanceTerms>(&terms, 1));
    return terms;
  }
};

TopKConfig config_of(Scoring scoring, bool normalize) {
  return {.experts = 9, .top_k = 3, .scoring = scoring, .normalize = normalize, .scale = 2.5};
}
std::vector<TopKConfig> configs() {
  std::vector<TopKConfig> all;
  for (Scoring scoring : {Scoring::sigmoid, Scoring::softmax, Scoring::sqrt_softplus})
    for (bool normalize : {true, false}) all.push_back(config_of(scoring, normalize));
  return all;
}

double squared_variation(const std::vector<double>& v) {
  double mean = 0, squares = 0;
  for (double x : v) mean += x / double(v.size()), squares += x * x / double(v.size());
  return (squares - mean * mean) / (mean * mean + 1e-10);
}

/// The formulas as they are printed, token by token, all coefficients 1.
BalanceTerms textbook(const Case& at, double noise) {
  const auto experts = std::size_t(at.config.experts), top_k = std::size_t(at.config.top_k);
  const Index tokens = at.logits.rows;
  std::vector<double> importance(experts), load(experts), f(experts), p(experts);
  BalanceTerms terms;
  for (std::size_t n = 1; n < at.offsets.size(); ++n) {
    std::vector<double> f_n(experts), p_n(experts);
    const Index begin = at.offsets[n - 1], end = at.offsets[n];
    for (Index t = begin; t < end; ++t) {
      std::vector<double> s(experts), raw(experts), sorted;
      double exps = 0, sum = 0, chosen_sum = 0;
      for (std::size_t e = 0; e < experts; ++e) raw[e] = at.logits(t, Index(e)), exps += std::exp(raw[e]);
      for (std::size_t e = 0; e < experts; ++e) {
        s[e] = at.config.scoring == Scoring::softmax   ? std::exp(raw[e]) / exps
               : at.config.scoring == Scoring::sigmoid ? 1 / (1 + std::exp(-raw[e]))
                                                       : std::sqrt(std::log1p(std::exp(raw[e])));
        sum += s[e];
      }
      sorted = raw;
      std::sort(sorted.rbegin(), sorted.rend());
      for (std::size_t k = 0; k < top_k; ++k) chosen_sum += s[std::size_t(at.chosen(t, Index(k)))];
      for (std::size_t k = 0; k < top_k; ++k) {
        const auto e = std::size_t(at.chosen(t, Index(k)));
        importance[e] += at.config.normalize ? s[e] / chosen_sum : s[e];
        f[e] += 1 / double(tokens * Index(top_k));
      }
      for (std::size_t e = 0; e < experts; ++e) {
        const bool best = raw[e] >= sorted[top_k - 1];
        load[e] += 0.5 * (1 + std::erf((raw[e] - sorted[best ? top_k : top_k - 1]) / noise / std::sqrt(2.0)));
        p[e] += s[e] / sum / double(tokens);
        f_n[e] += best ? double(experts) / double(top_k) / double(end - begin) : 0.0;
        p_n[e] += s[e] / sum / double(end - begin);
      }
      terms.router_z += std::log(exps) * std::log(exps) / double(tokens);
      for (const double score : s) terms.entropy -= score / sum * std::log(score / sum) / double(tokens);
    }
    for (std::size_t e = 0; e < experts; ++e) terms.sequence += double(end - begin) / double(tokens) * f_n[e] * p_n[e];
  }
  for (std::size_t e = 0; e < experts; ++e) terms.auxiliary += double(experts) * f[e] * p[e];
  terms.importance = squared_variation(importance);
  terms.load = squared_variation(load);
  return terms;
}

TEST(Balance, TermsAreTheTextbookFormulas) {
  for (const TopKConfig& config : configs()) {
    const Case at(config, 13, 5);
    const auto expected = textbook(at, 0.7);
    const auto got = at.run(
        {.importance = 2, .load = 3, .load_noise = 0.7, .auxiliary = 4, .sequence = 5, .router_z = 6, .entropy = 7});
    EXPECT_NEAR(got.importance, 2 * expected.importance, 1e-12);
    EXPECT_NEAR(got.load, 3 * expected.load, 1e-12);
    EXPECT_NEAR(got.auxiliary, 4 * expected.auxiliary, 1e-12);
    EXPECT_NEAR(got.sequence, 5 * expected.sequence, 1e-12);
    EXPECT_NEAR(got.router_z, 6 * expected.router_z, 1e-12);
    EXPECT_NEAR(got.entropy, 7 * expected.entropy, 1e-12);
    EXPECT_GT(std::min({got.importance, got.load, got.sequence, got.router_z, got.entropy}), 0.01);
  }
}

TEST(Balance, GradientsEqualCentralDifferences) {
  const BalanceOptions each[] = {
      {.importance = 0.7},
      {.load = 0.9, .load_noise = 0.8},
      {.auxiliary = 1.1},
      {.sequence = 1.3},
      {.router_z = 0.1},
      {.entropy = 0.4},
      {.importance = 0.7, .load = 0.9, .auxiliary = 1.1, .sequence = 1.3, .router_z = 0.1, .entropy = -0.6}};
  for (const TopKConfig& config : configs())
    for (const BalanceOptions& options : each) {
      Case at(config, 7, 3);
      at.offsets = {0, 4, 4, 7};
      Matrix<double> dlogits(7, 9, 11);
      for (Index t = 0; t < 7; ++t)
        for (Index e = 0; e < 9; ++e) dlogits(t, e) = 5.0;  // added to
      at.run(options, &dlogits, 0.3);
      EXPECT_TRUE(dlogits.padding_is_untouched());
      double largest = 0;
      for (Index t = 0; t < 7; ++t)
        for (Index e = 0; e < 9; ++e) {
          dlogits(t, e) -= 5.0;
          largest = std::max(largest, std::abs(dlogits(t, e)));
        }
      EXPECT_GT(largest, 1e-4);
      expect_gradient(at.logits, dlogits, [&] { return 0.3 * at.run(options).sum(); }, "logit");
    }
}

TEST(Balance, InFloatIsNearDouble) {
  for (const TopKConfig& config : configs()) {
    Case at(config, 40, 9);
    at.logits = cast<double>(cast<float>(at.logits));
    const BalanceOptions options{.importance = 0.1, .load = 0.1, .auxiliary = 1, .sequence = 1, .router_z = 1};
    Matrix<double> wide(40, 9);
    Matrix<float> narrow(40, 9);
    for (double& value : wide.data) value = 0;
    for (float& value : narrow.data) value = 0;
    const double expected = at.run(options, &wide).sum();
    EXPECT_NEAR(at.run<float>(options, &narrow).sum(), expected, 2e-6 * expected);
    expect_near(narrow, wide, 1e-6);
  }
}

TEST(Balance, AuxiliaryIsItsCoefficientAtBalanceAndGrowsToTheNumberOfExperts) {
  for (Scoring scoring : {Scoring::sigmoid, Scoring::softmax, Scoring::sqrt_softplus}) {
    Case at({.experts = 4, .top_k = 2, .scoring = scoring}, 4, 1);
    for (Index t = 0; t < 4; ++t)
      for (Index e = 0; e < 4; ++e) at.logits(t, e) = 0.25;
    for (Index t = 0; t < 4; ++t) at.chosen(t, 0) = std::int32_t(t), at.chosen(t, 1) = std::int32_t((t + 1) % 4);
    EXPECT_NEAR(at.run({.auxiliary = 0.01}).auxiliary, 0.01, 1e-15);
    Case one({.experts = 4, .top_k = 1, .scoring = scoring}, 6, 1);
    for (Index t = 0; t < 6; ++t)
      for (Index e = 0; e < 4; ++e) one.logits(t, e) = e == 2 ? 0.0 : -100.0;
    for (auto& e : one.chosen.data) e = 2;
    EXPECT_NEAR(one.run({.auxiliary = 0.01}).auxiliary, 0.04, 1e-12);
    EXPECT_NEAR(one.run({.importance = 0.1}).importance, 0.3, 1e-9);  // one of four has all: 4 - 1
  }
}

// The numbers are printed by tests/oracle/loss_values.py.
TEST(Balance, AuxiliaryIsThatOfTransformers) {
  Case at({.experts = 8, .top_k = 3, .scoring = Scoring::softmax}, 6, 1);
  const std::int32_t chosen[6][3] = {{7, 2, 4}, {4, 6, 1}, {6, 1, 3}, {3, 5, 0}, {0, 7, 2}, {2, 4, 6}};
  for (Index t = 0; t < 6; ++t) {
    for (Index e = 0; e < 8; ++e) at.logits(t, e) = double((t * 7 + e * 13) % 31 - 15) / 4;
    for (Index k = 0; k < 3; ++k) at.chosen(t, k) = chosen[t][k];
  }
  Matrix<double> dlogits(6, 8);
  for (double& value : dlogits.data) value = 0;
  EXPECT_NEAR(at.run({.auxiliary = 1}, &dlogits).auxiliary, 1.09822511672974, 1e-7);  // theirs sums in float
  const double of_token_4[] = {-0.00714511867317268, -7.93750986056058e-05, 0.00849124074797433,  -2.27413465017566e-05,
                               0.00243278120558936,  -4.00567778318472e-05, 0.000697003485112666, -0.00433373354256448};
  for (Index e = 0; e < 8; ++e) EXPECT_NEAR(dlogits(4, e), of_token_4[e], 5e-9);
}

TEST(Balance, ScoresThatAreAllTinyDoNotFakeBalance) {
  Case at({.experts = 4, .top_k = 1, .scoring = Scoring::sigmoid}, 6, 1);
  for (Index t = 0; t < 6; ++t)
    for (Index e = 0; e < 4; ++e) at.logits(t, e) = e == 0 ? -150.0 : -190.0;  // below every float
  for (auto& e : at.chosen.data) e = 0;
  Matrix<float> dlogits(6, 4);
  for (float& value : dlogits.data) value = 0;
  EXPECT_NEAR(at.run<float>({.auxiliary = 1, .sequence = 1}, &dlogits).sum(), 8.0, 1e-5);
  for (float value : dlogits.data) EXPECT_TRUE(std::isfinite(value));
}

TEST(Balance, SequencesAreJudgedEachForItself) {
  // The first sequence has all of its tokens at expert 0, the second at expert 1: a balanced batch.
  Case at({.experts = 2, .top_k = 1, .scoring = Scoring::softmax}, 8, 1);
  for (Index t = 0; t < 8; ++t)
    for (Index e = 0; e < 2; ++e) at.logits(t, e) = (t < 4) == (e == 0) ? 0.0 : -100.0;
  for (Index t = 0; t < 8; ++t) at.chosen(t, 0) = t < 4 ? 0 : 1;
  const auto terms = at.run({.auxiliary = 1, .sequence = 1});
  EXPECT_NEAR(terms.auxiliary, 1.0, 1e-12);
  EXPECT_NEAR(terms.sequence, 2.0, 1e-12);
}

TEST(Balance, SequencesRankExpertsWithoutTheBias) {
  Case at({.experts = 2, .top_k = 1, .scoring = Scoring::softmax}, 4, 1);
  for (Index t = 0; t < 4; ++t) at.logits(t, 0) = 0.0, at.logits(t, 1) = std::log(3.0);
  for (auto& e : at.chosen.data) e = 0;  // by a bias
  const auto terms = at.run({.auxiliary = 1, .sequence = 1});
  EXPECT_NEAR(terms.auxiliary, 2 * 0.25, 1e-12);
  EXPECT_NEAR(terms.sequence, 2 * 0.75, 1e-12);
}

TEST(Balance, LoadAndZHaveTheValuesOfTheFormulas) {
  Case at({.experts = 2, .top_k = 1, .scoring = Scoring::softmax}, 5, 1);
  for (Index t = 0; t < 5; ++t) at.logits(t, 0) = 1.0, at.logits(t, 1) = 0.0;
  const double above = 0.841344746068542949 - 0.5;  // of the normal distribution, up to 1
  EXPECT_NEAR(at.run({.load = 0.1}).load, 0.1 * 4 * above * above, 1e-10);
  for (Index t = 0; t < 5; ++t) at.logits(t, 0) = at.logits(t, 1) = 0.5;
  EXPECT_NEAR(at.run({.router_z = 1e-3}).router_z, 1e-3 * std::pow(0.5 + std::log(2.0), 2), 1e-15);
}

TEST(Balance, EntropyIsThatOfATokensProbabilitiesAndFiniteWhereOneExpertHasAll) {
  Case at({.experts = 4, .top_k = 1, .scoring = Scoring::softmax}, 5, 1);
  for (Index t = 0; t < 5; ++t)
    for (Index e = 0; e < 4; ++e) at.logits(t, e) = 0.5;
  EXPECT_NEAR(at.run({.entropy = -0.1}).entropy, -0.1 * std::log(4.0), 1e-15);
  for (Index t = 0; t < 5; ++t) at.logits(t, 2) = 2000.0;
  Matrix<double> dlogits(5, 4);
  for (double& value : dlogits.data) value = 0;
  EXPECT_EQ(at.run({.entropy = 1}, &dlogits).entropy, 0.0);
  for (double value : dlogits.data) EXPECT_EQ(value, 0.0);
}

TEST(Balance, IsZeroForAnEmptyBatchWithoutCoefficientsAndWhereAllExpertsServe) {
  const Case at(config_of(Scoring::sigmoid, true), 7, 1);
  Matrix<double> dlogits(7, 9);
  EXPECT_EQ(at.run({}, &dlogits).sum(), 0.0);
  EXPECT_EQ(dlogits(3, 3), Matrix<double>::canary);
  Case empty(config_of(Scoring::sigmoid, true), 0, 1);
  empty.offsets = {0};
  EXPECT_EQ(empty.run({.importance = 1, .load = 1, .auxiliary = 1, .sequence = 1, .router_z = 1}).sum(), 0.0);
  const Case all({.experts = 3, .top_k = 3}, 7, 1);
  EXPECT_EQ(all.run({.load = 1}).load, 0.0);
}

TEST(Balance, GivesTheSameBitsForAnyThreadCountAndNearlyThoseOfTeams) {
  const Case at({.experts = 33, .top_k = 4, .scoring = Scoring::softmax, .normalize = false}, 150, 2);
  const BalanceOptions options{.importance = 1, .load = 1, .auxiliary = 1, .sequence = 1, .router_z = 1};
  Matrix<float> one(150, 33), four(150, 33);
  for (float& value : one.data) value = 0;
  four = one;
  const auto terms = at.run<float>(options, &one, 1.0f, 1);
  EXPECT_EQ(terms.sum(), at.run<float>(options, &four, 1.0f, 4).sum());
  EXPECT_EQ(one.data, four.data);
  for (const TopKConfig& config : configs()) {
    const Case small(config, 9, 2);
    Matrix<double> expected(9, 9), got(9, 9);
    for (double& value : expected.data) value = 0;
    got = expected;
    const double value = small.run(options, &expected).sum();
    guild::HostTeams teams(3);
    BalanceTerms of_teams;
    guild::balance_losses(teams, config, options, small.logits.view(), small.chosen.view(), small.offsets, 1.0,
                          got.view(), View<BalanceTerms>(&of_teams, 1));
    EXPECT_NEAR(of_teams.sum(), value, 1e-12);
    expect_near(got, expected, 1e-12);
  }
}

TEST(Balance, RefusesWhatDoesNotFit) {
  Case at(config_of(Scoring::sigmoid, true), 7, 1);
  Matrix<double> wrong(7, 8);
  const BalanceOptions sequence{.sequence = 1};
  EXPECT_EQ(code_of([&] { at.run({.auxiliary = 1}, &wrong); }), ErrorCode::op_shape);
  EXPECT_EQ(code_of([&] { at.run({.load = 1, .load_noise = 0}); }), ErrorCode::op_argument);
  for (const auto& offsets : {std::vector<Index>{}, {0, 6}, {1, 7}, {0, 8, 7}}) {
    at.offsets = offsets;
    EXPECT_EQ(code_of([&] { at.run(sequence); }), ErrorCode::op_argument);
    EXPECT_EQ(code_of([&] { at.run({.auxiliary = 1}); }), ErrorCode::count_);  // not read
  }
  at.chosen.cols = 0;
  EXPECT_EQ(code_of([&] { at.run({.auxiliary = 1}); }), ErrorCode::op_argument);
}

TEST(Balance, TheValuesAreScaledAndAddedOrLeftAlone) {
  const Case at(config_of(Scoring::softmax, true), 7, 1);
  const BalanceOptions options{.importance = 1, .load = 1, .auxiliary = 1, .sequence = 1, .router_z = 1};
  const BalanceTerms whole = at.run(options);
  guild::Cpu device({.threads = 1});
  BalanceTerms terms{.importance = 1, .load = 2, .auxiliary = 3, .sequence = 4, .router_z = 5};
  Matrix<double> dlogits(7, 9), alone(7, 9);
  for (double& value : dlogits.data) value = 0;
  alone = dlogits;
  const View<const double, 2> x = at.logits.view();
  guild::balance_losses(device, at.config, options, x, at.chosen.view(), at.offsets, 0.25, dlogits.view(),
                        View<BalanceTerms>(&terms, 1));
  EXPECT_EQ(terms.importance, 1 + 0.25 * whole.importance);
  EXPECT_EQ(terms.load, 2 + 0.25 * whole.load);
  EXPECT_EQ(terms.auxiliary, 3 + 0.25 * whole.auxiliary);
  EXPECT_EQ(terms.sequence, 4 + 0.25 * whole.sequence);
  EXPECT_EQ(terms.router_z, 5 + 0.25 * whole.router_z);
  guild::balance_losses(device, at.config, options, x, at.chosen.view(), at.offsets, 0.25, alone.view(), {});
  EXPECT_EQ(dlogits.data, alone.data);
  std::array<BalanceTerms, 2> two;
  EXPECT_EQ(code_of([&] {
              guild::balance_losses(device, at.config, options, x, at.chosen.view(), at.offsets, 1.0, alone.view(),
                                    View<BalanceTerms>(two.data(), 2));
            }),
            ErrorCode::op_shape);
}

TEST(Balance, TheSelectionBiasStepsTowardsTheMean) {
  guild::Cpu device({.threads = 1});
  guild::HostTeams teams(3);
  std::vector<float> bias = {0.5f, 0.5f, 0.5f, -0.25f}, of_teams = bias;
  const std::vector<double> counts = {10, 2, 4, 0};
  guild::update_selection_bias(device, guild::DeviceView(view_of(bias)), view_of(counts), 0.001);
  guild::update_selection_bias(teams, guild::DeviceView(view_of(of_teams)), view_of(counts), 0.001);
  EXPECT_EQ(bias, (std::vector<float>{float(0.5 - 0.001), float(0.5 + 0.001), 0.5f, float(-0.25 + 0.001)}));
  EXPECT_EQ(of_teams, bias);
  const std::vector<double> few(3);
  EXPECT_EQ(
      code_of([&] { guild::update_selection_bias(device, guild::DeviceView(view_of(bias)), view_of(few), 0.001); }),
      ErrorCode::op_shape);
}

}  // namespace balance_test
