// config.json: what is accepted, what is refused, and what the refusal says.
#include <gtest/gtest.h>
#include <jansson.h>

#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include <guild/core/config_check.hpp>
#include <guild/core/model_size.hpp>
#include <guild/io/checkpoint.hpp>
#include <guild/io/config.hpp>
#include <guild/io/config_writer.hpp>
#include <guild/models/deepseek_family.hpp>
#include <guild/models/deepseek_r1.hpp>
#include <guild/models/deepseek_v2_lite.hpp>
#include <guild/models/families.hpp>

namespace config_test {

using guild::ErrorCode;
using Family = guild::DeepSeekFamily;
using Config = Family::Config;

guild::PublishedModel<Family> parse_config(const std::string& text, const std::string& path = "config.json") {
  return guild::parse_config<Family>(text, path);
}

const Config r1 = guild::config_of<guild::DeepSeekR1Spec>;
const Config v2_lite = guild::config_of<guild::DeepSeekV2LiteSpec>;

const std::string fixtures = std::string(GUILD_SOURCE_DIR) + "/tests/fixtures/configs/";

std::string fixture(const std::string& name) { return guild::read_text(fixtures + name + ".json", 1 << 20); }

/// `text` with the member `key` (a path such as "rope_scaling.factor") replaced by the JSON `value`, removed if empty.
std::string with(const std::string& text, std::string key, const std::string& value) {
  json_error_t error{};
  json_t* root = json_loads(text.c_str(), 0, &error);
  json_t* object = root;
  for (std::size_t dot; (dot = key.find('.')) != std::string::npos; key = key.substr(dot + 1))
    object = json_object_get(object, key.substr(0, dot).c_str());
  if (value.empty())
    json_object_del(object, key.c_str());
  else
    json_object_set_new(object, key.c_str(), json_loads(value.c_str(), JSON_DECODE_ANY, &error));
  char* dumped = json_dumps(root, 0);
  std::string out = dumped;
  std::free(dumped);
  json_decref(root);
  return out;
}

guild::Error refusal(const std::function<void()>& f) {
  try {
    f();
  } catch (const guild::Error& error) { return error; }
  ADD_FAILURE() << "nothing was refused";
  return {ErrorCode::count_, "accepted"};
}

// -- refused ----------------------------------------------------------------------------------------------------------

struct BadConfig {
  const char* row;    ///< of the table of bad inputs, or what it is
  const char* key;    ///< changed in the config of DeepSeek-R1
  const char* value;  ///< JSON; empty: the key is removed
  ErrorCode code;
  const char* found;            ///< part of the message
  const char* expected;         ///< part of the message
  const char* named = nullptr;  ///< the key that is named, if it is not `key`
};

class BadConfigs : public testing::TestWithParam<BadConfig> {};

TEST_P(BadConfigs, AreRefusedWithFileKeyFoundExpectedAndHint) {
  const BadConfig& bad = GetParam();
  const std::string text = with(fixture("deepseek_r1"), bad.key, bad.value);
  const guild::Error error = refusal([&] { (void)parse_config(text, "folder/config.json"); });
  EXPECT_EQ(guild::name(error.code()), guild::name(bad.code)) << error.what();
  EXPECT_EQ(error.path(), "folder/config.json");
  EXPECT_EQ(error.key(), bad.named != nullptr ? bad.named : bad.key);
  EXPECT_NE(error.message().find(bad.found), std::string::npos) << error.what();
  EXPECT_NE(error.message().find(bad.expected), std::string::npos) << error.what();
  // Every message ends with what to do.
  EXPECT_TRUE(error.message().find(". ") != std::string::npos) << error.what();
}

constexpr const char* range = "must be";

INSTANTIATE_TEST_SUITE_P(
    Config, BadConfigs,
    testing::Values(
        BadConfig{"C1", "model_type", "\"llama\"", ErrorCode::cf_model_type, "\"llama\"", "deepseek_v3"},
        BadConfig{"C1 missing", "model_type", "", ErrorCode::cf_missing, "missing", "deepseek_v3"},
        BadConfig{"C1 number", "model_type", "3", ErrorCode::cf_type, "the integer 3", "a string"},
        BadConfig{"C1 newer", "model_type", "\"deepseek_v32\"", ErrorCode::cf_model_type, "deepseek_v32", "kimi_k2"},
        BadConfig{"C2", "hidden_size", "", ErrorCode::cf_missing, "missing", "an integer"},
        BadConfig{"C2 null", "hidden_size", "null", ErrorCode::cf_missing, "missing", "an integer"},
        BadConfig{"C2 layers", "num_hidden_layers", "", ErrorCode::cf_missing, "missing", "an integer"},
        BadConfig{"C2 context", "max_position_embeddings", "", ErrorCode::cf_missing, "missing", "an integer"},
        BadConfig{"C2 query rank", "q_lora_rank", "", ErrorCode::cf_missing, "missing", "null"},
        BadConfig{"C2 experts", "n_routed_experts", "", ErrorCode::cf_missing, "missing", "null"},
        BadConfig{"C2 groups", "n_group", "", ErrorCode::cf_missing, "missing", "null"},
        BadConfig{"C2 scale", "routed_scaling_factor", "", ErrorCode::cf_missing, "missing", "a number"},
        BadConfig{"C2 dense layers", "first_k_dense_replace", "", ErrorCode::cf_missing, "missing", "an integer"},
        BadConfig{"C2 factor", "rope_scaling.factor", "", ErrorCode::cf_missing, "missing", "a number"},
        BadConfig{"C2 original", "rope_scaling.original_max_position_embeddings", "", ErrorCode::cf_missing, "missing",
                  "an integer"},
        BadConfig{"C2 rope type", "rope_scaling.type", "", ErrorCode::cf_missing, "missing", "yarn"},
        BadConfig{"C2 quant", "quantization_config.quant_method", "", ErrorCode::cf_missing, "missing", "fp8"},
        BadConfig{"C3", "hidden_size", "\"7168\"", ErrorCode::cf_type, "the string \"7168\"", "an integer"},
        BadConfig{"C3 real", "hidden_size", "7168.5", ErrorCode::cf_type, "the number 7168.5", "an integer"},
        BadConfig{"C3 bool", "norm_topk_prob", "1", ErrorCode::cf_type, "the integer 1", "true or false"},
        BadConfig{"C3 number", "rope_theta", "true", ErrorCode::cf_type, "is true", "a number"},
        BadConfig{"C3 array", "vocab_size", "[1]", ErrorCode::cf_type, "an array", "an integer"},
        BadConfig{"C3 object", "rope_scaling", "\"yarn\"", ErrorCode::cf_type, "the string \"yarn\"", "an object"},
        BadConfig{"C3 quant", "quantization_config", "7", ErrorCode::cf_type, "the integer 7", "an object"},
        BadConfig{"C3 eos", "eos_token_id", "[1, \"2\"]", ErrorCode::cf_type, "the string \"2\"", "an integer",
                  "eos_token_id[1]"},
        BadConfig{"C4", "hidden_size", "0", ErrorCode::cf_range, "is 0", range},
        BadConfig{"C4 negative", "hidden_size", "-1", ErrorCode::cf_range, "is -1", range},
        BadConfig{"C4 far", "hidden_size", "-9223372036854775808", ErrorCode::cf_range, "-9223372036854775808",
                  "at least"},
        BadConfig{"C4 vocab", "vocab_size", "0", ErrorCode::cf_range, "is 0", range},
        BadConfig{"C4 layers", "num_hidden_layers", "0", ErrorCode::cf_range, "is 0", range},
        BadConfig{"C4 dense", "intermediate_size", "-5", ErrorCode::cf_range, "is -5", range},
        BadConfig{"C4 mtp", "num_nextn_predict_layers", "-1", ErrorCode::cf_range, "is -1", range},
        BadConfig{"C4 context", "max_position_embeddings", "0", ErrorCode::cf_range, "is 0", range},
        BadConfig{"C4 query rank", "q_lora_rank", "0", ErrorCode::cf_range, "the integer 0", "null"},
        BadConfig{"C4 latent", "kv_lora_rank", "0", ErrorCode::cf_range, "is 0", range},
        BadConfig{"C4 nope", "qk_nope_head_dim", "0", ErrorCode::cf_range, "is 0", range},
        BadConfig{"C4 rope", "qk_rope_head_dim", "-64", ErrorCode::cf_range, "is -64", range},
        BadConfig{"C4 value", "v_head_dim", "0", ErrorCode::cf_range, "is 0", range},
        BadConfig{"C4 experts", "n_routed_experts", "-1", ErrorCode::cf_range, "is -1", range},
        BadConfig{"C4 expert size", "moe_intermediate_size", "0", ErrorCode::cf_range, "is 0", range},
        BadConfig{"C4 shared", "n_shared_experts", "-1", ErrorCode::cf_range, "is -1", range},
        BadConfig{"C4 top k", "num_experts_per_tok", "0", ErrorCode::cf_range, "is 0", range},
        BadConfig{"C4 groups", "n_group", "0", ErrorCode::cf_range, "is 0", range},
        BadConfig{"C4 top groups", "topk_group", "0", ErrorCode::cf_range, "is 0", range},
        BadConfig{"C4 scale", "routed_scaling_factor", "0", ErrorCode::cf_range, "is 0", range},
        BadConfig{"C5", "num_experts_per_tok", "257", ErrorCode::cf_moe, "is 257", "n_routed_experts"},
        BadConfig{"C6", "n_group", "7", ErrorCode::cf_moe, "is 7", "divide"},
        BadConfig{"C7", "topk_group", "9", ErrorCode::cf_moe, "is 9", "n_group"},
        BadConfig{"C8", "num_experts_per_tok", "129", ErrorCode::cf_moe, "is 129", "chosen groups"},
        BadConfig{"C9", "qk_rope_head_dim", "63", ErrorCode::cf_rope, "is 63", "even"},
        BadConfig{"C10", "rope_scaling.factor", "0", ErrorCode::cf_rope, "is 0", "at least 1"},
        BadConfig{"C10 negative", "rope_scaling.factor", "-40", ErrorCode::cf_rope, "is -40", "at least 1"},
        BadConfig{"C10 original", "rope_scaling.original_max_position_embeddings", "0", ErrorCode::cf_rope, "is 0",
                  "at least 1"},
        BadConfig{"C10 theta", "rope_theta", "1", ErrorCode::cf_rope, "is 1", "above 1"},
        BadConfig{"C10 beta", "rope_scaling.beta_fast", "0.5", ErrorCode::cf_rope, "is 0.5", "beta_slow"},
        BadConfig{"C10 slow", "rope_scaling.beta_slow", "0", ErrorCode::cf_rope, "is 0", "above 0"},
        BadConfig{"C10 mscale", "rope_scaling.mscale", "-1", ErrorCode::cf_rope, "is -1", "negative"},
        BadConfig{"C10 all dim", "rope_scaling.mscale_all_dim", "-1", ErrorCode::cf_rope, "is -1", "negative"},
        BadConfig{"C10 two bases", "rope_scaling.rope_theta", "500", ErrorCode::cf_rope, "500", "10000"},
        BadConfig{"C10 two types", "rope_scaling.rope_type", "\"linear\"", ErrorCode::cf_rope, "yarn", "linear",
                  "rope_scaling.type"},
        BadConfig{"C11", "rope_scaling.type", "\"dynamic\"", ErrorCode::cf_rope_unsupported, "dynamic", "yarn"},
        BadConfig{"C11 llama3", "rope_scaling.type", "\"llama3\"", ErrorCode::cf_rope_unsupported, "llama3", "yarn"},
        BadConfig{"C11 factor", "rope_scaling.attention_factor", "1.5", ErrorCode::cf_rope_unsupported, "1.5", "null"},
        BadConfig{"C11 truncate", "rope_scaling.truncate", "1", ErrorCode::cf_type, "1", "true or false"},
        BadConfig{"C12", "scoring_func", "\"tanh\"", ErrorCode::cf_unsupported, "tanh", "sigmoid"},
        BadConfig{"C12 selection", "topk_method", "\"best\"", ErrorCode::cf_unsupported, "best", "noaux_tc"},
        BadConfig{"C13", "first_k_dense_replace", "62", ErrorCode::cf_range, "is 62", "num_hidden_layers"},
        BadConfig{"C13 negative", "first_k_dense_replace", "-1", ErrorCode::cf_range, "is -1", "num_hidden_layers"},
        BadConfig{"C14", "num_key_value_heads", "8", ErrorCode::cf_unsupported, "8", "num_attention_heads = 128"},
        BadConfig{"C15", "quantization_config.weight_block_size", "[0, 128]", ErrorCode::cf_quant, "the integer 0",
                  "[128, 128]", "quantization_config.weight_block_size[0]"},
        BadConfig{"C15 one", "quantization_config.weight_block_size", "[128]", ErrorCode::cf_quant, "1 elements",
                  "[128, 128]"},
        BadConfig{"C15 null", "quantization_config.weight_block_size", "null", ErrorCode::cf_quant, "null",
                  "[128, 128]"},
        BadConfig{"C15 huge", "quantization_config.weight_block_size", "[128, 4294967424]", ErrorCode::cf_quant,
                  "4294967424", "[128, 128]", "quantization_config.weight_block_size[1]"},
        BadConfig{"C16", "quantization_config.fmt", "\"e5m2\"", ErrorCode::cf_quant, "e5m2", "e4m3"},
        BadConfig{"C16 method", "quantization_config.quant_method", "\"awq\"", ErrorCode::cf_quant, "awq", "fp8"},
        BadConfig{"C16 packing", "quantization_config",
                  R"({"quant_method": "compressed-tensors", "format": "int-quantized"})", ErrorCode::cf_quant,
                  "int-quantized", "mxfp4-pack-quantized", "quantization_config.format"},
        BadConfig{"C16 scheme", "quantization_config.activation_scheme", "\"static\"", ErrorCode::cf_quant, "static",
                  "dynamic"},
        BadConfig{"C18", "rms_norm_eps", "0", ErrorCode::cf_range, "is 0", "above 0"},
        BadConfig{"C18 negative", "rms_norm_eps", "-1e-6", ErrorCode::cf_range, "is -1e-06", "above 0"},
        BadConfig{"C19", "vocab_size", "2147483648", ErrorCode::cf_limit, "2147483648", "at most"},
        BadConfig{"C19 int", "vocab_size", "2147483647", ErrorCode::cf_limit, "2147483647", range},
        BadConfig{"C19 layers", "num_hidden_layers", "1025", ErrorCode::cf_limit, "1025", range},
        BadConfig{"C19 heads", "qk_nope_head_dim", "1000000", ErrorCode::cf_limit, "1000000", range},
        BadConfig{"C19 all experts", "n_routed_experts", "1048576", ErrorCode::cf_limit, "1048576", "1e15"},
        BadConfig{"C20", "eos_token_id", "129280", ErrorCode::cf_range, "129280", "129279"},
        BadConfig{"C20 negative", "eos_token_id", "-1", ErrorCode::cf_range, "-1", "129279"},
        BadConfig{"C20 in an array", "eos_token_id", "[1, 129280]", ErrorCode::cf_range, "129280", "129279",
                  "eos_token_id[1]"},
        BadConfig{"C20 bos", "bos_token_id", "200000", ErrorCode::cf_range, "200000", "129279"},
        BadConfig{"C20 pad", "pad_token_id", "200000", ErrorCode::cf_range, "200000", "129279"},
        BadConfig{"attention bias", "attention_bias", "true", ErrorCode::cf_unsupported, "true", "false"},
        BadConfig{"mlp bias", "mlp_bias", "true", ErrorCode::cf_unsupported, "true", "false"},
        BadConfig{"activation", "hidden_act", "\"gelu\"", ErrorCode::cf_unsupported, "gelu", "silu"},
        BadConfig{"layer frequency", "moe_layer_freq", "2", ErrorCode::cf_unsupported, "2", "1"},
        BadConfig{"half rotary", "rope_interleave", "false", ErrorCode::cf_unsupported, "false", "true"},
        BadConfig{"dtype", "torch_dtype", "\"int4\"", ErrorCode::cf_unsupported, "int4", "bfloat16"},
        BadConfig{"two spellings", "num_local_experts", "128", ErrorCode::cf_duplicate, "128", "256"}),
    [](const testing::TestParamInfo<BadConfig>& bad) {
      std::string name;
      for (const char* c = bad.param.row; *c != '\0'; ++c) name += std::isalnum(*c) ? *c : '_';
      return name;
    });

TEST(Config, RefusesWhatIsNotOneJsonObject) {
  const struct {
    const char* text;
    ErrorCode code;
  } cases[] = {{"", ErrorCode::cf_json},
               {"{", ErrorCode::cf_json},
               {"{} {}", ErrorCode::cf_json},
               {"\xff", ErrorCode::cf_json},
               {"[]", ErrorCode::cf_type},
               {"null", ErrorCode::cf_type},
               {"3", ErrorCode::cf_type},
               {"{}", ErrorCode::cf_missing},
               {R"({"vocab_size": 1, "vocab_size": 1})", ErrorCode::cf_duplicate},
               {R"({"rope_theta": NaN})", ErrorCode::cf_json},        // C17
               {R"({"rope_theta": -Infinity})", ErrorCode::cf_json},  // C17
               {R"({"rope_theta": 1e999})", ErrorCode::cf_json},
               {R"({"vocab_size": 18446744073709551616})", ErrorCode::cf_json}};
  for (const auto& c : cases) {
    const guild::Error error = refusal([&] { (void)parse_config(c.text, "a/config.json"); });
    EXPECT_EQ(guild::name(error.code()), guild::name(c.code)) << c.text << ": " << error.what();
    EXPECT_EQ(error.path(), "a/config.json");
  }
  const std::string deep = "{\"a\":" + std::string(100, '[') + std::string(100, ']') + "}";
  EXPECT_EQ(refusal([&] { (void)parse_config(deep); }).code(), ErrorCode::cf_json);
}

TEST(Config, RefusesAScaleOfV2ThatPublishedProgramsReadDifferently) {
  const std::string text =
      with(with(fixture("deepseek_v2_lite"), "norm_topk_prob", "true"), "routed_scaling_factor", "16");
  const guild::Error error = refusal([&] { (void)parse_config(text); });
  EXPECT_EQ(error.code(), ErrorCode::cf_unsupported);
  EXPECT_EQ(error.key(), "routed_scaling_factor");
}

TEST(Config, RefusesWhatOtherFamiliesWouldComputeOtherwise) {
  const struct {
    const char* file;
    const char* key;
    const char* value;
    ErrorCode code;
    const char* expected;  ///< part of the message
  } cases[] = {
      {"llama_3_1_8b", "attention_bias", "true", ErrorCode::cf_unsupported, "false"},
      {"llama_3_1_8b", "hidden_act", "\"gelu\"", ErrorCode::cf_unsupported, "silu"},
      {"llama_3_1_8b", "rope_scaling.rope_type", "\"linear\"", ErrorCode::cf_rope_unsupported, "llama3"},
      {"llama_3_1_8b", "rope_scaling.low_freq_factor", "", ErrorCode::cf_missing, "a number"},
      {"llama_3_1_8b", "rope_scaling.high_freq_factor", "0.5", ErrorCode::cf_rope, "low_freq_factor"},
      {"llama_3_1_8b", "num_key_value_heads", "5", ErrorCode::cf_range, "divide"},
      {"llama_3_1_8b", "head_dim", "63", ErrorCode::cf_rope, "even"},
      {"llama_3_1_8b", "intermediate_size", "", ErrorCode::cf_missing, "an integer"},
      {"llama_3_1_8b", "partial_rotary_factor", "0.5", ErrorCode::cf_unsupported, "1"},
      {"llama_3_1_8b", "model_type", "\"llama4\"", ErrorCode::cf_model_type, "mixtral"},
      {"deepseek_r1_distill_qwen_7b", "use_sliding_window", "true", ErrorCode::cf_unsupported, "false"},
      {"qwen3_8b", "layer_types", "[\"full_attention\", \"sliding_attention\"]", ErrorCode::cf_unsupported,
       "full_attention"},
      {"qwen3_30b_a3b", "decoder_sparse_step", "2", ErrorCode::cf_unsupported, "every layer has experts"},
      {"qwen3_30b_a3b", "mlp_only_layers", "[0]", ErrorCode::cf_unsupported, "every layer has experts"},
      {"qwen3_30b_a3b", "attention_bias", "true", ErrorCode::cf_unsupported, "false"},
      {"qwen3_30b_a3b", "use_sliding_window", "true", ErrorCode::cf_unsupported, "false"},
      {"qwen3_30b_a3b", "num_experts", "", ErrorCode::cf_missing, "an integer"},
      {"qwen3_30b_a3b", "num_key_value_heads", "", ErrorCode::cf_missing, "an integer"},
      {"qwen3_30b_a3b", "num_experts_per_tok", "129", ErrorCode::cf_moe, "num_experts"},
      {"qwen1_5_moe_a2_7b", "shared_expert_intermediate_size", "", ErrorCode::cf_missing, "an integer"},
      {"qwen1_5_moe_a2_7b", "shared_expert_intermediate_size", "0", ErrorCode::cf_unsupported, "has a shared one"},
      {"qwen1_5_moe_a2_7b", "decoder_sparse_step", "0", ErrorCode::cf_unsupported, "1 or more"},
      {"qwen1_5_moe_a2_7b", "mlp_only_layers", "[24]", ErrorCode::cf_range, "layers of the model"},
      {"qwen1_5_moe_a2_7b", "mlp_only_layers", "[-1]", ErrorCode::cf_range, "numbers of layers"},
      {"qwen1_5_moe_a2_7b", "mlp_only_layers", "1", ErrorCode::cf_type, "an array"},
      {"qwen1_5_moe_a2_7b", "use_sliding_window", "true", ErrorCode::cf_unsupported, "false"},
      {"olmoe_1b_7b", "clip_qkv", "8.0", ErrorCode::cf_unsupported, "not clipped"},
      {"olmoe_1b_7b", "attention_bias", "true", ErrorCode::cf_unsupported, "false"},
      {"glm_4_5", "partial_rotary_factor", "0", ErrorCode::cf_rope, "above 0"},
      {"glm_4_5", "partial_rotary_factor", "0.51", ErrorCode::cf_rope, "even number"},
      {"glm4_moe_v5", "partial_rotary_factor", "0.25", ErrorCode::cf_unsupported, "outside of it"},
      {"glm_4_5", "topk_method", "\"greedy\"", ErrorCode::cf_unsupported, "noaux_tc"},
      {"dots_llm1", "layer_types", "[\"sliding_attention\"]", ErrorCode::cf_unsupported, "full_attention"},
      {"dots_llm1", "attention_bias", "true", ErrorCode::cf_unsupported, "false"},
      {"gemma_3_1b", "final_logit_softcapping", "30.0", ErrorCode::cf_unsupported, "logits of the head are not capped"},
      {"gemma_3_1b", "attn_logit_softcapping", "50.0", ErrorCode::cf_unsupported, "scores are not capped"},
      {"gemma_3_1b", "hidden_activation", "\"gelu\"", ErrorCode::cf_unsupported, "gelu_pytorch_tanh"},
      {"gemma_3_1b", "use_bidirectional_attention", "true", ErrorCode::cf_unsupported, "no later ones"},
      {"gemma_3_1b", "attention_bias", "true", ErrorCode::cf_unsupported, "false"},
      {"gemma_3_1b", "sliding_window_pattern", "0", ErrorCode::cf_unsupported, "a positive integer"},
      {"gemma_3_1b", "sliding_window", "0", ErrorCode::cf_range, "from 1"},
      {"gemma_3_1b", "layer_types", "[\"full_attention\"]", ErrorCode::cf_range, "num_hidden_layers"},
      {"gemma_3_1b", "rope_local_base_freq", "1", ErrorCode::cf_rope, "above 1"},
      {"gemma_3_1b", "query_pre_attn_scalar", "-1", ErrorCode::cf_range, "query_pre_attn_scalar must be"},
      {"gemma_3_1b", "rope_scaling", "{\"rope_type\": \"llama3\"}", ErrorCode::cf_rope_unsupported, "linear"},
      {"gemma3_v5", "rope_parameters.sliding_attention.rope_type", "\"linear\"", ErrorCode::cf_rope_unsupported,
       "default"},
      {"gemma3_v5", "rope_parameters.full_attention", "7", ErrorCode::cf_type, "an object"},
      {"gemma3_v5", "rope_local_base_freq", "21", ErrorCode::cf_rope, "\"rope_local_base_freq\" has, 21"},
      {"gpt_oss_20b", "attention_bias", "false", ErrorCode::cf_unsupported, "true"},
      {"gpt_oss_20b", "hidden_act", "\"gelu\"", ErrorCode::cf_unsupported, "silu"},
      {"gpt_oss_20b", "sliding_window", "null", ErrorCode::cf_missing, "an integer"},
      {"gpt_oss_20b", "layer_types", "[\"full_attention\"]", ErrorCode::cf_range, "as many entries"},
      {"gpt_oss_20b", "swiglu_limit", "-1", ErrorCode::cf_range, "not be negative"},
      {"gpt_oss_20b", "swiglu_alpha", "0", ErrorCode::cf_range, "above 0"},
      {"gpt_oss_20b", "num_local_experts", "", ErrorCode::cf_missing, "an integer"},
      {"gpt_oss_20b", "intermediate_size", "0", ErrorCode::cf_range, "intermediate_size must be"},
      {"gpt_oss_20b", "rope_scaling.rope_type", "\"llama3\"", ErrorCode::cf_rope_unsupported, "yarn"},
      {"mixtral_8x7b", "sliding_window", "4096", ErrorCode::cf_unsupported, "null"},
      {"mixtral_8x7b", "num_local_experts", "", ErrorCode::cf_missing, "an integer"},
      {"mixtral_8x7b", "num_experts_per_tok", "9", ErrorCode::cf_moe, "num_local_experts"},
      {"mixtral_8x7b", "intermediate_size", "0", ErrorCode::cf_range, "intermediate_size must be"},
      {"deepseek_v32", "index_topk", "", ErrorCode::cf_missing, "an integer"},
      {"deepseek_v32", "index_n_heads", "0", ErrorCode::cf_range, "index_n_heads must be"},
      {"deepseek_v32", "index_head_dim", "63", ErrorCode::cf_rope, "at least qk_rope_head_dim"},
      {"deepseek_v32", "q_lora_rank", "null", ErrorCode::cf_range, "takes its queries from that latent"},
      {"deepseek_v32", "num_key_value_heads", "8", ErrorCode::cf_unsupported, "no grouped heads"},
      {"deepseek_v32", "scoring_func", "\"softmax\"", ErrorCode::cf_unsupported, "sigmoid"},
      {"deepseek_v32", "topk_method", "\"greedy\"", ErrorCode::cf_unsupported, "noaux_tc"},
      {"deepseek_v32", "layer_types", "[\"full_attention\"]", ErrorCode::cf_unsupported, "what an index chooses"},
      {"deepseek_v32", "mlp_layer_types", "\"dense\"", ErrorCode::cf_type, "an array of num_hidden_layers = 61"},
      {"deepseek_v32_v5", "mlp_layer_types", "[\"dense\", \"sparse\"]", ErrorCode::cf_type, "num_hidden_layers = 3"},
      {"deepseek_v32_v5", "mlp_layer_types", "[\"dense\", \"dense\", \"sparse\"]", ErrorCode::cf_unsupported,
       "as the other keys say"},
      {"glm_5", "rope_interleave", "false", ErrorCode::cf_unsupported, "side by side"},
      {"glm_5", "indexer_rope_interleave", "false", ErrorCode::cf_unsupported, "side by side"},
      {"glm_5", "indexer_types", "[\"full\", \"shared\"]", ErrorCode::cf_unsupported, "num_hidden_layers = 78 words"},
      {"deepseek_v32", "indexer_types", "[\"full\", \"shared\"]", ErrorCode::cf_unsupported, "an index of its own"},
      {"glm_5", "index_topk_freq", "0", ErrorCode::cf_unsupported, "1 or more"},
      {"glm_5", "index_topk_pattern", "\"FFSS\"", ErrorCode::cf_unsupported, "num_hidden_layers = 78 letters"},
      {"glm_5", "index_skip_topk_offset", "-1", ErrorCode::cf_unsupported, "0 or more"},
      {"glm_5", "rope_parameters.rope_type", "\"llama3\"", ErrorCode::cf_rope_unsupported, "yarn"},
  };
  for (const auto& c : cases) {
    const guild::Error error = refusal([&] {
      (void)guild::with_config<guild::Families>(with(fixture(c.file), c.key, c.value), "m/config.json",
                                                [](const auto&) { return 0; });
    });
    EXPECT_EQ(guild::name(error.code()), guild::name(c.code)) << c.file << ", " << c.key << ": " << error.what();
    EXPECT_NE(std::string(error.what()).find(c.key), std::string::npos) << error.what();
    EXPECT_NE(error.message().find(c.expected), std::string::npos) << error.what();
    EXPECT_EQ(error.message().find("n_routed_experts"), std::string::npos) << "a key of another family";
  }
}

TEST(Config, NamesTheFamilyOfAFileThatTheProgramWasNotCompiledFor) {
  const guild::Error error =
      refusal([&] { (void)guild::parse_config<guild::LlamaFamily>(fixture("deepseek_r1"), "m/config.json"); });
  EXPECT_EQ(error.code(), ErrorCode::cf_model_type);
  for (const char* part : {"deepseek_v3", "llama", "qwen3", "another family"})
    EXPECT_NE(error.message().find(part), std::string::npos) << error.what();
}

TEST(Config, RefusesEveryCutOfAGoodFile) {
  const std::string text = fixture("deepseek_r1");
  for (std::size_t n = 0; n + 2 < text.size(); ++n)
    EXPECT_THROW((void)parse_config(text.substr(0, n)), guild::Error) << "cut at " << n;
}

// -- accepted ---------------------------------------------------------------------------------------------------------

TEST(Config, ReadsTheNewerSpellingsAsTheSameModel) {
  const auto old_file = parse_config(fixture("deepseek_r1")),
             new_file = parse_config(fixture("deepseek_r1_transformers"));
  EXPECT_EQ(guild::differences(old_file.model, new_file.model), "");
  EXPECT_EQ(new_file.quantization, old_file.quantization);
  EXPECT_EQ(new_file.dtype, guild::DType::bf16);
  EXPECT_EQ(new_file.eos, old_file.eos);

  std::string text = fixture("deepseek_r1");
  text = with(with(text, "n_routed_experts", ""), "num_local_experts", "256");
  text = with(with(text, "num_nextn_predict_layers", ""), "num_mtp_layers", "1");
  text = with(with(text, "torch_dtype", ""), "dtype", "\"float32\"");
  text = with(text, "rope_interleave", "true");
  const auto renamed = parse_config(text);
  EXPECT_EQ(renamed.model, r1);
  EXPECT_EQ(renamed.dtype, guild::DType::f32);
}

TEST(Config, ReadsGemma3InEverySpelling) {
  const auto read = [](const std::string& text) { return guild::parse_config<guild::Gemma3Family>(text).model; };
  const std::string text = fixture("gemma_3_1b");
  const auto model = read(text);
  EXPECT_EQ(read(with(with(text, "sliding_window_pattern", ""), "_sliding_window_pattern", "6")), model);
  for (const char* documented : {"sliding_window_pattern", "rope_local_base_freq", "rope_theta", "rope_scaling",
                                 "query_pre_attn_scalar", "head_dim", "rms_norm_eps"})
    EXPECT_EQ(read(with(text, documented, "")), model) << documented;
  const std::string nested = with(
      with(with(text, "rope_local_base_freq", ""), "rope_theta", ""), "rope_parameters",
      R"({"full_attention": {"rope_type": "default", "rope_theta": 1000000}, "sliding_attention": {"rope_theta": 10000}})");
  EXPECT_EQ(read(nested), model);
  EXPECT_NE(read(with(nested, "rope_parameters.sliding_attention.rope_theta", "20000")), model);
  EXPECT_NE(read(with(text, "sliding_window_pattern", "5")), model);
  EXPECT_EQ(std::get<guild::WindowConfig>(read(with(text, "sliding_window_pattern", "5"))).types,
            guild::LayerTypes("ssssfssssfssssfssssfssssfs"));
  const auto scaled = read(with(text, "rope_scaling", R"({"factor": 8, "rope_type": "linear"})"));
  EXPECT_EQ(std::get<guild::GqaConfig>(scaled).rope,
            (guild::RopeConfig{
                .base = 1e6, .factor = 8, .pairs = guild::RopePairs::halves, .scaling = guild::RopeScaling::linear}));
  EXPECT_EQ(read(guild::config_json<guild::Gemma3Family>(scaled)), scaled);
}

TEST(Config, ReadsQwen3MoeInEverySpelling) {
  const auto read = [](const std::string& text) { return guild::parse_config<guild::Qwen3MoeFamily>(text).model; };
  const std::string text = fixture("qwen3_30b_a3b");
  const auto model = read(text);
  EXPECT_EQ(read(with(with(text, "num_experts", ""), "num_local_experts", "128")), model);
  EXPECT_EQ(read(with(text, "mlp_only_layers", "null")), model);
  EXPECT_EQ(read(with(with(text, "mlp_only_layers", ""), "decoder_sparse_step", "")), model);
  EXPECT_TRUE(std::get<guild::TopKConfig>(model).normalize);
  EXPECT_FALSE(std::get<guild::TopKConfig>(read(with(text, "norm_topk_prob", ""))).normalize);
  EXPECT_EQ(std::get<guild::GqaConfig>(read(with(text, "head_dim", ""))).head_dim, 2048 / 32);
}

TEST(Config, ReadsWhichLayersOfQwen2MoeAreDense) {
  const auto read = [](const std::string& text) { return guild::parse_config<guild::Qwen2MoeFamily>(text).model; };
  const std::string text = fixture("qwen1_5_moe_a2_7b");
  EXPECT_EQ(read(with(text, "decoder_sparse_step", "")), read(text));
  EXPECT_EQ(read(with(text, "mlp_only_layers", "[]")), read(text));
  const auto some = read(with(with(text, "decoder_sparse_step", "8"), "mlp_only_layers", "[7, 0]"));
  EXPECT_EQ(guild::expert_layers(some), 2);  // 15 and 23
  EXPECT_FALSE(std::get<guild::DenseConfig>(some).others.has(15) || std::get<guild::DenseConfig>(some).others.has(23));
  EXPECT_EQ(read(guild::config_json<guild::Qwen2MoeFamily>(some)), some);
  EXPECT_NE(guild::describe(some).find("others: 0, 1, 2, 3"), std::string::npos) << guild::describe(some);
  EXPECT_FALSE(std::get<guild::GqaConfig>(read(with(text, "qkv_bias", "false"))).bias);
}

TEST(Config, ReadsWhatFilesOfGlmAndDotsLeaveOut) {
  const auto glm = [](const std::string& text) { return guild::parse_config<guild::Glm4MoeFamily>(text).model; };
  const std::string text = fixture("glm_4_5");
  EXPECT_EQ(glm(with(text, "partial_rotary_factor", "")), glm(text));
  EXPECT_EQ(glm(with(with(text, "num_nextn_predict_layers", ""), "num_mtp_layers", "1")), glm(text));
  EXPECT_EQ(std::get<guild::GqaConfig>(glm(with(text, "partial_rotary_factor", "0.25"))).rope_dim(), 32);
  EXPECT_FALSE(std::get<guild::GqaConfig>(glm(with(text, "use_qk_norm", ""))).query_key_norm);
  const std::string dots = fixture("dots_llm1");
  const auto read = [](const std::string& file) { return guild::parse_config<guild::Dots1Family>(file).model; };
  EXPECT_EQ(read(with(dots, "sliding_window", "4096")), read(dots)) << "no layer is behind max_window_layers";
  EXPECT_EQ(read(with(with(dots, "sliding_window", ""), "max_window_layers", "")), read(dots));
  EXPECT_EQ(refusal([&] { (void)read(with(with(dots, "sliding_window", "4096"), "max_window_layers", "61")); }).key(),
            "max_window_layers");
}

TEST(Config, ReadsWhatFilesOfGptOssLeaveOut) {
  const auto read = [](const std::string& text) { return guild::parse_config<guild::GptOssFamily>(text); };
  const std::string text = fixture("gpt_oss_20b");
  const auto file = read(text);
  EXPECT_EQ(file.quantization, (guild::QuantizationConfig{.fp8 = false, .block_rows = 1, .block_cols = 32}));
  EXPECT_EQ(file.eos, std::vector<int>{200002});
  std::string brief = text;
  for (const char* key : {"attention_bias", "head_dim", "hidden_act", "layer_types", "rms_norm_eps", "rope_scaling",
                          "rope_theta", "swiglu_limit", "tie_word_embeddings", "torch_dtype"})
    brief = with(brief, key, "");
  EXPECT_EQ(read(brief).model, file.model);
  EXPECT_EQ(read(with(text, "swiglu_alpha", "1.702")).model, file.model);
  EXPECT_FALSE(std::get<guild::GqaConfig>(file.model).rope.truncate);
  EXPECT_TRUE(std::get<guild::GqaConfig>(read(with(text, "rope_scaling.truncate", "")).model).rope.truncate);
  const auto plain = read(with(text, "rope_scaling", R"({"rope_type": "default"})"));
  EXPECT_EQ(std::get<guild::GqaConfig>(plain.model).rope.factor, 1.0);
}

TEST(Config, ReadsWhatFilesOfSparseAttentionLeaveOut) {
  const std::string v32 = fixture("deepseek_v32"), glm = fixture("glm_5");
  const auto of_v32 = [](const std::string& text) { return guild::parse_config<guild::DeepSeekV32Family>(text).model; };
  const auto of_glm = [](const std::string& text) { return guild::parse_config<guild::GlmMoeDsaFamily>(text).model; };
  for (const char* documented : {"scoring_func", "topk_method", "norm_topk_prob", "moe_layer_freq", "attention_bias",
                                 "num_key_value_heads", "rms_norm_eps", "tie_word_embeddings", "ep_size"}) {
    EXPECT_EQ(of_v32(with(v32, documented, "")), of_v32(v32)) << documented;
    EXPECT_EQ(of_glm(with(glm, documented, "")), of_glm(glm)) << documented;
  }
  EXPECT_EQ(of_glm(with(with(glm, "rope_interleave", ""), "indexer_rope_interleave", "")), of_glm(glm));
  EXPECT_EQ(std::get<guild::IndexerConfig>(of_v32(v32)).pairs, guild::RopePairs::halves);
  EXPECT_EQ(std::get<guild::IndexerConfig>(of_glm(glm)).pairs, guild::RopePairs::interleaved);
  EXPECT_EQ(std::get<guild::MlaConfig>(of_glm(glm)).rope.pairs, guild::RopePairs::interleaved);
}

TEST(Config, ReadsWhichLayersOfGlm5HaveAnIndexFromAListElseAPatternElseAPeriod) {
  const std::string twelve = with(fixture("glm_5"), "num_hidden_layers", "12");
  const auto letters = [](const std::string& text) {
    return std::get<guild::IndexerConfig>(guild::parse_config<guild::GlmMoeDsaFamily>(text).model).types.letters();
  };
  // As the configuration class of transformers 5.24 has them.
  const std::string period = with(twelve, "index_topk_freq", "4");
  EXPECT_EQ(letters(twelve), "");
  EXPECT_EQ(letters(with(twelve, "index_topk_freq", "1")), "");
  EXPECT_EQ(letters(period), "ffsssfsssfss");
  EXPECT_EQ(letters(with(with(twelve, "index_topk_freq", "3"), "index_skip_topk_offset", "1")), "fssfssfssfss");
  const std::string pattern = with(period, "index_topk_pattern", "\"FSSFSSSSSSSF\"");
  EXPECT_EQ(letters(pattern), "fssfsssssssf");
  EXPECT_EQ(letters(with(with(pattern, "num_hidden_layers", "3"), "indexer_types", R"(["full", "full", "shared"])")),
            "ffs");
  EXPECT_EQ(letters(with(twelve, "index_topk_pattern", "\"FFFFFFFFFFFF\"")), "");
}

TEST(Config, DefaultsWhatTheConfigurationClassesDocument) {
  std::string v3 = fixture("deepseek_r1");
  for (const char* key : {"rms_norm_eps", "rope_theta", "scoring_func", "topk_method", "norm_topk_prob", "torch_dtype",
                          "tie_word_embeddings", "hidden_act", "moe_layer_freq", "attention_bias",
                          "num_key_value_heads", "rope_scaling.beta_fast", "rope_scaling.beta_slow",
                          "rope_scaling.mscale", "quantization_config.fmt", "quantization_config.weight_block_size"})
    v3 = with(v3, key, "");
  const auto file = parse_config(v3);
  EXPECT_EQ(file.model, r1);
  EXPECT_EQ(file.dtype, guild::DType::bf16);
  EXPECT_EQ(file.quantization, guild::QuantizationConfig{});

  std::string v2 = fixture("deepseek_v2_lite");
  for (const char* key : {"scoring_func", "topk_method", "norm_topk_prob", "routed_scaling_factor", "n_group"})
    v2 = with(v2, key, "");
  EXPECT_EQ(parse_config(with(v2, "topk_group", "null")).model, v2_lite);
}

TEST(Config, PackedMxfp4IsAQuantizationToo) {
  const auto file = parse_config(with(fixture("deepseek_r1"), "quantization_config",
                                      R"({"quant_method": "compressed-tensors", "format": "mxfp4-pack-quantized"})"));
  EXPECT_EQ(file.quantization, (guild::QuantizationConfig{.fp8 = false, .block_rows = 1, .block_cols = 32}));
}

TEST(Config, AcceptsIntegersForFloatsAndSeveralEndTokens) {
  std::string text = with(fixture("deepseek_r1"), "rope_scaling.mscale", "1");
  text = with(with(text, "eos_token_id", "[1, 128000]"), "bos_token_id", "null");
  text = with(with(text, "pad_token_id", "-1"), "routed_scaling_factor", "3");
  const auto file = parse_config(text);
  EXPECT_EQ(file.eos, (std::vector<int>{1, 128000}));
  EXPECT_EQ(file.bos, std::nullopt);
  EXPECT_EQ(file.pad, std::nullopt);
  EXPECT_EQ(std::get<guild::TopKConfig>(file.model).scale, 3.0);
  EXPECT_EQ(parse_config(with(text, "pad_token_id", "2")).pad, 2);
  EXPECT_TRUE(parse_config(with(text, "eos_token_id", "")).eos.empty());
}

TEST(Config, ReadsPlainRotaryPositionAndNoQuantization) {
  for (const char* scaling : {"null", "", R"({"rope_type": "default"})", "{}"}) {
    const auto file =
        parse_config(with(with(fixture("deepseek_r1"), "rope_scaling", scaling), "quantization_config", ""));
    EXPECT_EQ(std::get<guild::MlaConfig>(file.model).rope, guild::RopeConfig{}) << scaling;
    EXPECT_EQ(file.quantization, std::nullopt);
  }
}

TEST(Config, ReadsAModelWithoutExpertsAsDense) {
  std::string text = with(fixture("deepseek_v2_lite"), "n_routed_experts", "null");
  for (const char* key : {"num_experts_per_tok", "moe_intermediate_size", "n_shared_experts", "first_k_dense_replace"})
    text = with(text, key, "");
  const auto file = parse_config(text);
  EXPECT_EQ(std::get<guild::TopKConfig>(file.model).experts, 0);
  EXPECT_EQ(std::get<guild::DenseConfig>(file.model).layers, std::get<guild::TrunkConfig>(file.model).layers);
}

TEST(Config, IgnoresUnknownKeys) {
  EXPECT_EQ(parse_config(with(fixture("deepseek_r1"), "a_new_key", R"({"b": [1, 2, {"c": null}]})")).model, r1);
}

TEST(Config, IsReadFromItsFolderAndNamesTheMissingFile) {
  const std::string folder = testing::TempDir() + "guild_config_test";
  std::filesystem::create_directories(folder);
  std::filesystem::remove(folder + "/config.json");
  const guild::Error missing = refusal([&] { (void)guild::read_config<Family>(folder); });
  EXPECT_EQ(missing.code(), ErrorCode::io_open);
  EXPECT_EQ(missing.path(), folder + "/config.json");
  std::ofstream(folder + "/config.json") << fixture("deepseek_r1");
  EXPECT_EQ(guild::read_config<Family>(folder).model, r1);
  EXPECT_EQ(guild::read_config<Family>(folder + "/").path, folder + "/config.json");
  std::filesystem::remove_all(folder);
}

/// Of the experts that give their input in models/longcat_v5, 5 to 7.
bool gives_its_input(std::string_view name) {
  const auto of = name.find(".experts.");
  return of != std::string_view::npos && name[of + 9] >= '5';
}

TEST(Config, DescribesEveryModelFixtureDownToItsLastParameter) {
  int models = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::string(GUILD_SOURCE_DIR) + "/tests/fixtures/models")) {
    const std::string folder = entry.path().string();
    if (!std::filesystem::exists(folder + "/config.json")) continue;
    const auto parameters = [](const auto& file) { return guild::parameter_count(file.model); };
    const guild::ParameterCount counted = guild::with_config<guild::Families>(
        guild::read_text(folder + "/config.json", 1 << 20), folder + "/config.json", parameters);
    std::int64_t stored = 0;
    bool predicts = false;  // newer versions of transformers do not save prediction layers
    const auto checkpoint = guild::Checkpoint::open(folder);
    for (const guild::TensorInfo& tensor : checkpoint.tensors()) {
      std::int64_t elements = 1;
      predicts |= tensor.name.ends_with(".eh_proj.weight");
      for (const std::int64_t side : tensor.shape) elements *= side;
      if (tensor.name.ends_with("_blocks") || tensor.dtype == guild::DType::i8) elements *= 2;   // two values in a byte
      if (tensor.dtype == guild::DType::i64 || tensor.dtype == guild::DType::f8_e8m0) continue;  // tables, scales
      if (tensor.name.starts_with("mtp.") || tensor.name.starts_with("model.mtp.")) continue;    // not read
      if (folder.ends_with("longcat_v5") && gives_its_input(tensor.name)) continue;              // nor are these
      if (!tensor.name.ends_with("_scale_inv") && !tensor.name.ends_with("_scales")) stored += elements;
    }
    EXPECT_EQ(predicts ? counted.stored : counted.total, stored) << folder;
    ++models;
  }
  EXPECT_GT(models, 10);
}

// -- compiled against file --------------------------------------------------------------------------------------------

TEST(Config, ListsEveryDifferenceBetweenProgramAndFileAtOnce) {  // C21
  std::string text = with(with(fixture("deepseek_r1"), "hidden_size", "2048"), "scoring_func", "\"softmax\"");
  text = with(with(text, "q_lora_rank", "null"), "rope_scaling.factor", "1.5");
  const auto file = parse_config(text, "m/config.json");
  const std::string expected =
      "hidden_size: compiled 7168, file 2048\n"
      "q_lora_rank: compiled 1536, file null\n"
      "rope_scaling.factor: compiled 40, file 1.5\n"
      "scoring_func: compiled sigmoid, file softmax\n";
  EXPECT_EQ(guild::differences(r1, file.model), expected);
  const guild::Error error = refusal([&] { guild::check_config<guild::DeepSeekR1Spec>(file); });
  EXPECT_EQ(error.code(), ErrorCode::cf_static_mismatch);
  EXPECT_EQ(error.path(), "m/config.json");
  EXPECT_NE(error.message().find(expected), std::string::npos);
  EXPECT_NE(error.message().find("guild_add_spec"), std::string::npos);
}

TEST(Config, EveryFieldTakesPartInTheComparison) {
  // Each field is changed alone; if one were forgotten in the list, its change would compare equal in text only.
  int fields = 0;
  const Config one = r1;
  Config two = one;
  const auto change = [&](const guild::ConfigField& field, auto& value) {
    ++fields;
    const auto before = value;
    if constexpr (std::is_same_v<std::remove_reference_t<decltype(value)>, bool>)
      value = !value;
    else if constexpr (std::is_same_v<std::remove_reference_t<decltype(value)>, guild::LayerSet>)
      value.add(3);
    else
      value = static_cast<std::remove_reference_t<decltype(value)>>(static_cast<double>(value) == 0 ? 1 : 0);
    EXPECT_FALSE(one == two) << field.key;
    const std::string text = guild::differences(one, two);
    EXPECT_EQ(text.substr(0, text.find(':')), field.key.empty() ? field.member : field.key);
    EXPECT_EQ(text.find('\n'), text.size() - 1) << "one line for one field";
    value = before;
  };
  guild::for_each_config_field(change, two);
  EXPECT_EQ(fields, 58);
  EXPECT_EQ(one, two);
}

TEST(Config, DescribesEveryFieldByItsPublishedName) {
  const std::string text = guild::describe(v2_lite);
  for (const char* line : {"vocab_size: 102400\n", "q_lora_rank: null\n", "topk_method: greedy\n",
                           "rms_norm_eps: 1e-06\n", "norm_topk_prob: false\n", "rope_scaling.mscale: 0.707\n"})
    EXPECT_NE(text.find(line), std::string::npos) << text;
}

// -- the rules of the value, at compile time --------------------------------------------------------------------------

constexpr Config with_rope_dim(int dim) {
  Config c;
  std::get<guild::MlaConfig>(c).rope_dim = dim;
  return c;
}
constexpr Config with_routing(const guild::TopKConfig& routing) {
  Config c;
  std::get<guild::TopKConfig>(c) = routing;
  return c;
}
static_assert(guild::config_problem(Config{}) == nullptr);
static_assert(guild::config_problem(with_rope_dim(63)) != nullptr);
static_assert(guild::find_config_problem(with_rope_dim(63))->code == ErrorCode::cf_rope);
static_assert(guild::find_config_problem(with_routing({.experts = 4, .top_k = 8}))->code == ErrorCode::cf_moe);
constexpr bool is_possible(const guild::ActivationConfig& activation) {
  Config c;
  std::get<guild::ExpertConfig>(c).activation = activation;
  return guild::config_problem(c) == nullptr;
}
static_assert(is_possible({.alpha = 1.702, .limit = 7.0, .up_offset = 1.0}));
static_assert(is_possible({.kind = guild::Activation::gelu_tanh}));
static_assert(!is_possible({.kind = guild::Activation::gelu_tanh, .alpha = 1.702}));
static_assert(is_possible({.kind = guild::Activation::relu_squared, .gated = false}));
static_assert(!is_possible({.kind = guild::Activation::relu_squared}) && !is_possible({.gated = false, .limit = 1.0}));
static_assert(!is_possible({.alpha = 0.0}) && !is_possible({.limit = -1.0}));
constexpr bool is_llama3(double low, double high) {
  const guild::RopeConfig rope = {
      .factor = 8, .scaling = guild::RopeScaling::llama3, .low_frequency_factor = low, .high_frequency_factor = high};
  return !rope.problem();
}
static_assert(is_llama3(1, 4));
static_assert(!is_llama3(0, 4) && !is_llama3(4, 4) && !is_llama3(1, std::numeric_limits<double>::infinity()));
static_assert(!guild::RopeConfig{.high_frequency_factor = 0}.problem(), "yarn does not read it");
// Groups of one expert have no two best.
static_assert(guild::find_config_problem(with_routing({.experts = 8, .top_k = 2, .groups = 8, .top_groups = 4}))
                  ->code == ErrorCode::cf_moe);
static_assert(guild::config_problem(with_routing({.experts = 8, .top_k = 2, .groups = 4, .top_groups = 4})) == nullptr);
static_assert(guild::config_problem(with_routing({.experts = 0, .top_k = 8})) == nullptr);
static_assert(guild::TrunkConfig{.norm = {.epsilon = std::numeric_limits<double>::quiet_NaN()}}.problem()->code ==
              ErrorCode::cf_range);
static_assert(guild::RopeConfig{.base = std::numeric_limits<double>::infinity()}.problem()->code == ErrorCode::cf_rope);

TEST(Config, ValidateThrowsTheProblemOfAValueMadeInCode) {
  Config c;
  EXPECT_NO_THROW(guild::validate(c));
  std::get<guild::TopKConfig>(c).top_groups = 3;
  const guild::Error error = refusal([&] { guild::validate(c); });
  EXPECT_EQ(error.code(), ErrorCode::cf_moe);
  EXPECT_EQ(error.key(), "topk_group");
}

}  // namespace config_test
