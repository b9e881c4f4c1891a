// Files of DeepSeek-V4: config.json in both spellings, what is refused, what is written, and the names of tensors.
#include <guild/models/deepseek_v4_family.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <tuple>
#include <vector>

#include <guild/core/config_check.hpp>
#include <guild/core/model_size.hpp>
#include <guild/cpu.hpp>
#include <guild/io/config.hpp>
#include <guild/io/config_writer.hpp>
#include <guild/models/deepseek_v4.hpp>

namespace deepseek_v4_family_test {

using guild::CompressionConfig;
using guild::ErrorCode;
using guild::HashConfig;
using guild::LayerTypes;
using guild::RopeConfig;
using guild::SharedKvConfig;
using guild::TrunkConfig;
using guild::WindowConfig;
using Family = guild::DeepSeekV4Family;
using Names = guild::DeepSeekV4Names;
using Strings = std::vector<std::string>;

static_assert(guild::config_problem(guild::config_of<guild::DeepSeekV4FlashSpec>) == nullptr);
static_assert(guild::config_problem(guild::config_of<guild::DeepSeekV4ProSpec>) == nullptr);

/// Published keys, all but those that `more` says.
std::string file(const std::string& more = R"("compress_ratios": [0, 4, 128, 4, 0])") {
  return R"({"model_type": "deepseek_v4", "vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 4,
             "max_position_embeddings": 64, "num_attention_heads": 4, "head_dim": 16, "q_lora_rank": 8, "o_groups": 2,
             "o_lora_rank": 6, "hc_mult": 4, "hc_sinkhorn_iters": 20, "hc_eps": 1e-6, "index_n_heads": 8,
             "index_head_dim": 12, "index_topk": 3, "n_routed_experts": 5, "num_experts_per_tok": 2,
             "moe_intermediate_size": 7, "routed_scaling_factor": 1.5)" +
         std::string(more.empty() ? "" : ", ") + more + "}";
}
Family::Config read(const std::string& text) { return guild::parse_config<Family>(text).model; }
const std::string kinds = R"("layer_types": ["sliding_attention", "compressed_sparse_attention",
    "heavily_compressed_attention", "compressed_sparse_attention"])";
const std::string yarn = R"("rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 16)";

TEST(DeepSeekV4Family, ReadsKindsOfLayersInBothSpellings) {
  const auto published = read(file());
  EXPECT_EQ(std::get<WindowConfig>(published), (WindowConfig{128, LayerTypes("schc"), 10000.0}));
  EXPECT_EQ(std::get<CompressionConfig>(published), CompressionConfig{});
  EXPECT_EQ(std::get<HashConfig>(published).layers, 3);
  EXPECT_EQ(std::get<SharedKvConfig>(published).rope_dim, 2);
  EXPECT_EQ(std::get<guild::ExpertConfig>(published).activation.limit, 10.0);
  EXPECT_EQ(read(file(kinds)), published);
  EXPECT_EQ(read(file(kinds + R"(, "compress_ratios": [4, 4, 4, 4], "mlp_layer_types":
      ["hash_moe", "hash_moe", "hash_moe", "moe"], "num_nextn_predict_layers": 1)")),
            published);
  const std::string rates =
      R"(, "compress_rates": {"compressed_sparse_attention": 2, "heavily_compressed_attention": 8})";
  EXPECT_EQ(std::get<CompressionConfig>(read(file(kinds + rates))), (CompressionConfig{2, 8}));
  EXPECT_EQ(read(file(kinds + R"(, "compress_rate_csa": 2, "compress_rate_hca": 8)")), read(file(kinds + rates)));
  EXPECT_EQ(std::get<HashConfig>(read(file(kinds + R"(, "mlp_layer_types": ["hash_moe", "moe", "moe", "moe"])"))),
            HashConfig{1});
  EXPECT_EQ(std::get<HashConfig>(read(file(kinds + R"(, "num_hash_layers": 7)"))), HashConfig{4});
}

TEST(DeepSeekV4Family, ReadsBothRotationsInBothSpellings) {
  const auto published = read(file(kinds + R"(, "qk_rope_head_dim": 8, "rope_theta": 50, "compress_rope_theta": 70,
      "rope_scaling": {)" + yarn + "}"));
  EXPECT_EQ(std::get<WindowConfig>(published).rope_base, 50.0);
  EXPECT_EQ(std::get<SharedKvConfig>(published).rope,
            (RopeConfig{.base = 70.0, .factor = 4.0, .mscale = 1.0, .mscale_all_dim = 1.0, .original_context = 16}));
  EXPECT_EQ(std::get<SharedKvConfig>(published).rope_dim, 8);
  EXPECT_EQ(guild::sliding(std::get<SharedKvConfig>(published), std::get<WindowConfig>(published)).rope,
            RopeConfig{.base = 50.0});
  const std::string nested = R"("rope_parameters": {"main": {"rope_type": "default", "rope_theta": 50,
      "partial_rotary_factor": 0.5}, "compress": {"rope_theta": 70, "partial_rotary_factor": 0.5, "attention_factor": 1.0, )";
  EXPECT_EQ(read(file(kinds + R"(, "partial_rotary_factor": 0.5, )" + nested + yarn + "}}")), published);
  EXPECT_EQ(read(file(kinds + R"(, "qk_rope_head_dim": 8, )" + nested + yarn + "}}")), published);
  // mscale has no say.
  EXPECT_EQ(read(file(kinds + R"(, "qk_rope_head_dim": 8, "rope_theta": 50, "compress_rope_theta": 70,
      "rope_scaling": {"mscale": 0.7, )" +
                      yarn + "}")),
            published);
  EXPECT_EQ(std::get<SharedKvConfig>(read(file(kinds))).rope.base, 160000.0);
  EXPECT_EQ(std::get<SharedKvConfig>(read(file(kinds))).rope.factor, 1.0);
}

TEST(DeepSeekV4Family, RefusesWhatItDoesNotCompute) {
  const struct {
    std::string more;
    ErrorCode code;
    const char* key;
    const char* text;
  } cases[] = {
      {"", ErrorCode::cf_missing, "compress_ratios", "an array of integers"},
      {R"("compress_ratios": [0, 4, 8, 4])", ErrorCode::cf_unsupported, "compress_ratios", "0, 4 or 128"},
      {R"("compress_ratios": [0, 4])", ErrorCode::cf_unsupported, "compress_ratios", "num_hidden_layers = 4 numbers"},
      {R"("compress_ratios": 4)", ErrorCode::cf_type, "compress_ratios", "an array of integers"},
      {R"("layer_types": ["full_attention"])", ErrorCode::cf_unsupported, "layer_types[0]", "sliding_attention"},
      {R"("layer_types": ["sliding_attention"])", ErrorCode::cf_range, "layer_types", "as many entries"},
      {kinds + R"(, "mlp_layer_types": ["moe", "hash_moe", "moe", "moe"])", ErrorCode::cf_unsupported,
       "mlp_layer_types[1]", "\"moe\""},
      {kinds + R"(, "mlp_layer_types": ["moe"])", ErrorCode::cf_type, "mlp_layer_types", "num_hidden_layers = 4"},
      {kinds + R"(, "num_hash_layers": 2, "mlp_layer_types": ["hash_moe", "moe", "moe", "moe"])",
       ErrorCode::cf_unsupported, "mlp_layer_types[1]", "hash_moe"},
      {kinds + R"(, "num_hash_layers": -1)", ErrorCode::cf_range, "num_hash_layers", "from 0"},
      {kinds + R"(, "num_key_value_heads": 2)", ErrorCode::cf_unsupported, "num_key_value_heads", "share one row"},
      {kinds + R"(, "n_shared_experts": 2)", ErrorCode::cf_unsupported, "n_shared_experts", "one expert"},
      {kinds + R"(, "n_shared_experts": null)", ErrorCode::cf_unsupported, "n_shared_experts", "one expert"},
      {kinds + R"(, "norm_topk_prob": false)", ErrorCode::cf_unsupported, "norm_topk_prob", "true"},
      {kinds + R"(, "scoring_func": "sigmoid")", ErrorCode::cf_unsupported, "scoring_func", "sqrtsoftplus"},
      {kinds + R"(, "attention_bias": true)", ErrorCode::cf_unsupported, "attention_bias", "false"},
      {kinds + R"(, "swiglu_limit": 0)", ErrorCode::cf_unsupported, "swiglu_limit", "above 0"},
      {kinds + R"(, "sliding_window": 0)", ErrorCode::cf_range, "sliding_window", "from 1"},
      {kinds + R"(, "compress_rate_csa": 0)", ErrorCode::cf_range, "compress_rate_csa", "from 2"},
      {kinds + R"(, "compress_rate_csa": 3, "compress_rates": {"compressed_sparse_attention": 2})",
       ErrorCode::cf_unsupported, "compress_rates", "the number that"},
      {kinds + R"(, "partial_rotary_factor": 1e300)", ErrorCode::cf_range, "qk_rope_head_dim", "from 2 to head_dim"},
      {kinds + R"(, "compress_rates": 4)", ErrorCode::cf_type, "compress_rates", "an object"},
      {kinds + R"(, "qk_rope_head_dim": 14)", ErrorCode::cf_rope, "index_head_dim", "at least qk_rope_head_dim"},
      {kinds + R"(, "qk_rope_head_dim": 8, "partial_rotary_factor": 0.25)", ErrorCode::cf_unsupported,
       "partial_rotary_factor", "makes 8 of head_dim = 16 turn"},
      {kinds + R"(, "rope_parameters": {"compress": {"partial_rotary_factor": 0.25}})", ErrorCode::cf_unsupported,
       "rope_parameters", "makes 2 of head_dim = 16 turn"},
      {kinds + R"(, "rope_parameters": {"main": {"rope_type": "yarn"}})", ErrorCode::cf_rope_unsupported,
       "rope_parameters.main.rope_type", "default"},
      {kinds + R"(, "rope_parameters": {"compress": {)" + yarn + "}}", ErrorCode::cf_missing,
       "rope_parameters.compress.attention_factor", "expected 1"},
      {kinds + R"(, "rope_parameters": {"compress": {"attention_factor": 1.2, )" + yarn + "}}",
       ErrorCode::cf_rope_unsupported, "rope_parameters.compress.attention_factor", "lengths are kept"},
      {kinds + R"(, "rope_theta": 3, "rope_parameters": {"main": {"rope_theta": 4}})", ErrorCode::cf_rope,
       "rope_parameters.main.rope_theta", "\"rope_theta\" has, 3"},
      {kinds + R"(, "compress_rope_theta": 3, "rope_parameters": {"compress": {"rope_theta": 4}})", ErrorCode::cf_rope,
       "rope_parameters.compress.rope_theta", "\"compress_rope_theta\" has, 3"},
      {kinds + R"(, "compress_rope_theta": 1)", ErrorCode::cf_rope, "compress_rope_theta", "above 1"},
      {kinds + R"(, "rope_theta": 1)", ErrorCode::cf_rope, "rope_theta", "above 1"},
  };
  for (const auto& c : cases) {
    try {
      (void)read(file(c.more));
      ADD_FAILURE() << "accepted: " << c.more;
    } catch (const guild::Error& error) {
      EXPECT_EQ(guild::name(error.code()), guild::name(c.code)) << error.what();
      EXPECT_EQ(error.key(), c.key) << error.what();
      EXPECT_NE(error.message().find(c.text), std::string::npos) << error.what();
    }
  }
}

TEST(DeepSeekV4Family, LayersThatCompressAreOfThisFamilyAlone) {
  Family::Config config = guild::config_of<guild::DeepSeekV4FlashSpec>;
  std::get<TrunkConfig>(config).layers = 3;
  std::get<WindowConfig>(config).types = LayerTypes("scf");
  EXPECT_STREQ(guild::config_problem(config),
               "layer_types must not name layers of full attention beside layers that compress");
  std::get<WindowConfig>(config).types = LayerTypes("sch");
  EXPECT_EQ(guild::config_problem(config), nullptr);
  std::get<HashConfig>(config).layers = 4;
  EXPECT_STREQ(guild::config_problem(config), "num_hash_layers must be from 0 to num_hidden_layers");
  const std::tuple plain(std::get<TrunkConfig>(config), guild::GqaConfig{}, std::get<WindowConfig>(config));
  EXPECT_STREQ(guild::config_problem(plain), "layer_types must not name layers that compress where no part says how");
}

TEST(DeepSeekV4Family, WritesWhatItReads) {
  const std::string scaled = kinds + R"(, "rope_scaling": {"beta_fast": 7, )" + yarn + "}";
  for (const std::string& more :
       {kinds, scaled, scaled + R"(, "compress_rate_hca": 8, "num_hash_layers": 0, "swiglu_limit": 2.5)"}) {
    const auto config = read(file(more));
    const std::string text = guild::config_json<Family>(config);
    EXPECT_EQ(read(text), config) << text;
    // Published readers know rates of 4 and 128 alone.
    EXPECT_EQ(text.find("compress_ratios") != std::string::npos, more.find("hca") == std::string::npos) << text;
    EXPECT_EQ(text.find("mscale"), std::string::npos) << text;
  }
}

TEST(DeepSeekV4Family, CountsTheParametersThatWerePublished) {
  const auto flash = guild::parameter_count(guild::config_of<guild::DeepSeekV4FlashSpec>),
             pro = guild::parameter_count(guild::config_of<guild::DeepSeekV4ProSpec>);
  EXPECT_EQ(flash.total / 1'000'000'000, 284);
  EXPECT_EQ(flash.active / 1'000'000'000, 13);
  EXPECT_EQ((pro.total + 50'000'000'000) / 100'000'000'000, 16);
  EXPECT_EQ((pro.active + 500'000'000) / 1'000'000'000, 49);
  // 21 layers of a row of 512 and a key of 128 for each 4 tokens, 20 of a row for each 128, all in bf16.
  EXPECT_EQ(guild::cache_bytes_per_token(guild::config_of<guild::DeepSeekV4FlashSpec>), 21 * 640 / 2 + 20 * 8);
}

template <class F>
auto with_path(std::string_view text, const F& f, const guild::Path& parent = guild::Path()) -> decltype(f(parent)) {
  const std::size_t dot = text.find('.');
  const std::string_view step = text.substr(0, dot);
  const bool number = step.find_first_not_of("0123456789") == std::string_view::npos;
  const guild::Path path = number ? parent / guild::Index{std::stoi(std::string(step))} : parent / step;
  return dot == std::string_view::npos ? f(path) : with_path(text.substr(dot + 1), f, path);
}
Strings names_of(std::string_view ours) {
  return with_path(ours, [](const guild::Path& path) { return guild::published_names<Names>(path); });
}

TEST(DeepSeekV4Names, AreThoseOfPublishedFilesOfModulesAndOfTheMixture) {
  EXPECT_EQ(names_of("embedding.weight"), (Strings{"embed.weight", "model.embed.weight", "model.embed_tokens.weight"}));
  EXPECT_EQ(names_of("layers.stream_head.weight"), (Strings{"hc_head_fn", "model.hc_head_fn", "model.hc_head.hc_fn"}));
  EXPECT_EQ(names_of("layers.3.mixer_residual.bias"),
            (Strings{"layers.3.hc_attn_base", "model.layers.3.hc_attn_base", "model.layers.3.attn_hc.base"}));
  EXPECT_EQ(names_of("layers.3.mixer.key_value_norm.weight"),
            (Strings{"layers.3.attn.kv_norm.weight", "model.layers.3.attn.kv_norm.weight",
                     "model.layers.3.self_attn.kv_norm.weight", "model.layers.3.self_attn.norm.weight",
                     "model.layers.3.attn.norm.weight"}));
  EXPECT_EQ(names_of("layers.3.mixer.output.weight").front(), "layers.3.attn.wo_b.weight");
  EXPECT_EQ(
      names_of("layers.0.feed_forward.router.table"),
      (Strings{"layers.0.ffn.gate.tid2eid", "model.layers.0.ffn.gate.tid2eid", "model.layers.0.mlp.gate.tid2eid"}));
  EXPECT_EQ(names_of("layers.9.feed_forward.experts.4.down.weight").front(), "layers.9.ffn.experts.4.w2.weight");
  const auto fused = with_path("layers.9.feed_forward.experts.up.weight",
                               [](const guild::Path& path) { return guild::fused_name<Names>(path); });
  ASSERT_TRUE(fused.has_value());
  EXPECT_EQ(fused->name, "model.layers.9.mlp.experts.gate_up_proj");
}

/// Names of tensors of a layer that compresses, in three spellings of which each leads to the same path.
TEST(DeepSeekV4Names, LeadBackToOurPaths) {
  const struct {
    const char* ours;
    Strings names;
  } tensors[] = {
      {"layers.2.mixer.compressor.key_value.weight",
       {"layers.2.attn.compressor.wkv.weight", "model.layers.2.self_attn.compressor.kv_proj.weight"}},
      {"layers.2.mixer.compressor.gate.weight",
       {"layers.2.attn.compressor.wgate.weight", "model.layers.2.self_attn.compressor.gate_proj.weight"}},
      {"layers.2.mixer.compressor.position_bias",
       {"layers.2.attn.compressor.ape", "model.layers.2.self_attn.compressor.position_bias"}},
      {"layers.2.mixer.compressor.norm.weight",
       {"layers.2.attn.compressor.norm.weight", "model.layers.2.self_attn.compressor.kv_norm.weight",
        "model.layers.2.self_attn.compressor.norm.weight"}},
      {"layers.2.mixer.indexer.query.weight",
       {"layers.2.attn.indexer.wq_b.weight", "model.layers.2.self_attn.compressor.indexer.q_b_proj.weight"}},
      {"layers.2.mixer.indexer.head_weights.weight",
       {"layers.2.attn.indexer.weights_proj.weight",
        "model.layers.2.self_attn.compressor.indexer.scorer.weights_proj.weight"}},
      {"layers.2.mixer.indexer.compressor.gate.weight",
       {"layers.2.attn.indexer.compressor.wgate.weight",
        "model.layers.2.self_attn.compressor.indexer.gate_proj.weight"}},
      {"layers.2.mixer.indexer.compressor.position_bias",
       {"layers.2.attn.indexer.compressor.ape", "model.layers.2.self_attn.compressor.indexer.position_bias"}},
      {"layers.2.mixer.indexer.compressor.norm.weight",
       {"layers.2.attn.indexer.compressor.norm.weight", "model.layers.2.self_attn.compressor.indexer.kv_norm.weight"}},
      {"layers.2.mixer.query_up.weight", {"layers.2.attn.wq_b.weight", "model.layers.2.self_attn.q_b_proj.weight"}},
      {"layers.2.mixer.sinks", {"layers.2.attn.attn_sink", "model.layers.2.self_attn.sinks"}},
      {"layers.2.feed_forward.router.selection_bias",
       {"layers.2.ffn.gate.bias", "model.layers.2.mlp.gate.e_score_correction_bias"}},
      {"layers.2.feed_forward.shared.up.weight",
       {"layers.2.ffn.shared_experts.w3.weight", "model.layers.2.mlp.shared_experts.up_proj.weight"}},
      {"head.weight", {"head.weight", "lm_head.weight"}},
      {"final_norm.weight", {"norm.weight", "model.norm.weight"}},
  };
  for (const auto& tensor : tensors) {
    EXPECT_EQ(names_of(tensor.ours).front(), tensor.names.front());
    const Strings all = names_of(tensor.ours);
    for (const std::string& name : tensor.names) {
      EXPECT_NE(std::find(all.begin(), all.end(), name), all.end()) << name;
      EXPECT_EQ(guild::our_paths<Names>(name), Strings{tensor.ours}) << name;
    }
    EXPECT_EQ(guild::our_paths<Names>("model." + tensor.names.front()), Strings{tensor.ours}) << tensor.ours;
  }
}

}  // namespace deepseek_v4_family_test
