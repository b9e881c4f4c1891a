// What the files of GLM-5 have in common: the keys of config.json. Tensors are named as those of DeepSeek-V3.2.
#pragma once

#include <string_view>
#include <tuple>

#include <guild/core/config/family.hpp>
#include <guild/models/deepseek_v32_family.hpp>

namespace guild {
inline namespace v1 {

/// DeepSeek-V3.2 whose index turns neighbouring pairs. Files in which a layer sees the choice of another layer's index
/// are refused.
struct GlmMoeDsaFamily : detail::SparseFamily {
  static constexpr std::string_view model_types[] = {"glm_moe_dsa"};
  static constexpr std::string_view base = "Glm5Defaults", header = "guild/models/glm5.hpp";

  /// Source: the configuration class of transformers 5.24.
  static constexpr Config defaults(std::string_view) {
    return {{.norm = {.epsilon = 1e-5}}, {}, {.pairs = RopePairs::interleaved}, {}, {.experts = 0}, {.shared = 0}};
  }

  static constexpr FixedKey fixed[] = {
      {"attention_bias", "false"},
      {"mlp_bias", "false", "", true, false},
      {"hidden_act", "\"silu\""},
      {"moe_layer_freq", "1", "every layer from first_k_dense_replace on has experts"},
      {"scoring_func", "\"sigmoid\""},
      {"topk_method", "\"noaux_tc\""},
      {"layer_types", "\"indexed_attention\"", "attention of every layer sees what an index chooses", true, false},
      {"rope_interleave", "true", "rotary pairs are stored side by side", false},
      {"indexer_rope_interleave", "true", "rotary pairs are stored side by side", false},
      {"indexer_types", "\"full\"", "every layer has an index of its own", true, false},
      {"index_topk_freq", "1", "every layer has an index of its own", true, false},
  };

  template <class File>
  static void complete(Config& config, const File& file) {
    SparseFamily::complete(config, file);
    if (file.find("index_topk_pattern") && !file.find("indexer_types"))
      file.refuse("index_topk_pattern", "null: every layer has an index of its own");
  }

  static std::string_view model_type(const Config&) { return "glm_moe_dsa"; }
  static std::string_view architecture(std::string_view) { return "GlmMoeDsaForCausalLM"; }
};

}  // namespace v1
}  // namespace guild
