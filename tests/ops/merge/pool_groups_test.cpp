#include <guild/ops/merge/pool_groups.hpp>

#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "merge_test_support.hpp"

namespace pool_groups_test {
using namespace guild_test;
using guild::ErrorCode;
using guild::RingRows;

/// A sequence of groups, random. Every third group is marked.
template <class Real>
struct Case {
  Groups groups;
  guild::Cpu device;
  Matrix<Real> x, scores, masses, z, mass;

  explicit Case(Groups of, Index width = 37, guild::CpuOptions options = {.threads = 2})
      : groups(std::move(of)),
        device(options),
        x(groups.tokens(), width, width + 3),
        scores(groups.tokens(), 1, 2),
        masses(groups.tokens(), 1, 3),
        z(groups.slots(), width, width + 1),
        mass(1, groups.slots()) {
    std::mt19937 random(3);
    x.fill_normal(random);
    scores.fill_normal(random);
    for (Index t = 0; t < groups.tokens(); ++t) masses(t, 0) = static_cast<Real>(1 + t % 4);
    for (Index j = 2; j < groups.slots(); j += 3) groups.marked[static_cast<std::size_t>(j)] = 1;
  }
  [[nodiscard]] guild::PoolGroupsJob<Real> job() {
    return {.x = x.view(),
            .scores = scores.view(),
            .masses = masses.view(),
            .length = groups.tokens(),
            .first = view_of(groups.first),
            .last = view_of(groups.last),
            .marked = view_of(groups.marked),
            .z = z.view(),
            .mass = mass.view().row(0)};
  }
  void run(const guild::PoolGroupsJob<Real>& one) {
    guild::pool_groups(device, std::span<const guild::PoolGroupsJob<Real>>(&one, 1));
  }
  void run() { run(job()); }

  /// The formula in double.
  [[nodiscard]] double expected(Index j, Index c) const {
    const auto at = static_cast<std::size_t>(j);
    double total = 0, sum = 0;
    for (Index t = groups.marked[at] != 0 ? groups.last[at] : groups.first[at]; t <= groups.last[at]; ++t) {
      const double share = std::exp(double(scores(t, 0)));
      total += share;
      sum += share * double(x(t, c));
    }
    return sum / total;
  }
};

const std::vector<Index> some_lengths = {1, 3, 4, 1, 1, 7, 2, 16, 5, 1};

TEST(PoolGroups, FollowTheFormula) {
  for (const Index tail : {0, 2})
    for (const Index width : {1, 16, 37})
      for (const guild::Isa isa : {guild::Isa::baseline, guild::Isa::avx2, guild::Isa::avx512}) {
        if (!guild::runs_here(isa)) continue;
        Case<float> at(Groups(some_lengths, tail), width, {.threads = 2, .isa = isa});
        at.run();
        for (Index j = 0; j < at.z.rows; ++j) {
          for (Index c = 0; c < width; ++c) ASSERT_NEAR(at.z(j, c), at.expected(j, c), 2e-6) << j;
          float mass = 0;
          const auto slot = static_cast<std::size_t>(j);
          for (Index t = at.groups.first[slot]; t <= at.groups.last[slot]; ++t) mass += at.masses(t, 0);
          ASSERT_EQ(at.mass(0, j), mass);
        }
        EXPECT_TRUE(at.z.padding_is_untouched());
        auto job = at.job();
        job.masses = {};
        at.run(job);
        for (Index j = 0; j < at.z.rows; ++j) ASSERT_EQ(at.mass(0, j), float(some_lengths[std::size_t(j)]));
      }
}

TEST(PoolGroups, OfOneTokenAndMarkedOnesAreCopies) {
  Case<float> at(Groups({1, 4, 1, 3}, 0), 21);
  at.groups.marked = {0, 1, 0, 0};
  const float special[] = {-0.0f, 1e-42f, std::numeric_limits<float>::infinity(), 3e38f, 1.0f / 3};
  for (const Index t : {0, 4, 5})
    for (Index c = 0; c < 21; ++c) at.x(t, c) = special[(t + c) % 5];
  for (const Index t : {1, 2, 3}) at.x(t, 2) = std::numeric_limits<float>::quiet_NaN();  // marked out
  at.scores(0, 0) = -3e38f;
  at.scores(5, 0) = -std::numeric_limits<float>::infinity();
  at.run();
  for (const auto& [slot, token] : {std::pair<Index, Index>{0, 0}, {1, 4}, {2, 5}})
    EXPECT_EQ(std::memcmp(&at.z(slot, 0), &at.x(token, 0), 21 * sizeof(float)), 0) << slot;
}

TEST(PoolGroups, TakeScoresOfAnySize) {
  Case<float> at(Groups({4, 2}, 0), 18);
  for (Index t = 0; t < 4; ++t) at.scores(t, 0) = t % 2 == 0 ? 30000.0f : 29999.0f;
  at.scores(4, 0) = 3e38f, at.scores(5, 0) = -3e38f;
  at.run();
  for (Index c = 0; c < 18; ++c) {
    EXPECT_NEAR(at.z(0, c),
                (at.x(0, c) + at.x(2, c) + std::exp(-1.0) * (at.x(1, c) + at.x(3, c))) / (2 + 2 * std::exp(-1.0)),
                1e-6);
    EXPECT_EQ(at.z(1, c), at.x(4, c));
  }
}

/// The logarithm of no mass.
TEST(PoolGroups, KnowNothingOfTokensThatWeighNothing) {
  Case<float> with(Groups({5}, 0), 18), without(Groups({3}, 0), 18);
  for (const Index t : {0, 2}) {
    for (Index c = 0; c < 18; ++c) with.x(t, c) = 3e38f;
    with.scores(t, 0) = -std::numeric_limits<float>::infinity();
    with.masses(t, 0) = 0;
  }
  for (Index row = 0; row < 3; ++row) {
    const Index from = row == 0 ? 1 : row + 2;
    for (Index c = 0; c < 18; ++c) without.x(row, c) = with.x(from, c);
    without.scores(row, 0) = with.scores(from, 0);
    without.masses(row, 0) = with.masses(from, 0);
  }
  with.run();
  without.run();
  EXPECT_EQ(with.z.data, without.z.data);
  EXPECT_EQ(with.mass.data, without.mass.data);
}

/// Each slot alone, from rings as short as they may be when its last token has come, and longer ones.
TEST(PoolGroups, HaveTheSameBitsFromARingAndOneByOne) {
  Case<float> at(Groups(some_lengths, 3));
  at.run();
  Matrix<float> out(1, 37), mass(1, 1);
  for (const Index pinned : {0, 3})
    for (const Index rows : {16, 17, 23})
      for (Index j = 0; j < at.z.rows; ++j) {
        const auto slot = static_cast<std::size_t>(j);
        const Index length = at.groups.last[slot] + 1;
        const RingRows ring{pinned, rows};
        const auto x = in_ring(at.x, ring, length), scores = in_ring(at.scores, ring, length),
                   masses = in_ring(at.masses, ring, length);
        at.run({.x = x.view(),
                .scores = scores.view(),
                .masses = masses.view(),
                .begin = at.groups.first[slot],
                .length = length,
                .first = view_of(at.groups.first).slice(j, 1),
                .last = view_of(at.groups.last).slice(j, 1),
                .marked = view_of(at.groups.marked).slice(j, 1),
                .z = out.view(),
                .mass = mass.view().row(0),
                .ring = ring});
        for (Index c = 0; c < 37; ++c) ASSERT_EQ(out(0, c), at.z(j, c)) << j;
        ASSERT_EQ(mass(0, 0), at.mass(0, j));
      }
}

/// What the backward of a case gives: dx and da.
template <class Real, class Device>
std::pair<Matrix<Real>, Matrix<Real>> gradients(Case<Real>& at, Device& device, Matrix<Real>& dz) {
  std::pair<Matrix<Real>, Matrix<Real>> out{{at.x.rows, at.x.cols, at.x.cols + 2}, {at.x.rows, 1, 2}};
  const guild::PoolGroupsGradientJob<Real> job{.x = at.x.view(),
                                               .scores = at.scores.view(),
                                               .first = view_of(at.groups.first),
                                               .last = view_of(at.groups.last),
                                               .marked = view_of(at.groups.marked),
                                               .z = at.z.view(),
                                               .dz = dz.view(),
                                               .dx = out.first.view(),
                                               .da = out.second.view()};
  guild::pool_groups_backward(device, std::span<const guild::PoolGroupsGradientJob<Real>>(&job, 1));
  return out;
}

TEST(PoolGroups, HaveTheGradientsOfCentralDifferences) {
  for (const Groups& groups :
       {Groups({3, 1, 4, 2, 1, 2}, 0), Groups({1, 5}, 3), Groups({}, 2), Groups({1}, 0), Groups({}, 0)}) {
    Case<double> at(groups, 19);
    std::mt19937 random(4);
    Matrix<double> dz(at.z.rows, 19);
    dz.fill_normal(random);
    const auto value = [&] {
      at.run();
      return dot(at.z, dz);
    };
    value();
    const auto [dx, da] = gradients(at, at.device, dz);
    EXPECT_TRUE(dx.padding_is_untouched() && da.padding_is_untouched());
    expect_gradient(at.x, dx, value, "x");
    expect_gradient(at.scores, da, value, "scores");
  }
}

TEST(PoolGroups, LeaveGapsBetweenGroupsWithoutAGradient) {
  Case<double> at(Groups({2, 3, 4}, 0), 5);
  at.groups.first = {1, 3, 8};
  at.groups.last = {1, 4, 8};
  at.run();
  std::mt19937 random(4);
  Matrix<double> dz(3, 5);
  dz.fill_normal(random);
  const auto [dx, da] = gradients(at, at.device, dz);
  for (const Index t : {0, 2, 5, 6, 7}) {
    for (Index c = 0; c < 5; ++c) EXPECT_EQ(dx(t, c), 0);
    EXPECT_EQ(da(t, 0), 0);
  }
  for (Index c = 0; c < 5; ++c) EXPECT_EQ(dx(1, c), dz(0, c));
}

TEST(PoolGroups, HaveTheSameBitsWhateverTheThreads) {
  std::vector<Index> lengths;
  for (Index i = 0; i < 300; ++i) lengths.push_back(1 + i * 7 % 5);
  Case<float> one(Groups(lengths, 3), 37, {.threads = 1}), four(Groups(lengths, 3), 37, {.threads = 4});
  one.run();
  four.run();
  EXPECT_EQ(one.z.data, four.z.data);
  std::mt19937 random(4);
  Matrix<float> dz(one.z.rows, 37);
  dz.fill_normal(random);
  const auto a = gradients(one, one.device, dz), b = gradients(four, four.device, dz);
  EXPECT_EQ(a.first.data, b.first.data);
  EXPECT_EQ(a.second.data, b.second.data);
}

TEST(PoolGroups, RefuseWhatDoesNotFit) {
  Case<float> at(Groups({2, 1, 3}, 2), 5);
  const auto code = [&](auto&& change) {
    guild::PoolGroupsJob<float> job = at.job();
    change(job);
    return code_of([&] { at.run(job); });
  };
  EXPECT_EQ(code([](auto&) {}), ErrorCode::count_);
  EXPECT_EQ(code([](auto& job) { job.mass = {}; }), ErrorCode::count_);
  EXPECT_EQ(code([](auto& job) { job.x.cols = 4; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.scores.rows = 7; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.scores.cols = 2; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.masses.rows = 7; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.first.size = 2; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.last.size = 2; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.marked.size = 2; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.mass.size = 2; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.length = 9; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.begin = -1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.begin = 9; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& job) { job.z.data = nullptr; }), ErrorCode::op_argument);
  // The last group, positions 3 to 5 of 8, is among the last 5.
  const auto last = [](Index rows) {
    return [=](auto& job) {
      job.begin = 3, job.first = job.first.slice(2, 1), job.last = job.last.slice(2, 1), job.marked = {};
      job.mass = job.mass.slice(2, 1), job.z.rows = 1, job.ring.rows = rows;
    };
  };
  EXPECT_EQ(code(last(5)), ErrorCode::count_);
  EXPECT_EQ(code(last(4)), ErrorCode::op_shape);

  Matrix<float> dz(3, 5), dx(8, 5), da(8, 1);
  const guild::PoolGroupsGradientJob<float> job{.x = at.x.view(),
                                                .scores = at.scores.view(),
                                                .first = view_of(at.groups.first),
                                                .last = view_of(at.groups.last),
                                                .z = at.z.view(),
                                                .dz = dz.view(),
                                                .dx = dx.view(),
                                                .da = da.view()};
  const auto backward = [&](auto&& change) {
    auto changed = job;
    change(changed);
    return code_of([&] {
      guild::pool_groups_backward(at.device, std::span<const guild::PoolGroupsGradientJob<float>>(&changed, 1));
    });
  };
  EXPECT_EQ(backward([](auto& of) { of.dz.rows = 2; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& of) { of.z.rows = 2; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& of) { of.dx.rows = 7; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& of) { of.da.rows = 7; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& of) { of.last.size = 2; }), ErrorCode::op_shape);
}

}  // namespace pool_groups_test
