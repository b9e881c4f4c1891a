#include <gtest/gtest.h>

#include <utility>

#include <guild/models/presets.hpp>

namespace cache_test {

TEST(Cache, GrowsByDoublingUpToTheContextAndReservesExactly) {
  guild::MiniR1::Cache cache;
  for (const auto& [tokens, expected] : {std::pair{1, 1}, {2, 2}, {3, 4}, {4, 4}, {5, 8}, {100, 100}, {101, 200}}) {
    cache.grow(tokens);
    EXPECT_EQ(cache.reserved, expected) << tokens;
  }
  cache.layers.for_each([](const auto& layer) { EXPECT_EQ(layer.capacity(), 200); });
  cache.reserve(1500);
  cache.grow(1501);
  EXPECT_EQ(cache.reserved, guild::MiniR1::config.context);
}

}  // namespace cache_test
