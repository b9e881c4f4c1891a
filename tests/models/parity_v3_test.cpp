// DeepSeek-V3 against Hugging Face transformers: one shape in all storage types, and multi-token prediction.
// tests/fixtures/models/README.md says what each folder proves.
#include "parity.hpp"

namespace parity_v3_test {

using guild::DenseConfig;
using guild::ExpertConfig;
using guild::MlaConfig;
using guild::TopKConfig;
using guild::TrunkConfig;
using parity::expect_parity;
using parity::SmallSpec;
using parity::with;

struct V3Base : parity::BaseSpec {
  static constexpr TrunkConfig config = with(parity::BaseSpec::config, [](TrunkConfig& c) { c.layers = 3; });
};
struct V3Mtp : SmallSpec {
  static constexpr TrunkConfig config = with(SmallSpec::config, [](TrunkConfig& c) { c.mtp_layers = 1; });
};
struct V3Fp8 : parity::Tiny {
  static constexpr TrunkConfig config = {.vocab = 48, .hidden = 144, .layers = 2, .context = 64};
  static constexpr MlaConfig attention = {
      .heads = 5, .query_rank = 40, .latent_rank = 132, .nope_dim = 18, .rope_dim = 8, .value_dim = 16};
  static constexpr DenseConfig dense = {.hidden = 136, .layers = 1};
  static constexpr TopKConfig routing = {.experts = 4, .top_k = 2, .groups = 2, .top_groups = 1, .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 16, .shared = 1};
};

TEST(Parity, LogitsChoicesAndHiddenStatesEqualTransformers) { expect_parity<V3Base>("v3_base"); }
TEST(Parity, Bf16WeightsGiveTheFloat32LogitsOfTheirValues) { expect_parity<V3Base>("v3_base_bf16"); }
TEST(Parity, F16WeightsGiveTheFloat32LogitsOfTheirValues) { expect_parity<V3Base>("v3_base_f16"); }
TEST(Parity, ShardsAreOneModel) { expect_parity<V3Base>("v3_sharded"); }
TEST(Parity, Fp8BlocksGiveTheFloat64LogitsOfTheirValues) { expect_parity<V3Fp8>("v3_fp8"); }
TEST(Parity, TheExtraLayerIsSkippedUnlessAskedFor) { expect_parity<V3Mtp>("v3_mtp"); }

TEST(Parity, MultiTokenPredictionEqualsTransformers) {
  const parity::Fixture fixture("v3_mtp");
  parity::Runner<V3Mtp> runner(fixture, {.mtp = true});
  for (const int i : {0, 1}) {
    const parity::Tokens tokens = fixture.tokens(i);
    runner.clear();
    const auto states = runner.states({{0, &tokens, 0, static_cast<guild::Index>(tokens.size()) - 1}});
    const auto expected = fixture.expected<float>("mtp_logits_" + std::to_string(i));
    EXPECT_LE(parity::error_of(runner.second_logits(tokens, states), expected), 1e-4) << "sequence " << i;
  }
}

}  // namespace parity_v3_test
