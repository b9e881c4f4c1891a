// What the files of DeepSeek-V3.2 have in common, and those of GLM-5 with them: the keys of config.json and the names
// of tensors.
#pragma once

#include <string_view>
#include <tuple>

#include <guild/core/config/family.hpp>
#include <guild/models/common_keys.hpp>
#include <guild/models/common_names.hpp>
#include <guild/models/deepseek_family.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// What is the same for models of sparse latent attention.
struct SparseFamily {
  using Config = ModelConfig<TrunkConfig, MlaConfig, IndexerConfig, DenseConfig, TopKConfig, ExpertConfig>;

  /// Routers are always of one kind, which some of the files do not say.
  static constexpr auto keys = key_rules({{"scoring_func", ""}, {"topk_method", ""}, {"indexer_types", ""}}, silu_keys);
  static constexpr std::string_view rope_types[] = {"yarn"};

  template <class File>
  static void complete(Config& config, const File& file) {
    refuse_grouped_heads(file, std::get<MlaConfig>(config).heads);
    if (std::get<TopKConfig>(config).experts == 0) return;
    const int dense = std::get<DenseConfig>(config).layers;
    file.require_words("mlp_layer_types", std::get<TrunkConfig>(config).layers,
                       [&](int layer) { return layer < dense ? "dense" : "sparse"; });
  }

  /// Keys that other programs want to see.
  template <class Put>
  static void complete_file(const Config& config, Put&& put) {
    put("num_key_value_heads", std::get<MlaConfig>(config).heads);
  }
};

}  // namespace detail

/// DeepSeek-V3 whose attention sees the keys that an index chooses, in every layer (DeepSeek-V3.2-Exp report, section
/// 2.1).
struct DeepSeekV32Family : detail::SparseFamily {
  static constexpr std::string_view model_types[] = {"deepseek_v32"};
  static constexpr std::string_view base = "DeepSeekV32Defaults", header = "guild/models/deepseek_v32.hpp";

  /// Source: the configuration class of transformers 5.24.
  static constexpr Config defaults(std::string_view) {
    return {{.norm = {.epsilon = 1e-6}}, {}, {.pairs = RopePairs::halves}, {}, {.experts = 0}, {.shared = 0}};
  }

  static constexpr FixedKey fixed[] = {
      {"attention_bias", "false"},
      {"mlp_bias", "false", "", true, false},
      {"hidden_act", "\"silu\""},
      {"moe_layer_freq", "1", "every layer from first_k_dense_replace on has experts"},
      {"scoring_func", "\"sigmoid\""},
      {"topk_method", "\"noaux_tc\""},
      {"layer_types", "\"indexed_attention\"", "attention of every layer sees what an index chooses", true, false},
      {"indexer_types", "\"full\"", "every layer has an index of its own", true, false},
  };

  static std::string_view model_type(const Config&) { return "deepseek_v32"; }
  static std::string_view architecture(std::string_view) { return "DeepseekV32ForCausalLM"; }
};

/// DeepSeek-V3's names with those of an index.
struct DeepSeekV32Names {
  static constexpr auto rules = name_rules(
      {
          {"layers.*.mixer.indexer.query", "model.layers.*.self_attn.indexer.wq_b"},
          {"layers.*.mixer.indexer.key", "model.layers.*.self_attn.indexer.wk"},
          {"layers.*.mixer.indexer.key_norm", "model.layers.*.self_attn.indexer.k_norm"},
          {"layers.*.mixer.indexer.head_weights", "model.layers.*.self_attn.indexer.weights_proj"},
      },
      DeepSeekNames::rules);
  static constexpr std::string_view scale_suffix = "_scale_inv";
};

}  // namespace v1
}  // namespace guild
