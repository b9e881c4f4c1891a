// The row kernels of merging and inflation by teams of several threads.
#include <gtest/gtest.h>

#include <algorithm>
#include <guild/device/host_team.hpp>
#include <guild/ops/merge/best_partners.hpp>
#include <guild/ops/merge/group_keys.hpp>
#include <guild/ops/merge/learned_slots.hpp>
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

/// Whole sequences: who is like whom, and learned slots with their gradients.
TEST(RowTeams, MatchesAndLearnedSlotsAgree) {
  std::mt19937 random(3);
  const Index tokens = 14, width = 37, count = 5;
  auto x = random_matrix<float>(random, tokens, width);
  for (Index i = 0; i < width; ++i) x(6, i) = 0.0f, x(9, i) = x(3, i);  // a row of zeros, and equal ones
  const auto logits = random_matrix<float>(random, tokens, count), masses = [&] {
    auto of = random_matrix<float>(random, tokens, 1);
    for (Index t = 0; t < tokens; ++t) of(t, 0) = static_cast<float>(1 + t % 3);
    return of;
  }();
  const auto made = random_matrix<float>(random, count, width), more = random_matrix<float>(random, count, width),
             dy = random_matrix<float>(random, tokens, width);
  const std::vector<std::int32_t> from = {0, 2, 4, 6, 8, 10}, to = {1, 3, 5, 7, 9, 11, 13};
  struct Found {
    std::vector<std::int32_t> partners;
    std::vector<float> numbers;
  };
  const auto all = [&](auto&& device) {
    Matrix<float> unit(tokens, width), z(count, width), y(tokens, width), dmade = z, dz = z, dx = y;
    Matrix<float> dispatch(tokens, count), combine = dispatch, dlogits = dispatch;
    std::vector<std::int32_t> partners(12);
    std::vector<float> likeness(12 + from.size());
    guild::unit_rows(device, x.view(), unit.view());
    for (const Index reach : {0, 2}) {
      const Index at = reach * 3;
      run_one(device,
              guild::BestPartnersJob<float>{.unit = unit.view(),
                                            .from = view_of(from),
                                            .to = view_of(to),
                                            .reach = reach,
                                            .shift = reach / 2,
                                            .partner = view_of(partners).slice(at, 6),
                                            .similarity = view_of(likeness).slice(at, 6)},
              [](auto&&... of) { guild::best_partners(of...); });
    }
    run_one(device,
            guild::MatchEnergyJob<float>{.unit = unit.view(),
                                         .of = view_of(from),
                                         .margin = 0.1f,
                                         .alpha = 1.0f,
                                         .energy = view_of(likeness).slice(12, 6)},
            [](auto&&... of) { guild::match_energies(of...); });
    run_one(device,
            guild::DispatchSlotsJob<float>{.logits = logits.view(),
                                           .masses = masses.view(),
                                           .x = x.view(),
                                           .dispatch = dispatch.view(),
                                           .z = z.view()},
            [](auto&&... of) { guild::dispatch_slots(of...); });
    run_one(device,
            guild::CombineSlotsJob<float>{.logits = logits.view(),
                                          .x = x.view(),
                                          .made = made.view(),
                                          .z = z.view(),
                                          .combine = combine.view(),
                                          .y = y.view()},
            [](auto&&... of) { guild::combine_slots(of...); });
    run_one(device,
            guild::CombineSlotsGradientJob<float>{
                .combine = combine.view(), .dy = dy.view(), .dmade = dmade.view(), .dz = dz.view()},
            [](auto&&... of) { guild::combine_slots_backward(of...); });
    run_one(device,
            guild::LearnedSlotsGradientJob<float>{.x = x.view(),
                                                  .dispatch = dispatch.view(),
                                                  .combine = combine.view(),
                                                  .z = z.view(),
                                                  .dz = more.view(),
                                                  .made = made.view(),
                                                  .dy = dy.view(),
                                                  .dx = dx.view(),
                                                  .dlogits = dlogits.view()},
            [](auto&&... of) { guild::learned_slots_backward(of...); });
    Found found{partners, likeness};
    for (const auto* one : {&unit, &z, &y, &dmade, &dz, &dx, &dispatch, &combine, &dlogits})
      found.numbers.insert(found.numbers.end(), one->data.begin(), one->data.end());
    return found;
  };
  const Found expected = all(guild::Cpu({.threads = 2}));
  for (const int size : {1, 2, 4, 7}) {
    const Found got = all(guild::HostTeams(size));
    EXPECT_EQ(got.partners, expected.partners) << size;
    for (std::size_t i = 0; i < expected.numbers.size(); ++i)
      ASSERT_NEAR(got.numbers[i], expected.numbers[i], 1e-5 * (1 + std::abs(expected.numbers[i]))) << size << " " << i;
  }
}

}  // namespace merge_teams_test
