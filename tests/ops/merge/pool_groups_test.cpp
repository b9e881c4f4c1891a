#include <guild/ops/merge/pool_groups.hpp>

#include <gtest/gtest.h>

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

}  // namespace pool_groups_test
