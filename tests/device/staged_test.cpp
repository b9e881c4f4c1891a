#include <guild/device/staged.hpp>

#include <gtest/gtest.h>

#include <guild/device/cpu.hpp>

namespace staged_test {

using guild::Index;

TEST(Staged, ListsLieSideBySideAndTheirMemoryIsUsedAgain) {
  guild::Cpu device({.threads = 1});
  Index held = 0;
  for (int round = 0; round < 3; ++round) {
    guild::Staged<guild::Cpu, Index> first(device, 20000);
    guild::Staged<guild::Cpu, float> second(device, 3);
    EXPECT_TRUE(first.ready().empty());
    for (Index i = 0; i < 20000; ++i) {
      first.add(i);
      if (i < 3) second.add(0.5f * static_cast<float>(i));
    }
    EXPECT_EQ(first.size(), 20000);
    for (Index i = 0; i < 20000; ++i) ASSERT_EQ(first.ready()[static_cast<std::size_t>(i)], i);
    ASSERT_EQ(second.ready().size(), 3U);
    for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(second.ready()[i], 0.5f * static_cast<float>(i));
    if (round == 1) held = device.scratch_bytes();
    if (round == 2) { EXPECT_EQ(device.scratch_bytes(), held); }
  }
}

TEST(Staged, IsNotScratch) {
  guild::Cpu device({.threads = 1});
  auto scratch = device.scratch();
  const auto before = scratch.take<Index>(4);
  Index* after = nullptr;
  {
    guild::Staged<guild::Cpu, Index> list(device, 4);
    list.add(7);
    after = scratch.take<Index>(4).data;  // taken while the list is there, and kept when it is gone
    after[0] = 8;
  }
  EXPECT_NE(before.data, after);
  guild::Staged<guild::Cpu, Index> other(device, 4);
  other.add(9);
  EXPECT_EQ(after[0], 8);
}

}  // namespace staged_test
