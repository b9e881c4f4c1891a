#include <gtest/gtest.h>

#include <guild/device/cpu.hpp>
#include <guild/device/host_team.hpp>
#include <guild/ops/common/scatter_rows.hpp>
#include <guild/ops/head/cross_entropy.hpp>
#include <limits>

#include "../gradient_check.hpp"

namespace cross_entropy_test {
using namespace guild_test;
using guild::ErrorCode;
using guild::LossWork;

struct Losses {
  std::vector<double> loss, log_sum_squared;
  std::vector<std::int32_t> correct;
  explicit Losses(Index rows)
      : loss(std::size_t(rows), -1.0), log_sum_squared(std::size_t(rows), -1.0), correct(std::size_t(rows), -1) {}
  guild::RowLosses view() { return {view_of(loss), view_of(log_sum_squared), view_of(correct)}; }
};

template <class Real, class Device>
Losses run(Device& device, Matrix<Real>& logits, const std::vector<std::int32_t>& targets,
           const guild::CrossEntropyOptions& options, LossWork work) {
  Losses out(logits.rows);
  guild::cross_entropy(device, logits.view(), view_of(targets), options, work, out.view());
  EXPECT_TRUE(logits.padding_is_untouched());
  return out;
}

TEST(CrossEntropy, GradientsEqualCentralDifferencesAndIgnoredRowsHaveNone) {
  guild::Cpu device({.threads = 2});
  std::mt19937 random(1);
  Matrix<double> logits(5, 19, 21);
  logits.fill_normal(random, 2.0);
  const std::vector<std::int32_t> targets = {3, 18, -1, 0, 7};
  const guild::CrossEntropyOptions options{.scale = 0.4, .z_loss = 0.03};
  auto gradient = logits;
  run(device, gradient, targets, options, LossWork::gradient);
  expect_gradient(
      logits, gradient,
      [&] {
        const Losses losses = run(device, logits, targets, options, LossWork::value);
        double sum = 0;
        for (std::size_t t = 0; t < 5; ++t) sum += losses.loss[t] + 0.03 * losses.log_sum_squared[t];
        return 0.4 * sum;
      },
      "logit");
  for (Index i = 0; i < 19; ++i) EXPECT_EQ(gradient(2, i), 0.0);
}

TEST(CrossEntropy, ValuesAreTheFormulasWhateverIsAskedFor) {
  guild::Cpu device({.threads = 2});
  std::mt19937 random(2);
  Matrix<double> logits(4, 33);
  logits.fill_normal(random, 3.0);
  const std::vector<std::int32_t> targets = {32, -1, 5, 0};
  for (LossWork work : {LossWork::value, LossWork::gradient}) {
    auto copy = logits;
    const Losses got = run(device, copy, targets, {.scale = 7.0, .z_loss = 1.0}, work);
    if (work == LossWork::value) { EXPECT_EQ(copy.data, logits.data); }
    for (Index t = 0; t < 4; ++t) {
      const auto n = std::size_t(t);
      double sum = 0, most = -1e300;
      for (Index i = 0; i < 33; ++i) sum += std::exp(logits(t, i)), most = std::max(most, logits(t, i));
      const bool ignored = targets[n] < 0;
      EXPECT_NEAR(got.loss[n], ignored ? 0.0 : std::log(sum) - logits(t, targets[n]), 1e-13);
      EXPECT_NEAR(got.log_sum_squared[n], ignored ? 0.0 : std::log(sum) * std::log(sum), 1e-12);
      EXPECT_EQ(got.correct[n], !ignored && logits(t, targets[n]) == most ? 1 : 0);
    }
  }
}

// The numbers are printed by tests/oracle/loss_values.py.
TEST(CrossEntropy, HasTheNumbersOfPyTorch) {
  guild::Cpu device({.threads = 1});
  Matrix<double> logits(3, 5);
  for (Index t = 0; t < 3; ++t)
    for (Index v = 0; v < 5; ++v) logits(t, v) = double((t * 7 + v * 13) % 31 - 15) / 4;
  const Losses got = run(device, logits, {4, -1, 0}, {.scale = 0.5, .z_loss = 0.01}, LossWork::gradient);
  const double loss[] = {1.54109482270668, 0, 3.5423492507316}, z[] = {9.24825772069339, 0, 10.8395635887929};
  const double gradient[3][5] = {
      {0.000596042835655459, 0.0153721473367619, 0.396452905072264, 0.00440419395002389, -0.386414340967639},
      {},
      {-0.484574397609939, 0.397831529067128, 0.00441950907921037, 0.113980641419956, 0.00126621055096093}};
  for (Index t = 0; t < 3; ++t) {
    EXPECT_NEAR(got.loss[std::size_t(t)], loss[t], 1e-13);
    EXPECT_NEAR(got.log_sum_squared[std::size_t(t)], z[t], 1e-13);
    for (Index v = 0; v < 5; ++v) EXPECT_NEAR(logits(t, v), gradient[t][v], 1e-14);
  }
}

TEST(CrossEntropy, IsSafeForLogitsOfAnySize) {
  guild::Cpu device({.threads = 1});
  Matrix<float> logits(3, 3);
  const float rows[3][3] = {{3e38f, -3e38f, 0}, {-1e4f, -1e4f, -1e4f}, {200, 199, -200}};
  for (Index t = 0; t < 3; ++t)
    for (Index i = 0; i < 3; ++i) logits(t, i) = rows[t][i];
  const Losses got = run(device, logits, {0, 1, 1}, {}, LossWork::gradient);
  EXPECT_EQ(got.loss[0], 0.0);
  EXPECT_NEAR(got.loss[1], std::log(3.0), 1e-7);
  EXPECT_NEAR(got.loss[2], 1.0 + std::log1p(std::exp(-1.0)), 1e-6);
  EXPECT_EQ(got.correct, (std::vector<std::int32_t>{1, 0, 0}));  // of equal logits the first is the model's choice
  for (float value : {logits(0, 0), logits(0, 1), logits(0, 2)}) EXPECT_NEAR(value, 0.0f, 1e-30f);
  EXPECT_NEAR(logits(1, 1), -2.0 / 3, 1e-6);
  EXPECT_NEAR(logits(2, 0), 1 / (1 + std::exp(-1.0)), 1e-6);
}

TEST(CrossEntropy, ANaNIsNotHidden) {
  guild::Cpu device({.threads = 1});
  Matrix<float> logits(1, 4);
  for (Index i = 0; i < 4; ++i) logits(0, i) = i == 2 ? std::numeric_limits<float>::quiet_NaN() : 1.0f;
  EXPECT_TRUE(std::isnan(run(device, logits, {0}, {}, LossWork::gradient).loss[0]));
}

TEST(CrossEntropy, FloatIsNearDoubleAndTeamsAgree) {
  std::mt19937 random(4);
  Matrix<double> wide(3, 700, 701);
  wide.fill_normal(random, 4.0);
  auto narrow = cast<float>(wide);
  wide = cast<double>(narrow);
  auto of_team = wide;
  const std::vector<std::int32_t> targets = {699, -1, 3};
  const guild::CrossEntropyOptions options{.scale = 2.0, .z_loss = 0.1};
  guild::Cpu device({.threads = 2});
  guild::HostTeams teams(3);
  const Losses expected = run(device, wide, targets, options, LossWork::gradient);
  const Losses floats = run(device, narrow, targets, options, LossWork::gradient);
  const Losses team = run(teams, of_team, targets, options, LossWork::gradient);
  expect_near(narrow, wide, 2e-6);
  expect_near(of_team, wide, 1e-14);
  EXPECT_EQ(team.correct, expected.correct);
  for (std::size_t t = 0; t < 3; ++t) {
    EXPECT_NEAR(floats.loss[t], expected.loss[t], 1e-6 * (1 + expected.loss[t]));
    EXPECT_NEAR(team.loss[t], expected.loss[t], 1e-13);
  }
}

TEST(CrossEntropy, RefusesTargetsOutsideOfTheVocabularyAndShapesThatDoNotFit) {
  guild::Cpu device({.threads = 1});
  Matrix<float> logits(2, 4);
  for (float& value : logits.data) value = 1;
  const auto before = logits;
  const auto code = [&](const std::vector<std::int32_t>& targets, Index rows) {
    Losses out(rows);
    return code_of(
        [&] { guild::cross_entropy(device, logits.view(), view_of(targets), {}, LossWork::gradient, out.view()); });
  };
  EXPECT_EQ(code({0, 4}, 2), ErrorCode::in_token);
  EXPECT_EQ(code({0, -2}, 2), ErrorCode::in_token);
  EXPECT_EQ(code({0}, 2), ErrorCode::op_shape);
  EXPECT_EQ(code({0, 3}, 3), ErrorCode::op_shape);
  EXPECT_EQ(logits.data, before.data);
  EXPECT_EQ(code({0, 3}, 2), ErrorCode::count_);
}

TEST(ScatterRows, CopiesRowsToTheirPlacesAndZerosMarkedOnes) {
  guild::HostTeams teams(2);
  Matrix<float> x(2, 5, 6), y(4, 5, 7);
  for (Index i = 0; i < 5; ++i) x(0, i) = float(i), x(1, i) = float(10 + i), y(1, i) = 5, y(2, i) = 6;
  const std::vector<std::int32_t> to = {3, 0}, marks = {7, -1, 0, 2};
  guild::scatter_rows(teams, x.view(), view_of(to), y.view());
  guild::zero_marked_rows(teams, view_of(marks), y.view());
  EXPECT_TRUE(y.padding_is_untouched());
  for (Index i = 0; i < 5; ++i) {
    EXPECT_EQ(y(3, i), x(0, i));
    EXPECT_EQ(y(0, i), x(1, i));
    EXPECT_EQ(y(1, i), 0.0f);
    EXPECT_EQ(y(2, i), 6.0f);
  }
  const std::vector<std::int32_t> outside = {4, -1};
  guild::scatter_rows(teams, x.view(), view_of(outside), y.view());
  EXPECT_TRUE(y.padding_is_untouched());
  EXPECT_EQ(code_of([&] { guild::scatter_rows(teams, x.view(), view_of(marks), y.view()); }), ErrorCode::op_shape);
  EXPECT_EQ(code_of([&] { guild::zero_marked_rows(teams, view_of(to), y.view()); }), ErrorCode::op_shape);
}

}  // namespace cross_entropy_test
