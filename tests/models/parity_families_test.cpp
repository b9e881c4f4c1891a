// Llama, Qwen2, Qwen3 and Mixtral against Hugging Face transformers: logits, chosen experts, greedy tokens.
// tests/fixtures/models/README.md says what each folder proves.
#include <guild/models/llama_spec.hpp>
#include <guild/models/mixtral_spec.hpp>

#include "parity.hpp"

namespace parity_families_test {

using guild::DenseConfig;
using guild::ExpertConfig;
using guild::GqaConfig;
using guild::Index;
using guild::RopePairs;
using guild::TopKConfig;
using guild::TrunkConfig;
using parity::expect_parity;
using parity::Tokens;

/// What the Specs of these tests have: numbers are compared with float32, so the cache keeps float.
struct Dense : guild::LlamaDefaults {
  using CacheElement = float;
};
struct Llama : Dense {
  static constexpr TrunkConfig config = {
      .vocab = 67, .hidden = 36, .layers = 3, .context = 256, .norm = {.epsilon = 1e-5}};
  static constexpr GqaConfig attention = {.heads = 6,
                                          .key_heads = 2,
                                          .head_dim = 6,
                                          .rope = {.base = 20.0,
                                                   .factor = 8.0,
                                                   .original_context = 32,
                                                   .pairs = RopePairs::halves,
                                                   .scaling = guild::RopeScaling::llama3,
                                                   .low_frequency_factor = 1.0,
                                                   .high_frequency_factor = 4.0}};
  static constexpr DenseConfig dense = {.hidden = 23};
};
struct LlamaTied : Dense {
  static constexpr TrunkConfig config = {
      .vocab = 65, .hidden = 28, .layers = 3, .context = 256, .tied_embeddings = true, .norm = {.epsilon = 0.01}};
  static constexpr GqaConfig attention = {.heads = 4, .key_heads = 1, .head_dim = 8};
  static constexpr DenseConfig dense = {.hidden = 19};
};
struct Qwen2 : Dense {
  static constexpr TrunkConfig config = {
      .vocab = 71, .hidden = 48, .layers = 3, .context = 128, .norm = {.epsilon = 1e-6}};
  static constexpr GqaConfig attention = {.heads = 6, .key_heads = 3, .head_dim = 8, .bias = true};
  static constexpr DenseConfig dense = {.hidden = 29};
};
struct Qwen3 : Dense {
  static constexpr TrunkConfig config = {
      .vocab = 69, .hidden = 30, .layers = 3, .context = 128, .norm = {.epsilon = 1e-6}};
  static constexpr GqaConfig attention = {.heads = 6,
                                          .key_heads = 2,
                                          .head_dim = 8,
                                          .query_key_norm = true,
                                          .rope = {.base = 1000.0, .pairs = RopePairs::halves}};
  static constexpr DenseConfig dense = {.hidden = 19};
};
struct Qwen3Tied : Qwen3 {
  static constexpr TrunkConfig config = {
      .vocab = 65, .hidden = 28, .layers = 3, .context = 128, .tied_embeddings = true, .norm = {.epsilon = 0.003}};
  static constexpr GqaConfig attention = {.heads = 4,
                                          .key_heads = 2,
                                          .head_dim = 10,
                                          .query_key_norm = true,
                                          .rope = {.base = 1000.0, .pairs = RopePairs::halves}};
  static constexpr DenseConfig dense = {.hidden = 17};
};
struct Mixtral : guild::MixtralDefaults {
  using CacheElement = float;
  static constexpr TrunkConfig config = {
      .vocab = 64, .hidden = 24, .layers = 3, .context = 128, .norm = {.epsilon = 1e-5}};
  static constexpr GqaConfig attention = {
      .heads = 6, .key_heads = 2, .head_dim = 4, .rope = {.base = 100.0, .pairs = RopePairs::halves}};
  static constexpr TopKConfig routing = {
      .experts = 5, .top_k = 2, .scoring = guild::Scoring::softmax, .selection = guild::Selection::greedy};
  static constexpr ExpertConfig experts = {.hidden = 7, .shared = 0};
};

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

}  // namespace parity_families_test
