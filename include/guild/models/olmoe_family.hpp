// What the files of OLMoE have in common: the keys of config.json and the names of tensors.
#pragma once

#include <string_view>
#include <tuple>

#include <guild/core/config/family.hpp>
#include <guild/models/common_keys.hpp>
#include <guild/models/common_names.hpp>

namespace guild {
inline namespace v1 {

/// Attention whose queries and keys are normalised over all heads of a token together, and experts in every layer
/// (arXiv 2409.02060). Clipped queries, keys and values are refused.
struct OlmoeFamily {
  static constexpr std::string_view model_types[] = {"olmoe"};
  using Config = ModelConfig<TrunkConfig, GqaConfig, TopKConfig, ExpertConfig>;
  static constexpr std::string_view base = "OlmoeDefaults", header = "guild/models/olmoe.hpp";

  /// 0 of key_heads and head_dim: what follows from the other numbers. Source: the configuration class of
  /// transformers 5.24.
  static constexpr Config defaults(std::string_view) {
    return {{.norm = {.epsilon = 1e-5}},
            {.key_heads = 0, .head_dim = 0, .query_key_norm = true, .norm_span = NormSpan::row},
            {.experts = 0, .scoring = Scoring::softmax, .selection = Selection::greedy, .normalize = false},
            {.shared = 0}};
  }

  static constexpr auto keys = key_rules(
      {
          {"attention_bias", ""},
          {"n_routed_experts", "num_experts"},
          {"moe_intermediate_size", "intermediate_size"},
          {"norm_topk_prob", "norm_topk_prob", Absent::as_default},
      },
      plain_router_keys, silu_keys);
  static constexpr FixedKey fixed[] = {
      {"attention_bias", "false"},
      {"hidden_act", "\"silu\""},
      {"clip_qkv", "null", "queries, keys and values are not clipped"},
      {"partial_rotary_factor", "1", "all of a head turns", true, false},
  };
  static constexpr std::string_view rope_types[] = {"llama3", "yarn"};

  template <class File>
  static constexpr void complete(Config& config, const File&) {
    std::get<GqaConfig>(config).complete(std::get<TrunkConfig>(config).hidden);
  }

  static std::string_view model_type(const Config&) { return "olmoe"; }
  static std::string_view architecture(std::string_view) { return "OlmoeForCausalLM"; }
};

/// Those of Qwen3-MoE.
struct OlmoeNames {
  static constexpr auto rules = name_rules({{"layers.*.feed_forward", "model.layers.*.mlp"}}, decoder_names,
                                           grouped_query_names, query_key_norm_names, expert_names, fused_expert_names);
  static constexpr std::string_view scale_suffix = "_scale_inv";
};

}  // namespace v1
}  // namespace guild
