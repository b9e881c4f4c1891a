#include <guild/ops/merge/group_scores.hpp>

#include <gtest/gtest.h>

#include <limits>

#include "merge_test_support.hpp"

namespace group_scores_test {
using namespace guild_test;
using guild::ErrorCode;
using guild::Index;

template <class Real>
struct Case {
  guild::Cpu device;
  Matrix<Real> s, p, eta, masses, a;  // s and a: columns of wider rows

  explicit Case(Index tokens, guild::CpuOptions options = {.threads = 2})
      : device(options), s(tokens, 1, 3), p(1, tokens), eta(1, 1), masses(1, tokens), a(tokens, 1, 5) {
    std::mt19937 random(6);
    s.fill_normal(random);
    p.fill_normal(random);
    eta.fill_normal(random);
    for (Index t = 0; t < tokens; ++t) masses(0, t) = static_cast<Real>(1 + t % 4);
  }
  void run(bool of_masses = true) {
    guild::DeviceView<const Real> all;
    if (of_masses) all = masses.view().row(0);
    guild::group_scores(device, s.view(), p.view().row(0), eta.view().row(0), all, a.view());
  }
};

TEST(GroupScores, FollowTheFormula) {
  for (const Index tokens : {Index{0}, Index{1}, Index{37}, 2 * guild::piece_elements + 5}) {
    Case<float> at(tokens);
    at.run();
    for (Index t = 0; t < tokens; ++t)
      ASSERT_NEAR(at.a(t, 0),
                  double(at.s(t, 0)) + double(at.eta(0, 0)) * double(at.p(0, t)) + std::log(1.0 + double(t % 4)), 1e-6);
    const auto with = at.a;
    EXPECT_TRUE(at.a.padding_is_untouched());
    at.run(false);
    for (Index t = 0; t < tokens; t += 4) ASSERT_EQ(at.a(t, 0), with(t, 0));  // log 1 is 0
    for (Index t = 1; t < tokens; t += 4) ASSERT_NE(at.a(t, 0), with(t, 0));
  }
}

TEST(GroupScores, OfNoMassAreMinusInfinity) {
  Case<float> at(3);
  at.masses(0, 1) = 0;
  at.run();
  EXPECT_TRUE(std::isfinite(at.a(0, 0)));
  EXPECT_EQ(at.a(1, 0), -std::numeric_limits<float>::infinity());
}

template <class Real>
struct Gradients {
  Matrix<Real> ds, dp, deta;
  Gradients(Case<Real>& at, const Matrix<Real>& da) : ds(at.s.rows, 1, 2), dp(1, at.s.rows), deta(1, 1) {
    std::ranges::fill(dp.data, Real(0.5));  // both are added to
    std::ranges::fill(deta.data, Real(0.25));
    guild::group_scores_backward(at.device, at.p.view().row(0), at.eta.view().row(0), da.view(), ds.view(),
                                 dp.view().row(0), deta.view().row(0));
  }
};

TEST(GroupScores, HaveTheGradientsOfCentralDifferences) {
  for (const Index tokens : {0, 1, 70}) {
    Case<double> at(tokens);
    std::mt19937 random(4);
    Matrix<double> da(tokens, 1, 4);
    da.fill_normal(random);
    const auto value = [&] {
      at.run();
      return dot(at.a, da);
    };
    Gradients<double> of(at, da);
    EXPECT_TRUE(of.ds.padding_is_untouched());
    for (double& one : of.dp.data) one -= 0.5;
    of.deta(0, 0) -= 0.25;
    expect_gradient(at.s, of.ds, value, "s");
    expect_gradient(at.p, of.dp, value, "p");
    expect_gradient(at.eta, of.deta, value, "eta");
  }
}

TEST(GroupScores, AddUpTheGradientOfEtaInAnOrderOfItsOwn) {
  Case<float> one(9001, {.threads = 1}), four(9001, {.threads = 4});
  one.run();
  four.run();
  EXPECT_EQ(one.a.data, four.a.data);
  const Gradients<float> a(one, one.a), b(four, four.a);
  EXPECT_EQ(a.deta(0, 0), b.deta(0, 0));
  EXPECT_EQ(a.dp.data, b.dp.data);
  EXPECT_EQ(a.ds.data, b.ds.data);
}

/// ds may be da.
TEST(GroupScores, GiveTheGradientOfTheirProductInPlace) {
  Case<float> at(9);
  at.run();
  const auto da = at.a;
  Matrix<float> dp(1, 9), deta(1, 1);
  guild::group_scores_backward(at.device, at.p.view().row(0), at.eta.view().row(0), at.a.view(), at.a.view(),
                               dp.view().row(0), deta.view().row(0));
  EXPECT_EQ(at.a.data, da.data);
}

TEST(GroupScores, RefuseWhatDoesNotFit) {
  Case<float> at(4), longer(5);
  const auto code = [&](Case<float>& s, Case<float>& p, Case<float>& masses, Case<float>& a, Index etas = 1) {
    return code_of([&] {
      guild::group_scores(at.device, s.s.view(), p.p.view().row(0), {at.eta.data.data(), etas},
                          masses.masses.view().row(0), a.a.view());
    });
  };
  EXPECT_EQ(code(at, at, at, at), ErrorCode::count_);
  EXPECT_EQ(code(longer, at, at, at), ErrorCode::op_shape);
  EXPECT_EQ(code(at, longer, at, at), ErrorCode::op_shape);
  EXPECT_EQ(code(at, at, longer, at), ErrorCode::op_shape);
  EXPECT_EQ(code(at, at, at, longer), ErrorCode::op_shape);
  EXPECT_EQ(code(at, at, at, at, 2), ErrorCode::op_shape);
  const auto backward = [&](Case<float>& p, Case<float>& da, Case<float>& ds, Case<float>& dp, Index etas = 1) {
    return code_of([&] {
      guild::group_scores_backward(at.device, p.p.view().row(0), at.eta.view().row(0), da.a.view(), ds.s.view(),
                                   dp.masses.view().row(0), {at.eta.data.data(), etas});
    });
  };
  EXPECT_EQ(backward(at, at, at, at), ErrorCode::count_);
  EXPECT_EQ(backward(longer, at, at, at), ErrorCode::op_shape);
  EXPECT_EQ(backward(at, longer, at, at), ErrorCode::op_shape);
  EXPECT_EQ(backward(at, at, longer, at), ErrorCode::op_shape);
  EXPECT_EQ(backward(at, at, at, longer), ErrorCode::op_shape);
  EXPECT_EQ(backward(at, at, at, at, 2), ErrorCode::op_shape);
}

}  // namespace group_scores_test
