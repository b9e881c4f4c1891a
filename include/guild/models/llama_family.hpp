// What the files of Llama, Qwen2 and Qwen3 have in common: the keys of config.json and the names of tensors.
#pragma once

#include <array>
#include <string_view>
#include <tuple>

#include <guild/core/config/family.hpp>
#include <guild/models/common_keys.hpp>
#include <guild/models/common_names.hpp>

namespace guild {
inline namespace v1 {

/// Dense models of grouped-query attention: Llama 2 and 3, Qwen2 (biases of query, key and value) and Qwen3 (norms of
/// each head's query and key), so all that DeepSeek-R1 was distilled into. Sliding windows are refused.
struct LlamaFamily {
  static constexpr std::string_view model_types[] = {"llama", "qwen2", "qwen3"};
  using Config = ModelConfig<TrunkConfig, GqaConfig, DenseConfig>;
  static constexpr std::string_view base = "LlamaDefaults", header = "guild/models/llama.hpp";

  /// 0 of key_heads and head_dim: what follows from the other numbers. Source: the configuration classes of
  /// transformers 5.24.
  static constexpr Config defaults(std::string_view type) {
    GqaConfig attention = {.key_heads = 0, .head_dim = 0};
    attention.bias = type == "qwen2";
    attention.query_key_norm = type == "qwen3";
    if (type == "qwen3") attention.head_dim = 128;
    return {{.norm = {.epsilon = 1e-6}}, attention, {}};
  }

  static constexpr auto keys = key_rules(
      {
          {"first_k_dense_replace", ""},
          {"attention_bias", ""},
          {"num_nextn_predict_layers", ""},
      },
      silu_keys);
  static constexpr FixedKey fixed[] = {
      {"attention_bias", "false", "biases are those of qwen2, of query, key and value"},
      {"mlp_bias", "false"},
      {"hidden_act", "\"silu\""},
      {"use_sliding_window", "false", "attention to a window of tokens is not computed"},
      {"layer_types", "\"full_attention\"", "attention to a window of tokens is not computed", true, false},
      {"partial_rotary_factor", "1", "all of a head turns", true, false},
  };
  static constexpr std::string_view rope_types[] = {"llama3", "yarn"};

  template <class File>
  static constexpr void complete(Config& config, const File&) {
    std::get<GqaConfig>(config).complete(std::get<TrunkConfig>(config).hidden);
  }

  static std::string_view model_type(const Config& config) {
    const GqaConfig& attention = std::get<GqaConfig>(config);
    return attention.query_key_norm ? "qwen3" : attention.bias ? "qwen2" : "llama";
  }
  static std::string_view architecture(std::string_view type) {
    return type == "qwen3" ? "Qwen3ForCausalLM" : type == "qwen2" ? "Qwen2ForCausalLM" : "LlamaForCausalLM";
  }
};

/// Llama, Qwen2 (biases of query, key and value) and Qwen3 (norms of query and key).
struct LlamaNames {
  static constexpr auto rules = name_rules(decoder_names, grouped_query_names, query_key_norm_names, mlp_names);
  static constexpr std::string_view scale_suffix = "_scale_inv";
};

}  // namespace v1
}  // namespace guild
