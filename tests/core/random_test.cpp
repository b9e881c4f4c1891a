#include <guild/core/random.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace random_test {

using Block = guild::Philox::Block;

// The vectors of the Random123 distribution (kat_vectors, philox4x32 10).
TEST(Philox, GivesThePublishedWords) {
  EXPECT_EQ(guild::Philox::words({0, 0, 0, 0}, 0), (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  constexpr std::uint32_t ones = 0xffffffff;
  EXPECT_EQ(guild::Philox::words({ones, ones, ones, ones}, ~std::uint64_t{0}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(guild::Philox::words({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                                 std::uint64_t{0x299f31d0} << 32 | 0xa4093822),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Random, WalksTheCounterOfItsStream) {
  guild::Random random(0);
  for (const std::uint32_t word : {0x6627e8d5U, 0xe169c58dU, 0xbc57ac4cU, 0x9b00dbd8U}) EXPECT_EQ(random.bits(), word);
  EXPECT_EQ(random.bits(), guild::Philox::words({1, 0, 0, 0}, 0)[0]);
  guild::Random stream(7, std::uint64_t{5} << 32 | 9);
  EXPECT_EQ(stream.bits(), guild::Philox::words({0, 0, 9, 5}, 7)[0]);
}

TEST(Random, SameSeedSameNumbersAndOthersDiffer) {
  const auto draw = [](std::uint64_t seed, std::uint64_t stream) {
    guild::Random random(seed, stream);
    std::vector<std::uint32_t> out;
    for (int i = 0; i < 9; ++i) out.push_back(random.bits());
    return out;
  };
  EXPECT_EQ(draw(1, 2), draw(1, 2));
  EXPECT_NE(draw(1, 2), draw(2, 2));
  EXPECT_NE(draw(1, 2), draw(1, 3));
  EXPECT_NE(draw(1, 0), draw(std::uint64_t{1} << 32, 0));  // all 64 bits of the seed count
}

TEST(Random, IsUniformFromZeroToOne) {
  guild::Random random(3);
  constexpr int draws = 100000, cells = 50;
  std::vector<int> count(cells);
  double sum = 0.0;
  for (int i = 0; i < draws; ++i) {
    const double u = random.uniform();
    ASSERT_TRUE(u >= 0.0 && u < 1.0);
    sum += u;
    ++count[static_cast<std::size_t>(u * cells)];
  }
  EXPECT_NEAR(sum / draws, 0.5, 0.005);
  double chi_square = 0.0;
  for (const int n : count)
    chi_square += (n - draws / cells) * static_cast<double>(n - draws / cells) / (draws / cells);
  EXPECT_LT(chi_square, 90.0);  // 49 degrees of freedom: 1 in 3000 by chance, and the seed is fixed
  EXPECT_GT(chi_square, 20.0);
}

}  // namespace random_test
