// What the files of Qwen2-MoE have in common: the keys of config.json and the names of tensors.
#pragma once

#include <string_view>
#include <tuple>

#include <guild/core/config/family.hpp>
#include <guild/models/common_keys.hpp>
#include <guild/models/common_names.hpp>

namespace guild {
inline namespace v1 {

/// Grouped-query attention with biases; experts beside a shared one that has a gate of the token (Qwen2 report, arXiv
/// 2407.10671), in all layers but those that mlp_only_layers and decoder_sparse_step leave out.
struct Qwen2MoeFamily {
  static constexpr std::string_view model_types[] = {"qwen2_moe"};
  using Config = ModelConfig<TrunkConfig, GqaConfig, DenseConfig, TopKConfig, ExpertConfig>;
  static constexpr std::string_view base = "Qwen2MoeDefaults", header = "guild/models/qwen2_moe.hpp";

  /// Source: the configuration class of transformers 5.24.
  static constexpr Config defaults(std::string_view) {
    return {{.norm = {.epsilon = 1e-6}},
            {.key_heads = 16, .head_dim = 0, .bias = true},
            {.layers = 0},
            {.experts = 0, .scoring = Scoring::softmax, .selection = Selection::greedy, .normalize = false},
            {.shared = 1, .shared_gate = true}};
  }

  static constexpr auto keys = key_rules(
      {
          {"attention_bias", "qkv_bias", Absent::as_default},
          {"first_k_dense_replace", ""},
          {"others", "mlp_only_layers", Absent::as_default},
          {"n_routed_experts", "num_experts"},
          {"norm_topk_prob", "norm_topk_prob", Absent::as_default},
          {"shared_hidden", "shared_expert_intermediate_size"},
      },
      plain_router_keys, silu_keys);
  static constexpr FixedKey fixed[] = {
      {"hidden_act", "\"silu\""},
      {"use_sliding_window", "false", "attention to a window of tokens is not computed"},
      {"layer_types", "\"full_attention\"", "attention to a window of tokens is not computed", true, false},
      {"partial_rotary_factor", "1", "all of a head turns", true, false},
  };
  static constexpr std::string_view rope_types[] = {"llama3", "yarn"};

  /// Layer i has experts if decoder_sparse_step divides i + 1, and mlp_only_layers does not name it.
  template <class File>
  static constexpr void complete(Config& config, const File& file) {
    const TrunkConfig& trunk = std::get<TrunkConfig>(config);
    std::get<GqaConfig>(config).complete(trunk.hidden);
    int step = 1;
    file.read({"decoder_sparse_step", "", Absent::as_default}, step);
    if (step < 1) file.refuse("decoder_sparse_step", "1 or more");
    if (std::get<TopKConfig>(config).experts == 0) return;
    for (int i = 0; i < trunk.layers && i < LayerSet::most; ++i)
      if ((i + 1) % step != 0) std::get<DenseConfig>(config).others.add(i);
    if (std::get<ExpertConfig>(config).shared_hidden == 0)
      file.refuse("shared_expert_intermediate_size", "1 or more: every layer with experts has a shared one");
  }
  template <class Put>
  static void complete_file(const Config&, Put&& put) {
    put("decoder_sparse_step", 1);
  }

  static std::string_view model_type(const Config&) { return "qwen2_moe"; }
  static std::string_view architecture(std::string_view) { return "Qwen2MoeForCausalLM"; }
};

struct Qwen2MoeNames {
  static constexpr auto rules = name_rules(
      {
          {"layers.*.feed_forward.shared", "model.layers.*.mlp.shared_expert"},
          {"layers.*.feed_forward.shared.gate", "model.layers.*.mlp.shared_expert.gate_proj"},
          {"layers.*.feed_forward.shared.up", "model.layers.*.mlp.shared_expert.up_proj"},
          {"layers.*.feed_forward.shared.down", "model.layers.*.mlp.shared_expert.down_proj"},
          {"layers.*.feed_forward.shared.token_gate", "model.layers.*.mlp.shared_expert_gate"},
      },
      decoder_names, grouped_query_names, mlp_names, expert_names, fused_expert_names);
  static constexpr std::string_view scale_suffix = "_scale_inv";
};

}  // namespace v1
}  // namespace guild
