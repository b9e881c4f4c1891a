#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <guild/device/arena.hpp>
#include <guild/device/cpu.hpp>
#include <vector>

namespace arena_test {
using guild::Arena;
using guild::Index;

TEST(Arena, GivesAlignedMemoryThatDoesNotOverlap) {
  Arena arena;
  const Arena::Frame frame_of_all(arena);
  Arena::Frame frame(arena);
  std::vector<guild::View<unsigned char>> taken;
  for (Index size : {1, 63, 64, 65, 1000, 70000, 3, 200000, 1}) {
    taken.push_back(frame.take<unsigned char>(size));
    EXPECT_EQ(taken.back().size, size);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(taken.back().data) % 64, 0U);
    std::memset(taken.back().data, static_cast<int>(taken.size()), static_cast<std::size_t>(size));
  }
  for (std::size_t i = 0; i < taken.size(); ++i)
    for (const unsigned char byte : taken[i]) ASSERT_EQ(byte, i + 1);
}

TEST(Arena, GivesAMatrixWithItsShape) {
  Arena arena;
  Arena::Frame frame(arena);
  const auto matrix = frame.take<float>(3, 5);
  EXPECT_EQ(matrix.rows, 3);
  EXPECT_EQ(matrix.cols, 5);
  EXPECT_EQ(matrix.pitch, 5);
}

TEST(Arena, ReusesTheMemoryOfAFrameThatEnded) {
  Arena arena;
  Arena::Frame outer(arena);
  (void)outer.take<float>(10);
  float* first = nullptr;
  {
    Arena::Frame inner(arena);
    first = inner.take<float>(100).data;
  }
  Arena::Frame inner(arena);
  EXPECT_EQ(inner.take<float>(100).data, first);
}

TEST(Arena, KeepsMemoryOfTheOuterFrameWhileInnerFramesGrow) {
  Arena arena;
  Arena::Frame outer(arena);
  const guild::View kept = outer.take<int>(1000);
  for (Index i = 0; i < kept.size; ++i) kept[i] = static_cast<int>(i);
  for (int round = 0; round < 5; ++round) {
    Arena::Frame inner(arena);
    auto large = inner.take<int>(100000 << round);
    std::memset(large.data, 0xff, static_cast<std::size_t>(large.size) * sizeof(int));
  }
  for (Index i = 0; i < kept.size; ++i) ASSERT_EQ(kept[i], i);
}

TEST(Arena, HoldsLittleMoreThanWasTakenAtATime) {
  constexpr Index mebibyte = 1 << 20;
  Arena arena;
  for (const Index most : {1, 400}) {
    for (int round = 0; round < 2; ++round) {
      {
        const Arena::Frame outer(arena);
        for (int i = 0; i < 3; ++i) {
          Arena::Frame inner(arena);
          for (const Index part : {10, 25, 65}) (void)inner.take<std::byte>(most * mebibyte * part / 100);
        }
      }
      EXPECT_GE(arena.capacity(), most * mebibyte - 200);
      EXPECT_LE(arena.capacity(), most == 1 ? 2 * mebibyte + 400 : 451 * mebibyte);
    }
  }
}

TEST(Arena, AllocatesNothingInTheSecondRound) {
  Arena arena;
  const auto round = [&] {
    Arena::Frame outer(arena);
    (void)outer.take<char>(50000);
    for (int i = 0; i < 3; ++i) {
      Arena::Frame inner(arena);
      (void)inner.take<char>(300000);
      (void)inner.take<char>(7);
    }
    (void)outer.take<char>(100000);
  };
  round();
  const Index held = arena.capacity();
  void* block = nullptr;
  {
    Arena::Frame frame(arena);
    block = frame.take<char>(1).data;
  }
  for (int i = 0; i < 3; ++i) round();
  EXPECT_EQ(arena.capacity(), held);
  Arena::Frame frame(arena);
  EXPECT_EQ(frame.take<char>(1).data, block);
}

TEST(Cpu, ACopySharesThreadsAndBringsItsOwnScratch) {
  guild::Cpu device({.threads = 3});
  guild::Cpu copy = device;
  EXPECT_EQ(copy.threads(), 3);
  auto a = device.scratch();
  auto b = copy.scratch();
  EXPECT_NE(a.take<char>(64).data, b.take<char>(64).data);
}

}  // namespace arena_test
