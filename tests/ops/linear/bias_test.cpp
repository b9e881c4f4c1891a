#include <gtest/gtest.h>

#include <guild/device/cpu.hpp>
#include <guild/ops/linear/bias.hpp>

#include "../gradient_check.hpp"

namespace bias_test {
using namespace guild_test;
using guild::ErrorCode;

const std::vector<Index> row_counts = {1, 2, 31, 32, 33, 64, 70, 200}, widths = {1, 3, 16, 33, 75, 144};

template <class Real>
void check_sums(double tolerance) {
  for (const Index tokens : row_counts)
    for (const Index dim : widths)
      for (const int threads : {1, 2, 4}) {
        guild::Cpu device({.threads = threads});
        std::mt19937 random(static_cast<unsigned>(tokens * 1000 + dim));
        Matrix<Real> y(tokens, dim, dim + 3), dy(tokens, dim, dim + 5);
        y.fill_normal(random);
        dy.fill_normal(random);
        const Matrix<Real> before = y;
        const auto bias = normal_vector<Real>(random, dim);
        auto dbias = normal_vector<Real>(random, dim);
        const auto start = dbias;
        guild::add_bias(device, view_of(bias), y.view());
        guild::bias_gradient(device, std::as_const(dy).view(), view_of(dbias));
        ASSERT_TRUE(y.padding_is_untouched());
        for (Index c = 0; c < dim; ++c) {
          const auto i = static_cast<std::size_t>(c);
          double sum = double(start[i]);
          for (Index t = 0; t < tokens; ++t) {
            ASSERT_EQ(y(t, c), before(t, c) + bias[i]) << tokens << " x " << dim << ": " << t << ", " << c;
            sum += double(dy(t, c));
          }
          ASSERT_NEAR(double(dbias[i]), sum, tolerance * (1 + std::abs(sum))) << tokens << " x " << dim << ": " << c;
        }
      }
}

TEST(Bias, IsAddedToEveryRowAndItsGradientIsTheSumOfRows) {
  check_sums<float>(1e-5);
  check_sums<double>(1e-14);
}

TEST(Bias, GradientHasTheSameBitsForEveryThreadCount) {
  for (const Index tokens : {1, 33, 700}) {
    std::mt19937 random(1);
    Matrix<float> dy(tokens, 75);
    dy.fill_normal(random);
    std::vector<std::vector<float>> results;
    for (const int threads : {1, 2, 4}) {
      guild::Cpu device({.threads = threads});
      results.emplace_back(75, 0.5f);
      guild::bias_gradient(device, std::as_const(dy).view(), view_of(results.back()));
      EXPECT_EQ(results.back(), results[0]) << threads << " threads";
    }
  }
}

TEST(Bias, GradientEqualsCentralDifferencesInDouble) {
  guild::Cpu device({.threads = 2});
  std::mt19937 random(2);
  Matrix<double> x(37, 5), dy(37, 5), bias(1, 5), dbias(1, 5);
  for (auto* m : {&x, &dy, &bias}) m->fill_normal(random);
  for (double& value : dbias.data) value = 0;
  guild::bias_gradient(device, std::as_const(dy).view(), dbias.view().row(0));
  expect_gradient(
      bias, dbias,
      [&] {
        auto y = x;
        guild::add_bias(device, std::as_const(bias).view().row(0), y.view());
        return dot(y, dy);
      },
      "bias");
}

TEST(Bias, TakesAnEmptyBatch) {
  guild::Cpu device({.threads = 2});
  std::vector<float> bias(4, 1.0f);
  Matrix<float> y(0, 4);
  guild::add_bias(device, view_of(std::as_const(bias)), y.view());
  guild::bias_gradient(device, std::as_const(y).view(), view_of(bias));
  EXPECT_EQ(bias, std::vector<float>(4, 1.0f));
}

TEST(Bias, AllocatesNothingAfterWarmUp) {
  guild::Cpu device({.threads = 2});
  std::vector<float> dbias(75);
  Matrix<float> dy(200, 75);
  guild::bias_gradient(device, std::as_const(dy).view(), view_of(dbias));
  const Index held = device.scratch_bytes();
  guild::bias_gradient(device, std::as_const(dy).view(), view_of(dbias));
  EXPECT_EQ(device.scratch_bytes(), held);
}

TEST(Bias, RefusesShapesThatDoNotFit) {
  guild::Cpu device({.threads = 1});
  std::vector<float> bias(4), longer(5);
  Matrix<float> y(2, 4);
  const guild::View<float, 2> overlapping{y.data.data(), 2, 4, 3};
  const auto add = [&](auto& b, auto view) {
    return code_of([&] { guild::add_bias(device, view_of(std::as_const(b)), view); });
  };
  const auto gradient = [&](auto& b, auto view) {
    return code_of([&] { guild::bias_gradient(device, view, view_of(b)); });
  };
  EXPECT_EQ(add(bias, y.view()), ErrorCode::count_);
  EXPECT_EQ(add(longer, y.view()), ErrorCode::op_shape);
  EXPECT_EQ(add(bias, overlapping), ErrorCode::op_shape);
  EXPECT_EQ(code_of([&] { guild::add_bias(device, {nullptr, 4}, y.view()); }), ErrorCode::op_argument);
  EXPECT_EQ(gradient(bias, y.view()), ErrorCode::count_);
  EXPECT_EQ(gradient(longer, y.view()), ErrorCode::op_shape);
  EXPECT_EQ(gradient(bias, overlapping), ErrorCode::op_shape);
  EXPECT_EQ(code_of([&] {
              guild::bias_gradient(device, y.view(), guild::View<float>{nullptr, 4});
            }),
            ErrorCode::op_argument);
}

}  // namespace bias_test
