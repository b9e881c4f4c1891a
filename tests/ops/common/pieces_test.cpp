// Elementwise jobs by pieces: every element once, the formulas in double, and teams of several threads.
#include <guild/cpu.hpp>
#include <guild/ops/common/rows/cast.hpp>
#include <guild/ops/common/rows/normal.hpp>
#include <guild/ops/common/rows/orthonormalize.hpp>
#include <guild/ops/optimizer/adamw.hpp>
#include <guild/ops/optimizer/rows/newton_schulz.hpp>
#include <guild/ops/optimizer/sum_of_squares.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <guild/device/cpu.hpp>
#include <guild/device/host_team.hpp>
#include <numeric>
#include <random>
#include <vector>

namespace blocks_test {
using guild::Index;

constexpr Index sizes[] = {0, 1, 4095, 4096, 0, 4097, 20000, 0};

/// Counts how often each element is visited.
struct Touch {
  guild::View<int> counts;
  [[nodiscard]] Index pieces() const { return guild::pieces_of(counts.size); }
  template <guild::Team T>
  void operator()(T team, Index piece) const {
    const auto range = guild::piece_range(piece, counts.size);
    int* const first = counts.data + range.begin;
    team.for_each(range.count, [=](Index i) { ++first[i]; });
  }
};

template <class Device>
void expect_each_once(Device& device) {
  std::vector<std::vector<int>> counts;
  for (const Index size : sizes) counts.emplace_back(static_cast<std::size_t>(size));
  std::vector<Touch> jobs;
  for (auto& of_job : counts) jobs.push_back({{of_job.data(), static_cast<Index>(of_job.size())}});
  guild::for_each_piece(device, std::span<const Touch>(jobs));
  for (const auto& of_job : counts)
    for (const int count : of_job) ASSERT_EQ(count, 1);
}

TEST(Pieces, TouchEveryElementOfEveryJobOnce) {
  for (const int threads : {1, 3}) {
    guild::Cpu device({.threads = threads});
    expect_each_once(device);
  }
  guild::HostTeams teams(3);
  expect_each_once(teams);
  guild::Cpu device({.threads = 1});
  guild::for_each_piece(device, std::span<const Touch>());
}

template <class Real>
std::vector<Real> normal(Index size, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<double> distribution;
  std::vector<Real> values(static_cast<std::size_t>(size));
  for (Real& value : values) value = static_cast<Real>(distribution(generator));
  return values;
}
template <class T>
guild::View<T> view(std::vector<T>& values) {
  return {values.data(), static_cast<Index>(values.size())};
}

/// Everything that the kernels of a step write, one after the other.
template <class Device>
std::vector<double> all_kernels(Device& device) {
  constexpr Index size = 5001;
  std::vector<double> out;
  const auto keep = [&](const auto& values) { out.insert(out.end(), values.begin(), values.end()); };
  const auto run = [&]<class Job>(const Job& job) { guild::for_each_piece(device, std::span<const Job>(&job, 1)); };

  auto w = normal<float>(size, 1), g = normal<float>(size, 2), m = normal<float>(size, 3), v = normal<float>(size, 4);
  for (float& e : v) e *= e;
  const guild::AdamWJob<float> adamw{view(w), view(g), view(m), view(v), 0.5f, 0.9f, 0.95f, 1e-2f, 2.0f, 1e-8f, 1e-3f};
  guild::adamw(device, std::span<const guild::AdamWJob<float>>(&adamw, 1));
  keep(w), keep(m), keep(v);
  std::vector<float> update(static_cast<std::size_t>(size));
  run(guild::MomentumJob<float>{view(g), view(m), view(update), 0.5f, 0.9f});
  keep(m), keep(update);
  run(guild::DescendJob<float>{view(w), view(update), 0.1f, 0.01f});
  keep(w);
  const std::array<guild::DeviceView<const float>, 2> tensors = {view(w), view(m)};
  out.push_back(guild::sum_of_squares(device, std::span<const guild::DeviceView<const float>>(tensors)));
  auto gram = normal<float>(71 * 71, 5), square = normal<float>(71 * 71, 6);
  run(guild::PolynomialJob<float>{view(gram), view(square), 71, 3.0f, -4.0f, 2.0f});
  keep(square);
  run(guild::TransposeJob<float>{{w.data(), 67, 74}, {update.data(), 74, 67}});
  keep(update);
  std::vector<double> squares = {4.0};
  run(guild::NormalizeJob<float>{view(w), view(update), view(squares), 0.5});
  keep(update);
  run(guild::NormalJob{view(update), 1, 2, 3.0});
  keep(update);
  run(guild::OrthonormalizeJob{{update.data(), 60, 83}});
  keep(update);
  std::vector<guild::bf16> rounded(static_cast<std::size_t>(size));
  run(guild::CastJob{view(w), rounded.data(), guild::DType::bf16});
  for (const guild::bf16 e : rounded) out.push_back(static_cast<double>(static_cast<float>(e)));
  run(guild::FillJob{view(update), 7.0f});
  keep(update);
  return out;
}

TEST(Pieces, KernelsAgreeForTeamsOfAnySize) {
  guild::Cpu cpu({.threads = 2});
  const auto expected = all_kernels(cpu);
  for (const int size : {1, 2, 5}) {
    guild::HostTeams teams(size);
    const auto found = all_kernels(teams);
    ASSERT_EQ(found.size(), expected.size());
    for (std::size_t i = 0; i < found.size(); ++i)
      ASSERT_NEAR(found[i], expected[i], 1e-6 * std::fabs(expected[i]) + 1e-7)
          << "team of " << size << ", element " << i;
  }
}

TEST(Orthonormalize, LeavesNothingOfEarlierRowsAndZerosOfRowsThatDependOnThem) {
  constexpr Index rows = 6, cols = 40;
  auto x = normal<float>(rows * cols, 1), noise = normal<float>(cols, 2);
  for (Index i = 0; i < cols; ++i) {
    const auto n = static_cast<std::size_t>(i);
    x[n + 2 * cols] = x[n] + 1e-3f * noise[n];  // hardly other than row 0: once is not enough
    x[n + 4 * cols] = x[n] - 2.0f * x[n + cols];
    x[n + 5 * cols] = 0.0f;
  }
  const auto first = x;
  guild::Cpu device({.threads = 1});
  const guild::OrthonormalizeJob job{{x.data(), rows, cols}};
  guild::for_each_piece(device, std::span<const guild::OrthonormalizeJob>(&job, 1));
  const auto dot = [&](Index a, const std::vector<float>& of, Index b) {
    double sum = 0.0;
    for (Index i = 0; i < cols; ++i)
      sum += double(x[std::size_t(a * cols + i)]) * double(of[std::size_t(b * cols + i)]);
    return sum;
  };
  for (Index a = 0; a < rows; ++a)
    for (Index b = 0; b < rows; ++b) EXPECT_NEAR(dot(a, x, b), a == b && a < 4 ? 1.0 : 0.0, 1e-6) << a << ", " << b;
  EXPECT_NEAR(dot(0, first, 0), std::sqrt(std::inner_product(&first[0], &first[cols], &first[0], 0.0)), 1e-5);
}

TEST(Pieces, AdamWIsTheFormulaInDouble) {
  constexpr Index size = 4500;
  guild::Cpu device({.threads = 2});
  auto w = normal<double>(size, 1), m = std::vector<double>(size), v = m;
  std::vector<double> w2 = w, m2 = m, v2 = v;
  const double lr = 0.1, beta1 = 0.8, beta2 = 0.9, epsilon = 1e-3, decay = 0.2, scale = 0.5;
  for (int t = 1; t <= 5; ++t) {
    auto g = normal<double>(size, 10U + static_cast<unsigned>(t));
    const guild::AdamWJob<double> job{.weight = view(w),
                                      .gradient = view(g),
                                      .first = view(m),
                                      .second = view(v),
                                      .gradient_scale = scale,
                                      .beta1 = beta1,
                                      .beta2 = beta2,
                                      .rate = lr / (1.0 - std::pow(beta1, t)),
                                      .second_scale = 1.0 / std::sqrt(1.0 - std::pow(beta2, t)),
                                      .epsilon = epsilon,
                                      .decay = lr * decay};
    guild::adamw(device, std::span<const guild::AdamWJob<double>>(&job, 1));
    for (std::size_t i = 0; i < w2.size(); ++i) {
      const double gradient = g[i] * scale;
      m2[i] = beta1 * m2[i] + (1.0 - beta1) * gradient;
      v2[i] = beta2 * v2[i] + (1.0 - beta2) * gradient * gradient;
      const double mean = m2[i] / (1.0 - std::pow(beta1, t)), square = v2[i] / (1.0 - std::pow(beta2, t));
      w2[i] = w2[i] * (1.0 - lr * decay) - lr * mean / (std::sqrt(square) + epsilon);
      ASSERT_NEAR(w[i], w2[i], 1e-12) << "step " << t;
    }
  }
}

TEST(Pieces, AdamWAgreesInEveryKernelVariantToAFewRoundings) {  // variants fuse products and sums, or do not
  for (const Index size : {1, 7, 8, 4095, 4096, 4099, 9000}) {
    std::vector<std::vector<float>> results;
    for (const guild::Isa isa : {guild::Isa::baseline, guild::Isa::avx2, guild::Isa::avx512}) {
      if (!guild::runs_here(isa)) continue;
      guild::Cpu device({.threads = 2, .isa = isa});
      auto w = normal<float>(size, 1), g = normal<float>(size, 2), m = normal<float>(size, 3);
      auto v = normal<float>(size, 4);
      for (float& e : v) e *= e;
      const guild::AdamWJob<float> job{view(w), view(g), view(m), view(v), 0.5f, 0.9f,
                                       0.95f,   1e-2f,   2.0f,    1e-8f,   1e-3f};
      guild::adamw(device, std::span<const guild::AdamWJob<float>>(&job, 1));
      w.insert(w.end(), m.begin(), m.end());
      w.insert(w.end(), v.begin(), v.end());
      results.push_back(w);
      for (std::size_t i = 0; i < w.size(); ++i)
        ASSERT_NEAR(w[i], results.front()[i], 1e-6f * std::fabs(w[i]) + 1e-7f) << guild::name(isa) << ", " << size;
    }
  }
}

TEST(Pieces, AdamWRefusesViewsOfOtherSizes) {
  guild::Cpu device({.threads = 1});
  std::vector<float> a(10), b(10), c(9), d(10);
  const guild::AdamWJob<float> job{.weight = view(a), .gradient = view(b), .first = view(c), .second = view(d)};
  EXPECT_THROW(guild::adamw(device, std::span<const guild::AdamWJob<float>>(&job, 1)), guild::Error);
}

TEST(Pieces, TranspositionIsExactForEveryShape) {
  guild::Cpu device({.threads = 2});
  for (const Index rows : {1, 7, 64, 65, 130})
    for (const Index cols : {1, 8, 63, 64, 200}) {
      auto x = normal<float>(rows * cols, 1);
      std::vector<float> y(x.size(), NAN);
      const guild::TransposeJob<float> job{{x.data(), rows, cols}, {y.data(), cols, rows}};
      guild::for_each_piece(device, std::span<const guild::TransposeJob<float>>(&job, 1));
      for (Index r = 0; r < rows; ++r)
        for (Index c = 0; c < cols; ++c)
          ASSERT_EQ(y[static_cast<std::size_t>(c * rows + r)], x[static_cast<std::size_t>(r * cols + c)]);
    }
}

}  // namespace blocks_test
