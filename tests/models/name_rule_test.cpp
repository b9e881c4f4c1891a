// Names of tensors: the rules, the tables of the families, and both ways for every tensor of every model in the box.
#include <guild/cpu.hpp>
#include <guild/models/name_rule.hpp>

#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include <guild/models/deepseek_family.hpp>
#include <guild/models/deepseek_v32_family.hpp>
#include <guild/models/gpt_oss_family.hpp>
#include <guild/models/llama_family.hpp>
#include <guild/models/mixtral_family.hpp>
#include <guild/models/presets.hpp>
#include <guild/models/qwen2_moe_family.hpp>
#include <guild/models/qwen3_moe_family.hpp>
#include <guild/modules/module.hpp>

namespace name_rule_test {

using guild::DeepSeekNames;
using guild::FusedRows;
using guild::LlamaNames;
using guild::MixtralNames;
using guild::NameRule;
using guild::Path;
using guild::Qwen3MoeNames;
using Strings = std::vector<std::string>;

/// f of the path that a text such as layers.3.mixer.output.weight stands for.
template <class F>
std::invoke_result_t<F, const Path&> with_path(std::string_view text, const F& f, const Path& parent = Path()) {
  const std::size_t dot = text.find('.');
  const std::string_view step = text.substr(0, dot);
  const bool number = step.find_first_not_of("0123456789") == std::string_view::npos;
  const Path path = number ? parent / guild::Index{std::stoi(std::string(step))} : parent / step;
  return dot == std::string_view::npos ? f(path) : with_path(text.substr(dot + 1), f, path);
}
template <class Names>
Strings names_of(std::string_view ours) {
  return with_path(ours, [](const Path& path) { return guild::published_names<Names>(path); });
}
template <class Names>
std::string name_of(std::string_view ours) {
  return with_path(ours, [](const Path& path) { return guild::published_name<Names>(path); });
}
template <class Names>
std::optional<guild::FusedTensor> fused_of(std::string_view ours) {
  return with_path(ours, [](const Path& path) { return guild::fused_name<Names>(path); });
}

/// A family of our own: two spellings of routers, a layer's number inside, a name without stars, parts that take turns.
struct OwnNames {
  static constexpr NameRule rules[] = {
      {"head", "out.head"},
      {"layers.*", "h.*"},
      {"layers.*.mixer", "h.*.attn"},
      {"layers.*.mixer.output", "h.*.attn.o"},
      {"layers.*.feed_forward.router", "h.*.moe.gate"},
      {"layers.*.feed_forward.router", "h.*.mlp.gate"},
      {"layers.*.feed_forward.router.selection_bias", "h.*.moe.bias"},
      {"layers.*.feed_forward.experts.*.gate", "h.*.moe.w1.*"},
      {"layers.*.feed_forward.experts.gate.weight", "h.*.moe.w13", {.parts = 2, .part = 0, .in_turn = true}},
      {"layers.*.feed_forward.experts.up.weight", "h.*.moe.w13", {.parts = 2, .part = 1, .in_turn = true}},
  };
  static constexpr std::string_view scale_suffix = "_scale";
};

TEST(NameRule, CarriesNumbersFromOneSideToTheOther) {
  EXPECT_EQ(name_of<OwnNames>("layers.12.feed_forward.experts.7.gate.weight"), "h.12.moe.w1.7.weight");
  EXPECT_EQ(guild::our_paths<OwnNames>("h.12.moe.w1.7.weight"),
            Strings{"layers.12.feed_forward.experts.7.gate.weight"});
}

TEST(NameRule, TheLongestHoldsWhateverTheOrderAndKeepsWhatFollows) {
  for (const auto& [ours, published] :
       {std::pair{"head.weight", "out.head.weight"}, std::pair{"head.bias", "out.head.bias"},
        std::pair{"head", "out.head"}, std::pair{"layers.3", "h.3"},
        std::pair{"layers.3.mixer.output.weight", "h.3.attn.o.weight"},
        std::pair{"layers.3.feed_forward.router.weight", "h.3.moe.gate.weight"},
        std::pair{"layers.3.feed_forward.router.selection_bias", "h.3.moe.bias"}}) {
    EXPECT_EQ(name_of<OwnNames>(ours), published);
    EXPECT_EQ(guild::our_paths<OwnNames>(published), Strings{ours});
  }
}

TEST(NameRule, WhatACustomModuleAddsKeepsItsNameBehindThePartItBelongsTo) {
  for (const auto& [ours, published] :
       {std::pair{"layers.3.mixer.taps", "h.3.attn.taps"},
        std::pair{"layers.3.mixer.gate.0.weight", "h.3.attn.gate.0.weight"},
        std::pair{"layers.3.feed_forward.router.temperature", "h.3.moe.gate.temperature"},
        std::pair{"layers.3.extra_norm.weight", "h.3.extra_norm.weight"},
        std::pair{"layers.3.mixer.output_gate.weight", "h.3.attn.output_gate.weight"}}) {
    EXPECT_EQ(name_of<OwnNames>(ours), published);
    EXPECT_EQ(guild::our_paths<OwnNames>(published), Strings{ours});
  }
}

TEST(NameRule, IsForWholeStepsAndStarsForNumbers) {
  for (const char* other : {"heads.weight", "hea.weight", "layers.weight", "layers.x.mixer", "layers", "x.head", "lay"})
    EXPECT_ANY_THROW((void)name_of<OwnNames>(other)) << other;
  for (const char* other : {"out.heads", "out", "h", "h.", "h.x.attn", "h..attn", "h.3x.attn", "x.h.3.attn", "", "."})
    EXPECT_EQ(guild::our_paths<OwnNames>(other), Strings{}) << other;
}

TEST(NameRule, APathThatBeginsAsNoRuleDoesIsRefusedByItsName) {
  try {
    (void)name_of<OwnNames>("vision.layers.3.weight");
    FAIL() << "it has a name";
  } catch (const guild::Error& error) {
    EXPECT_EQ(error.code(), guild::ErrorCode::op_argument);
    EXPECT_EQ(error.key(), "vision.layers.3.weight");
    EXPECT_NE(std::string(error.what()).find("no rule for \"vision.layers.3.weight\""), std::string::npos);
  }
}

TEST(NameRule, OfSeveralSpellingsTheFirstIsWrittenAndAllLeadBack) {
  const std::string ours = "layers.3.feed_forward.router.weight";
  EXPECT_EQ(names_of<OwnNames>(ours), (Strings{"h.3.moe.gate.weight", "h.3.mlp.gate.weight"}));
  EXPECT_EQ(name_of<OwnNames>(ours), "h.3.moe.gate.weight");
  for (const std::string& name : names_of<OwnNames>(ours)) EXPECT_EQ(guild::our_paths<OwnNames>(name), Strings{ours});
}

TEST(NameRule, AFusedTensorLeadsBackToItsParts) {
  const auto up = fused_of<OwnNames>("layers.3.feed_forward.experts.up.weight");
  ASSERT_TRUE(up);
  EXPECT_EQ(up->name, "h.3.moe.w13");
  EXPECT_TRUE(up->rows.parts == 2 && up->rows.part == 1 && up->rows.in_turn);
  EXPECT_EQ(guild::our_paths<OwnNames>("h.3.moe.w13"),
            (Strings{"layers.3.feed_forward.experts.gate.weight", "layers.3.feed_forward.experts.up.weight"}));
  EXPECT_FALSE(fused_of<OwnNames>("layers.3.feed_forward.experts.down.weight"));  // no rule for the whole path
}

TEST(NameRule, NamesThatNoPathHasLeadNowhere) {
  // The path that they seem to lead to, layers.3.mixer.output, is called h.3.attn.o.
  EXPECT_EQ(guild::our_paths<OwnNames>("h.3.attn.output.weight"), Strings{});
  EXPECT_EQ(guild::our_paths<OwnNames>("h.3.mixer.output.weight"), Strings{});
  EXPECT_EQ(guild::our_paths<DeepSeekNames>("transformer.h.3.attn.c_attn.weight"), Strings{});
}

TEST(NameRule, RowsStandOneUnderTheOtherOrTakeTurns) {
  constexpr FusedRows up{.parts = 2, .part = 1}, turns{.parts = 2, .part = 1, .in_turn = true}, alone;
  static_assert(up.first(48) == 48 && up.step() == 1);
  static_assert(turns.first(48) == 1 && turns.step() == 2);
  static_assert(alone.first(48) == 0 && alone.step() == 1);
}

TEST(DeepSeekNames, StacksHaveAFusedNameAndTheirMatricesOneEach) {
  const Path root, layers = root / "layers", layer = layers / 3, feed = layer / "feed_forward",
                   experts = feed / "experts", up = experts / "up", down = experts / "down", weight = up / "weight";
  const auto fused = guild::fused_name<DeepSeekNames>(weight);
  ASSERT_TRUE(fused);
  EXPECT_EQ(fused->name, "model.layers.3.mlp.experts.gate_up_proj");
  EXPECT_EQ(fused->rows.part, 1);
  EXPECT_EQ(guild::fused_name<DeepSeekNames>(down / "weight")->name, "model.layers.3.mlp.experts.down_proj");
  EXPECT_EQ(
      guild::with_matrix_path(weight, 12, [](const Path& one) { return guild::published_name<DeepSeekNames>(one); }),
      "model.layers.3.mlp.experts.12.up_proj.weight");
  const Path norm = layer / "mixer_norm";
  EXPECT_FALSE(guild::fused_name<DeepSeekNames>(norm / "weight"));
}

/// The names of a table as its family publishes them, both ways.
template <class Names>
void expect_names(const std::vector<std::pair<std::string, std::string>>& rows) {
  for (const auto& [ours, published] : rows) {
    EXPECT_EQ(name_of<Names>(ours), published);
    EXPECT_EQ(guild::our_paths<Names>(published), Strings{ours});
  }
}

TEST(DeepSeekNames, AreThePublishedOnes) {
  expect_names<DeepSeekNames>({
      {"embedding.weight", "model.embed_tokens.weight"},
      {"final_norm.weight", "model.norm.weight"},
      {"head.weight", "lm_head.weight"},
      {"layers.0.mixer_norm.weight", "model.layers.0.input_layernorm.weight"},
      {"layers.0.mixer.query.weight", "model.layers.0.self_attn.q_proj.weight"},
      {"layers.0.mixer.query_down.weight", "model.layers.0.self_attn.q_a_proj.weight"},
      {"layers.0.mixer.query_norm.weight", "model.layers.0.self_attn.q_a_layernorm.weight"},
      {"layers.0.mixer.query_up.weight_scale_inv", "model.layers.0.self_attn.q_b_proj.weight_scale_inv"},
      {"layers.0.mixer.latent_down.weight", "model.layers.0.self_attn.kv_a_proj_with_mqa.weight"},
      {"layers.0.mixer.latent_norm.weight", "model.layers.0.self_attn.kv_a_layernorm.weight"},
      {"layers.0.mixer.latent_up.weight", "model.layers.0.self_attn.kv_b_proj.weight"},
      {"layers.0.mixer.output.weight", "model.layers.0.self_attn.o_proj.weight"},
      {"layers.0.feed_forward_norm.weight", "model.layers.0.post_attention_layernorm.weight"},
      {"layers.0.feed_forward.gate.weight", "model.layers.0.mlp.gate_proj.weight"},
      {"layers.0.feed_forward.up.weight", "model.layers.0.mlp.up_proj.weight"},
      {"layers.0.feed_forward.down.weight", "model.layers.0.mlp.down_proj.weight"},
      {"layers.3.feed_forward.router.weight", "model.layers.3.mlp.gate.weight"},
      {"layers.3.feed_forward.router.selection_bias", "model.layers.3.mlp.gate.e_score_correction_bias"},
      {"layers.3.feed_forward.experts.255.gate.weight_packed",
       "model.layers.3.mlp.experts.255.gate_proj.weight_packed"},
      {"layers.3.feed_forward.shared.gate.weight", "model.layers.3.mlp.shared_experts.gate_proj.weight"},
      {"layers.3.feed_forward.shared.up.weight", "model.layers.3.mlp.shared_experts.up_proj.weight"},
      {"layers.3.feed_forward.shared.down.weight", "model.layers.3.mlp.shared_experts.down_proj.weight"},
      {"layers.61.mtp_embedding.weight", "model.layers.61.embed_tokens.weight"},
      {"layers.61.mtp_embedding_norm.weight", "model.layers.61.enorm.weight"},
      {"layers.61.mtp_hidden_norm.weight", "model.layers.61.hnorm.weight"},
      {"layers.61.mtp_projection.weight", "model.layers.61.eh_proj.weight"},
      {"layers.61.mtp_head_norm.weight", "model.layers.61.shared_head.norm.weight"},
      {"layers.61.mtp_head.weight", "model.layers.61.shared_head.head.weight"},
  });
}

TEST(LlamaNames, AreThoseOfLlamaQwen2AndQwen3) {
  expect_names<LlamaNames>({
      {"embedding.weight", "model.embed_tokens.weight"},
      {"final_norm.weight", "model.norm.weight"},
      {"head.weight", "lm_head.weight"},
      {"layers.31.mixer_norm.weight", "model.layers.31.input_layernorm.weight"},
      {"layers.31.mixer.query.weight", "model.layers.31.self_attn.q_proj.weight"},
      {"layers.31.mixer.key.weight", "model.layers.31.self_attn.k_proj.weight"},
      {"layers.31.mixer.value.weight", "model.layers.31.self_attn.v_proj.weight"},
      {"layers.31.mixer.output.weight", "model.layers.31.self_attn.o_proj.weight"},
      {"layers.31.mixer.query.bias", "model.layers.31.self_attn.q_proj.bias"},
      {"layers.31.mixer.key.bias", "model.layers.31.self_attn.k_proj.bias"},
      {"layers.31.mixer.value.bias", "model.layers.31.self_attn.v_proj.bias"},
      {"layers.31.mixer.query_norm.weight", "model.layers.31.self_attn.q_norm.weight"},
      {"layers.31.mixer.key_norm.weight", "model.layers.31.self_attn.k_norm.weight"},
      {"layers.31.feed_forward_norm.weight", "model.layers.31.post_attention_layernorm.weight"},
      {"layers.31.feed_forward.gate.weight", "model.layers.31.mlp.gate_proj.weight"},
      {"layers.31.feed_forward.up.weight", "model.layers.31.mlp.up_proj.weight"},
      {"layers.31.feed_forward.down.weight", "model.layers.31.mlp.down_proj.weight"},
  });
}

TEST(Qwen3MoeNames, AreThoseOfQwen3WithARouterAndExperts) {
  expect_names<Qwen3MoeNames>({
      {"embedding.weight", "model.embed_tokens.weight"},
      {"layers.31.mixer_norm.weight", "model.layers.31.input_layernorm.weight"},
      {"layers.31.mixer.query.weight", "model.layers.31.self_attn.q_proj.weight"},
      {"layers.31.mixer.output.weight", "model.layers.31.self_attn.o_proj.weight"},
      {"layers.31.mixer.query_norm.weight", "model.layers.31.self_attn.q_norm.weight"},
      {"layers.31.mixer.key_norm.weight", "model.layers.31.self_attn.k_norm.weight"},
      {"layers.31.feed_forward.router.weight", "model.layers.31.mlp.gate.weight"},
      {"layers.31.feed_forward.experts.127.gate.weight", "model.layers.31.mlp.experts.127.gate_proj.weight"},
      {"layers.31.feed_forward.experts.127.up.weight", "model.layers.31.mlp.experts.127.up_proj.weight"},
      {"layers.31.feed_forward.experts.127.down.weight", "model.layers.31.mlp.experts.127.down_proj.weight"},
  });
  EXPECT_EQ(guild::our_paths<Qwen3MoeNames>("model.layers.31.mlp.experts.gate_up_proj"),
            (Strings{"layers.31.feed_forward.experts.gate.weight", "layers.31.feed_forward.experts.up.weight"}));
  EXPECT_EQ(guild::our_paths<Qwen3MoeNames>("model.layers.31.mlp.experts.down_proj"),
            Strings{"layers.31.feed_forward.experts.down.weight"});
}

TEST(Qwen2MoeNames, HaveASharedExpertAndItsGate) {
  expect_names<guild::Qwen2MoeNames>({
      {"layers.9.feed_forward.shared.gate.weight", "model.layers.9.mlp.shared_expert.gate_proj.weight"},
      {"layers.9.feed_forward.shared.down.weight", "model.layers.9.mlp.shared_expert.down_proj.weight"},
      {"layers.9.feed_forward.shared.token_gate.weight", "model.layers.9.mlp.shared_expert_gate.weight"},
      {"layers.9.feed_forward.router.weight", "model.layers.9.mlp.gate.weight"},
      {"layers.9.feed_forward.experts.3.up.weight", "model.layers.9.mlp.experts.3.up_proj.weight"},
      {"layers.0.feed_forward.up.weight", "model.layers.0.mlp.up_proj.weight"},
      {"layers.9.mixer.key.bias", "model.layers.9.self_attn.k_proj.bias"},
  });
}

TEST(DeepSeekV32Names, AreThoseOfDeepSeekWithAnIndex) {
  expect_names<guild::DeepSeekV32Names>({
      {"layers.60.mixer.query_down.weight", "model.layers.60.self_attn.q_a_proj.weight"},
      {"layers.60.mixer.indexer.query.weight", "model.layers.60.self_attn.indexer.wq_b.weight"},
      {"layers.60.mixer.indexer.query.weight_scale_inv", "model.layers.60.self_attn.indexer.wq_b.weight_scale_inv"},
      {"layers.60.mixer.indexer.key.weight", "model.layers.60.self_attn.indexer.wk.weight"},
      {"layers.60.mixer.indexer.key_norm.weight", "model.layers.60.self_attn.indexer.k_norm.weight"},
      {"layers.60.mixer.indexer.key_norm.bias", "model.layers.60.self_attn.indexer.k_norm.bias"},
      {"layers.60.mixer.indexer.head_weights.weight", "model.layers.60.self_attn.indexer.weights_proj.weight"},
      {"layers.60.feed_forward.router.selection_bias", "model.layers.60.mlp.gate.e_score_correction_bias"},
      {"layers.61.mtp_projection.weight", "model.layers.61.eh_proj.weight"},
  });
}

TEST(GptOssNames, AreThePublishedOnes) {
  using guild::GptOssNames;
  expect_names<GptOssNames>({
      {"layers.35.mixer.query.bias", "model.layers.35.self_attn.q_proj.bias"},
      {"layers.35.mixer.output.bias", "model.layers.35.self_attn.o_proj.bias"},
      {"layers.35.mixer.sinks", "model.layers.35.self_attn.sinks"},
      {"layers.35.feed_forward.router.weight", "model.layers.35.mlp.router.weight"},
      {"layers.35.feed_forward.router.bias", "model.layers.35.mlp.router.bias"},
      {"layers.35.feed_forward.experts.down.bias", "model.layers.35.mlp.experts.down_proj_bias"},
  });
  const auto up = fused_of<GptOssNames>("layers.35.feed_forward.experts.up.weight");
  ASSERT_TRUE(up);
  EXPECT_EQ(up->name, "model.layers.35.mlp.experts.gate_up_proj");
  EXPECT_TRUE(up->rows.in_turn && up->rows.transposed);
  EXPECT_EQ(up->rows.part, 1);
  EXPECT_EQ(guild::our_paths<GptOssNames>("model.layers.35.mlp.experts.gate_up_proj_bias"),
            (Strings{"layers.35.feed_forward.experts.gate.bias", "layers.35.feed_forward.experts.up.bias"}));
}

TEST(MixtralNames, AreThePublishedOnesAndThoseOfFusedFiles) {
  expect_names<MixtralNames>({
      {"embedding.weight", "model.embed_tokens.weight"},
      {"final_norm.weight", "model.norm.weight"},
      {"head.weight", "lm_head.weight"},
      {"layers.31.mixer_norm.weight", "model.layers.31.input_layernorm.weight"},
      {"layers.31.mixer.query.weight", "model.layers.31.self_attn.q_proj.weight"},
      {"layers.31.mixer.key.weight", "model.layers.31.self_attn.k_proj.weight"},
      {"layers.31.mixer.value.weight", "model.layers.31.self_attn.v_proj.weight"},
      {"layers.31.mixer.output.weight", "model.layers.31.self_attn.o_proj.weight"},
      {"layers.31.feed_forward_norm.weight", "model.layers.31.post_attention_layernorm.weight"},
      {"layers.31.feed_forward.router.weight", "model.layers.31.block_sparse_moe.gate.weight"},
      {"layers.31.feed_forward.experts.7.gate.weight", "model.layers.31.block_sparse_moe.experts.7.w1.weight"},
      {"layers.31.feed_forward.experts.7.down.weight", "model.layers.31.block_sparse_moe.experts.7.w2.weight"},
      {"layers.31.feed_forward.experts.7.up.weight", "model.layers.31.block_sparse_moe.experts.7.w3.weight"},
  });
  const auto up = fused_of<MixtralNames>("layers.31.feed_forward.experts.up.weight");
  ASSERT_TRUE(up);
  EXPECT_EQ(up->name, "model.layers.31.mlp.experts.gate_up_proj");
  EXPECT_TRUE(up->rows.parts == 2 && up->rows.part == 1 && !up->rows.in_turn);
  EXPECT_EQ(guild::our_paths<MixtralNames>("model.layers.31.mlp.gate.weight"),
            Strings{"layers.31.feed_forward.router.weight"});
}

/// Path to name to path is the identity, and no name is given twice.
template <class Names>
struct BothWays {
  std::set<std::string>* names;
  template <class Shape, class Tensor>
  void operator()(const Path& path, Shape, Tensor&) const {
    const std::string name = guild::published_name<Names>(path), ours = path.str();
    EXPECT_EQ(guild::our_paths<Names>(name), Strings{ours});
    EXPECT_TRUE(names->insert(name).second) << name;
  }
  template <class Tensor>
  void operator()(const Path& path, guild::StackShape shape, Tensor& stack) const {
    for (guild::Index e = 0; e < shape.count; ++e)
      guild::with_matrix_path(path, e, [&](const Path& matrix) { (*this)(matrix, shape.matrix(), stack); });
    const auto fused = guild::fused_name<Names>(path);
    ASSERT_TRUE(fused) << path.str();
    const Strings parts = guild::our_paths<Names>(fused->name);
    ASSERT_EQ(static_cast<guild::Index>(parts.size()), fused->rows.parts);
    EXPECT_EQ(parts.at(static_cast<std::size_t>(fused->rows.part)), path.str());
  }
};
template <class Model>
class NamesOfModels : public testing::Test {};
using Models = testing::Types<guild::DeepSeekR1, guild::DeepSeekV2Lite, guild::Moonlight, guild::KimiK2, guild::MiniR1>;
TYPED_TEST_SUITE(NamesOfModels, Models);

TYPED_TEST(NamesOfModels, LeadBothWaysAndAreUnique) {
  typename TypeParam::template Weights<guild::Published> weights;
  weights.mtp.resize(static_cast<std::size_t>(TypeParam::config.mtp_layers));
  std::set<std::string> names;
  TypeParam::visit(BothWays<typename TypeParam::Spec::Names>{&names}, Path(), weights);
  const auto moe_layers = static_cast<std::size_t>(guild::expert_layers(guild::config_of<typename TypeParam::Spec>));
  EXPECT_GT(names.size(), moe_layers * static_cast<std::size_t>(3 * TypeParam::routed_experts));
}

}  // namespace name_rule_test
