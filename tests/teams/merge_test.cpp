// The row kernels of merging and inflation by teams of several threads.
#include <gtest/gtest.h>

#include <guild/device/host_team.hpp>

#include "../ops/merge/merged_span.hpp"

namespace merge_teams_test {
using namespace guild_test;

void expect_same(const Matrix<float>& a, const Matrix<float>& b, double tolerance, const char* what) {
  ASSERT_EQ(a.data.size(), b.data.size());
  for (std::size_t i = 0; i < a.data.size(); ++i)
    ASSERT_NEAR(a.data[i], b.data[i], tolerance * (1 + std::abs(b.data[i]))) << what << " " << i;
}

TEST(RowTeams, MergingAndInflationAgree) {
  const MergedSpan<float> span(Groups({1, 3, 4, 1, 1, 2, 5, 1, 1}, 3));
  guild::Cpu cpu({.threads = 2});
  const ByOperations<float> expected(cpu, span);
  for (const int size : {1, 2, 4, 7}) {
    guild::HostTeams teams(size);
    const ByOperations<float> got(teams, span);
    expect_same(got.p, expected.p, 1e-6, "p");
    expect_same(got.z, expected.z, 1e-6, "z");
    expect_same(got.y, expected.y, 1e-5, "y");
    expect_same(got.dx, expected.dx, 1e-4, "dx");
    expect_same(got.dq, expected.dq, 1e-4, "dq");
    expect_same(got.dk, expected.dk, 1e-4, "dk");
    expect_same(got.ds, expected.ds, 1e-4, "ds");
    expect_same(got.deta, expected.deta, 1e-4, "deta");
  }
}

/// What is computed column by column has the bits of a team of one.
TEST(RowTeams, ColumnsOfSlotsHaveTheSameBitsInEveryTeam) {
  const Groups groups({1, 3, 4, 1, 2}, 2);
  std::mt19937 random(3);
  const auto x = random_matrix<float>(random, groups.tokens(), 37), gate = random_matrix<float>(random, x.rows, 37),
             scores = random_matrix<float>(random, x.rows, 1), made = random_matrix<float>(random, groups.slots(), 37),
             dy = random_matrix<float>(random, x.rows, 37);
  const auto weights = normal_vector<float>(random, groups.slots());
  const auto all = [&](guild::HostTeams device) {
    Matrix<float> z(made.rows, 37), d = z, whole = z, y(x.rows, 37), dx = y, dgate = y, dd = z, dmade = z;
    run_one(device,
            guild::PoolGroupsJob<float>{.x = x.view(),
                                        .scores = scores.view(),
                                        .length = x.rows,
                                        .first = view_of(groups.first),
                                        .last = view_of(groups.last),
                                        .z = z.view()},
            [](auto&&... of_all) { guild::pool_groups(of_all...); });
    run_one(device,
            guild::SmoothSlotsJob<float>{.y = made.view(), .z = z.view(), .weights = view_of(weights), .d = d.view()},
            [](auto&&... of_all) { guild::smooth_slots(of_all...); });
    run_one(device, guild::SmoothSlotsJob<float>{.y = made.view(), .weights = view_of(weights), .d = whole.view()},
            [](auto&&... of_all) { guild::smooth_slots(of_all...); });
    run_one(device,
            guild::InflateJob<float>{.x = x.view(),
                                     .gate = gate.view(),
                                     .d = d.view(),
                                     .made = made.view(),
                                     .slot = view_of(groups.slot),
                                     .single = view_of(groups.single),
                                     .y = y.view()},
            [](auto&&... of_all) { guild::inflate(of_all...); });
    run_one(device,
            guild::InflateGradientJob<float>{.gate = gate.view(),
                                             .d = d.view(),
                                             .closing = view_of(groups.last),
                                             .single = view_of(groups.single),
                                             .dy = dy.view(),
                                             .dx = dx.view(),
                                             .dgate = dgate.view(),
                                             .dd = dd.view(),
                                             .dmade = dmade.view()},
            [](auto&&... of_all) { guild::inflate_backward(of_all...); });
    std::vector<float> joined;
    for (const auto* one : {&z, &d, &whole, &y, &dx, &dgate, &dd, &dmade})
      joined.insert(joined.end(), one->data.begin(), one->data.end());
    return joined;
  };
  const auto one = all(guild::HostTeams(1));
  for (const int size : {2, 4, 7}) EXPECT_EQ(all(guild::HostTeams(size)), one) << size;
}

}  // namespace merge_teams_test
