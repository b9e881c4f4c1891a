#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <guild/device/cpu.hpp>
#include <guild/device/host_team.hpp>
#include <limits>
#include <random>
#include <vector>

namespace team_test {
using guild::Index;

/// Asks a team for every reduction over a vector and notes what each member got.
struct Asking {
  const std::vector<double>& values;
  std::vector<double>& sums;  ///< [members]
  std::vector<double>& maxima;
  std::vector<Index>& winners;
  std::vector<int>& touched;  ///< [values]

  template <guild::Team T>
  void operator()(T team, Index) const {
    const auto n = static_cast<Index>(values.size());
    const auto rank = static_cast<std::size_t>(team.rank());
    const auto value = [this](Index i) { return values[static_cast<std::size_t>(i)]; };
    sums[rank] = team.sum(n, value);
    maxima[rank] = n > 0 ? team.max(n, value) : 0.0;
    winners[rank] = team.argmax(n, value);
    team.for_each(n, [this](Index i) { ++touched[static_cast<std::size_t>(i)]; });
  }
};

struct Answers {
  std::vector<double> sums, maxima;
  std::vector<Index> winners;
  std::vector<int> touched;
};

template <class Device>
Answers ask(Device& device, int members, const std::vector<double>& values) {
  const auto n = static_cast<std::size_t>(members);
  Answers a{std::vector<double>(n), std::vector<double>(n), std::vector<Index>(n), std::vector<int>(values.size())};
  for_each_row(device, 1, 1, Asking{values, a.sums, a.maxima, a.winners, a.touched});
  return a;
}

void expect_equal_answers(const std::vector<double>& values) {
  guild::Cpu cpu({.threads = 1});
  const Answers one = ask(cpu, 1, values);
  for (int members : {1, 2, 4, 7}) {
    guild::HostTeams teams(members);
    const Answers many = ask(teams, members, values);
    for (std::size_t rank = 0; rank < static_cast<std::size_t>(members); ++rank) {
      EXPECT_EQ(many.sums[rank], many.sums[0]) << "every member gets the same sum";
      if (std::isfinite(one.sums[0])) {
        EXPECT_NEAR(many.sums[rank], one.sums[0], 1e-12 * static_cast<double>(values.size()));
      }
      EXPECT_EQ(many.winners[rank], one.winners[0]);
      const bool both_nan = std::isnan(many.maxima[rank]) && std::isnan(one.maxima[0]);
      EXPECT_TRUE(both_nan || many.maxima[rank] == one.maxima[0]);
    }
    EXPECT_EQ(many.touched, one.touched);
  }
}

TEST(Team, TeamsOfAnySizeAgreeWithTheTeamOfOne) {
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  for (std::size_t n : {1U, 2U, 3U, 6U, 7U, 8U, 16U, 17U, 100U}) {
    std::vector<double> values(n);
    for (auto& value : values) value = normal(random);
    expect_equal_answers(values);
  }
}

TEST(Team, TiesGoToTheLowerIndexAndNaNNeverWins) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  for (const std::vector<double>& values : std::vector<std::vector<double>>{
           {1, 3, 3, 3, 2}, {3, 1, 3, 1, 1, 1, 1, 3}, {0.0, -0.0}, {-0.0, 0.0}, {-inf, -inf, -inf}, {inf, inf}}) {
    expect_equal_answers(values);
    guild::HostTeams teams(4);
    const Index winner = ask(teams, 4, values).winners[0];
    for (Index i = 0; i < winner; ++i)
      EXPECT_LT(values[static_cast<std::size_t>(i)], values[static_cast<std::size_t>(winner)]);
  }
  guild::Cpu cpu({.threads = 1});
  for (int members : {1, 2, 4, 7}) {
    guild::HostTeams teams(members);
    EXPECT_EQ(ask(teams, members, {nan, 1, nan, 2, nan}).winners[0], 3);
    EXPECT_EQ(ask(teams, members, {nan, -inf}).winners[0], 1);
    EXPECT_EQ(ask(teams, members, {nan, nan, nan}).winners[0], 0);
    EXPECT_EQ(ask(teams, members, {nan, 1, nan, 2, nan}).maxima[0], 2);
    EXPECT_EQ(ask(teams, members, {}).winners[0], -1);
  }
  EXPECT_EQ(ask(cpu, 1, {nan, 1, nan, 2, nan}).winners[0], 3);
  EXPECT_EQ(ask(cpu, 1, {nan, nan, nan}).winners[0], 0);
  EXPECT_EQ(ask(cpu, 1, {}).winners[0], -1);
  EXPECT_EQ(ask(cpu, 1, {}).sums[0], 0.0);
}

struct Counting {
  std::vector<std::atomic<int>>& rows;
  template <guild::Team T>
  void operator()(T, Index row) const {
    rows[static_cast<std::size_t>(row)].fetch_add(1);
  }
};

TEST(Cpu, RunsARowKernelOnceForEveryRow) {
  guild::Cpu device({.threads = 4});
  for (Index rows : {0, 1, 2, 100, 5000})
    for (Index work : {0, 1, 100, 20000}) {
      std::vector<std::atomic<int>> counts(static_cast<std::size_t>(rows));
      for_each_row(device, rows, work, Counting{counts});
      for (const auto& count : counts) ASSERT_EQ(count.load(), 1);
    }
}

}  // namespace team_test
