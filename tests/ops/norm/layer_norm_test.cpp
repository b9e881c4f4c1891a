#include <gtest/gtest.h>

#include <guild/device/cpu.hpp>
#include <guild/ops/norm/layer_norm.hpp>

#include "../ops_test_support.hpp"

namespace layer_norm_test {
using namespace guild_test;

/// The formulas in double: y, and given dy also dx and the sums for weight and bias.
struct Oracle {
  std::vector<double> y, dx, dweight, dbias;

  template <class Real>
  Oracle(const Matrix<Real>& x, const std::vector<Real>& weight, const std::vector<Real>& bias, const Matrix<Real>& dy)
      : dweight(weight.size()), dbias(weight.size()) {
    const auto dim = static_cast<Index>(weight.size());
    for (Index t = 0; t < x.rows; ++t) {
      double mean = 0, variance = 0, level = 0, along = 0;
      for (Index i = 0; i < dim; ++i) mean += double(x(t, i)) / double(dim);
      for (Index i = 0; i < dim; ++i) variance += (double(x(t, i)) - mean) * (double(x(t, i)) - mean) / double(dim);
      const double root = std::sqrt(variance + 1e-6);
      const auto z = [&](Index i) { return (double(x(t, i)) - mean) / root; };
      const auto g = [&](Index i) { return double(weight[static_cast<std::size_t>(i)]) * double(dy(t, i)); };
      for (Index i = 0; i < dim; ++i) level += g(i) / double(dim), along += g(i) * z(i) / double(dim);
      for (Index i = 0; i < dim; ++i) {
        const auto c = static_cast<std::size_t>(i);
        y.push_back(z(i) * double(weight[c]) + double(bias[c]));
        dx.push_back((g(i) - level - z(i) * along) / root);
        dweight[c] += double(dy(t, i)) * z(i);
        dbias[c] += double(dy(t, i));
      }
    }
  }
};

/// The largest error of y, dx, dweight and dbias, relative to 1 + the value.
template <class Real>
double largest_error(Index tokens, Index dim, bool in_place) {
  std::mt19937 random(static_cast<unsigned>(tokens * 1000 + dim));
  guild::Cpu device({.threads = 3});
  Matrix<Real> x(tokens, dim, dim + 5), y(tokens, dim, dim + 3), dy(tokens, dim, dim + 1), dx(tokens, dim, dim + 2);
  x.fill_normal(random, 3.0);
  for (Index t = 0; t < tokens; ++t)
    for (Index i = 0; i < dim; ++i) x(t, i) += Real(10);  // far from zero: the variance is around the mean
  dy.fill_normal(random, 1.0);
  const auto weight = normal_vector<Real>(random, dim), bias = normal_vector<Real>(random, dim);
  const Oracle expected(x, weight, bias, dy);
  std::vector<Real> dweight(static_cast<std::size_t>(dim), Real(0.5)), dbias(static_cast<std::size_t>(dim), Real(0.25));
  auto& to = in_place ? dy : dx;
  guild::layer_norm_backward(device, view_of(weight), x.view(), dy.view(), to.view(), view_of(dweight), view_of(dbias),
                             1e-6);
  auto& out = in_place ? x : y;
  guild::layer_norm(device, view_of(weight), view_of(bias), x.view(), out.view(), 1e-6);
  EXPECT_TRUE(out.padding_is_untouched() && to.padding_is_untouched());
  double worst = 0;
  const auto compare = [&](double found, double value) {
    worst = std::max(worst, std::abs(found - value) / (1.0 + std::abs(value)));
  };
  for (Index t = 0; t < tokens; ++t)
    for (Index i = 0; i < dim; ++i) {
      const auto at = static_cast<std::size_t>(t * dim + i);
      compare(double(out(t, i)), expected.y[at]);
      compare(double(to(t, i)), expected.dx[at]);
    }
  for (std::size_t c = 0; c < dweight.size(); ++c) {
    compare(double(dweight[c]), expected.dweight[c] + 0.5);
    compare(double(dbias[c]), expected.dbias[c] + 0.25);
  }
  return worst;
}

TEST(LayerNorm, EqualsTheFormulaInDoubleForwardAndBackward) {
  for (Index tokens : {1, 2, 31, 32, 33, 200})
    for (Index dim : {2, 3, 15, 16, 17, 64, 128, 513})
      for (bool in_place : {false, true}) {
        // Rows of two values that lie close divide by their difference: what the shift by 10 rounded away is larger.
        EXPECT_LT(largest_error<float>(tokens, dim, in_place), dim < 4 ? 2e-3 : 2e-5) << tokens << " x " << dim;
        EXPECT_LT(largest_error<double>(tokens, dim, in_place), 1e-11) << tokens << " x " << dim;
      }
}

TEST(LayerNorm, ARowOfEqualValuesBecomesTheBias) {
  guild::Cpu device({.threads = 1});
  const std::vector<float> weight(4, 2.0f), bias = {1.0f, 2.0f, 3.0f, 4.0f};
  Matrix<float> x(1, 4);
  for (Index i = 0; i < 4; ++i) x(0, i) = 7.0f;
  guild::layer_norm(device, view_of(weight), view_of(bias), x.view(), x.view(), 1e-6);
  for (Index i = 0; i < 4; ++i) EXPECT_EQ(x(0, i), bias[static_cast<std::size_t>(i)]);
}

TEST(LayerNorm, TakesAnEmptyBatch) {
  guild::Cpu device({.threads = 1});
  const std::vector<float> weight(4, 1.0f);
  Matrix<float> x(0, 4);
  guild::layer_norm(device, view_of(weight), view_of(weight), x.view(), x.view(), 1e-6);
}

TEST(LayerNorm, RefusesShapesThatDoNotFit) {
  guild::Cpu device({.threads = 1});
  const std::vector<float> four(4, 1.0f), five(5, 1.0f);
  std::vector<float> dfour(4), dfive(5);
  Matrix<float> x(2, 4), tall(3, 4);
  using guild::ErrorCode;
  const auto forward = [&](auto& w, auto& b, auto& in) {
    return code_of([&] { guild::layer_norm(device, view_of(w), view_of(b), in.view(), x.view(), 1e-6); });
  };
  EXPECT_EQ(forward(four, four, x), ErrorCode::count_);
  EXPECT_EQ(forward(five, four, x), ErrorCode::op_shape);
  EXPECT_EQ(forward(four, five, x), ErrorCode::op_shape);
  EXPECT_EQ(forward(four, four, tall), ErrorCode::op_shape);
  const auto backward = [&](auto& dweight, auto& dbias, auto& dy) {
    return code_of([&] {
      guild::layer_norm_backward(device, view_of(four), x.view(), dy.view(), x.view(), view_of(dweight), view_of(dbias),
                                 1e-6);
    });
  };
  EXPECT_EQ(backward(dfour, dfour, x), ErrorCode::count_);
  EXPECT_EQ(backward(dfive, dfour, x), ErrorCode::op_shape);
  EXPECT_EQ(backward(dfour, dfive, x), ErrorCode::op_shape);
  EXPECT_EQ(backward(dfour, dfour, tall), ErrorCode::op_shape);
}

}  // namespace layer_norm_test
