// Llama, Qwen2, Qwen3, Gemma 3, Mixtral, Qwen3-MoE and GPT-OSS against transformers: logits, chosen experts, greedy
// tokens. tests/fixtures/models/README.md says what each folder proves.
#include "../support/family_specs.hpp"
#include "parity.hpp"

namespace parity_families_test {

using guild::Index;
using parity::expect_parity;
using parity::Tokens;
using namespace guild_test;

/// Each sequence of a fixture: the likeliest tokens after its prompt, one by one from the cache.
template <class S>
void expect_greedy_tokens(const std::string& name) {
  SCOPED_TRACE(name);
  const parity::Fixture fixture(name);
  parity::Runner<S> runner(fixture);
  for (int i = 0; i < 2; ++i) {
    const Tokens all = fixture.tokens(i);
    const Tokens wanted = fixture.expected<std::int32_t>("greedy_" + std::to_string(i)).values;
    Tokens found(all.begin(), all.end() - static_cast<std::ptrdiff_t>(wanted.size()));
    ASSERT_GE(wanted.size(), 24u);
    for (Index begin = 0; found.size() < all.size();) {
      const auto end = static_cast<Index>(found.size());
      const auto logits = runner.logits(runner.states({{i, &found, begin, end}}));
      const auto last = logits.view().row(logits.rows - 1);
      found.push_back(static_cast<std::int32_t>(std::max_element(last.begin(), last.end()) - last.begin()));
      begin = end;
    }
    EXPECT_EQ(found, all) << "sequence " << i;
  }
}
template <class S>
void expect_both(const std::string& name) {
  expect_parity<S>(name);
  expect_greedy_tokens<S>(name);
}

TEST(Parity, LlamaScalesItsFrequencies) { expect_both<Llama>("llama"); }
TEST(Parity, LlamaMayBeTiedAndHaveHeadsOfAnyWidth) { expect_both<LlamaTied>("llama_tied"); }
TEST(Parity, Qwen2HasBiases) { expect_both<Qwen2>("qwen2"); }
TEST(Parity, Qwen3NormalisesQueriesAndKeys) { expect_both<Qwen3>("qwen3"); }
TEST(Parity, Qwen3MayBeTied) { expect_both<Qwen3Tied>("qwen3_tied"); }
TEST(Parity, MixtralHasExpertsInEveryLayer) { expect_both<Mixtral>("mixtral"); }
TEST(Parity, MixtralMayBeFused) { expect_both<Mixtral>("mixtral_fused"); }
TEST(Parity, Qwen3MoeHasExpertsAndNormsOfQueriesAndKeys) { expect_both<Qwen3Moe>("qwen3_moe"); }
TEST(Parity, Qwen3MoeMayBeFused) { expect_both<Qwen3Moe>("qwen3_moe_fused"); }
/// Both sequences in pieces of each length, from their caches.
template <class S>
void expect_any_split(const std::string& name) {
  SCOPED_TRACE(name);
  const parity::Fixture fixture(name);
  parity::Runner<S> runner(fixture);
  for (int i = 0; i < 2; ++i) {
    const Tokens tokens = fixture.tokens(i);
    const auto expected = fixture.expected<float>("logits_" + std::to_string(i));
    for (const Index piece : {1, 2, 3, 5, 8, 9, 16, 17, 31}) {
      runner.clear();
      for (Index begin = 0, size = static_cast<Index>(tokens.size()); begin < size; begin += piece) {
        const Index end = std::min(begin + piece, size);
        const auto logits = runner.logits(runner.states({{i, &tokens, begin, end}}));
        ASSERT_LE(parity::error_of(logits, expected.middle_rows(begin, end - begin)), 1e-4)
            << "sequence " << i << ", pieces of " << piece << ", from " << begin;
      }
    }
  }
}
TEST(Parity, Gemma3HasWindowsTwoRotationsAndFourNorms) { expect_both<Gemma3>("gemma3"); }
TEST(Parity, GptOssMayBeSplitAnywhere) { expect_any_split<GptOss>("gpt_oss"); }
TEST(Parity, Gemma3MayBeSplitAnywhere) { expect_any_split<Gemma3>("gemma3"); }
TEST(Parity, GptOssHasWindowsSinksAndBiases) { expect_both<GptOss>("gpt_oss"); }
TEST(Parity, GptOssMayBeInBlocksOfMxfp4) { expect_both<GptOssMxfp4>("gpt_oss_mxfp4"); }
TEST(Parity, Qwen3MoeMayLeaveWeightsOfExpertsAsTheyAre) { expect_both<Qwen3MoePlain>("qwen3_moe_plain"); }

}  // namespace parity_families_test
