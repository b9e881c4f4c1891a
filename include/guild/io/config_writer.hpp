// config.json of a model, with the keys that the published files have.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <guild/core/config.hpp>
#include <guild/core/config_compare.hpp>
#include <guild/core/config_fields.hpp>
#include <guild/core/error.hpp>
#include <guild/core/types.hpp>
#include <guild/io/atomic_folder.hpp>
#include <guild/io/json_writer.hpp>

namespace guild::inline v1 {

/// What config.json says besides the numbers of the model.
struct ConfigWriteOptions {
  /// `model_type`: deepseek_v3, deepseek_v2 or kimi_k2. Empty: deepseek_v2 where scores are softmax and chosen without
  /// a bias, because other programs take a deepseek_v3 for sigmoid and noaux_tc whatever the file says; else
  /// deepseek_v3.
  std::string model_type{};
  DType dtype = DType::bf16;  ///< `torch_dtype`: of the weights; f32, bf16 or f16
  std::optional<int> bos{};   ///< `bos_token_id`
  std::vector<int> eos{};     ///< `eos_token_id`: one, several or none
  std::optional<int> pad{};   ///< `pad_token_id`
};

namespace detail {

inline void write_tokens(JsonWriter& writer, std::string_view key, const std::vector<int>& ids) {
  writer.key(key);
  if (ids.empty()) {
    writer.value(nullptr);
  } else if (ids.size() == 1) {
    writer.value(ids.front());
  } else {
    writer.begin_array();
    for (const int id : ids) writer.value(id);
    writer.end_array();
  }
}

inline void write_token(JsonWriter& writer, std::string_view key, const std::optional<int>& id) {
  write_tokens(writer, key, id ? std::vector<int>{*id} : std::vector<int>{});
}

inline std::string_view torch_name(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "float32";
    case DType::bf16:
      return "bfloat16";
    case DType::f16:
      return "float16";
    default:
      throw Error(ErrorCode::op_argument,
                  "weights of type " + std::string(name(dtype)) + " cannot be named; use f32, bf16 or f16");
  }
}

}  // namespace detail

/// The text of a config.json: `parse_config` of it gives `canonical(config)` again. Throws the cf_ codes of `validate`
/// for a config that is no possible model, op_argument for a model type or dtype that is none, and for rotary positions
/// that these model types have not.
[[nodiscard]] inline std::string config_json(const ModelConfig& config, const ConfigWriteOptions& options = {}) {
  validate(config);
  const ModelConfig c = canonical(config);
  const bool has_moe = c.moe.experts > 0;
  const bool v2_router = has_moe && c.moe.scoring == Scoring::softmax && c.moe.selection != Selection::noaux_tc;
  // The reader refuses a deepseek_v2 that normalises and scales: published programs disagree on its meaning.
  const bool v2 = v2_router && !(c.moe.normalize && c.moe.scale != 1.0);
  const std::string type = !options.model_type.empty() ? options.model_type : v2 ? "deepseek_v2" : "deepseek_v3";
  if (type != "deepseek_v3" && type != "deepseek_v2" && type != "kimi_k2")
    throw Error(ErrorCode::op_argument, "is \"" + type + "\", expected deepseek_v3, deepseek_v2 or kimi_k2",
                {{}, "model_type", -1});
  if (c.rope.pairs != RopePairs::interleaved || c.rope.scaling != RopeScaling::yarn)
    throw Error(ErrorCode::op_argument,
                "is " + std::string(name(c.rope.scaling)) + " on " + std::string(name(c.rope.pairs)) +
                    " pairs, expected yarn on interleaved ones for a " + type,
                {{}, "rope_scaling", -1});

  JsonWriter w;
  w.begin_object();
  w.key("architectures").begin_array();
  w.value(type == "deepseek_v2" ? "DeepseekV2ForCausalLM" : "DeepseekV3ForCausalLM").end_array();
  w.member("attention_bias", false).member("attention_dropout", 0.0);
  detail::write_token(w, "bos_token_id", options.bos);
  detail::write_tokens(w, "eos_token_id", options.eos);
  w.member("first_k_dense_replace", c.dense_layers);
  w.member("hidden_act", "silu");
  w.member("hidden_size", c.hidden);
  w.member("initializer_range", 0.02);
  w.member("intermediate_size", c.dense_hidden);
  w.member("kv_lora_rank", c.attention.latent_rank);
  w.member("max_position_embeddings", c.context);
  w.member("model_type", type);
  w.member("moe_intermediate_size", c.moe.hidden).member("moe_layer_freq", 1);
  w.member("n_group", c.moe.groups);
  w.key("n_routed_experts");
  if (has_moe)
    w.value(c.moe.experts);
  else
    w.value(nullptr);
  w.member("n_shared_experts", c.moe.shared_experts);
  w.member("norm_topk_prob", c.moe.normalize);
  w.member("num_attention_heads", c.attention.heads);
  w.member("num_experts_per_tok", c.moe.top_k);
  w.member("num_hidden_layers", c.layers);
  w.member("num_key_value_heads", c.attention.heads);
  w.member("num_nextn_predict_layers", c.mtp_layers);
  detail::write_token(w, "pad_token_id", options.pad);
  w.key("q_lora_rank");
  if (c.attention.query_rank > 0)
    w.value(c.attention.query_rank);
  else
    w.value(nullptr);
  w.member("qk_nope_head_dim", c.attention.nope_dim);
  w.member("qk_rope_head_dim", c.attention.rope_dim);
  w.member("rms_norm_eps", c.norm_epsilon);
  w.key("rope_scaling");
  if (c.rope == RopeConfig{.base = c.rope.base}) {
    w.value(nullptr);
  } else {
    w.begin_object().member("type", "yarn").member("factor", c.rope.factor);
    w.member("beta_fast", c.rope.beta_fast).member("beta_slow", c.rope.beta_slow);
    w.member("mscale", c.rope.mscale).member("mscale_all_dim", c.rope.mscale_all_dim);
    w.member("original_max_position_embeddings", c.rope.original_context).end_object();
  }
  w.member("rope_theta", c.rope.base);
  w.member("routed_scaling_factor", c.moe.scale);
  w.member("scoring_func", name(c.moe.scoring));
  w.member("tie_word_embeddings", c.tied_embeddings);
  w.member("topk_group", c.moe.top_groups);
  w.member("topk_method", name(c.moe.selection));
  w.member("torch_dtype", detail::torch_name(options.dtype));
  w.member("use_cache", true);
  w.member("v_head_dim", c.attention.value_dim);
  w.member("vocab_size", c.vocab);
  return w.end_object().take();
}

/// Writes config.json into a folder. Throws as `config_json` and `AtomicFolder::write` do.
inline void write_config(AtomicFolder& folder, const ModelConfig& config, const ConfigWriteOptions& options = {}) {
  folder.write("config.json", config_json(config, options));
}

}  // namespace guild::inline v1
