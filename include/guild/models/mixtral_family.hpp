// What the files of Mixtral have in common: the keys of config.json and the names of tensors.
#pragma once

#include <string_view>
#include <tuple>

#include <guild/core/config/family.hpp>
#include <guild/models/common_keys.hpp>
#include <guild/models/common_names.hpp>

namespace guild {
inline namespace v1 {

/// Grouped-query attention, and experts in every layer (arXiv 2401.04088). A sliding window is refused.
struct MixtralFamily {
  static constexpr std::string_view model_types[] = {"mixtral"};
  using Config = ModelConfig<TrunkConfig, GqaConfig, TopKConfig, ExpertConfig>;
  static constexpr std::string_view base = "MixtralDefaults", header = "guild/models/mixtral.hpp";

  /// 0 of key_heads and head_dim: what follows from the other numbers. Source: the configuration class of
  /// transformers 5.24.
  static constexpr Config defaults(std::string_view) {
    return {{.norm = {.epsilon = 1e-5}},
            {.key_heads = 0, .head_dim = 0, .rope = {.base = 1e6, .pairs = RopePairs::halves}},
            {.experts = 0, .scoring = Scoring::softmax, .selection = Selection::greedy, .normalize = true},
            {.shared = 0}};
  }

  static constexpr auto keys = key_rules(
      {
          {"n_routed_experts", "num_local_experts"},
          {"moe_intermediate_size", "intermediate_size"},
          {"norm_topk_prob", ""},
          {"attention_bias", ""},
      },
      plain_router_keys, silu_keys);
  static constexpr FixedKey fixed[] = {
      {"attention_bias", "false", "", true, false},
      {"hidden_act", "\"silu\""},
      {"sliding_window", "null", "attention to a window of tokens is not computed"},
      {"partial_rotary_factor", "1", "all of a head turns", true, false},
  };
  static constexpr std::string_view rope_types[] = {"llama3", "yarn"};

  template <class File>
  static constexpr void complete(Config& config, const File&) {
    std::get<GqaConfig>(config).complete(std::get<TrunkConfig>(config).hidden);
  }

  static std::string_view model_type(const Config&) { return "mixtral"; }
  static std::string_view architecture(std::string_view) { return "MixtralForCausalLM"; }
};

/// Mixtral: w1 is the gate, w3 up, w2 down. Files that fuse the experts, as transformers 5 writes them with
/// save_original_format=False, call the router and them `mlp`.
struct MixtralNames {
  static constexpr auto rules = name_rules(
      {
          {"layers.*.feed_forward", "model.layers.*.block_sparse_moe"},
          {"layers.*.feed_forward.router", "model.layers.*.block_sparse_moe.gate"},
          {"layers.*.feed_forward.router", "model.layers.*.mlp.gate"},
          {"layers.*.feed_forward.experts.*.gate", "model.layers.*.block_sparse_moe.experts.*.w1"},
          {"layers.*.feed_forward.experts.*.up", "model.layers.*.block_sparse_moe.experts.*.w3"},
          {"layers.*.feed_forward.experts.*.down", "model.layers.*.block_sparse_moe.experts.*.w2"},
      },
      decoder_names, grouped_query_names, fused_expert_names);
  static constexpr std::string_view scale_suffix = "_scale_inv";
};

}  // namespace v1
}  // namespace guild
