// What the files of GPT-OSS have in common: the keys of config.json and the names of tensors.
#pragma once

#include <string_view>
#include <tuple>

#include <guild/core/config/family.hpp>
#include <guild/models/common_keys.hpp>
#include <guild/models/common_names.hpp>

namespace guild {
inline namespace v1 {

/// Grouped-query attention with biases and sinks, every other layer to a window, and experts with biases in all layers
/// (model card, arXiv 2508.10925).
struct GptOssFamily {
  static constexpr std::string_view model_types[] = {"gpt_oss"};
  using Config = ModelConfig<TrunkConfig, GqaConfig, WindowConfig, TopKConfig, ExpertConfig>;
  static constexpr std::string_view base = "GptOssDefaults", header = "guild/models/gpt_oss.hpp";
  static constexpr bool scaled_by_default = true;  ///< no rope_scaling means the YaRN below

  /// Source: the configuration class of transformers 5.23.
  static constexpr Config defaults(std::string_view) {
    return {{.norm = {.epsilon = 1e-5}},
            {.head_dim = 64,
             .bias = true,
             .output_bias = true,
             .sinks = true,
             .rope = {.base = 150000.0,
                      .factor = 32.0,
                      .original_context = 4096,
                      .pairs = RopePairs::halves,
                      .truncate = false}},
            {.window = 128},
            {.experts = 0, .scoring = Scoring::softmax, .selection = Selection::greedy, .bias = true},
            {.shared = 0, .bias = true, .activation = {.alpha = 1.702, .limit = 7.0, .up_offset = 1.0}}};
  }

  static constexpr auto keys = key_rules(
      {
          {"num_key_value_heads", "num_key_value_heads"},
          {"attention_bias", ""},
          {"sliding_window", "sliding_window"},
          {"n_routed_experts", "num_local_experts"},
          {"moe_intermediate_size", "intermediate_size"},
          {"norm_topk_prob", ""},
          {"hidden_act", ""},
      },
      plain_router_keys);
  static constexpr FixedKey fixed[] = {
      {"attention_bias", "true", "queries, keys, values and the output have biases"},
      {"hidden_act", "\"silu\""},
      {"partial_rotary_factor", "1", "all of a head turns", true, false},
  };
  static constexpr std::string_view rope_types[] = {"yarn"};

  /// Without layer_types every other layer slides, the first among them.
  template <class File>
  static constexpr void complete(Config& config, const File&) {
    WindowConfig& windows = std::get<WindowConfig>(config);
    if (windows.types.size() == 0) windows.types = LayerTypes::every(2, std::get<TrunkConfig>(config).layers);
  }

  static std::string_view model_type(const Config&) { return "gpt_oss"; }
  static std::string_view architecture(std::string_view) { return "GptOssForCausalLM"; }
};

/// Experts are fused always: [experts, inputs, outputs], the columns of gate and up in turn; or, as published, in
/// blocks of MXFP4 with their rows in turn.
struct GptOssNames {
  static constexpr auto rules = name_rules(
      {
          {"layers.*.feed_forward", "model.layers.*.mlp"},
          {"layers.*.feed_forward.experts.gate.weight",
           "model.layers.*.mlp.experts.gate_up_proj",
           {.parts = 2, .part = 0, .in_turn = true, .transposed = true}},
          {"layers.*.feed_forward.experts.up.weight",
           "model.layers.*.mlp.experts.gate_up_proj",
           {.parts = 2, .part = 1, .in_turn = true, .transposed = true}},
          {"layers.*.feed_forward.experts.down.weight", "model.layers.*.mlp.experts.down_proj", {.transposed = true}},
          {"layers.*.feed_forward.experts.gate.bias",
           "model.layers.*.mlp.experts.gate_up_proj_bias",
           {.parts = 2, .part = 0, .in_turn = true}},
          {"layers.*.feed_forward.experts.up.bias",
           "model.layers.*.mlp.experts.gate_up_proj_bias",
           {.parts = 2, .part = 1, .in_turn = true}},
          {"layers.*.feed_forward.experts.down.bias", "model.layers.*.mlp.experts.down_proj_bias"},
      },
      decoder_names, grouped_query_names);
  static constexpr std::string_view scale_suffix = "_scale_inv";
  static constexpr bool fused_experts = true;  ///< files are written so too
};

}  // namespace v1
}  // namespace guild
