// Shuffling without memory: every size is a bijection, every epoch another one, and none is preferred.
#include <guild/cpu.hpp>
#include <guild/training/shuffle.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <vector>

namespace shuffle_test {

using guild::Index;
using guild::Permutation;

std::vector<Index> all(const Permutation& permutation) {
  std::vector<Index> out;
  for (Index i = 0; i < permutation.size(); ++i) out.push_back(permutation(i));
  return out;
}
bool is_bijection(std::vector<Index> values) {
  std::sort(values.begin(), values.end());
  for (std::size_t i = 0; i < values.size(); ++i)
    if (values[i] != static_cast<Index>(i)) return false;
  return true;
}

TEST(Permutation, IsABijectionOfEverySize) {
  for (Index size = 0; size <= 300; ++size)
    for (std::uint64_t epoch = 0; epoch < 3; ++epoch) EXPECT_TRUE(is_bijection(all({size, 7, epoch}))) << size;
  for (const Index size : {1023, 1024, 1025, 4096, 65537}) EXPECT_TRUE(is_bijection(all({size, 1}))) << size;
  EXPECT_THROW(Permutation(-1, 0), guild::Error);
}

TEST(Permutation, StaysInsideOfHugeSizes) {
  for (const Index size : {(Index{1} << 40) + 1, (Index{1} << 62) + 12345, std::numeric_limits<Index>::max()}) {
    const Permutation permutation(size, 3);
    std::set<Index> seen;
    for (const Index i : {Index{0}, Index{1}, size / 2, size - 2, size - 1}) {
      EXPECT_GE(permutation(i), 0);
      EXPECT_LT(permutation(i), size);
      seen.insert(permutation(i));
    }
    EXPECT_EQ(seen.size(), 5U);
  }
}

TEST(Permutation, ChangesWithTheSeedAndTheEpochOnly) {
  EXPECT_EQ(all({100, 5, 2}), all({100, 5, 2}));
  std::set<std::vector<Index>> orders;
  for (std::uint64_t seed = 0; seed < 10; ++seed)
    for (std::uint64_t epoch = 0; epoch < 10; ++epoch) orders.insert(all({100, seed, epoch}));
  orders.insert(all({100, 0, std::uint64_t{1} << 32}));
  EXPECT_EQ(orders.size(), 101U);
}

// Chi-squared with k degrees of freedom lies below k + 5 sqrt(2 k) with a probability far above 0.999.
double limit(double degrees) { return degrees + 5 * std::sqrt(2 * degrees); }

TEST(Permutation, PrefersNoOrderOfThreeToSix) {
  for (const auto& [size, orders] : {std::pair{3, 6}, {4, 24}, {5, 120}, {6, 720}}) {
    std::map<std::vector<Index>, int> counts;
    const int draws = 200 * orders;
    for (int epoch = 0; epoch < draws; ++epoch) ++counts[all({size, 11, static_cast<std::uint64_t>(epoch)})];
    double chi = (orders - static_cast<double>(counts.size())) * 200;
    for (const auto& [order, count] : counts) chi += (count - 200.0) * (count - 200.0) / 200;
    EXPECT_LT(chi, limit(orders - 1)) << size;
  }
}

TEST(Permutation, PrefersNoPlaceAndNoNeighbour) {
  constexpr int size = 40, epochs = 8000;
  std::vector<double> places(size * size), pairs(size * size);
  for (std::uint64_t epoch = 0; epoch < epochs; ++epoch) {
    const std::vector<Index> order = all({size, 2, epoch});
    for (std::size_t i = 0; i < size; ++i) {
      ++places[i * size + static_cast<std::size_t>(order[i])];
      ++pairs[static_cast<std::size_t>(order[i] * size + order[(i + 1) % size])];
    }
  }
  double chi_places = 0, chi_pairs = 0;
  for (std::size_t i = 0; i < size; ++i)
    for (std::size_t j = 0; j < size; ++j) {
      const double place = epochs / static_cast<double>(size), pair = epochs / static_cast<double>(size - 1);
      chi_places += (places[i * size + j] - place) * (places[i * size + j] - place) / place;
      if (i != j) chi_pairs += (pairs[i * size + j] - pair) * (pairs[i * size + j] - pair) / pair;
    }
  EXPECT_LT(chi_places, limit((size - 1) * (size - 1)));
  EXPECT_LT(chi_pairs, limit((size - 1) * (size - 1)));
}

TEST(DeriveSeed, GivesEachUseAnother) {
  std::set<std::uint64_t> seeds;
  for (std::uint64_t seed = 0; seed < 50; ++seed)
    for (std::uint64_t use = 0; use < 50; ++use) seeds.insert(guild::derive_seed(seed, use));
  EXPECT_EQ(seeds.size(), 2500U);
}

}  // namespace shuffle_test
