#include <guild/ops/pool/pool_rows.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <guild/cpu.hpp>

#include "../gradient_check.hpp"

namespace pool_rows_test {
using namespace guild_test;
using guild::ErrorCode;
using guild::PoolSizes;
using guild::PoolWindows;
using guild::RingRows;

constexpr PoolWindows apart = PoolWindows::apart, overlapping = PoolWindows::overlapping;

/// A sequence of `tokens` source rows, random, with row pitches of their own.
template <class Real>
struct Case {
  PoolSizes sizes;
  Index tokens;
  guild::Cpu device;
  Matrix<Real> rows, bias, out;

  Case(PoolSizes of, Index n, guild::CpuOptions options = {.threads = 2})
      : sizes(of),
        tokens(n),
        device(options),
        rows(n, 2 * of.columns(), 2 * of.columns() + 3),
        bias(1, of.ratio * of.columns()),
        out(n / of.ratio, of.width, of.width + 1) {
    std::mt19937 random(3);
    rows.fill_normal(random);
    bias.fill_normal(random);
  }
  [[nodiscard]] guild::PoolRowsJob<Real> job() {
    return {.rows = rows.view(), .length = tokens, .bias = bias.view().row(0), .out = out.view(), .sizes = sizes};
  }
  void run(const guild::PoolRowsJob<Real>& one) {
    guild::pool_rows(device, std::span<const guild::PoolRowsJob<Real>>(&one, 1));
  }
  void run() { run(job()); }

  /// The formula in double.
  [[nodiscard]] double expected(Index w, Index c) const {
    const Index m = sizes.ratio, columns = sizes.columns();
    double total = 0, sum = 0;
    for (Index t = (w - (sizes.windows == overlapping ? 1 : 0)) * m; t < (w + 1) * m; ++t) {
      if (t < 0) continue;
      const Index of = t < w * m || sizes.windows == apart ? c : sizes.width + c;
      const double share = std::exp(double(rows(t, columns + of)) + double(bias(0, t % m * columns + of)));
      total += share;
      sum += share * double(rows(t, of));
    }
    return sum / total;
  }
};

TEST(PoolRows, FollowTheFormula) {
  for (const PoolSizes& sizes : {PoolSizes{4, 37, overlapping}, PoolSizes{8, 16, apart}, PoolSizes{1, 5, overlapping},
                                 PoolSizes{1, 3, apart}, PoolSizes{128, 20, apart}})
    for (const Index tokens : {Index{0}, Index{3}, sizes.ratio, 5 * sizes.ratio + sizes.ratio / 2})
      for (const guild::Isa isa : {guild::Isa::baseline, guild::Isa::avx2, guild::Isa::avx512}) {
        if (!guild::runs_here(isa)) continue;
        Case<float> at(sizes, tokens, {.threads = 2, .isa = isa});
        at.run();
        for (Index w = 0; w < at.out.rows; ++w)
          for (Index c = 0; c < sizes.width; ++c) ASSERT_NEAR(at.out(w, c), at.expected(w, c), 2e-6);
        EXPECT_TRUE(at.out.padding_is_untouched());
      }
}

TEST(PoolRows, TakeGatesOfAnySize) {
  Case<float> at({4, 18, overlapping}, 12);
  for (Index t = 0; t < at.tokens; ++t)
    for (Index c = 0; c < at.sizes.columns(); ++c) at.rows(t, at.sizes.columns() + c) = t % 2 == 0 ? 3e4f : -3e4f;
  at.run();
  for (Index w = 0; w < 3; ++w)
    for (Index c = 0; c < 18; ++c) {
      ASSERT_TRUE(std::isfinite(at.out(w, c)));
      // Gates that a column's tokens share weigh as without them.
      double total = 0, sum = 0;
      for (Index t = std::max(Index{0}, 4 * w - 4); t < 4 * w + 4; t += 2) {
        const Index of = t < 4 * w ? c : 18 + c;
        const double share = std::exp(double(float(3e4f + at.bias(0, t % 4 * 36 + of))) - 3e4);
        total += share, sum += share * double(at.rows(t, of));
      }
      ASSERT_NEAR(at.out(w, c), sum / total, 1e-4);
    }
}

/// The same job from a ring, and from other windows on.
TEST(PoolRows, HaveTheSameBitsFromARingAndOneByOne) {
  for (const PoolSizes& sizes : {PoolSizes{4, 37, overlapping}, PoolSizes{8, 19, apart}}) {
    const Index tokens = 11 * sizes.ratio + 2, needed = sizes.series() * sizes.ratio;
    Case<float> at(sizes, tokens);
    at.run();
    for (const Index pinned : {0, 3})
      for (const Index spare : {0, 1, 5}) {
        const RingRows ring{pinned, needed + spare};
        Matrix<float> kept(pinned + ring.rows, at.rows.cols, at.rows.cols + 1), out(1, sizes.width);
        for (Index t = 0, w = 0; t < tokens; ++t) {
          std::copy_n(&at.rows(t, 0), at.rows.cols, &kept(ring.row_of(t), 0));
          if ((t + 1) % sizes.ratio != 0) continue;
          at.run({.rows = kept.view(),
                  .length = t + 1,
                  .first = w,
                  .bias = at.bias.view().row(0),
                  .out = out.view(),
                  .sizes = sizes,
                  .ring = ring});
          for (Index c = 0; c < sizes.width; ++c) ASSERT_EQ(out(0, c), at.out(w, c)) << t;
          ++w;
        }
      }
  }
}

TEST(PoolRows, HaveTheSameBitsWhateverTheThreads) {
  Case<float> one({4, 37, overlapping}, 600, {.threads = 1}), four({4, 37, overlapping}, 600, {.threads = 4});
  one.run();
  four.run();
  EXPECT_EQ(one.out.data, four.out.data);
}

void expect_gradients(PoolSizes sizes, Index tokens) {
  Case<double> at(sizes, tokens);
  std::mt19937 random(4);
  Matrix<double> dout(at.out.rows, sizes.width), drows(tokens, 2 * sizes.columns()), dbias(1, at.bias.cols),
      dvalues(tokens, sizes.columns(), sizes.columns() + 2), dgates(tokens, sizes.columns());
  dout.fill_normal(random);
  std::ranges::fill(dbias.data, 0.5);  // it is added to
  const auto value = [&] {
    at.run();
    return dot(at.out, dout);
  };
  value();
  const guild::PoolRowsGradientJob<double> job{.rows = at.rows.view(),
                                               .bias = at.bias.view().row(0),
                                               .out = at.out.view(),
                                               .dout = dout.view(),
                                               .dvalues = dvalues.view(),
                                               .dgates = dgates.view(),
                                               .sizes = sizes};
  guild::pool_rows_backward(at.device, std::span<const guild::PoolRowsGradientJob<double>>(&job, 1),
                            dbias.view().row(0));
  EXPECT_TRUE(dvalues.padding_is_untouched());
  for (Index t = 0; t < tokens; ++t)
    for (Index c = 0; c < sizes.columns(); ++c)
      drows(t, c) = dvalues(t, c), drows(t, sizes.columns() + c) = dgates(t, c);
  for (double& one : dbias.data) one -= 0.5;
  expect_gradient(at.rows, drows, value, "rows");
  expect_gradient(at.bias, dbias, value, "bias");
}
TEST(PoolRows, HaveTheGradientsOfCentralDifferences) {
  expect_gradients({4, 19, overlapping}, 14);
  expect_gradients({4, 17, apart}, 11);
  expect_gradients({2, 3, overlapping}, 1);
  expect_gradients({1, 2, overlapping}, 3);
  expect_gradients({3, 2, apart}, 9);
}

TEST(PoolRows, AddUpTheGradientsOfTheBiasInAnOrderOfTheirOwn) {
  const auto gradients = [](int threads) {
    Case<float> at({4, 37, overlapping}, 700, {.threads = threads});
    at.run();
    Matrix<float> dout(at.out.rows, 37), dvalues(700, 74), dgates(700, 74), dbias(1, at.bias.cols);
    std::mt19937 random(4);
    dout.fill_normal(random);
    std::ranges::fill(dbias.data, 0.0f);
    const guild::PoolRowsGradientJob<float> job{.rows = at.rows.view(),
                                                .bias = at.bias.view().row(0),
                                                .out = at.out.view(),
                                                .dout = dout.view(),
                                                .dvalues = dvalues.view(),
                                                .dgates = dgates.view(),
                                                .sizes = at.sizes};
    guild::pool_rows_backward(at.device, std::span<const guild::PoolRowsGradientJob<float>>(&job, 1),
                              dbias.view().row(0));
    return dbias.data;
  };
  EXPECT_EQ(gradients(1), gradients(3));
}

TEST(PoolRows, RefuseWhatDoesNotFit) {
  Case<float> at({4, 5, overlapping}, 12);
  const auto code = [&](auto&& change) {
    guild::PoolRowsJob<float> job = at.job();
    change(job);
    return code_of([&] { at.run(job); });
  };
  EXPECT_EQ(code([](auto&) {}), ErrorCode::count_);
  EXPECT_EQ(code([](auto& job) { job.sizes.ratio = 0; }), ErrorCode::op_argument);
  EXPECT_EQ(code([](auto& job) { job.sizes.width = 0; }), ErrorCode::op_argument);
  EXPECT_EQ(code([](auto& job) { job.sizes.windows = apart; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.bias.size = 39; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.length = 11; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.length = 13; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.first = 1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.first = -1; }), ErrorCode::op_shape);
  // The last window of 12 tokens needs 8 rows, 9 after one token more.
  const auto last = [](Index rows, Index length) {
    return [=](auto& job) {
      job.first = 2, job.out.rows = 1, job.length = length, job.ring.rows = rows, job.rows.rows = rows;
    };
  };
  EXPECT_EQ(code(last(8, 12)), ErrorCode::count_);
  EXPECT_EQ(code(last(7, 12)), ErrorCode::op_shape);
  EXPECT_EQ(code(last(8, 13)), ErrorCode::op_shape);
  EXPECT_EQ(code(last(9, 13)), ErrorCode::count_);
}

}  // namespace pool_rows_test
