// What the files of Qwen3-MoE have in common: the keys of config.json and the names of tensors.
#pragma once

#include <string_view>
#include <tuple>

#include <guild/core/config/family.hpp>
#include <guild/models/common_keys.hpp>
#include <guild/models/common_names.hpp>

namespace guild {
inline namespace v1 {

/// Grouped-query attention whose queries and keys are normalised, and experts in every layer (Qwen3 report, arXiv
/// 2505.09388). Files that leave experts out of some layers are refused.
struct Qwen3MoeFamily {
  static constexpr std::string_view model_types[] = {"qwen3_moe"};
  using Config = ModelConfig<TrunkConfig, GqaConfig, TopKConfig, ExpertConfig>;
  static constexpr std::string_view base = "Qwen3MoeDefaults", header = "guild/models/qwen3_moe.hpp";

  /// 0 of head_dim: hidden / heads. Source: the configuration class of transformers 5.23.
  static constexpr Config defaults(std::string_view) {
    return {{.norm = {.epsilon = 1e-6}},
            {.head_dim = 0, .query_key_norm = true},
            {.experts = 0, .scoring = Scoring::softmax, .selection = Selection::greedy, .normalize = false},
            {.shared = 0}};
  }

  static constexpr auto keys = key_rules(
      {
          {"num_key_value_heads", "num_key_value_heads"},
          {"attention_bias", ""},
          {"n_routed_experts", "num_experts"},
          {"norm_topk_prob", "norm_topk_prob", Absent::as_default},
      },
      plain_router_keys, silu_keys);
  static constexpr FixedKey fixed[] = {
      {"attention_bias", "false"},
      {"hidden_act", "\"silu\""},
      {"decoder_sparse_step", "1", "every layer has experts; models with dense layers between them are not computed"},
      {"mlp_only_layers", "[]", "every layer has experts; models with dense layers between them are not computed", true,
       false},
      {"use_sliding_window", "false", "attention to a window of tokens is not computed"},
      {"layer_types", "\"full_attention\"", "attention to a window of tokens is not computed", true, false},
      {"partial_rotary_factor", "1", "all of a head turns", true, false},
  };
  static constexpr std::string_view rope_types[] = {"llama3", "yarn"};

  template <class File>
  static constexpr void complete(Config& config, const File&) {
    std::get<GqaConfig>(config).complete(std::get<TrunkConfig>(config).hidden);
  }

  static std::string_view model_type(const Config&) { return "qwen3_moe"; }
  static std::string_view architecture(std::string_view) { return "Qwen3MoeForCausalLM"; }
};

/// Llama's names with those of a router and experts, which may be fused as transformers 5 writes them with
/// save_original_format=False.
struct Qwen3MoeNames {
  static constexpr auto rules = name_rules({{"layers.*.feed_forward", "model.layers.*.mlp"}}, decoder_names,
                                           grouped_query_names, query_key_norm_names, expert_names, fused_expert_names);
  static constexpr std::string_view scale_suffix = "_scale_inv";
};

}  // namespace v1
}  // namespace guild
