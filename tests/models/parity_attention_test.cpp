// Attention, rotary position and the other published families against Hugging Face transformers.
// tests/fixtures/models/README.md says what each folder proves.
#include "parity.hpp"

namespace parity_attention_test {

using guild::ModelConfig;
using parity::expect_parity;
using parity::small_config;
using parity::with;

struct NoQueryLatent : parity::Tiny {
  static constexpr ModelConfig config = with(small_config, [](ModelConfig& c) { c.attention.query_rank = 0; });
};
struct Yarn : parity::Tiny {
  static constexpr ModelConfig config = with(small_config, [](ModelConfig& c) {
    c.attention.rope_dim = 12;
    c.rope = {.factor = 4.0, .mscale_all_dim = 1.0, .original_context = 16};
  });
};
struct Yarn0707 : parity::Tiny {
  static constexpr ModelConfig config = with(small_config, [](ModelConfig& c) {
    c.dense_layers = 2;
    c.attention.rope_dim = 16;
    c.rope = {.base = 100.0,
              .factor = 4.0,
              .beta_fast = 1.0,
              .beta_slow = 0.2,
              .mscale = 0.707,
              .mscale_all_dim = 0.707,
              .original_context = 16};
  });
};
struct YarnRatio : parity::Tiny {
  static constexpr ModelConfig config = with(Yarn0707::config, [](ModelConfig& c) {
    c.rope.beta_fast = 2.0;
    c.rope.beta_slow = 0.1;
    c.rope.mscale = 1.3;
    c.rope.mscale_all_dim = 0.6;
  });
};
struct Moonlight : parity::Tiny {
  static constexpr ModelConfig config = with(small_config, [](ModelConfig& c) {
    c.norm_epsilon = 1e-5;
    c.attention.query_rank = 0;
    c.moe.shared_experts = 2;
    c.moe.groups = 1;
    c.moe.top_groups = 1;
    c.moe.scale = 2.446;
    c.rope.base = 50000.0;
  });
};
constexpr ModelConfig v2_config = with(small_config, [](ModelConfig& c) {
  c.hidden = 27;
  c.attention.latent_rank = 18;
  c.moe.shared_experts = 2;
  c.moe.scoring = guild::Scoring::softmax;
  c.moe.normalize = false;
});
struct V2Lite : parity::Tiny {
  static constexpr ModelConfig config = with(v2_config, [](ModelConfig& c) {
    c.attention.query_rank = 0;
    c.moe.selection = guild::Selection::greedy;
    c.moe.groups = 1;
    c.moe.top_groups = 1;
    c.rope = {.factor = 40.0, .mscale = 0.707, .mscale_all_dim = 0.707, .original_context = 16};
  });
};
struct V2Grouped : parity::Tiny {
  static constexpr ModelConfig config = with(v2_config, [](ModelConfig& c) {
    c.moe.selection = guild::Selection::group_limited_greedy;
    c.moe.scale = 16.0;
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
