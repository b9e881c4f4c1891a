// How chosen experts become slots, whoever chose them, on one thread and by teams of several.
#include <guild/cpu.hpp>
#include <guild/ops/experts/assignment.hpp>

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
Slots assign(Device& device, const std::vector<std::int32_t>& chosen, Index top_k, Index experts) {
  const auto pairs = static_cast<Index>(chosen.size());
  Slots out{std::vector<std::int32_t>(static_cast<std::size_t>(experts + 1)), std::vector<std::int32_t>(chosen.size()),
            std::vector<std::int32_t>(chosen.size())};
  guild::assign_experts(
      device, {chosen.data(), pairs / top_k, top_k},
      {{out.offsets.data(), experts + 1}, {out.token.data(), pairs}, {out.slot.data(), pairs / top_k, top_k}});
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
  }
}

TEST(Assignment, RefusesAnExpertThatDoesNotExist) {
  guild::Cpu device({.threads = 1});
  for (const std::int32_t wrong : {-1, 4, 1 << 30}) {
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
