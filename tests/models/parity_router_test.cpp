// Experts and their choice against Hugging Face transformers: biases, groups, shared experts, scores.
// tests/fixtures/models/README.md says what each folder proves.
#include "parity.hpp"

namespace parity_router_test {

using guild::DenseConfig;
using guild::ExpertConfig;
using guild::MlaConfig;
using guild::TopKConfig;
using guild::TrunkConfig;
using parity::expect_parity;
using parity::SmallSpec;
using parity::with;

struct Small : SmallSpec {};
struct TopKOverGroups : SmallSpec {
  static constexpr TopKConfig routing = with(SmallSpec::routing, [](TopKConfig& c) {
    c.experts = 12;
    c.top_k = 5;
  });
};
struct TwoShared : SmallSpec {
  static constexpr ExpertConfig experts = with(SmallSpec::experts, [](ExpertConfig& c) { c.shared = 2; });
};
struct DenseOnly : SmallSpec {
  static constexpr DenseConfig dense = with(SmallSpec::dense, [](DenseConfig& c) { c.layers = 2; });
};
struct MoeOnlyTied : SmallSpec {
  static constexpr DenseConfig dense = with(SmallSpec::dense, [](DenseConfig& c) { c.layers = 0; });
  static constexpr TrunkConfig config = with(SmallSpec::config, [](TrunkConfig& c) {
    c.tied_embeddings = true;
    c.norm.epsilon = 1e-4;
  });
};
struct NotNormalized : SmallSpec {
  static constexpr TopKConfig routing = with(SmallSpec::routing, [](TopKConfig& c) {
    c.normalize = false;
    c.scale = 1.7;
  });
};

TEST(Parity, NegativeBiasesNeedGroupsMaskedWithMinusInfinity) { expect_parity<Small>("v3_negative_bias"); }
TEST(Parity, ChoosesMoreExpertsThanAGroupHas) { expect_parity<TopKOverGroups>("v3_top_k_over_groups"); }
TEST(Parity, AddsSeveralSharedExperts) { expect_parity<TwoShared>("v3_two_shared"); }
TEST(Parity, RunsWithoutExpertLayers) { expect_parity<DenseOnly>("v3_dense_only"); }
TEST(Parity, RunsWithoutDenseLayersAndWithTiedEmbeddings) { expect_parity<MoeOnlyTied>("v3_moe_only_tied"); }
TEST(Parity, LeavesWeightsOfExpertsUnnormalizedIfToldSo) { expect_parity<NotNormalized>("v3_no_norm_topk"); }

}  // namespace parity_router_test
