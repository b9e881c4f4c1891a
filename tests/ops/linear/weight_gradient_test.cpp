// The products of training: weight gradients, products that are added, and both in double.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <guild/cpu.hpp>
#include <guild/ops/linear/linear.hpp>
#include <random>
#include <string>
#include <vector>

#include "../ops_test_support.hpp"

namespace weight_gradient_test {

using namespace guild;
using guild_test::code_of;
using guild_test::Matrix;

template <class Real>
Matrix<Real> random_matrix(Index rows, Index cols, Index pitch, unsigned seed) {
  Matrix<Real> m(rows, cols, pitch);
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < cols; ++c) m(r, c) = static_cast<Real>(normal(random));
  return m;
}

std::vector<std::int32_t> random_rows(Index count, Index rows, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::int32_t> gather;
  for (Index i = 0; i < count; ++i) gather.push_back(static_cast<std::int32_t>(random() % static_cast<unsigned>(rows)));
  return gather;
}

template <class Real>
struct GradientCase {
  Matrix<Real> dy, x, dw, before;
  std::vector<std::int32_t> dy_gather, x_gather;
  Index rows;
  GradientCase(Index rows_, Index outputs, Index inputs, int gathers, unsigned seed)
      : dy(random_matrix<Real>(rows_, outputs, outputs + 3, seed)),
        x(random_matrix<Real>((gathers & 1) != 0 ? 50 : rows_, inputs, inputs + 2, seed + 1)),
        dw(random_matrix<Real>(outputs, inputs, inputs + 1, seed + 2)),
        before(dw),
        rows(rows_) {
    if ((gathers & 1) != 0) x_gather = random_rows(rows, 50, seed);
    if ((gathers & 2) != 0) {
      dy = random_matrix<Real>(40, outputs, outputs + 3, seed);
      dy_gather = random_rows(rows, 40, seed + 1);
    }
  }
  WeightGradientJob<Real> job() {
    return {rows,
            dy.view(),
            x.view(),
            dw.view(),
            dy_gather.empty() ? nullptr : dy_gather.data(),
            x_gather.empty() ? nullptr : x_gather.data()};
  }
  void expect_right(double tolerance, const std::string& what) {
    for (Index o = 0; o < dw.rows; ++o) {
      for (Index i = 0; i < dw.cols; ++i) {
        double sum = double{before(o, i)}, magnitude = std::abs(sum);
        for (Index t = 0; t < rows; ++t) {
          const Index from = dy_gather.empty() ? t : dy_gather[static_cast<std::size_t>(t)];
          const Index at = x_gather.empty() ? t : x_gather[static_cast<std::size_t>(t)];
          const double term = double{dy(from, o)} * double{x(at, i)};
          sum += term;
          magnitude += std::abs(term);
        }
        ASSERT_NEAR(double{dw(o, i)}, sum, magnitude * tolerance) << what << " dw(" << o << ", " << i << ")";
      }
    }
    EXPECT_TRUE(dw.padding_is_untouched()) << what;
  }
};

std::string text(Index rows, Index outputs, Index inputs, int gathers) {
  return std::to_string(rows) + " rows, dw " + std::to_string(outputs) + " x " + std::to_string(inputs) + ", gathers " +
         std::to_string(gathers);
}

class WeightGradient : public testing::TestWithParam<Isa> {
 protected:
  void SetUp() override {
    if (!runs_here(GetParam())) GTEST_SKIP() << "this machine has no " << name(GetParam());
  }
  Cpu device{{.threads = 3}};
};

INSTANTIATE_TEST_SUITE_P(Variants, WeightGradient, testing::Values(Isa::baseline, Isa::avx2, Isa::avx512),
                         [](const auto& variant) { return std::string(name(variant.param)); });

TEST_P(WeightGradient, AddsTheSumOverRowsOfAnyShape) {
  const Index shapes[][3] = {{1, 1, 1},     {5, 3, 2},     {17, 72, 33},   {300, 31, 50},  {64, 144, 72}, {0, 4, 5},
                             {256, 16, 16}, {257, 15, 17}, {513, 229, 31}, {100, 12, 290}, {31, 225, 257}};
  for (const auto& [rows, outputs, inputs] : shapes) {
    for (const int gathers : {0, 1, 2, 3}) {
      if (rows == 0 && gathers != 0) continue;
      GradientCase<float> it(rows, outputs, inputs, gathers, static_cast<unsigned>(rows + outputs));
      const WeightGradientJob<float> job = it.job();
      run_weight_gradient(device, std::span(&job, 1), GetParam());
      it.expect_right(1e-6, text(rows, outputs, inputs, gathers));
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(WeightGradient, RunsManyJobsWithEmptyOnesInOneCall) {
  std::vector<GradientCase<float>> cases;
  std::vector<WeightGradientJob<float>> jobs;
  for (const Index rows : {0, 40, 0, 1, 333, 7, 0}) cases.emplace_back(rows, 72, 50, rows > 1 ? 3 : 0, 11U);
  for (auto& it : cases) jobs.push_back(it.job());
  run_weight_gradient(device, jobs, GetParam());
  for (auto& it : cases) it.expect_right(1e-6, std::to_string(it.rows) + " rows");
}

TEST_P(WeightGradient, DoesNotDependOnThreads) {
  for (const auto& [rows, outputs, inputs] : {std::array<Index, 3>{3000, 144, 150}, {600, 300, 520}}) {
    std::vector<std::vector<float>> found;
    for (const int threads : {1, 2, 4}) {
      Cpu cpu{{.threads = threads}};
      GradientCase<float> it(rows, outputs, inputs, 3, 5);
      const auto job = it.job();
      run_weight_gradient(cpu, std::span(&job, 1), GetParam());
      found.push_back(it.dw.data);
    }
    EXPECT_EQ(found[0], found[1]);
    EXPECT_EQ(found[0], found[2]);
  }
}

TEST_P(WeightGradient, AddsOneFinishedSum) {
  // dw starts at 2^24: adding ones to it one after the other would change nothing.
  const Index rows = 700;
  const std::vector<float> ones(static_cast<std::size_t>(rows), 1.0f);
  float dw = 0x1p24f;
  const WeightGradientJob<float> job{rows, {ones.data(), rows, 1}, {ones.data(), rows, 1}, {&dw, 1, 1}};
  run_weight_gradient(device, std::span(&job, 1), GetParam());
  EXPECT_EQ(dw, 0x1p24f + 700.0f);
}

TEST_P(WeightGradient, AllocatesNothingOnceWarm) {
  GradientCase<float> it(300, 72, 144, 3, 5);
  const auto job = it.job();
  run_weight_gradient(device, std::span(&job, 1), GetParam());
  const Index held = device.scratch_bytes();
  for (int i = 0; i < 3; ++i) run_weight_gradient(device, std::span(&job, 1), GetParam());
  EXPECT_EQ(device.scratch_bytes(), held);
}

TEST(WeightGradientDouble, AddsTheSumOverRowsOfAnyShape) {
  Cpu device{{.threads = 3}};
  const Index shapes[][3] = {{1, 1, 1}, {5, 3, 2}, {17, 72, 33}, {300, 31, 50}, {0, 4, 5}};
  for (const auto& [rows, outputs, inputs] : shapes) {
    for (const int gathers : {0, 1, 2, 3}) {
      if (rows == 0 && gathers != 0) continue;
      GradientCase<double> it(rows, outputs, inputs, gathers, static_cast<unsigned>(rows + outputs));
      const WeightGradientJob<double> job = it.job();
      weight_gradient(device, std::span(&job, 1));
      it.expect_right(1e-15, text(rows, outputs, inputs, gathers));
      if (HasFatalFailure()) return;
    }
  }
}

TEST(LinearDouble, EqualsTheSumsForBothProductsAndUpdates) {
  Cpu device{{.threads = 3}};
  const Index inputs = 37, outputs = 21, rows = 45;
  DenseMatrix<double> weight{outputs, inputs, Buffer<double>(outputs * inputs)};
  std::mt19937 random(3);
  std::normal_distribution<double> normal;
  for (double& w : weight.data.view()) w = normal(random);
  const auto gather = random_rows(rows, 30, 5);
  const guild::View w = weight.matrix();
  for (const Product product : {Product::x_wt, Product::x_w}) {
    const Index in = product == Product::x_wt ? inputs : outputs, out = product == Product::x_wt ? outputs : inputs;
    for (const Update update : {Update::overwrite, Update::add}) {
      const auto x = random_matrix<double>(30, in, in + 2, 1);
      auto y = random_matrix<double>(rows, out, out + 1, 2);
      const auto before = y;
      const BasicLinearJob<double> job{weight.view(), x.view(), y.view(), gather.data(), product, update};
      linear(device, std::span(&job, 1));
      for (Index t = 0; t < rows; ++t) {
        for (Index i = 0; i < out; ++i) {
          double sum = update == Update::add ? before(t, i) : 0.0;
          for (Index k = 0; k < in; ++k)
            sum += x(gather[static_cast<std::size_t>(t)], k) * (product == Product::x_wt ? w(i, k) : w(k, i));
          ASSERT_NEAR(y(t, i), sum, 1e-12) << t << ", " << i;
        }
      }
      EXPECT_TRUE(y.padding_is_untouched());
    }
  }
}

TEST(LinearDouble, TakesStoredWeightsToo) {
  Cpu device{{.threads = 1}};
  DenseMatrix<bf16> weight{1, 2, Buffer<bf16>(2)};
  weight.data[0] = bf16(0.5f), weight.data[1] = bf16(-2.0f);
  const double x[] = {3.0, 1.0 + 1e-12};
  double y = 0.0;
  linear(device, weight.view(), View<const double, 2>(x, 1, 2), View<double, 2>(&y, 1, 1));
  EXPECT_EQ(y, 1.5 - 2.0 * (1.0 + 1e-12));
}

TEST(WeightGradientShapes, AreCheckedBeforeAnythingIsComputed) {
  Cpu device{{.threads = 1}};
  auto dy = random_matrix<float>(4, 3, 3, 1), x = random_matrix<float>(4, 5, 5, 2),
       dw = random_matrix<float>(3, 5, 5, 3);
  const auto before = dw.data;
  const auto code = [&](const WeightGradientJob<float>& job) {
    return code_of([&] { weight_gradient(device, std::span(&job, 1)); });
  };
  const WeightGradientJob<float> good{4, dy.view(), x.view(), dw.view()};
  auto bad = good;
  bad.rows = 3;
  EXPECT_EQ(code(bad), ErrorCode::op_shape);
  bad.rows = -1;
  EXPECT_EQ(code(bad), ErrorCode::op_shape);
  bad = good, bad.dy.cols = 2;
  EXPECT_EQ(code(bad), ErrorCode::op_shape);
  bad = good, bad.x.cols = 4;
  EXPECT_EQ(code(bad), ErrorCode::op_shape);
  bad = good, bad.dw.pitch = 4;
  EXPECT_EQ(code(bad), ErrorCode::op_shape);
  bad = good, bad.x.pitch = 4;
  EXPECT_EQ(code(bad), ErrorCode::op_shape);
  bad = good, bad.dw.data = nullptr;
  EXPECT_EQ(code(bad), ErrorCode::op_shape);
  bad = good, bad.dy.data = nullptr;
  EXPECT_EQ(code(bad), ErrorCode::op_shape);
  const std::int32_t outside[] = {0, 1, 2, 4}, inside[] = {0, 1, 1, 0};
  bad = good, bad.x_gather = outside;
  EXPECT_EQ(code(bad), ErrorCode::op_shape);
  bad = good, bad.dy_gather = outside;
  EXPECT_EQ(code(bad), ErrorCode::op_shape);
  EXPECT_EQ(dw.data, before);
  bad.dy_gather = inside;
  EXPECT_EQ(code(bad), ErrorCode::count_);
  weight_gradient(device, std::span<const WeightGradientJob<float>>());
}

TEST(WeightGradientShapes, FloatActivationsRefuseDoubleWeights) {
  Cpu device{{.threads = 1}};
  const DenseMatrix<double> weight{2, 2, Buffer<double>(4)};
  const float x[] = {1.0f, 2.0f};
  float y[2] = {};
  EXPECT_EQ(code_of([&] { linear(device, weight.view(), View<const float, 2>(x, 1, 2), View<float, 2>(y, 1, 2)); }),
            ErrorCode::op_shape);
}

}  // namespace weight_gradient_test
