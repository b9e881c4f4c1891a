// Llama, Qwen2, Qwen3, Gemma 3, Mixtral, Qwen3-MoE, Qwen2-MoE, OLMoE, GLM-4.5, dots1 and GPT-OSS against transformers:
// logits, chosen experts, greedy tokens. tests/fixtures/models/README.md says what each folder proves.
#include "../support/family_specs.hpp"
#include "parity.hpp"

namespace parity_families_test {

using parity::expect_any_split;
using parity::expect_both;
using namespace guild_test;

TEST(Parity, LlamaScalesItsFrequencies) { expect_both<Llama>("llama"); }
TEST(Parity, LlamaMayBeTiedAndHaveHeadsOfAnyWidth) { expect_both<LlamaTied>("llama_tied"); }
TEST(Parity, Qwen2HasBiases) { expect_both<Qwen2>("qwen2"); }
TEST(Parity, Qwen3NormalisesQueriesAndKeys) { expect_both<Qwen3>("qwen3"); }
TEST(Parity, Qwen3MayBeTied) { expect_both<Qwen3Tied>("qwen3_tied"); }
TEST(Parity, MixtralHasExpertsInEveryLayer) { expect_both<Mixtral>("mixtral"); }
TEST(Parity, MixtralMayBeFused) { expect_both<Mixtral>("mixtral_fused"); }
TEST(Parity, Qwen3MoeHasExpertsAndNormsOfQueriesAndKeys) { expect_both<Qwen3Moe>("qwen3_moe"); }
TEST(Parity, Qwen3MoeMayBeFused) { expect_both<Qwen3Moe>("qwen3_moe_fused"); }
TEST(Parity, Gemma3HasWindowsTwoRotationsAndFourNorms) { expect_both<Gemma3>("gemma3"); }
TEST(Parity, GptOssMayBeSplitAnywhere) { expect_any_split<GptOss>("gpt_oss"); }
TEST(Parity, Gemma3MayBeSplitAnywhere) { expect_any_split<Gemma3>("gemma3"); }
TEST(Parity, GptOssHasWindowsSinksAndBiases) { expect_both<GptOss>("gpt_oss"); }
TEST(Parity, GptOssMayBeInBlocksOfMxfp4) { expect_both<GptOssMxfp4>("gpt_oss_mxfp4"); }
TEST(Parity, Qwen3MoeMayLeaveWeightsOfExpertsAsTheyAre) { expect_both<Qwen3MoePlain>("qwen3_moe_plain"); }
TEST(Parity, Qwen2MoeHasAGatedSharedExpertAndDenseLayersBetween) { expect_both<Qwen2Moe>("qwen2_moe"); }
TEST(Parity, Qwen2MoeMayBeFused) { expect_both<Qwen2Moe>("qwen2_moe_fused"); }
TEST(Parity, Qwen2MoeMayBeSplitAnywhere) { expect_any_split<Qwen2Moe>("qwen2_moe"); }
TEST(Parity, OlmoeNormalisesWholeRowsOfQueriesAndKeys) { expect_both<Olmoe>("olmoe"); }
TEST(Parity, OlmoeMayBeFused) { expect_both<Olmoe>("olmoe_fused"); }
TEST(Parity, Glm4MoeTurnsHalfOfEachHead) { expect_both<Glm4Moe>("glm4_moe"); }
TEST(Parity, Glm4MoeMayBeFusedAndLackItsPredictionLayer) { expect_both<Glm4Moe>("glm4_moe_fused"); }
TEST(Parity, Glm4MoeMayBeSplitAnywhere) { expect_any_split<Glm4Moe>("glm4_moe"); }
TEST(Parity, Dots1HasNormsOfHeadsAndABiasedChoice) { expect_both<Dots1>("dots1"); }
TEST(Parity, Dots1MayBeFused) { expect_both<Dots1>("dots1_fused"); }

}  // namespace parity_families_test
