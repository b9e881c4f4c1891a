#include <guild/ops/merge/inflate.hpp>

#include <gtest/gtest.h>

#include <cstring>

#include "merge_test_support.hpp"

namespace inflate_test {
using namespace guild_test;
using guild::ErrorCode;
using guild::RingRows;

/// The groups of the tests: singles, runs and an open tail; tokens of no slot before the first close.
inline Groups some_groups() { return Groups({3, 1, 4, 1, 1, 2, 6, 1}, 3); }

template <class Real>
struct Case {
  Groups groups;
  guild::Cpu device;
  Matrix<Real> x, gate, details, z, d, made, r, y;

  explicit Case(Groups of = some_groups(), Index width = 37, guild::CpuOptions options = {.threads = 2})
      : groups(std::move(of)),
        device(options),
        x(groups.tokens(), width, width + 1),
        gate(groups.tokens(), width, width + 2),
        details(groups.tokens(), width, width + 3),
        z(groups.slots(), width, width + 2),
        d(groups.slots(), width, width + 1),
        made(groups.slots(), width, width),
        r(groups.tokens(), width, width + 4),
        y(groups.tokens(), width, width + 5) {
    std::mt19937 random(8);
    for (auto* one : {&x, &gate, &details, &z, &d, &made}) one->fill_normal(random);
  }
  [[nodiscard]] guild::InflateJob<Real> job() {
    return {.x = x.view(),
            .gate = gate.view(),
            .details = details.view(),
            .d = d.view(),
            .made = made.view(),
            .slot = view_of(groups.slot),
            .single = view_of(groups.single),
            .y = y.view()};
  }
  void run(const guild::InflateJob<Real>& one) {
    guild::inflate(device, std::span<const guild::InflateJob<Real>>(&one, 1));
  }
  void run() { run(job()); }

  [[nodiscard]] guild::LostDetailJob<Real> lost() {
    return {.x = x.view(), .z = z.view(), .length = groups.slots(), .slot = view_of(groups.slot), .r = r.view()};
  }
  void run(const guild::LostDetailJob<Real>& one) {
    guild::lost_detail(device, std::span<const guild::LostDetailJob<Real>>(&one, 1));
  }

  /// The formula in double.
  [[nodiscard]] double expected(Index t, Index c, bool gates = true, bool adds = true) const {
    const Index slot = groups.slot[static_cast<std::size_t>(t)];
    if (slot < 0) return double(x(t, c));
    if (groups.single[static_cast<std::size_t>(t)] != 0) return double(made(slot, c));
    return double(x(t, c)) + (gates ? 1 + std::tanh(double(gate(t, c))) : 1) * double(d(slot, c)) +
           (adds ? double(details(t, c)) : 0);
  }
};

TEST(Inflate, FollowsTheFormula) {
  for (const Index width : {1, 16, 37})
    for (const guild::Isa isa : {guild::Isa::baseline, guild::Isa::avx2, guild::Isa::avx512}) {
      if (!guild::runs_here(isa)) continue;
      Case<float> at(some_groups(), width, {.threads = 2, .isa = isa});
      for (const bool gates : {true, false})
        for (const bool adds : {true, false}) {
          auto job = at.job();
          if (!gates) job.gate = {};
          if (!adds) job.details = {};
          at.run(job);
          for (Index t = 0; t < at.x.rows; ++t)
            for (Index c = 0; c < width; ++c)
              ASSERT_NEAR(at.y(t, c), at.expected(t, c, gates, adds), 2e-6) << t << " " << gates << adds;
          EXPECT_TRUE(at.y.padding_is_untouched());
        }
    }
}

TEST(Inflate, TakesGatesOfAnySize) {
  Case<float> at;
  for (Index t = 0; t < at.x.rows; ++t)
    for (Index c = 0; c < 37; ++c) at.gate(t, c) = (c % 2 == 0 ? 1.0f : -1.0f) * (c < 20 ? 1e30f : 60.0f);
  at.run();
  for (Index t = 0; t < at.x.rows; ++t)
    for (Index c = 0; c < 37; ++c) ASSERT_NEAR(at.y(t, c), at.expected(t, c), 1e-6) << t << ", " << c;
}

bool same_bits(const float* a, const float* b, Index count) {
  return std::memcmp(a, b, static_cast<std::size_t>(count) * sizeof(float)) == 0;
}

TEST(Inflate, CopiesWhatTheInnerLayersMadeOfSinglesAndTokensWithoutASlot) {
  Case<float> at;
  for (Index c = 0; c < 37; ++c) at.made(1, c) = at.x(0, c) = c % 2 == 0 ? -0.0f : 1.0f / 3;
  at.run();
  Index singles = 0, without = 0;
  for (Index t = 0; t < at.x.rows; ++t) {
    const auto token = static_cast<std::size_t>(t);
    if (at.groups.single[token] != 0) {
      ++singles;
      EXPECT_TRUE(same_bits(&at.y(t, 0), &at.made(at.groups.slot[token], 0), 37)) << t;
    } else if (at.groups.slot[token] < 0) {
      ++without;
      EXPECT_TRUE(same_bits(&at.y(t, 0), &at.x(t, 0), 37)) << t;
    }
  }
  EXPECT_EQ(singles, 4);
  EXPECT_EQ(without, 2);
}

/// Inner layers that change nothing have a difference of 0, and without details every token comes back.
TEST(Inflate, LosesNothingWhereNothingWasAdded) {
  Case<float> at;
  at.d = Matrix<float>(at.d.rows, 37);
  std::ranges::fill(at.d.data, 0.0f);
  for (Index t = 0; t < at.x.rows; ++t)
    if (at.groups.single[std::size_t(t)] != 0)
      for (Index c = 0; c < 37; ++c) at.made(at.groups.slot[std::size_t(t)], c) = at.x(t, c);
  auto job = at.job();
  job.details = {};
  at.run(job);
  for (Index t = 0; t < at.x.rows; ++t) EXPECT_TRUE(same_bits(&at.y(t, 0), &at.x(t, 0), 37)) << t;
}

TEST(Inflate, HasTheSameBitsInPlace) {
  Case<float> at;
  at.run();
  auto job = at.job();
  job.y = at.x.view();
  at.run(job);
  for (Index t = 0; t < at.x.rows; ++t) EXPECT_TRUE(same_bits(&at.x(t, 0), &at.y(t, 0), 37)) << t;
}

/// In chunks, with slots in rings as short as they may be.
TEST(Inflate, HasTheSameBitsFromARingAndInAnySplit) {
  Case<float> at;
  at.run();
  at.run(at.lost());
  Case<float> part;
  const Index tokens = at.x.rows;
  for (const Index pinned : {0, 2})
    for (const Index chunk : {1, 3, 7, 22})
      for (const Index spare : {0, 2}) {
        std::ranges::fill(part.y.data, Matrix<float>::canary);
        std::ranges::fill(part.r.data, Matrix<float>::canary);
        for (Index first = 0; first < tokens; first += chunk) {
          const Index count = std::min(chunk, tokens - first);
          const Index before = first == 0 ? 0 : at.groups.slot[std::size_t(first - 1)] + 1;
          const Index length = at.groups.slot[std::size_t(first + count - 1)] + 1;
          const RingRows ring{pinned, length - before + 1 + spare};
          const auto d = in_ring(at.d, ring, length), z = in_ring(at.z, ring, length);
          const auto slots = view_of(at.groups.slot).slice(first, count);
          part.run({.x = at.x.view().middle_rows(first, count),
                    .gate = at.gate.view().middle_rows(first, count),
                    .details = at.details.view().middle_rows(first, count),
                    .d = d.view(),
                    .before = before,
                    .made = at.made.view().middle_rows(before, length - before),
                    .slot = slots,
                    .single = view_of(at.groups.single).slice(first, count),
                    .y = part.y.view().middle_rows(first, count),
                    .ring = ring});
          part.run({.x = at.x.view().middle_rows(first, count),
                    .z = z.view(),
                    .before = before,
                    .length = length,
                    .slot = slots,
                    .r = part.r.view().middle_rows(first, count),
                    .ring = ring});
        }
        ASSERT_EQ(part.y.data, at.y.data) << chunk;
        ASSERT_EQ(part.r.data, at.r.data) << chunk;
      }
}

template <class Real>
struct Gradients {
  Matrix<Real> dx, dgate, ddetails, dd, dmade, dconfidence;

  explicit Gradients(const Case<Real>& at)
      : dx(at.x.rows, at.x.cols, at.x.cols + 1),
        dgate(at.x.rows, at.x.cols, at.x.cols + 2),
        ddetails(at.x.rows, at.x.cols, at.x.cols + 3),
        dd(at.d.rows, at.d.cols, at.d.cols + 1),
        dmade(at.d.rows, at.d.cols, at.d.cols + 2),
        dconfidence(1, at.x.rows) {}
  [[nodiscard]] guild::InflateGradientJob<Real> job(Case<Real>& at, const Matrix<Real>& dy) {
    return {.gate = at.gate.view(),
            .d = at.d.view(),
            .closing = view_of(at.groups.last),
            .single = view_of(at.groups.single),
            .dy = dy.view(),
            .dx = dx.view(),
            .dgate = dgate.view(),
            .ddetails = ddetails.view(),
            .dd = dd.view(),
            .dmade = dmade.view(),
            .dconfidence = dconfidence.view().row(0)};
  }
  static void run(guild::Cpu& device, const guild::InflateGradientJob<Real>& one) {
    guild::inflate_backward(device, std::span<const guild::InflateGradientJob<Real>>(&one, 1));
  }
};

template <class Real>
Matrix<Real> some_dy(const Case<Real>& at) {
  std::mt19937 random(4);
  Matrix<Real> dy(at.x.rows, at.x.cols, at.x.cols + 1);
  dy.fill_normal(random);
  return dy;
}

TEST(Inflate, HasTheGradientsOfCentralDifferences) {
  for (const Groups& groups : {some_groups(), Groups({}, 2), Groups({1}, 0), Groups({1, 1}, 3), Groups({}, 0)}) {
    Case<double> at(groups, 19);
    const auto dy = some_dy(at);
    const auto value = [&] {
      at.run();
      return dot(at.y, dy);
    };
    Gradients<double> of(at);
    Gradients<double>::run(at.device, of.job(at, dy));
    for (const auto* one : {&of.dx, &of.dgate, &of.ddetails, &of.dd, &of.dmade})
      EXPECT_TRUE(one->padding_is_untouched());
    expect_gradient(at.x, of.dx, value, "x");
    expect_gradient(at.gate, of.dgate, value, "gate");
    expect_gradient(at.details, of.ddetails, value, "details");
    expect_gradient(at.d, of.dd, value, "d");
    expect_gradient(at.made, of.dmade, value, "made");
  }
}

TEST(Inflate, HasTheGradientsWithoutGatesAndDetails) {
  for (const bool copies : {true, false}) {  // of single tokens
    Case<double> at(some_groups(), 19);
    const auto dy = some_dy(at);
    Gradients<double> of(at);
    auto back = of.job(at, dy);
    back.gate = {}, back.dgate = {}, back.ddetails = {};
    if (!copies) back.single = {};
    Gradients<double>::run(at.device, back);
    const auto value = [&] {
      auto job = at.job();
      job.gate = {}, job.details = {};
      if (!copies) job.single = {};
      at.run(job);
      return dot(at.y, dy);
    };
    expect_gradient(at.x, of.dx, value, "x");
    expect_gradient(at.d, of.dd, value, "d");
    expect_gradient(at.made, of.dmade, value, "made");
    if (copies) continue;
    for (Index t = 0; t < at.x.rows; ++t) {
      const Index slot = at.groups.slot[static_cast<std::size_t>(t)];
      for (Index c = 0; c < 19; ++c) ASSERT_EQ(at.y(t, c), at.x(t, c) + (slot < 0 ? 0.0 : at.d(slot, c)));
    }
  }
}

/// A confidence of 1 before d, singles by their formula x + (made - z) and not by a copy.
TEST(Inflate, GivesTheGradientOfTheConfidence) {
  Case<double> at(some_groups(), 19);
  const auto dy = some_dy(at);
  Gradients<double> of(at);
  Gradients<double>::run(at.device, of.job(at, dy));
  auto apart = of.job(at, dy);
  for (Index t = 0; t < at.x.rows; ++t) {
    const auto token = static_cast<std::size_t>(t);
    double expected = 0;
    for (Index c = 0; c < 19 && at.groups.slot[token] >= 0; ++c)
      expected +=
          dy(t, c) * at.d(at.groups.slot[token], c) * (at.groups.single[token] != 0 ? 1 : 1 + std::tanh(at.gate(t, c)));
    EXPECT_NEAR(of.dconfidence(0, t), expected, 1e-12) << t;
  }
  const auto dx = of.dx.data, dd = of.dd.data;
  apart.dconfidence = {};
  Gradients<double>::run(at.device, apart);
  EXPECT_EQ(of.dx.data, dx);
  EXPECT_EQ(of.dd.data, dd);
}

/// dx may be dy.
TEST(Inflate, HasTheSameGradientsInPlace) {
  Case<float> at;
  auto dy = some_dy(at);
  Gradients<float> apart(at), in_place(at);
  Gradients<float>::run(at.device, apart.job(at, dy));
  auto job = in_place.job(at, dy);
  job.dx = dy.view();
  Gradients<float>::run(at.device, job);
  for (Index t = 0; t < at.x.rows; ++t) EXPECT_TRUE(same_bits(&dy(t, 0), &apart.dx(t, 0), 37));
  EXPECT_EQ(in_place.dgate.data, apart.dgate.data);
  EXPECT_EQ(in_place.ddetails.data, apart.ddetails.data);
  EXPECT_EQ(in_place.dd.data, apart.dd.data);
  EXPECT_EQ(in_place.dmade.data, apart.dmade.data);
  EXPECT_EQ(in_place.dconfidence.data, apart.dconfidence.data);
}

Groups many_groups() {
  std::vector<Index> lengths;
  for (Index i = 0; i < 200; ++i) lengths.push_back(1 + i * 7 % 5);
  return Groups(lengths, 30);
}

TEST(Inflate, HasTheSameBitsWhateverTheThreads) {
  Case<float> one(many_groups(), 37, {.threads = 1}), four(many_groups(), 37, {.threads = 4});
  one.run();
  four.run();
  EXPECT_EQ(one.y.data, four.y.data);
  const auto dy = some_dy(one);
  Gradients<float> a(one), b(four);
  Gradients<float>::run(one.device, a.job(one, dy));
  Gradients<float>::run(four.device, b.job(four, dy));
  EXPECT_EQ(a.dx.data, b.dx.data);
  EXPECT_EQ(a.dgate.data, b.dgate.data);
  EXPECT_EQ(a.dd.data, b.dd.data);
  EXPECT_EQ(a.dmade.data, b.dmade.data);
  EXPECT_EQ(a.dconfidence.data, b.dconfidence.data);
}

TEST(LostDetail, IsTheDifferenceToItsSlot) {
  Case<float> at;
  for (Index c = 0; c < 37; ++c) at.z(1, c) = at.x(3, c);  // the second group is token 3 alone
  at.run(at.lost());
  for (Index t = 0; t < at.x.rows; ++t)
    for (Index c = 0; c < 37; ++c) {
      const Index slot = at.groups.slot[std::size_t(t)];
      ASSERT_EQ(at.r(t, c), slot < 0 || t == 3 ? 0.0f : at.x(t, c) - at.z(slot, c)) << t;
    }
  EXPECT_TRUE(at.r.padding_is_untouched());
}

TEST(LostDetail, HasTheGradientsOfCentralDifferences) {
  for (const Groups& groups : {some_groups(), Groups({}, 2), Groups({1}, 0), Groups({}, 0)}) {
    Case<double> at(groups, 7);
    const auto dr = some_dy(at);
    Matrix<double> dx(at.x.rows, 7, 8), dz(at.z.rows, 7, 9);
    for (auto* one : {&dx, &dz})  // both are added to
      for (Index row = 0; row < one->rows; ++row)
        for (Index c = 0; c < 7; ++c) (*one)(row, c) = 0.5;
    const guild::LostDetailGradientJob<double> job{view_of(at.groups.last), dr.view(), dx.view(), dz.view()};
    guild::lost_detail_backward(at.device, std::span<const guild::LostDetailGradientJob<double>>(&job, 1));
    EXPECT_TRUE(dx.padding_is_untouched() && dz.padding_is_untouched());
    for (auto* one : {&dx, &dz})
      for (Index row = 0; row < one->rows; ++row)
        for (Index c = 0; c < 7; ++c) (*one)(row, c) -= 0.5;
    const auto value = [&] {
      at.run(at.lost());
      return dot(at.r, dr);
    };
    expect_gradient(at.x, dx, value, "x");
    expect_gradient(at.z, dz, value, "z");
  }
}

TEST(LostDetail, AddsUpASlotsTokensInTheirOrder) {
  const auto gradients = [](int threads) {
    Case<float> at(many_groups(), 37, {.threads = threads});
    const auto dr = some_dy(at);
    Matrix<float> dx = at.x, dz = at.z;
    const guild::LostDetailGradientJob<float> job{view_of(at.groups.last), dr.view(), dx.view(), dz.view()};
    guild::lost_detail_backward(at.device, std::span<const guild::LostDetailGradientJob<float>>(&job, 1));
    return std::pair(dx.data, dz.data);
  };
  EXPECT_EQ(gradients(1), gradients(4));
}

TEST(Confidence, IsTheNoveltyOfTokensThatClose) {
  guild::Cpu device({.threads = 2});
  const std::vector<std::int32_t> closes = {1, 0, 0, 1};
  const std::vector<float> dconfidence = {1, 2, 3, 4};
  std::vector<float> dp = {0.5f, 0.5f, 0.5f, 0.5f};
  guild::confidence_backward(device, view_of(closes), view_of(dconfidence), view_of(dp));
  EXPECT_EQ(dp, (std::vector<float>{1.5f, -1.5f, -2.5f, 4.5f}));
  EXPECT_EQ(code_of([&] {
              guild::confidence_backward(device, view_of(closes).slice(0, 3), view_of(dconfidence), view_of(dp));
            }),
            ErrorCode::op_shape);
  EXPECT_EQ(code_of([&] {
              guild::confidence_backward(device, view_of(closes), view_of(dconfidence).slice(0, 3), view_of(dp));
            }),
            ErrorCode::op_shape);
}

TEST(Inflate, RefusesWhatDoesNotFit) {
  Case<float> at(Groups({2, 1, 3}, 2), 5);
  const auto code = [&](auto&& change) {
    auto job = at.job();
    change(job);
    return code_of([&] { at.run(job); });
  };
  EXPECT_EQ(code([](auto&) {}), ErrorCode::count_);
  EXPECT_EQ(code([](auto& job) { job.x.rows = 7; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.gate.cols = 4; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.details.rows = 7; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.d.rows = 2; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.d.cols = 4; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.made.cols = 4; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.slot.size = 7; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.single.size = 7; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.y.rows = 7; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.y.data = nullptr; }), ErrorCode::op_argument);
  // Tokens 3 to 7 close one slot behind two: the last of those and it are two rows.
  const auto ring = [](Index rows) {
    return [=](auto& job) {
      for (auto* one : {&job.x, &job.gate, &job.details}) *one = one->middle_rows(3, 5);
      job.y = job.y.middle_rows(3, 5), job.slot = job.slot.slice(3, 5), job.single = job.single.slice(3, 5);
      job.before = 2, job.made.rows = 1, job.ring.rows = job.d.rows = rows;
    };
  };
  EXPECT_EQ(code(ring(2)), ErrorCode::count_);
  EXPECT_EQ(code(ring(1)), ErrorCode::op_shape);

  const auto lost = [&](auto&& change) {
    auto job = at.lost();
    change(job);
    return code_of([&] { at.run(job); });
  };
  EXPECT_EQ(lost([](auto&) {}), ErrorCode::count_);
  EXPECT_EQ(lost([](auto& job) { job.r.rows = 7; }), ErrorCode::op_shape);
  EXPECT_EQ(lost([](auto& job) { job.z.cols = 4; }), ErrorCode::op_shape);
  EXPECT_EQ(lost([](auto& job) { job.slot.size = 7; }), ErrorCode::op_shape);
  EXPECT_EQ(lost([](auto& job) { job.length = 4; }), ErrorCode::op_shape);
  EXPECT_EQ(lost([](auto& job) { job.before = 5; }), ErrorCode::op_shape);

  const auto dy = some_dy(at);
  Gradients<float> of(at);
  const auto backward = [&](auto&& change) {
    auto job = of.job(at, dy);
    change(job);
    return code_of([&] { Gradients<float>::run(at.device, job); });
  };
  EXPECT_EQ(backward([](auto&) {}), ErrorCode::count_);
  EXPECT_EQ(backward([](auto& job) { job.gate = {}; }), ErrorCode::op_argument);
  EXPECT_EQ(backward([](auto& job) { job.dgate = {}; }), ErrorCode::op_argument);
  EXPECT_EQ(backward([](auto& job) { job.dx.rows = 7; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& job) { job.gate.rows = 7; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& job) { job.dgate.cols = 4; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& job) { job.ddetails.rows = 7; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& job) { job.d.rows = 2; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& job) { job.dd.rows = 2; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& job) { job.dmade.cols = 4; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& job) { job.single.size = 7; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& job) { job.dconfidence.size = 7; }), ErrorCode::op_shape);

  Matrix<float> dz(3, 5);
  const guild::LostDetailGradientJob<float> lost_job{view_of(at.groups.last), dy.view(), of.dx.view(), dz.view()};
  const auto lost_backward = [&](auto&& change) {
    auto job = lost_job;
    change(job);
    return code_of(
        [&] { guild::lost_detail_backward(at.device, std::span<const guild::LostDetailGradientJob<float>>(&job, 1)); });
  };
  EXPECT_EQ(lost_backward([](auto&) {}), ErrorCode::count_);
  EXPECT_EQ(lost_backward([](auto& job) { job.dr.cols = 4; }), ErrorCode::op_shape);
  EXPECT_EQ(lost_backward([](auto& job) { job.dx.rows = 7; }), ErrorCode::op_shape);
  EXPECT_EQ(lost_backward([](auto& job) { job.dz.rows = 2; }), ErrorCode::op_shape);
}

}  // namespace inflate_test
