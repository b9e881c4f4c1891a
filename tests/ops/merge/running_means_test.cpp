#include <guild/ops/merge/running_means.hpp>

#include <gtest/gtest.h>

#include <limits>

#include "merge_test_support.hpp"

namespace running_means_test {
using namespace guild_test;

template <class Real>
void run(const guild::RunningMeansJob<Real>& job) {
  guild::Cpu device({.threads = 2});
  run_one(device, job, [](auto&&... all) { guild::running_means(all...); });
}

TEST(RunningMeans, AreTheMeansOfTheRowsSoFar) {
  const std::vector<std::int32_t> counts = counts_of({1, 5, 1, 2, 9});
  std::mt19937 random(4);
  auto x = random_matrix<double>(random, 18, 37);
  const auto before = x;
  run<double>({.x = x.view(), .counts = view_of(counts), .z = x.view()});  // in place
  for (Index t = 0; t < 18; ++t)
    for (Index c = 0; c < 37; ++c) {
      double sum = 0;
      const Index count = counts[std::size_t(t)];
      for (Index i = t + 1 - count; i <= t; ++i) sum += before(i, c);
      ASSERT_NEAR(x(t, c), sum / double(count), 1e-14);
      if (count == 1) { ASSERT_EQ(x(t, c), before(t, c)); }
    }
}

TEST(RunningMeans, HaveTheSameBitsInAnySplitAndOfEqualRowsTheirs) {
  const std::vector<std::int32_t> counts = counts_of({3, 1, 7, 4});
  std::mt19937 random(4);
  auto x = random_matrix<float>(random, 15, 21);
  for (Index t = 4; t < 11; ++t)
    for (Index c = 0; c < 21; ++c) x(t, c) = x(4, c);
  Matrix<float> whole(15, 21, 23), part = whole;
  run<float>({.x = x.view(), .counts = view_of(counts), .z = whole.view()});
  for (Index t = 4; t < 11; ++t)
    for (Index c = 0; c < 21; ++c) ASSERT_EQ(whole(t, c), x(t, c));
  for (const Index step : {1, 2, 5}) {
    for (Index first = 0; first < 15; first += step) {
      const Index count = std::min(step, 15 - first);
      run<float>({.x = x.view().middle_rows(first, count),
                  .counts = view_of(counts).slice(first, count),
                  .before = first > 0 ? part.view().middle_rows(first - 1, 1) : guild::View<float, 2>{},
                  .z = part.view().middle_rows(first, count)});
    }
    for (Index t = 0; t < 15; ++t)
      for (Index c = 0; c < 21; ++c) ASSERT_EQ(part(t, c), whole(t, c)) << t;
  }
}

TEST(RunningMeans, TheirGradientsAreThoseOfCentralDifferences) {
  const std::vector<std::int32_t> counts = counts_of({2, 1, 4});
  std::mt19937 random(4);
  auto x = random_matrix<double>(random, 7, 3), dy = random_matrix<double>(random, 7, 3), dx = dy;
  guild::Cpu device({.threads = 2});
  run_one(device, guild::RunningMeansGradientJob<double>{.counts = view_of(counts), .d = dx.view()},
          [](auto&&... all) { guild::running_means_backward(all...); });
  Matrix<double> z(7, 3);
  const auto value = [&] {
    run<double>({.x = x.view(), .counts = view_of(counts), .z = z.view()});
    return dot(z, dy);
  };
  expect_gradient(x, dx, value, "x");
}

TEST(RunningMeans, ShapesThatDoNotFitAreRefused) {
  const std::vector<std::int32_t> counts = counts_of({2, 1});
  Matrix<float> x(3, 4), narrow(3, 3), two(2, 4);
  using Job = guild::RunningMeansJob<float>;
  EXPECT_EQ(code_of([&] { run<float>(Job{.x = narrow.view(), .counts = view_of(counts), .z = x.view()}); }),
            guild::ErrorCode::op_shape);
  EXPECT_EQ(code_of([&] { run<float>(Job{.x = x.view(), .counts = view_of(counts).slice(0, 2), .z = x.view()}); }),
            guild::ErrorCode::op_shape);
  EXPECT_EQ(
      code_of([&] { run<float>(Job{.x = x.view(), .counts = view_of(counts), .before = two.view(), .z = x.view()}); }),
      guild::ErrorCode::op_shape);
}

}  // namespace running_means_test
