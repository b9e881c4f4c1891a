// Experts and their choice against Hugging Face transformers: biases, groups, shared experts, scores.
// tests/fixtures/models/README.md says what each folder proves.
#include "parity.hpp"

namespace parity_router_test {

using guild::ModelConfig;
using parity::expect_parity;
using parity::small_config;
using parity::with;

struct Small : parity::Tiny {
  static constexpr ModelConfig config = small_config;
};
struct TopKOverGroups : parity::Tiny {
  static constexpr ModelConfig config = with(small_config, [](ModelConfig& c) {
    c.moe.experts = 12;
    c.moe.top_k = 5;
  });
};
struct TwoShared : parity::Tiny {
  static constexpr ModelConfig config = with(small_config, [](ModelConfig& c) { c.moe.shared_experts = 2; });
};
struct DenseOnly : parity::Tiny {
  static constexpr ModelConfig config = with(small_config, [](ModelConfig& c) { c.dense_layers = 2; });
};
struct MoeOnlyTied : parity::Tiny {
  static constexpr ModelConfig config = with(small_config, [](ModelConfig& c) {
    c.dense_layers = 0;
    c.tied_embeddings = true;
    c.norm_epsilon = 1e-4;
  });
};
struct NotNormalized : parity::Tiny {
  static constexpr ModelConfig config = with(small_config, [](ModelConfig& c) {
    c.moe.normalize = false;
    c.moe.scale = 1.7;
  });
};

TEST(Parity, NegativeBiasesNeedGroupsMaskedWithMinusInfinity) { expect_parity<Small>("v3_negative_bias"); }
TEST(Parity, ChoosesMoreExpertsThanAGroupHas) { expect_parity<TopKOverGroups>("v3_top_k_over_groups"); }
TEST(Parity, AddsSeveralSharedExperts) { expect_parity<TwoShared>("v3_two_shared"); }
TEST(Parity, RunsWithoutExpertLayers) { expect_parity<DenseOnly>("v3_dense_only"); }
TEST(Parity, RunsWithoutDenseLayersAndWithTiedEmbeddings) { expect_parity<MoeOnlyTied>("v3_moe_only_tied"); }
TEST(Parity, LeavesWeightsOfExpertsUnnormalizedIfToldSo) { expect_parity<NotNormalized>("v3_no_norm_topk"); }

}  // namespace parity_router_test
