#include <gtest/gtest.h>

#include <guild/device/cpu.hpp>
#include <guild/ops/norm/rms_norm.hpp>

#include "../ops_test_support.hpp"

namespace rms_norm_test {
using namespace guild_test;

using guild::NormGain;

template <class Real, NormGain Gain = NormGain::weight>
double largest_error(Index tokens, Index dim, Index pitch, bool in_place) {
  std::mt19937 random(static_cast<unsigned>(tokens * 1000 + dim));
  guild::Cpu device({.threads = 3});
  Matrix<Real> x(tokens, dim, pitch), y(tokens, dim, pitch + 3);
  x.fill_normal(random, 3.0);
  const Matrix<Real> before = x;
  const auto weight = normal_vector<Real>(random, dim);
  auto& out = in_place ? x : y;
  guild::rms_norm<Gain>(device, view_of(weight), x.view(), out.view(), 1e-6);
  const double one = Gain == NormGain::weight ? 0.0 : 1.0;
  EXPECT_TRUE(out.padding_is_untouched());
  double worst = 0;
  for (Index t = 0; t < tokens; ++t) {
    double squares = 0;
    for (Index i = 0; i < dim; ++i) squares += double(before(t, i)) * double(before(t, i));
    const double factor = 1.0 / std::sqrt(squares / double(dim) + 1e-6);
    for (Index i = 0; i < dim; ++i) {
      const double expected = double(before(t, i)) * factor * (one + double(weight[static_cast<std::size_t>(i)]));
      worst = std::max(worst, std::abs(double(out(t, i)) - expected) / (std::abs(expected) + 1e-3));
    }
  }
  return worst;
}

TEST(RmsNorm, EqualsTheFormulaInDouble) {
  for (Index tokens : {1, 2, 7, 70})
    for (Index dim : {1, 3, 15, 16, 17, 64, 512, 1025})
      for (bool in_place : {false, true}) {
        EXPECT_LT(largest_error<float>(tokens, dim, dim + 5, in_place), 2e-6) << tokens << " x " << dim;
        EXPECT_LT(largest_error<double>(tokens, dim, dim, in_place), 1e-14) << tokens << " x " << dim;
        const double of_one = largest_error<float, NormGain::one_plus_weight>(tokens, dim, dim + 5, in_place);
        EXPECT_LT(of_one, 2e-6) << tokens << " x " << dim << ", 1 + weight";
      }
}

TEST(RmsNorm, AddsEpsilonToTheMean) {
  guild::Cpu device({.threads = 1});
  std::vector<float> weight(4, 1.0f);
  Matrix<float> x(1, 4), y(1, 4);
  for (Index i = 0; i < 4; ++i) x(0, i) = 1e-3f;  // mean square 1e-6
  guild::rms_norm(device, view_of(weight), x.view(), y.view(), 1e-6);
  EXPECT_NEAR(y(0, 0), 1.0 / std::sqrt(2.0), 1e-6);
}

TEST(RmsNorm, TakesAnEmptyBatch) {
  guild::Cpu device({.threads = 1});
  std::vector<float> weight(4, 1.0f);
  Matrix<float> x(0, 4);
  guild::rms_norm(device, view_of(weight), x.view(), x.view(), 1e-6);
}

TEST(RmsNorm, RefusesShapesThatDoNotFit) {
  guild::Cpu device({.threads = 1});
  std::vector<float> weight(4, 1.0f), long_weight(5, 1.0f);
  Matrix<float> x(2, 4), y(2, 4), wide(2, 5), tall(3, 4);
  using guild::ErrorCode;
  const auto code = [&](auto& w, auto& a, auto& b) {
    return code_of([&] { guild::rms_norm(device, view_of(std::as_const(w)), a.view(), b.view(), 1e-6); });
  };
  EXPECT_EQ(code(weight, x, y), ErrorCode::count_);
  EXPECT_EQ(code(long_weight, x, y), ErrorCode::op_shape);
  EXPECT_EQ(code(weight, wide, y), ErrorCode::op_shape);
  EXPECT_EQ(code(weight, tall, y), ErrorCode::op_shape);
  const guild::View<float, 2> overlapping{y.data.data(), 2, 4, 3};
  EXPECT_EQ(code_of([&] { guild::rms_norm(device, view_of(std::as_const(weight)), x.view(), overlapping, 1e-6); }),
            ErrorCode::op_shape);
}

// dx and dweight against the formula in double, over more rows than a block has.
template <NormGain Gain>
double largest_gradient_error(Index tokens, Index dim, bool with_plus, bool in_place) {
  std::mt19937 random(static_cast<unsigned>(tokens * 1000 + dim));
  guild::Cpu device({.threads = 3});
  Matrix<float> x(tokens, dim, dim + 5), dy(tokens, dim, dim + 3), dx(tokens, dim, dim + 2), plus(tokens, dim, dim + 1);
  x.fill_normal(random, 3.0);
  dy.fill_normal(random, 1.0);
  plus.fill_normal(random, 1.0);
  const Matrix<float> gradient = dy;
  const auto weight = normal_vector<float>(random, dim);
  std::vector<float> dweight(static_cast<std::size_t>(dim), 0.5f);
  auto& out = in_place ? dy : dx;
  guild::rms_norm_backward<Gain>(device, view_of(weight), x.view(), dy.view(), out.view(), view_of(dweight), 1e-6,
                                 with_plus ? guild::View<const float, 2>(plus.view()) : guild::View<const float, 2>());
  EXPECT_TRUE(out.padding_is_untouched());
  const double one = Gain == NormGain::weight ? 0.0 : 1.0;
  double worst = 0;
  std::vector<double> expected_dweight(static_cast<std::size_t>(dim), 0.5);
  for (Index t = 0; t < tokens; ++t) {
    double squares = 0, along = 0;
    for (Index i = 0; i < dim; ++i) {
      squares += double(x(t, i)) * double(x(t, i));
      along += (one + double(weight[static_cast<std::size_t>(i)])) * double(gradient(t, i)) * double(x(t, i));
    }
    const double r = 1.0 / std::sqrt(squares / double(dim) + 1e-6);
    for (Index i = 0; i < dim; ++i) {
      const auto c = static_cast<std::size_t>(i);
      expected_dweight[c] += double(gradient(t, i)) * double(x(t, i)) * r;
      const double expected = (one + double(weight[c])) * double(gradient(t, i)) * r -
                              double(x(t, i)) * along * r * r * r / double(dim) +
                              (with_plus ? double(plus(t, i)) : 0.0);
      worst = std::max(worst, std::abs(double(out(t, i)) - expected) / (std::abs(expected) + 1.0));
    }
  }
  for (std::size_t c = 0; c < dweight.size(); ++c)
    worst = std::max(worst, std::abs(double(dweight[c]) - expected_dweight[c]) / (std::abs(expected_dweight[c]) + 10.0));
  return worst;
}

TEST(RmsNormBackward, EqualsTheFormulaInDouble) {
  for (Index tokens : {1, 31, 32, 33, 200})
    for (Index dim : {1, 3, 16, 33, 144})
      for (bool with_plus : {false, true})
        for (bool in_place : {false, true}) {
          EXPECT_LT(largest_gradient_error<NormGain::weight>(tokens, dim, with_plus, in_place), 4e-6)
              << tokens << " x " << dim;
          // Gains are larger by the root of two, and so is what cancels.
          EXPECT_LT(largest_gradient_error<NormGain::one_plus_weight>(tokens, dim, with_plus, in_place), 6e-6)
              << tokens << " x " << dim << ", 1 + weight";
        }
}

TEST(RmsNormBackward, RefusesARowThatIsAddedOfAnotherShape) {
  guild::Cpu device({.threads = 1});
  std::vector<float> weight(4, 1.0f), dweight(4);
  Matrix<float> x(2, 4), dx(2, 4), plus(3, 4);
  EXPECT_EQ(code_of([&] {
              guild::rms_norm_backward(device, view_of(std::as_const(weight)), x.view(), x.view(), dx.view(),
                                       view_of(dweight), 1e-6, plus.view());
            }),
            guild::ErrorCode::op_shape);
}

}  // namespace rms_norm_test
