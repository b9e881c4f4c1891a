#include <guild/core/config/layer_set.hpp>

#include <gtest/gtest.h>

namespace layer_set_test {

using guild::LayerSet;

constexpr LayerSet some = {1023, 0, 64, 63};
static_assert(some.has(0) && some.has(63) && some.has(64) && some.has(1023) && !some.has(1) && !some.has(65));
static_assert(some.count() == 4 && some.count(1) == 3 && some.count(0, 64) == 2 && LayerSet{}.count() == 0);
static_assert(some == LayerSet{0, 63, 64, 1023} && some != LayerSet{0, 63, 64});

TEST(LayerSet, IsPrintedAsItIsWritten) {
  EXPECT_EQ(some.text(), "0, 63, 64, 1023");
  EXPECT_EQ(LayerSet{}.text(), "");
}

}  // namespace layer_set_test
