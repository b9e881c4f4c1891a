// The row kernels of merging and inflation by teams of several threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <guild/device/host_team.hpp>
#include <guild/ops/merge/group_keys.hpp>
#include <guild/ops/merge/running_means.hpp>
#include <tuple>

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

/// Running means and lists of groups, which are the same in every team.
TEST(RowTeams, KeysThatAreMergedHaveTheSameBitsInEveryTeam) {
  const std::vector<std::int32_t> counts = counts_of({1, 2, 40, 5, 1}), ends = {0, 2, 42, 47, 48};
  std::mt19937 random(3);
  const auto x = random_matrix<float>(random, 49, 37);
  std::vector<std::int32_t> sees;
  for (std::int32_t t = 0; t < 49; ++t)
    sees.push_back(3 + static_cast<std::int32_t>(std::ranges::lower_bound(ends, t) - ends.begin()));
  const auto all = [&](guild::HostTeams device) {
    Matrix<float> z(49, 37), d = x;
    run_one(device, guild::RunningMeansJob<float>{.x = x.view(), .counts = view_of(counts), .z = z.view()},
            [](auto&&... of_all) { guild::running_means(of_all...); });
    run_one(device, guild::RunningMeansGradientJob<float>{.counts = view_of(counts), .d = d.view()},
            [](auto&&... of_all) { guild::running_means_backward(of_all...); });
    std::vector<std::uint32_t> bits(49 * 2);
    run_one(device, guild::MarkGroupKeysJob{.counts = view_of(counts), .bits = {bits.data(), 49, 2}},
            [](auto&&... of_all) { guild::mark_group_keys(of_all...); });
    std::vector<std::int32_t> lists(49 * 7), seen(49);
    run_one(device,
            guild::ListGroupKeysJob{.before = 2,
                                    .ends = view_of(ends),
                                    .sees = view_of(sees),
                                    .chosen = {lists.data(), 49, 7},
                                    .counts = view_of(seen)},
            [](auto&&... of_all) { guild::list_group_keys(of_all...); });
    return std::tuple(z.data, d.data, bits, lists, seen);
  };
  const auto one = all(guild::HostTeams(1));
  EXPECT_EQ(std::get<4>(one), sees);
  for (const int size : {2, 4, 7}) EXPECT_EQ(all(guild::HostTeams(size)), one) << size;
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
    Matrix<float> z(made.rows, 37), d = z, y(x.rows, 37), dx = y, dgate = y, dd = z, dmade = z;
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
    for (const auto* one : {&z, &d, &y, &dx, &dgate, &dd, &dmade})
      joined.insert(joined.end(), one->data.begin(), one->data.end());
    return joined;
  };
  const auto one = all(guild::HostTeams(1));
  for (const int size : {2, 4, 7}) EXPECT_EQ(all(guild::HostTeams(size)), one) << size;
}

}  // namespace merge_teams_test
