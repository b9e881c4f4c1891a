// DeepSeek-V4 against transformers: logits, chosen experts, greedy tokens, split anywhere.
// tests/fixtures/models/README.md says what each folder proves.
#include "../support/family_specs.hpp"
#include "parity.hpp"

namespace parity_v4_test {

using parity::expect_any_split;
using parity::expect_both;
using parity::expect_same_bits_of_any_split;
using namespace guild_test;

TEST(Parity, DeepSeekV4OfWindowsAlone) { expect_both<DeepSeekV4Sliding>("v4_sliding"); }
TEST(Parity, DeepSeekV4OfWindowsAloneMayBeSplitAnywhere) { expect_any_split<DeepSeekV4Sliding>("v4_sliding"); }
TEST(Parity, DeepSeekV4OfWindowsAloneIsTheSameToTheBitHoweverItIsSplit) {
  expect_same_bits_of_any_split<DeepSeekV4Sliding>("v4_sliding");
}
TEST(Parity, DeepSeekV4AsTransformersSavesIt) { expect_both<DeepSeekV4Sliding>("v4_sliding_v5"); }

}  // namespace parity_v4_test
