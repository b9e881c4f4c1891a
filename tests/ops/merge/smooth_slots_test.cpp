#include <guild/ops/merge/smooth_slots.hpp>

#include <gtest/gtest.h>

#include <limits>

#include "merge_test_support.hpp"

namespace smooth_slots_test {
using namespace guild_test;
using guild::ErrorCode;

/// Slots with weights of every kind: 1 now and then, 1e-4, and between.
template <class Real>
struct Case {
  guild::Cpu device;
  Matrix<Real> y, z, weights, d;
  bool whole = false;  ///< without z

  explicit Case(Index slots, Index width = 37, guild::CpuOptions options = {.threads = 2})
      : device(options),
        y(slots, width, width + 1),
        z(slots, width, width + 2),
        weights(1, slots),
        d(slots, width, width + 3) {
    std::mt19937 random(7);
    y.fill_normal(random);
    z.fill_normal(random);
    const double kinds[] = {0.6, 0.3, 1.0, 0.9, 1e-4, 0.5, 0.2};
    for (Index j = 0; j < slots; ++j) weights(0, j) = static_cast<Real>(kinds[j % 7]);
  }
  [[nodiscard]] guild::SmoothSlotsJob<Real> job() {
    return {.y = y.view(), .z = taken_off(), .weights = weights.view().row(0), .d = d.view()};
  }
  [[nodiscard]] guild::View<const Real, 2> taken_off() {
    return whole ? guild::View<const Real, 2>{} : guild::View<const Real, 2>(z.view());
  }
  void run(const guild::SmoothSlotsJob<Real>& one) {
    guild::smooth_slots(device, std::span<const guild::SmoothSlotsJob<Real>>(&one, 1));
  }
  void run() { run(job()); }
};

TEST(SmoothSlots, FollowTheFormula) {
  for (const Index slots : {0, 1, 2, 15})
    for (const Index width : {1, 128, 37, 300})
      for (const guild::Isa isa : {guild::Isa::baseline, guild::Isa::avx2, guild::Isa::avx512}) {
        if (!guild::runs_here(isa)) continue;
        Case<float> at(slots, width, {.threads = 2, .isa = isa});
        for (const bool whole : {false, true}) {
          at.whole = whole;
          at.run();
          for (Index c = 0; c < width; ++c) {
            double past = 0;
            for (Index j = 0; j < slots; ++j) {
              const double p = double(at.weights(0, j));
              past = p * (double(at.y(j, c)) - (whole ? 0.0 : double(at.z(j, c)))) + (1 - p) * past;
              ASSERT_NEAR(at.d(j, c), past, 1e-6) << j;
            }
          }
          EXPECT_TRUE(at.d.padding_is_untouched());
        }
      }
}

TEST(SmoothSlots, OfAWeightOfOneKnowNoPast) {
  Case<float> at(3, 5);
  at.weights(0, 1) = 1;
  for (Index c = 0; c < 5; ++c) at.y(0, c) = std::numeric_limits<float>::infinity();
  at.y(1, 3) = at.z(1, 3) = 0;
  at.y(1, 4) = -0.0f;
  at.z(1, 4) = 0;
  at.run();
  for (Index c = 0; c < 5; ++c) {
    EXPECT_EQ(at.d(1, c), at.y(1, c) - at.z(1, c));
    EXPECT_EQ(std::signbit(at.d(1, c)), std::signbit(at.y(1, c) - at.z(1, c)));
    EXPECT_TRUE(std::isfinite(at.d(2, c)));
  }
}

TEST(SmoothSlots, HaveTheSameBitsInAnySplit) {
  Case<float> at(17, 150), part(17, 150);
  at.run();
  for (const Index chunk : {1, 2, 5}) {
    for (Index first = 0; first < 17; first += chunk) {
      const Index count = std::min(chunk, 17 - first);
      guild::SmoothSlotsJob<float> job{.y = at.y.view().middle_rows(first, count),
                                       .z = at.z.view().middle_rows(first, count),
                                       .weights = at.weights.view().row(0).slice(first, count),
                                       .d = part.d.view().middle_rows(first, count)};
      if (first > 0) job.before = part.d.view().row(first - 1);
      part.run(job);
    }
    ASSERT_EQ(part.d.data, at.d.data) << chunk;
  }
}

template <class Real>
struct Gradients {
  Matrix<Real> dd, dy, dz, dweights;

  Gradients(Case<Real>& at, const Matrix<Real>& of_d)
      : dd(of_d), dy(at.y.rows, at.y.cols), dz(at.y.rows, at.y.cols, at.y.cols + 2), dweights(1, at.y.rows) {
    std::ranges::fill(dy.data, Real(0.5));  // it is added to
    const auto one = job(at);
    guild::smooth_slots_backward(at.device, std::span<const guild::SmoothSlotsGradientJob<Real>>(&one, 1));
  }
  [[nodiscard]] guild::SmoothSlotsGradientJob<Real> job(Case<Real>& at) {
    return {.y = at.y.view(),
            .z = at.taken_off(),
            .weights = at.weights.view().row(0),
            .d = at.d.view(),
            .dd = dd.view(),
            .dy = dy.view(),
            .dz = dz.view(),
            .dweights = dweights.view().row(0)};
  }
};

/// A weight of 1 has a gradient of its own kind: from below.
TEST(SmoothSlots, HaveTheGradientsOfCentralDifferences) {
  for (const Index slots : {0, 1, 2, 9})
    for (const bool whole : {false, true}) {
      Case<double> at(slots, 19);
      at.whole = whole;
      std::mt19937 random(4);
      Matrix<double> dd(slots, 19);
      dd.fill_normal(random);
      const auto value = [&] {
        at.run();
        return dot(at.d, dd);
      };
      value();
      Gradients<double> of(at, dd);
      EXPECT_TRUE(of.dz.padding_is_untouched());
      for (double& one : of.dy.data) one -= 0.5;
      expect_gradient(at.y, of.dy, value, "y");
      expect_gradient(at.z, of.dz, value, "z");
      expect_gradient(at.weights, of.dweights, value, "weights");
    }
}

TEST(SmoothSlots, HaveTheSameBitsWhateverTheThreads) {
  Case<float> one(60, 700, {.threads = 1}), four(60, 700, {.threads = 4});
  one.run();
  four.run();
  EXPECT_EQ(one.d.data, four.d.data);
  const Gradients<float> a(one, one.d), b(four, four.d);
  EXPECT_EQ(a.dy.data, b.dy.data);
  EXPECT_EQ(a.dz.data, b.dz.data);
  EXPECT_EQ(a.dweights.data, b.dweights.data);
}

TEST(SmoothSlots, RefuseWhatDoesNotFit) {
  Case<float> at(4, 5);
  const auto code = [&](auto&& change) {
    guild::SmoothSlotsJob<float> job = at.job();
    change(job);
    return code_of([&] { at.run(job); });
  };
  EXPECT_EQ(code([](auto&) {}), ErrorCode::count_);
  EXPECT_EQ(code([](auto& job) { job.y.rows = 3; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.z.cols = 4; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.weights.size = 3; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.d.rows = 3; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.before = job.weights; }), ErrorCode::op_shape);
  at.run();
  Gradients<float> of(at, at.d);
  const auto backward = [&](auto&& change) {
    auto job = of.job(at);
    change(job);
    return code_of([&] {
      guild::smooth_slots_backward(at.device, std::span<const guild::SmoothSlotsGradientJob<float>>(&job, 1));
    });
  };
  EXPECT_EQ(backward([](auto&) {}), ErrorCode::count_);
  EXPECT_EQ(backward([](auto& job) { job.y.rows = 3; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& job) { job.dd.cols = 4; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& job) { job.dy.rows = 3; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& job) { job.dz.rows = 3; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& job) { job.dweights.size = 3; }), ErrorCode::op_shape);
}

TEST(SmoothingWeights, AreNoveltiesOrOne) {
  guild::Cpu device({.threads = 2});
  const std::vector<std::int32_t> closing = {0, 3, 4, 6}, single = {1, 0, 0, 0, 1, 0, 0, 0};
  std::vector<float> p = {0.9f, 0.1f, 0.2f, 0.7f, 0.4f, 0.3f, 1e-6f, 0.8f}, weights(4), dp(8, 0.5f);
  guild::smoothing_weights(device, view_of(p), view_of(closing), view_of(single), view_of(weights));
  EXPECT_EQ(weights, (std::vector<float>{1, 0.7f, 1, 1e-4f}));
  const std::vector<float> dweights = {1, 2, 3, 4};
  guild::smoothing_weights_backward(device, view_of(p), view_of(closing), view_of(single), view_of(dweights),
                                    view_of(dp));
  EXPECT_EQ(dp, (std::vector<float>{0.5f, 0.5f, 0.5f, 2.5f, 0.5f, 0.5f, 0.5f, 0.5f}));
}

TEST(SmoothingWeights, OfAllSlotsAreNoveltiesWithinBounds) {
  guild::Cpu device({.threads = 2});
  const std::vector<std::int32_t> closing = {0, 1, 2, 3};
  std::vector<float> p = {1, 0.7f, 0, 0.9999f}, weights(4), dp(4, 0.5f);
  const float most = static_cast<float>(1.0 - 1e-4);
  guild::smoothing_weights(device, view_of(p), view_of(closing), {}, view_of(weights));
  EXPECT_EQ(weights, (std::vector<float>{most, 0.7f, 1e-4f, most}));
  const std::vector<float> dweights = {1, 2, 3, 4};
  guild::smoothing_weights_backward(device, view_of(p), view_of(closing), {}, view_of(dweights), view_of(dp));
  EXPECT_EQ(dp, (std::vector<float>{0.5f, 2.5f, 0.5f, 4.5f}));
}

TEST(SmoothingWeights, RefuseWhatDoesNotFit) {
  guild::Cpu device({.threads = 1});
  const std::vector<std::int32_t> closing(3), single(5);
  std::vector<float> p(5), weights(3);
  const auto code = [&](Index of_p, Index of_closing, Index of_single, Index of_weights) {
    const ErrorCode forward = code_of([&] {
      guild::smoothing_weights(device, {p.data(), of_p}, {closing.data(), of_closing}, {single.data(), of_single},
                               guild::DeviceView<float>(weights.data(), of_weights));
    });
    const ErrorCode backward = code_of([&] {
      guild::smoothing_weights_backward(device, {p.data(), of_p}, {closing.data(), of_closing},
                                        {single.data(), of_single}, {weights.data(), of_weights}, view_of(p));
    });
    EXPECT_EQ(forward, backward);
    return forward;
  };
  EXPECT_EQ(code(5, 3, 5, 3), ErrorCode::count_);
  EXPECT_EQ(code(4, 3, 5, 3), ErrorCode::op_shape);
  EXPECT_EQ(code(5, 2, 5, 3), ErrorCode::op_shape);
  EXPECT_EQ(code(5, 3, 4, 3), ErrorCode::op_shape);
  EXPECT_EQ(code(5, 3, 5, 2), ErrorCode::op_shape);
}

}  // namespace smooth_slots_test
