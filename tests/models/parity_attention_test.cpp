// Attention, rotary position and the other published families against Hugging Face transformers.
// tests/fixtures/models/README.md says what each folder proves.
#include "parity.hpp"

namespace parity_attention_test {

using guild::DenseConfig;
using guild::ExpertConfig;
using guild::MlaConfig;
using guild::TopKConfig;
using guild::TrunkConfig;
using parity::expect_parity;
using parity::SmallSpec;
using parity::with;

struct NoQueryLatent : SmallSpec {
  static constexpr MlaConfig attention = with(SmallSpec::attention, [](MlaConfig& c) { c.query_rank = 0; });
};
struct Yarn : SmallSpec {
  static constexpr MlaConfig attention = with(SmallSpec::attention, [](MlaConfig& c) {
    c.rope_dim = 12;
    c.rope = {.factor = 4.0, .mscale_all_dim = 1.0, .original_context = 16};
  });
};
struct Yarn0707 : SmallSpec {
  static constexpr DenseConfig dense = with(SmallSpec::dense, [](DenseConfig& c) { c.layers = 2; });
  static constexpr MlaConfig attention = with(SmallSpec::attention, [](MlaConfig& c) {
    c.rope_dim = 16;
    c.rope = {.base = 100.0,
              .factor = 4.0,
              .beta_fast = 1.0,
              .beta_slow = 0.2,
              .mscale = 0.707,
              .mscale_all_dim = 0.707,
              .original_context = 16};
  });
};
struct YarnRatio : Yarn0707 {
  static constexpr MlaConfig attention = with(Yarn0707::attention, [](MlaConfig& c) {
    c.rope.beta_fast = 2.0;
    c.rope.beta_slow = 0.1;
    c.rope.mscale = 1.3;
    c.rope.mscale_all_dim = 0.6;
  });
};
struct Moonlight : SmallSpec {
  static constexpr TrunkConfig config = with(SmallSpec::config, [](TrunkConfig& c) { c.norm.epsilon = 1e-5; });
  static constexpr MlaConfig attention = with(SmallSpec::attention, [](MlaConfig& c) {
    c.query_rank = 0;
    c.rope.base = 50000.0;
  });
  static constexpr ExpertConfig experts = with(SmallSpec::experts, [](ExpertConfig& c) { c.shared = 2; });
  static constexpr TopKConfig routing = with(SmallSpec::routing, [](TopKConfig& c) {
    c.groups = 1;
    c.top_groups = 1;
    c.scale = 2.446;
  });
};
struct V2Spec : SmallSpec {
  static constexpr TrunkConfig config = with(SmallSpec::config, [](TrunkConfig& c) { c.hidden = 27; });
  static constexpr MlaConfig attention = with(SmallSpec::attention, [](MlaConfig& c) { c.latent_rank = 18; });
  static constexpr TopKConfig routing = with(SmallSpec::routing, [](TopKConfig& c) {
    c.scoring = guild::Scoring::softmax;
    c.normalize = false;
  });
  static constexpr ExpertConfig experts = with(SmallSpec::experts, [](ExpertConfig& c) { c.shared = 2; });
};
struct V2Lite : V2Spec {
  static constexpr MlaConfig attention = with(V2Spec::attention, [](MlaConfig& c) {
    c.query_rank = 0;
    c.rope = {.factor = 40.0, .mscale = 0.707, .mscale_all_dim = 0.707, .original_context = 16};
  });
  static constexpr TopKConfig routing = with(V2Spec::routing, [](TopKConfig& c) {
    c.selection = guild::Selection::greedy;
    c.groups = 1;
    c.top_groups = 1;
  });
};
struct V2Grouped : V2Spec {
  static constexpr TopKConfig routing = with(V2Spec::routing, [](TopKConfig& c) {
    c.selection = guild::Selection::group_limited_greedy;
    c.scale = 16.0;
  });
};

TEST(Parity, QueriesNeedNoLatent) { expect_parity<NoQueryLatent>("v3_no_q_lora"); }
TEST(Parity, YarnReachesBeyondTheOriginalContext) { expect_parity<Yarn>("v3_yarn"); }
TEST(Parity, YarnBlendsPairsAlongItsRamp) { expect_parity<Yarn0707>("v3_yarn_0707"); }
TEST(Parity, YarnScalesRotationByTheRatioOfItsMscales) { expect_parity<YarnRatio>("v3_yarn_ratio"); }
TEST(Parity, MoonlightHasOneGroupAndNoQueryLatent) { expect_parity<Moonlight>("moonlight"); }
TEST(Parity, DeepSeekV2LiteChoosesBySoftmax) { expect_parity<V2Lite>("v2_lite"); }
TEST(Parity, DeepSeekV2RanksGroupsByTheirBestExpert) { expect_parity<V2Grouped>("v2_grouped"); }

}  // namespace parity_attention_test
