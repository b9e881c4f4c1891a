// How chosen experts become slots, whoever chose them, on one thread and by teams of several.
#include <guild/cpu.hpp>
#include <guild/ops/experts/assignment.hpp>
#include <guild/ops/route/count_routing.hpp>

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include <guild/core/random.hpp>
#include <guild/device/host_team.hpp>

namespace assignment_test {

using guild::Index;

struct Slots {
  std::vector<std::int32_t> offsets, token, slot;
  friend bool operator==(const Slots&, const Slots&) = default;
};

template <class Device>
Slots assign(Device& device, const std::vector<std::int32_t>& chosen, Index top_k, Index experts, Index slots = -1) {
  const auto pairs = static_cast<Index>(chosen.size());
  if (slots < 0) slots = pairs;
  Slots out{std::vector<std::int32_t>(static_cast<std::size_t>(experts + 1), 99),
            std::vector<std::int32_t>(static_cast<std::size_t>(slots), 99),
            std::vector<std::int32_t>(chosen.size(), 99)};
  guild::assign_experts(
      device, {chosen.data(), pairs / top_k, top_k},
      {{out.offsets.data(), experts + 1}, {out.token.data(), slots}, {out.slot.data(), pairs / top_k, top_k}});
  return out;
}

TEST(Assignment, GroupsTokensByExpertInTheirOrder) {
  guild::Cpu device({.threads = 2});
  const Slots slots = assign(device, {3, 1, 1, 0}, 2, 4);
  EXPECT_EQ(slots.offsets, (std::vector<std::int32_t>{0, 1, 3, 3, 4}));
  EXPECT_EQ(slots.token, (std::vector<std::int32_t>{1, 0, 1, 0}));
  EXPECT_EQ(slots.slot, (std::vector<std::int32_t>{3, 1, 2, 0}));
}

TEST(Assignment, RowKernelsOfTeamsGiveTheSlotsOfTheCountingSort) {
  guild::Cpu device({.threads = 1});
  for (const auto& [tokens, top_k, experts] :
       {std::tuple{Index{0}, 2, 4}, {1, 1, 1}, {7, 3, 8}, {40, 2, 5}, {3, 4, 300}}) {
    guild::Random random(7, static_cast<std::uint64_t>(tokens));
    std::vector<std::int32_t> chosen(static_cast<std::size_t>(tokens * top_k));
    for (std::int32_t& e : chosen) e = static_cast<std::int32_t>(random.uniform() * experts);
    const Slots expected = assign(device, chosen, top_k, experts);
    for (const int size : {1, 2, 3}) {
      guild::HostTeams teams(size);
      EXPECT_EQ(assign(teams, chosen, top_k, experts), expected) << tokens << " tokens, team of " << size;
    }
    // Some are dropped, and there are slots for the others and two more.
    Index served = 0;
    for (std::int32_t& e : chosen) {
      if (random.uniform() < 0.4) e = random.uniform() < 0.5 ? ~e : guild::no_expert;
      served += e >= 0 ? 1 : 0;
    }
    const Slots fewer = assign(device, chosen, top_k, experts, served + 2);
    for (const int size : {1, 2, 3}) {
      guild::HostTeams teams(size);
      EXPECT_EQ(assign(teams, chosen, top_k, experts, served + 2), fewer) << tokens << " tokens, team of " << size;
    }
  }
}

TEST(Assignment, GivesADroppedChoiceNoSlot) {
  guild::Cpu device({.threads = 2});
  const Slots slots = assign(device, {3, ~1, 1, guild::no_expert, -1, 3}, 2, 4, 4);
  EXPECT_EQ(slots.offsets, (std::vector<std::int32_t>{0, 0, 1, 1, 3}));
  EXPECT_EQ(slots.token, (std::vector<std::int32_t>{1, 0, 2, 0}));
  EXPECT_EQ(slots.slot, (std::vector<std::int32_t>{1, -1, 0, -1, -1, 2}));
  try {
    (void)assign(device, {3, ~1, 1, 0, -1, 3}, 2, 4, 3);
    ADD_FAILURE() << "more choices than slots";
  } catch (const guild::Error& error) {
    EXPECT_EQ(error.code(), guild::ErrorCode::op_argument);
    EXPECT_NE(error.message().find("need 4 slots, but the router's capacity leaves 3"), std::string::npos);
  }
}

TEST(Assignment, IsCountedAlike) {
  const std::vector<std::int32_t> chosen{3, ~1, 9, 1, guild::no_expert, 9, -1, 3, 9};  // a spare column
  const std::vector<float> weights{0.5f, 8.0f, 9.0f, 0.25f, 8.0f, 9.0f, 8.0f, 2.0f, 9.0f};
  const auto count = [&](auto&& device, Index columns) {
    std::vector<double> sums(14, 5.0);
    guild::count_routing(device, 4, {chosen.data(), 3, columns, 3},
                         guild::DeviceView<const float, 2>{weights.data(), 3, columns, 3}, {sums.data(), 14});
    return sums;
  };
  const std::vector<double> expected{5, 6, 5, 7, 5, 5.25, 5, 7.5, 6, 6, 5, 5, 8, 5};
  for (const Index columns : {2, 3}) {  // with gaps, and without
    EXPECT_EQ(count(guild::Cpu({.threads = 1}), columns), expected);
    for (const int size : {1, 2, 3}) EXPECT_EQ(count(guild::HostTeams(size), columns), expected);
  }
}

TEST(Assignment, ClearsTheRowsOfSlotsThatServeNobody) {
  const std::vector<std::int32_t> offsets{0, 1, 1, 3};
  const auto cleared = [&](auto&& device) {
    std::vector<float> rows(5 * 3, 7.0f);
    guild::clear_unserved(device, {offsets.data(), 4}, guild::DeviceView<float, 2>{rows.data(), 5, 2, 3});
    return rows;
  };
  std::vector<float> expected(5 * 3, 7.0f);
  for (const std::size_t i : {9U, 10U, 12U, 13U}) expected[i] = 0.0f;
  EXPECT_EQ(cleared(guild::Cpu({.threads = 2})), expected);
  for (const int size : {1, 2, 3}) EXPECT_EQ(cleared(guild::HostTeams(size)), expected);
}

TEST(Assignment, RefusesAnExpertThatDoesNotExist) {
  guild::Cpu device({.threads = 1});
  for (const std::int32_t wrong : {4, 1 << 30}) {
    try {
      (void)assign(device, {0, 1, 2, wrong}, 2, 4);
      ADD_FAILURE() << wrong;
    } catch (const guild::Error& error) {
      EXPECT_EQ(error.code(), guild::ErrorCode::op_argument);
      EXPECT_NE(error.message().find("expert " + std::to_string(wrong) + " for token 1"), std::string::npos);
    }
  }
}

}  // namespace assignment_test
