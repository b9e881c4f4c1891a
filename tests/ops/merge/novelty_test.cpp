#include <guild/ops/merge/novelty.hpp>

#include <gtest/gtest.h>

#include <numeric>

#include <guild/device/host_team.hpp>

#include "merge_test_support.hpp"

namespace novelty_test {
using namespace guild_test;
using guild::ErrorCode;
using guild::RingRows;

template <class Real>
struct Case {
  guild::Cpu device;
  Matrix<Real> q, k, p;

  explicit Case(Index tokens, Index width = 21, guild::CpuOptions options = {.threads = 2})
      : device(options), q(tokens, width, width + 2), k(tokens, width, width + 1), p(1, tokens) {
    std::mt19937 random(5);
    q.fill_normal(random);
    k.fill_normal(random);
  }
  [[nodiscard]] guild::NoveltyJob<Real> job() { return {.q = q.view(), .keys = k.view(), .p = p.view().row(0)}; }
  void run(const guild::NoveltyJob<Real>& one) {
    guild::novelty(device, std::span<const guild::NoveltyJob<Real>>(&one, 1));
  }
  void run() { run(job()); }

  [[nodiscard]] double expected(Index t) const {
    if (t == 0) return 1;
    double qq = 0, kk = 0, qk = 0;
    for (Index c = 0; c < q.cols; ++c) {
      qq += double(q(t, c)) * double(q(t, c));
      kk += double(k(t - 1, c)) * double(k(t - 1, c));
      qk += double(q(t, c)) * double(k(t - 1, c));
    }
    return (1 - qk / std::max(std::sqrt(qq), 1e-12) / std::max(std::sqrt(kk), 1e-12)) / 2;
  }
};

TEST(Novelty, FollowsTheFormula) {
  for (const Index width : {1, 16, 37, 128})
    for (const guild::Isa isa : {guild::Isa::baseline, guild::Isa::avx2, guild::Isa::avx512}) {
      if (!guild::runs_here(isa)) continue;
      Case<float> at(40, width, {.threads = 2, .isa = isa});
      for (Index c = 0; c < width; ++c) at.q(3, c) = at.k(7, c) = 0;  // 1/2
      at.run();
      EXPECT_EQ(at.p(0, 0), 1.0f);
      EXPECT_EQ(at.p(0, 3), 0.5f);
      EXPECT_EQ(at.p(0, 8), 0.5f);
      for (Index t = 0; t < 40; ++t) ASSERT_NEAR(at.p(0, t), at.expected(t), 3e-7) << t;
    }
}

TEST(Novelty, StaysWithinItsBounds) {
  Case<float> at(2000, 5);
  for (Index t = 1; t < 2000; ++t)
    for (Index c = 0; c < 5; ++c) at.q(t, c) = (t % 2 == 0 ? 3 : -2) * at.k(t - 1, c);
  at.run();
  for (Index t = 1; t < 2000; ++t) {
    ASSERT_NEAR(at.p(0, t), t % 2 == 0 ? 0 : 1, 2e-7);
    ASSERT_TRUE(at.p(0, t) >= 0 && at.p(0, t) <= 1) << t;
  }
}

/// In chunks of any length, out of rings as short as they may be.
TEST(Novelty, HasTheSameBitsFromARingAndInAnySplit) {
  const Index tokens = 23;
  Case<float> at(tokens), part(tokens);
  at.run();
  for (const Index pinned : {0, 3})
    for (const Index chunk : {1, 2, 5, 23})
      for (const Index spare : {0, 4}) {
        for (Index first = 0; first < tokens; first += chunk) {
          const Index count = std::min(chunk, tokens - first);
          const RingRows ring{pinned, chunk + 1 + spare};
          const auto keys = in_ring(at.k, ring, first + count);
          part.run({.q = at.q.view().middle_rows(first, count),
                    .keys = keys.view(),
                    .first = first,
                    .p = part.p.view().row(0).slice(first, count),
                    .ring = ring});
        }
        ASSERT_EQ(part.p.data, at.p.data) << chunk;
      }
}

template <class Real>
std::pair<Matrix<Real>, Matrix<Real>> gradients(Case<Real>& at, const Matrix<Real>& dp) {
  std::pair<Matrix<Real>, Matrix<Real>> out{{at.q.rows, at.q.cols, at.q.cols + 2}, {at.q.rows, at.q.cols}};
  const guild::NoveltyGradientJob<Real> job{at.q.view(), at.k.view(), dp.view().row(0), out.first.view(),
                                            out.second.view()};
  guild::novelty_backward(at.device, std::span<const guild::NoveltyGradientJob<Real>>(&job, 1));
  return out;
}

TEST(Novelty, HasTheGradientsOfCentralDifferences) {
  for (const Index tokens : {0, 1, 2, 9})
    for (const Index width : {2, 19}) {
      Case<double> at(tokens, width);
      std::mt19937 random(4);
      Matrix<double> dp(1, tokens);
      dp.fill_normal(random);
      const auto value = [&] {
        at.run();
        return dot(at.p, dp);
      };
      const auto [dq, dk] = gradients(at, dp);
      EXPECT_TRUE(dq.padding_is_untouched());
      expect_gradient(at.q, dq, value, "q");
      expect_gradient(at.k, dk, value, "k");
    }
}

/// Where a row counts as longer than it is, the cosine is a product.
TEST(Novelty, HasTheGradientOfAProductWhereARowIsShort) {
  Case<double> at(3, 4);
  for (Index c = 0; c < 4; ++c) at.q(1, c) *= 1e-13, at.k(1, c) = 0;
  Matrix<double> dp(1, 3);
  std::ranges::fill(dp.data, 1.0);
  const auto [dq, dk] = gradients(at, dp);
  double length_k = 0, length_q = 0;
  for (Index c = 0; c < 4; ++c) length_k += at.k(0, c) * at.k(0, c), length_q += at.q(2, c) * at.q(2, c);
  for (Index c = 0; c < 4; ++c) {
    EXPECT_NEAR(dq(1, c), -0.5 * at.k(0, c) / std::sqrt(length_k) / 1e-12, 1e-3);
    EXPECT_NEAR(dk(1, c), -0.5 * at.q(2, c) / std::sqrt(length_q) / 1e-12, 1e-3);
    EXPECT_EQ(dq(2, c), 0);
  }
}

/// By the definition, of rings as short as they may be, by teams of several threads.
TEST(TokenEnergy, FollowsTheFormulaFromARingAndInAnySplit) {
  const Index tokens = 23, width = 5;
  std::mt19937 random(8);
  Matrix<double> x(tokens, width, width + 2), e(1, tokens);
  x.fill_normal(random);
  for (Index c = 0; c < width; ++c) x(9, c) = 2 * x(8, c), x(10, c) = 0;
  const auto energy = [](auto&&... of_all) { guild::token_energy(of_all...); };
  for (const Index window : {1, 4, 40})
    for (const Index chunk : {1, 5, 23})
      for (const int team : {1, 4}) {
        guild::HostTeams device(team);
        for (Index first = 0; first < tokens; first += chunk) {
          const Index count = std::min(chunk, tokens - first);
          const RingRows ring{0, chunk + window};
          const auto rows = in_ring(x, ring, first + count);
          run_one(device,
                  guild::TokenEnergyJob<double>{.x = rows.view(),
                                                .first = first,
                                                .window = window,
                                                .margin = 0.4,
                                                .alpha = 0.7,
                                                .e = e.view().row(0).slice(first, count),
                                                .ring = ring},
                  energy);
        }
        EXPECT_EQ(e(0, 0), 0.0);
        for (Index t = 1; t < tokens; ++t) {
          double sum = 0;
          const Index begin = std::max(t - window, Index{0});
          for (Index s = begin; s < t; ++s) {
            double own = 0, other = 0, both = 0;
            for (Index c = 0; c < width; ++c)
              own += x(t, c) * x(t, c), other += x(s, c) * x(s, c), both += x(t, c) * x(s, c);
            const double cosine = both / std::max(std::sqrt(own * other), 1e-30);
            sum += cosine >= 0.4 ? cosine : 0.7 * (std::exp(cosine - 0.4) - 1);
          }
          ASSERT_NEAR(e(0, t), sum / static_cast<double>(t - begin), 1e-14) << t;
        }
      }
  guild::HostTeams device(1);
  guild::TokenEnergyJob<double> job{
      .x = x.view(), .first = 6, .window = 4, .margin = 0.4, .alpha = 0.7, .e = e.view().row(0).slice(0, 3)};
  EXPECT_EQ(code_of([&] { run_one(device, job, energy); }), ErrorCode::count_);
  job.ring = {0, 6};
  job.x.rows = 6;
  EXPECT_EQ(code_of([&] { run_one(device, job, energy); }), ErrorCode::op_shape) << "a ring that forgets the first";
}

TEST(Novelty, HasTheSameBitsWhateverTheThreads) {
  Case<float> one(500, 37, {.threads = 1}), four(500, 37, {.threads = 4});
  one.run();
  four.run();
  EXPECT_EQ(one.p.data, four.p.data);
  const auto a = gradients(one, one.p), b = gradients(four, four.p);
  EXPECT_EQ(a.first.data, b.first.data);
  EXPECT_EQ(a.second.data, b.second.data);
}

TEST(Novelty, RefusesWhatDoesNotFit) {
  Case<float> at(6, 5);
  const auto code = [&](auto&& change) {
    guild::NoveltyJob<float> job = at.job();
    change(job);
    return code_of([&] { at.run(job); });
  };
  EXPECT_EQ(code([](auto&) {}), ErrorCode::count_);
  EXPECT_EQ(code([](auto& job) { job.q.rows = 5; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.keys.cols = 4; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.keys.rows = 5; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.first = 1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.first = -1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.p.data = nullptr; }), ErrorCode::op_argument);
  // Two tokens from position 8 on read the k of 7 and 8 when that of 9 has come too.
  const auto ring = [](Index rows) {
    return [=](auto& job) { job.q.rows = job.p.size = 2, job.first = 8, job.ring.rows = job.keys.rows = rows; };
  };
  EXPECT_EQ(code(ring(3)), ErrorCode::count_);
  EXPECT_EQ(code(ring(2)), ErrorCode::op_shape);

  Matrix<float> dq(6, 5), dk(6, 5);
  const guild::NoveltyGradientJob<float> job{at.q.view(), at.k.view(), at.p.view().row(0), dq.view(), dk.view()};
  const auto backward = [&](auto&& change) {
    auto changed = job;
    change(changed);
    return code_of(
        [&] { guild::novelty_backward(at.device, std::span<const guild::NoveltyGradientJob<float>>(&changed, 1)); });
  };
  EXPECT_EQ(backward([](auto& of) { of.k.rows = 5; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& of) { of.dp.size = 5; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& of) { of.dq.cols = 4; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& of) { of.dk.rows = 5; }), ErrorCode::op_shape);
}

}  // namespace novelty_test
