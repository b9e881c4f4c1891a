// What the config.json files of Mixtral have in common.
#pragma once

#include <string_view>
#include <tuple>

#include <guild/core/config/family.hpp>

namespace guild::inline v1 {

/// Grouped-query attention, and experts in every layer (arXiv 2401.04088). A sliding window is refused.
struct MixtralFamily {
  static constexpr std::string_view model_types[] = {"mixtral"};
  using Config = ModelConfig<TrunkConfig, GqaConfig, TopKConfig, ExpertConfig>;
  static constexpr std::string_view base = "MixtralDefaults", header = "guild/models/mixtral_spec.hpp";

  /// 0 of key_heads and head_dim: what follows from the other numbers. Source: the configuration class of
  /// transformers 5.24.
  static constexpr Config defaults(std::string_view) {
    return {{.norm = {.epsilon = 1e-5}},
            {.key_heads = 0, .head_dim = 0, .rope = {.base = 1e6, .pairs = RopePairs::halves}},
            {.experts = 0, .scoring = Scoring::softmax, .selection = Selection::greedy, .normalize = true},
            {.shared = 0}};
  }

  static constexpr KeyRule keys[] = {
      {"n_routed_experts", "num_local_experts"},
      {"moe_intermediate_size", "intermediate_size"},
      {"n_shared_experts", ""},
      {"n_group", ""},
      {"topk_group", ""},
      {"scoring_func", ""},
      {"topk_method", ""},
      {"norm_topk_prob", ""},
      {"routed_scaling_factor", ""},
      {"num_nextn_predict_layers", ""},
  };
  static constexpr FixedKey fixed[] = {
      {"attention_bias", "false", "", true, false},
      {"hidden_act", "\"silu\""},
      {"sliding_window", "null", "attention to a window of tokens is not computed"},
      {"partial_rotary_factor", "1", "all of a head turns", true, false},
  };
  static constexpr std::string_view rope_types[] = {"llama3", "yarn"};

  template <class File>
  static constexpr void complete(Config& config, const File&) {
    GqaConfig& attention = std::get<GqaConfig>(config);
    if (attention.key_heads == 0) attention.key_heads = attention.heads;
    if (attention.head_dim == 0 && attention.heads > 0)
      attention.head_dim = std::get<TrunkConfig>(config).hidden / attention.heads;
  }

  static std::string_view model_type(const Config&) { return "mixtral"; }
  static std::string_view architecture(std::string_view) { return "MixtralForCausalLM"; }
};

}  // namespace guild::inline v1
