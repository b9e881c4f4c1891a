#include <guild/models/common_names.hpp>

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include <guild/models/deepseek_family.hpp>
#include <guild/models/llama_family.hpp>
#include <guild/models/mixtral_family.hpp>

namespace common_names_test {

using guild::Path;
using Texts = std::vector<std::string>;

struct OwnHead {
  static constexpr auto rules = guild::name_rules({{"head", "output"}, {"layers.*.mixer.taps", "h.*.taps"}},
                                                  guild::decoder_names, guild::grouped_query_names);
  static constexpr std::string_view scale_suffix = "_scale";
};
static_assert(OwnHead::rules.size() == 2 + guild::decoder_names.size() + guild::grouped_query_names.size());

TEST(CommonNames, AFamilysOwnRulesComeFirst) {
  const Path root, layers = root / "layers", layer = layers / 3, mixer = layer / "mixer";
  EXPECT_EQ(guild::published_names<OwnHead>(root / "head"), (Texts{"output", "lm_head"}));
  EXPECT_EQ(guild::published_name<OwnHead>(mixer / "taps"), "h.3.taps");
  EXPECT_EQ(guild::published_name<OwnHead>(mixer / "key"), "model.layers.3.self_attn.k_proj");
  EXPECT_EQ(guild::our_paths<OwnHead>("lm_head"), Texts{"head"});
}

// Names as transformers 5.24 has them: DeepseekV3ForCausalLM, Qwen3ForCausalLM, MixtralForCausalLM.
template <class Names>
std::string name(std::initializer_list<std::string_view> steps) {
  std::vector<Path> path(1);
  path.reserve(steps.size() + 1);
  for (const std::string_view step : steps)
    path.push_back(step == "7" ? path.back() / guild::Index{7} : path.back() / step);
  return guild::published_name<Names>(path.back());
}

TEST(CommonNames, FamiliesAddTheirOwn) {
  using Steps = std::initializer_list<std::string_view>;
  const Steps output = {"layers", "7", "mixer", "output", "weight"},
              up = {"layers", "7", "feed_forward", "up", "weight"},
              norm = {"layers", "7", "mixer", "query_norm", "weight"},
              expert = {"layers", "7", "feed_forward", "experts", "7", "down", "weight"},
              router = {"layers", "7", "feed_forward", "router", "weight"};
  using DeepSeek = guild::DeepSeekNames;
  using Llama = guild::LlamaNames;
  using Mixtral = guild::MixtralNames;
  for (const std::string& text : {name<DeepSeek>(output), name<Llama>(output), name<Mixtral>(output)})
    EXPECT_EQ(text, "model.layers.7.self_attn.o_proj.weight");
  EXPECT_EQ(name<DeepSeek>(up), "model.layers.7.mlp.up_proj.weight");
  EXPECT_EQ(name<Llama>(up), "model.layers.7.mlp.up_proj.weight");
  EXPECT_EQ(name<DeepSeek>(norm), "model.layers.7.self_attn.q_a_layernorm.weight");
  EXPECT_EQ(name<Llama>(norm), "model.layers.7.self_attn.q_norm.weight");
  EXPECT_EQ(name<DeepSeek>(expert), "model.layers.7.mlp.experts.7.down_proj.weight");
  EXPECT_EQ(name<Mixtral>(expert), "model.layers.7.block_sparse_moe.experts.7.w2.weight");
  EXPECT_EQ(name<DeepSeek>(router), "model.layers.7.mlp.gate.weight");
  EXPECT_EQ(name<Mixtral>(router), "model.layers.7.block_sparse_moe.gate.weight");
}

}  // namespace common_names_test
