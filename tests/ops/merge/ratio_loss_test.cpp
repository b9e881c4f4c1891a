#include <guild/ops/merge/ratio_loss.hpp>

#include <gtest/gtest.h>

#include <guild/device/host_team.hpp>

#include "merge_test_support.hpp"

namespace ratio_loss_test {
using namespace guild_test;
using guild::ErrorCode;
using guild::MergeTerms;

template <class Real>
struct Case {
  Matrix<Real> p, dp;
  MergeTerms terms{};

  explicit Case(Index tokens) : p(1, tokens), dp(1, tokens) {
    std::mt19937 random(3);
    dp.fill_normal(random);
    for (Real& value : p.data) value = static_cast<Real>(std::uniform_real_distribution<double>(0, 1)(random));
  }
  template <class Device>
  void run(Device&& device, Index novel, double ratio, double weight, double scale = 1.0) {
    guild::ratio_loss(device, p.view().row(0), novel, p.cols / 4, ratio, weight, scale, dp.view().row(0), {&terms, 1});
  }
};
double formula(const Matrix<double>& p, double novel, double every) {
  const double tokens = static_cast<double>(p.cols), share = novel / tokens;
  double mean = 0;
  for (Index t = 0; t < p.cols; ++t) mean += p(0, t) / tokens;
  return every / (every - 1) * ((every - 1) * share * mean + (1 - share) * (1 - mean));
}

TEST(RatioLoss, FollowsTheFormula) {
  guild::Cpu device({.threads = 2});
  for (const Index tokens : {1, 7, 5000})
    for (const double ratio : {0.5, 0.75, 1.0 / 3, 0.05})
      for (const Index novel : {Index{0}, tokens / 3, tokens}) {
        Case<double> at(tokens);
        at.terms = {10, 20, 30, 40};
        const auto before = at.dp;
        at.run(device, novel, ratio, 0.0, 0.25);
        const double expected = formula(at.p, static_cast<double>(novel), 1 / ratio);
        EXPECT_NEAR(at.terms.loss, 10 + 0.25 * expected, 1e-12 * expected);
        EXPECT_EQ(at.terms.slots, 20.0 + static_cast<double>(tokens / 4)) << "closed, whatever is novel";
        EXPECT_EQ(at.terms.tokens, 30.0 + static_cast<double>(tokens));
        EXPECT_EQ(at.terms.novel, 40.0 + static_cast<double>(novel));
        EXPECT_EQ(at.dp.data, before.data) << "of weight 0";
      }
}
TEST(RatioLoss, IsOneWhereAsManyAreNovelAsAreMeantTo) {
  guild::Cpu device;
  Case<double> at(8);
  std::ranges::fill(at.p.data, 0.25);
  const auto before = at.dp;
  at.run(device, 2, 0.25, 1.0);
  EXPECT_EQ(at.terms.loss, 1.0);
  EXPECT_EQ(at.dp.data, before.data) << "and pulls at nothing";
}

TEST(RatioLoss, HasTheGradientOfCentralDifferencesForAFixedShare) {
  guild::Cpu device;
  for (const Index novel : {1, 3, 8}) {
    Case<double> at(9);
    std::ranges::fill(at.dp.data, 0.0);
    at.run(device, novel, 0.375, 0.7, 0.5);
    const auto dp = at.dp;
    EXPECT_EQ(dp(0, 0) < 0, static_cast<double>(novel) < 9 * 0.375) << "novelty goes up where too few are novel";
    expect_gradient(
        at.p, dp, [&] { return 0.7 * 0.5 * formula(at.p, static_cast<double>(novel), 1 / 0.375); }, "p");
  }
}

TEST(RatioLoss, IsAdded) {
  guild::Cpu device;
  Case<double> at(9), from_zero(9);
  const auto before = at.dp;
  std::ranges::fill(from_zero.dp.data, 0.0);
  for (auto* one : {&at, &from_zero}) one->run(device, 2, 0.5, 0.03);
  for (Index t = 0; t < 9; ++t) EXPECT_EQ(at.dp(0, t), before(0, t) + from_zero.dp(0, t));
}

/// What closes is counted all the same.
TEST(RatioLoss, IsNoneAtRatioOne) {
  guild::Cpu device;
  Case<float> at(9);
  const auto before = at.dp;
  at.run(device, 5, 1.0, 1.0);
  EXPECT_EQ(at.dp.data, before.data);
  EXPECT_EQ(at.terms.loss, 0.0);
  EXPECT_EQ(at.terms.share(), 2.0 / 9);
  EXPECT_EQ(at.terms.novel, 5.0);
}

TEST(RatioLoss, OfNoTokensIsNothing) {
  guild::Cpu device;
  Case<float> at(0);
  at.run(device, 0, 0.5, 1.0);
  EXPECT_EQ(at.terms.loss, 0.0);
  EXPECT_EQ(at.terms.tokens, 0.0);
  EXPECT_EQ(at.terms.share(), 0.0);
}

TEST(RatioLoss, HasTheSameBitsWhateverTheThreads) {
  Case<float> one(9001), four(9001), teams(9001);
  one.run(guild::Cpu({.threads = 1}), 4000, 0.5, 0.03);
  four.run(guild::Cpu({.threads = 4}), 4000, 0.5, 0.03);
  teams.run(guild::HostTeams(4), 4000, 0.5, 0.03);
  EXPECT_EQ(one.terms.loss, four.terms.loss);
  EXPECT_EQ(one.dp.data, four.dp.data);
  EXPECT_NEAR(teams.terms.loss, one.terms.loss, 1e-12);
  EXPECT_EQ(teams.dp.data, one.dp.data);
}

TEST(RatioLoss, NeedsNeitherGradientNorTerms) {
  guild::Cpu device;
  Case<float> at(9), other(9);
  at.run(device, 5, 0.5, 1.0);
  guild::ratio_loss(device, other.p.view().row(0), 5, 2, 0.5, 1.0, 1.0, {}, {&other.terms, 1});
  guild::ratio_loss(device, other.p.view().row(0), 5, 2, 0.5, 1.0, 1.0, other.dp.view().row(0), {});
  EXPECT_EQ(at.terms.loss, other.terms.loss);
  EXPECT_EQ(at.dp.data, other.dp.data);
}

TEST(RatioLoss, RefusesWhatDoesNotFit) {
  guild::Cpu device;
  Case<float> at(9), longer(10);
  const auto code = [&](Index novel, double ratio) { return code_of([&] { at.run(device, novel, ratio, 1.0); }); };
  EXPECT_EQ(code(9, 0.5), ErrorCode::count_);
  EXPECT_EQ(code(10, 0.5), ErrorCode::op_argument);
  EXPECT_EQ(code(-1, 0.5), ErrorCode::op_argument);
  for (const Index closed : {10, -1}) {
    EXPECT_EQ(code_of([&] { guild::ratio_loss(device, at.p.view().row(0), 5, closed, 0.5, 1.0, 1.0, {}, {}); }),
              ErrorCode::op_argument);
  }
  EXPECT_EQ(code(9, 0.0), ErrorCode::op_argument);
  EXPECT_EQ(code(9, 1.5), ErrorCode::op_argument);
  EXPECT_EQ(code(9, std::nan("")), ErrorCode::op_argument);
  EXPECT_EQ(
      code_of([&] { guild::ratio_loss(device, at.p.view().row(0), 5, 2, 0.5, 1.0, 1.0, longer.dp.view().row(0), {}); }),
      ErrorCode::op_shape);
  MergeTerms two[2];
  EXPECT_EQ(code_of([&] {
              guild::ratio_loss(device, at.p.view().row(0), 5, 2, 0.5, 1.0, 1.0, {}, {two, 2});
            }),
            ErrorCode::op_shape);
}

}  // namespace ratio_loss_test
