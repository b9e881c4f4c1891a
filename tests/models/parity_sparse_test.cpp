// DeepSeek-V3.2 and GLM-5 against transformers: logits, chosen experts, greedy tokens, split anywhere.
// tests/fixtures/models/README.md says what each folder proves.
#include "../support/family_specs.hpp"
#include "parity.hpp"

namespace parity_sparse_test {

using parity::expect_any_split;
using parity::expect_both;
using namespace guild_test;

TEST(Parity, DeepSeekV32SeesTheKeysThatItsIndexChooses) { expect_both<DeepSeekV32>("v32"); }
TEST(Parity, DeepSeekV32MayBeSplitAnywhere) { expect_any_split<DeepSeekV32>("v32"); }
TEST(Parity, DeepSeekV32MayBeFused) { expect_both<DeepSeekV32>("v32_fused"); }
TEST(Parity, DeepSeekV32MayHaveFloatTensorsAmongBf16) { expect_both<DeepSeekV32>("v32_bf16"); }
TEST(Parity, DeepSeekV32SkipsTheExtraLayerUnlessAskedFor) { expect_both<DeepSeekV32Mtp>("v32_mtp"); }

TEST(Parity, TheExtraLayerOfDeepSeekV32HasAnIndexOfItsOwn) {
  const parity::Fixture fixture("v32_mtp");
  parity::Runner<DeepSeekV32Mtp> runner(fixture, {.mtp = true});
  for (const int i : {0, 1}) {
    const parity::Tokens tokens = fixture.tokens(i);
    runner.clear();
    const auto states = runner.states({{0, &tokens, 0, static_cast<guild::Index>(tokens.size()) - 1}});
    const auto expected = fixture.expected<float>("mtp_logits_" + std::to_string(i));
    EXPECT_LE(parity::error_of(runner.second_logits(tokens, states), expected), 1e-4) << "sequence " << i;
  }
}

TEST(Parity, Glm5TurnsNeighbouringPairsOfItsIndex) { expect_both<Glm5Full>("glm5_full"); }
TEST(Parity, Glm5MayBeSplitAnywhere) { expect_any_split<Glm5Full>("glm5_full"); }
TEST(Parity, LayersOfGlm5MaySeeTheKeysThatALayerBeforeThemChose) { expect_both<Glm5Shared>("glm5"); }
TEST(Parity, LayersOfGlm5ThatShareAChoiceMayBeSplitAnywhere) { expect_any_split<Glm5Shared>("glm5"); }

}  // namespace parity_sparse_test
