#include <gtest/gtest.h>

#include <guild/cpu.hpp>
#include <guild/device/cpu.hpp>
#include <guild/ops/head/cross_entropy_head.hpp>
#include <type_traits>

#include "../gradient_check.hpp"

namespace cross_entropy_head_test {
using namespace guild_test;
using guild::ErrorCode;
using guild::LossSums;

/// States, a head and targets; every third token (and with `runs` a whole stretch) is ignored.
template <class Real>
struct Case {
  Matrix<Real> states, head, dstates, dhead;
  std::vector<std::int32_t> targets;
  guild::HeadLossOptions options{.scale = 0.02, .z_loss = 0.01};

  Case(Index tokens, Index vocab, Index hidden, unsigned seed, bool all = false)
      : states(tokens, hidden, hidden + 3),
        head(vocab, hidden),
        dstates(tokens, hidden, hidden + 1),
        dhead(vocab, hidden) {
    std::mt19937 random(seed);
    states.fill_normal(random);
    head.fill_normal(random, 0.5);
    for (Real& value : dhead.data) value = Real(0.25);
    for (Index t = 0; t < tokens; ++t) targets.push_back(!all && t % 3 == 1 ? -1 : std::int32_t((t * 31) % vocab));
  }
  [[nodiscard]] guild::WeightView weight() const {
    return {guild::dtype_of<Real>, head.data.data(), head.rows, head.cols};
  }
  LossSums run(guild::Cpu& device, bool gradients = true) {
    return guild::cross_entropy_head(device, weight(), std::as_const(states).view(), view_of(std::as_const(targets)),
                                     options, gradients ? dstates.view() : View<Real, 2>{},
                                     gradients ? dhead.view() : View<Real, 2>{});
  }
};

TEST(CrossEntropyHead, GradientsEqualCentralDifferences) {
  guild::Cpu device({.threads = 2});
  Case<double> at(7, 11, 5, 1);
  const LossSums sums = at.run(device);
  EXPECT_TRUE(at.dstates.padding_is_untouched());
  EXPECT_EQ(sums.count, 5);
  for (double& value : at.dhead.data) value -= 0.25;  // added to
  const auto value = [&] {
    const LossSums s = at.run(device, false);
    return 0.02 * (s.loss + 0.01 * s.z);
  };
  expect_gradient(at.states, at.dstates, value, "state");
  expect_gradient(at.head, at.dhead, value, "head");
  for (Index i = 0; i < 5; ++i) EXPECT_EQ(at.dstates(1, i), 0.0);
}

/// The whole matrix of logits at once, in double.
template <class Real>
void expect_like_all_logits(Index tokens, Index vocab, Index hidden, bool all) {
  guild::Cpu device({.threads = 3});
  Case<Real> at(tokens, vocab, hidden, 3, all);
  const LossSums got = at.run(device);
  Matrix<double> dstates(tokens, hidden), dhead(vocab, hidden);
  for (double& value : dstates.data) value = 0;
  for (double& value : dhead.data) value = 0.25;
  LossSums expected;
  for (Index t = 0; t < tokens; ++t) {
    const Index target = at.targets[std::size_t(t)];
    if (target < 0) continue;
    std::vector<double> logits(static_cast<std::size_t>(vocab));
    double sum = 0, most = -1e300;
    for (Index v = 0; v < vocab; ++v) {
      double& x = logits[std::size_t(v)];
      for (Index i = 0; i < hidden; ++i) x += double(at.states(t, i)) * double(at.head(v, i));
      sum += std::exp(x);
      most = std::max(most, x);
    }
    const double log_sum = std::log(sum);
    expected += {log_sum - logits[std::size_t(target)], log_sum * log_sum, 1, logits[std::size_t(target)] == most};
    for (Index v = 0; v < vocab; ++v) {
      const double p = std::exp(logits[std::size_t(v)]) / sum;
      const double d = 0.02 * (p - (v == target ? 1.0 : 0.0) + 0.01 * 2 * log_sum * p);
      for (Index i = 0; i < hidden; ++i) {
        dstates(t, i) += d * double(at.head(v, i));
        dhead(v, i) += d * double(at.states(t, i));
      }
    }
  }
  EXPECT_EQ(got.count, expected.count);
  EXPECT_EQ(got.correct, expected.correct);
  const double tolerance = std::is_same_v<Real, float> ? 2e-6 : 1e-12;
  EXPECT_NEAR(got.loss, expected.loss, tolerance * expected.loss);
  EXPECT_NEAR(got.z, expected.z, tolerance * expected.z);
  expect_near(at.dstates, dstates, tolerance);
  expect_near(at.dhead, dhead, tolerance);
}

TEST(CrossEntropyHead, TilesGiveWhatAllLogitsAtOnceWould) {
  for (bool all : {false, true}) {
    expect_like_all_logits<float>(2400, 37, 24, all);  // three tiles, the last one short
    expect_like_all_logits<double>(1200, 19, 6, all);
    expect_like_all_logits<float>(1, 37, 24, all);
  }
}

TEST(CrossEntropyHead, GradientsAreOptionalAndMayOverwriteTheStates) {
  guild::Cpu device({.threads = 2});
  Case<float> at(1100, 30, 16, 5), value(1100, 30, 16, 5), states_only(1100, 30, 16, 5), over(1100, 30, 16, 5);
  const LossSums expected = at.run(device);
  const LossSums only = value.run(device, false);
  EXPECT_NEAR(only.loss, expected.loss,
              1e-7 * expected.loss);  // the two loops may fuse products and sums in other ways
  EXPECT_EQ(only.correct, expected.correct);
  EXPECT_EQ(value.dhead.data[7], 0.25f);
  guild::cross_entropy_head(device, at.weight(), std::as_const(states_only.states).view(),
                            view_of(std::as_const(at.targets)), at.options, states_only.dstates.view(), {});
  EXPECT_EQ(states_only.dstates.data, at.dstates.data);
  guild::cross_entropy_head(device, at.weight(), std::as_const(over.states).view(), view_of(std::as_const(at.targets)),
                            at.options, over.states.view(), over.dhead.view());
  expect_near(over.states, at.dstates, 0.0);
  EXPECT_EQ(over.dhead.data, at.dhead.data);
}

TEST(CrossEntropyHead, GivesTheSameBitsForAnyThreadCount) {
  guild::Cpu one({.threads = 1}), four({.threads = 4});
  Case<float> a(1300, 130, 48, 6), b(1300, 130, 48, 6);
  const LossSums sums_a = a.run(one), sums_b = b.run(four);
  EXPECT_EQ(sums_a.loss, sums_b.loss);
  EXPECT_EQ(sums_a.z, sums_b.z);
  EXPECT_EQ(a.dstates.data, b.dstates.data);
  EXPECT_EQ(a.dhead.data, b.dhead.data);
}

TEST(CrossEntropyHead, TakesBatchesWithoutTokensOrWithoutTargets) {
  guild::Cpu device({.threads = 1});
  Case<float> none(5, 9, 4, 7), empty(0, 9, 4, 7);
  for (auto& target : none.targets) target = -1;
  const LossSums sums = none.run(device);
  EXPECT_EQ(sums.count, 0);
  EXPECT_EQ(sums.mean_loss(), 0.0);
  for (Index t = 0; t < 5; ++t)
    for (Index i = 0; i < 4; ++i) EXPECT_EQ(none.dstates(t, i), 0.0f);
  for (Index i = 0; i < 36; ++i) EXPECT_EQ(none.dhead.data[std::size_t(i)], 0.25f);
  EXPECT_EQ(empty.run(device).count, 0);
}

TEST(CrossEntropyHead, HoldsNoMoreLogitsThanATileAndNothingAfterWarmUp) {
  const auto bytes_of = [](Index tokens) {
    guild::Cpu device({.threads = 1});
    Case<float> at(tokens, 500, 8, 8);
    at.run(device);
    const Index bytes = device.scratch_bytes();
    at.run(device);
    EXPECT_EQ(device.scratch_bytes(), bytes);
    return bytes;
  };
  EXPECT_LT(bytes_of(3500), bytes_of(1500) + 500000);  // 2000 rows of logits are 4 MB
  EXPECT_EQ(guild::detail::head_tile_rows(1536), 1024);
  EXPECT_EQ(guild::detail::head_tile_rows(32000), 256);
  EXPECT_EQ(guild::detail::head_tile_rows(129280), 129);
}

TEST(CrossEntropyHead, RefusesWhatDoesNotFitBeforeItWrites) {
  guild::Cpu device({.threads = 1});
  const auto code = [&](auto&& change) {
    Case<float> at(6, 9, 4, 9);
    change(at);
    const auto before = at.dhead;
    const auto got = code_of([&] { at.run(device); });
    if (got != ErrorCode::count_) { EXPECT_EQ(at.dhead.data, before.data); }
    return got;
  };
  EXPECT_EQ(code([](auto&) {}), ErrorCode::count_);
  EXPECT_EQ(code([](auto& at) { at.targets[5] = 9; }), ErrorCode::in_token);
  EXPECT_EQ(code([](auto& at) { at.targets[5] = -2; }), ErrorCode::in_token);
  EXPECT_EQ(code([](auto& at) { at.targets.pop_back(); }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& at) { at.states.cols = 3; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& at) { at.dstates.rows = 5; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& at) { at.dhead.rows = 8; }), ErrorCode::op_shape);
}

}  // namespace cross_entropy_head_test
