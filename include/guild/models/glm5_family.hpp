// What the files of GLM-5 have in common: the keys of config.json. Tensors are named as those of DeepSeek-V3.2.
#pragma once

#include <string_view>
#include <tuple>

#include <guild/core/config/family.hpp>
#include <guild/models/deepseek_v32_family.hpp>

namespace guild {
inline namespace v1 {

/// DeepSeek-V3.2 whose index turns neighbouring pairs, and some of whose layers may see the choice of another layer's
/// index.
struct GlmMoeDsaFamily : detail::SparseFamily {
  static constexpr std::string_view model_types[] = {"glm_moe_dsa"};
  static constexpr std::string_view base = "Glm5Defaults", header = "guild/models/glm5.hpp";

  /// Source: the configuration class of transformers 5.24.
  static constexpr Config defaults(std::string_view) {
    return {{.norm = {.epsilon = 1e-5}}, {}, {.pairs = RopePairs::interleaved}, {}, {.experts = 0}, {.shared = 0}};
  }

  /// Routers are always of one kind, which some of the files do not say.
  static constexpr auto keys = key_rules({{"scoring_func", ""}, {"topk_method", ""}}, silu_keys);

  static constexpr FixedKey fixed[] = {
      {"attention_bias", "false"},
      {"mlp_bias", "false", "", true, false},
      {"hidden_act", "\"silu\""},
      {"moe_layer_freq", "1", "every layer from first_k_dense_replace on has experts"},
      {"scoring_func", "\"sigmoid\""},
      {"topk_method", "\"noaux_tc\""},
      {"layer_types", "\"indexed_attention\"", "attention of every layer sees what an index chooses", true, false},
      {"rope_interleave", "true", "rotary pairs are stored side by side", false},
      {"index_topk_freq", "1", "which layers have an index of their own is read of indexer_types", true, false},
      {"indexer_rope_interleave", "true", "rotary pairs are stored side by side", false},
  };

  template <class File>
  static void complete(Config& config, const File& file) {
    SparseFamily::complete(config, file);
    const int layers = std::get<TrunkConfig>(config).layers;
    IndexerTypes& types = std::get<IndexerConfig>(config).types;
    if (types.size() > 0) {
      if (types.size() != layers) file.refuse("indexer_types", "num_hidden_layers words");
      if (!types.has(IndexerType::shared)) types = {};  // as files say that have no list
      return;
    }
    if (file.find("index_topk_pattern"))
      file.refuse("index_topk_pattern", "null: which layers have an index of their own is read of indexer_types");
  }

  static std::string_view model_type(const Config&) { return "glm_moe_dsa"; }
  static std::string_view architecture(std::string_view) { return "GlmMoeDsaForCausalLM"; }
};

}  // namespace v1
}  // namespace guild
