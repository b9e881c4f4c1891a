// What the files of dots1 have in common: the keys of config.json. Tensors are named as those of GLM-4.5.
#pragma once

#include <string_view>
#include <tuple>

#include <guild/core/config/family.hpp>
#include <guild/models/common_keys.hpp>

namespace guild {
inline namespace v1 {

/// dots.llm1 (arXiv 2506.05767): norms of each head's query and key; dense layers, then experts that a biased sigmoid
/// chooses, beside shared ones. Sliding windows are refused.
struct Dots1Family {
  static constexpr std::string_view model_types[] = {"dots1"};
  using Config = ModelConfig<TrunkConfig, GqaConfig, DenseConfig, TopKConfig, ExpertConfig>;
  static constexpr std::string_view base = "Dots1Defaults", header = "guild/models/dots1.hpp";

  /// 0 of key_heads: as many as heads. Source: the configuration class of transformers 5.24.
  static constexpr Config defaults(std::string_view) {
    return {{.norm = {.epsilon = 1e-6}},
            {.key_heads = 0, .head_dim = 0, .query_key_norm = true},
            {.layers = 0},
            {.experts = 0, .normalize = false},
            {.shared = 0}};
  }

  /// Files call the router's scores by the name of its choice.
  static constexpr auto keys = key_rules(
      {
          {"attention_bias", ""},
          {"num_nextn_predict_layers", ""},
          {"scoring_func", ""},
          {"topk_method", ""},
      },
      silu_keys);
  static constexpr FixedKey fixed[] = {
      {"attention_bias", "false"},
      {"hidden_act", "\"silu\""},
      {"layer_types", "\"full_attention\"", "attention to a window of tokens is not computed", true, false},
      {"partial_rotary_factor", "1", "all of a head turns", true, false},
  };
  static constexpr std::string_view rope_types[] = {"yarn"};

  /// Without a list the layers from max_window_layers on see a window, if there is one.
  template <class File>
  static constexpr void complete(Config& config, const File& file) {
    const TrunkConfig& trunk = std::get<TrunkConfig>(config);
    std::get<GqaConfig>(config).complete(trunk.hidden);
    int window = 0, full = 62;
    file.read({"max_window_layers", "", Absent::as_default}, full);
    const bool slides = file.read_at({"sliding_window"}, window) || !file.has("sliding_window");
    if (slides && full < trunk.layers && !file.has("layer_types"))
      file.refuse("max_window_layers", {"num_hidden_layers = ", trunk.layers, " or more: windows are not computed"});
  }
  template <class Put>
  static void complete_file(const Config&, Put&& put) {
    put("sliding_window", nullptr);
  }

  static std::string_view model_type(const Config&) { return "dots1"; }
  static std::string_view architecture(std::string_view) { return "Dots1ForCausalLM"; }
};

}  // namespace v1
}  // namespace guild
