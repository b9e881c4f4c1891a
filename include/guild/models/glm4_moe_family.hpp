// What the files of GLM-4.5 have in common: the keys of config.json and the names of tensors.
#pragma once

#include <string_view>
#include <tuple>

#include <guild/core/config/family.hpp>
#include <guild/models/common_keys.hpp>
#include <guild/models/common_names.hpp>

namespace guild {
inline namespace v1 {

/// GLM-4.5, 4.6 and 4.7 (arXiv 2508.06471): part of each head turns, queries, keys and values may have biases and
/// norms of each head; dense layers, then experts that a biased sigmoid chooses, beside a shared one.
struct Glm4MoeFamily {
  static constexpr std::string_view model_types[] = {"glm4_moe"};
  using Config = ModelConfig<TrunkConfig, GqaConfig, DenseConfig, TopKConfig, ExpertConfig>;
  static constexpr std::string_view base = "Glm4MoeDefaults", header = "guild/models/glm4_moe.hpp";

  /// Source: the configuration class of transformers 5.24.
  static constexpr Config defaults(std::string_view) {
    return {{.norm = {.epsilon = 1e-5}}, {.head_dim = 0, .rope_share = 0.5}, {}, {.experts = 0}, {.shared = 1}};
  }

  static constexpr auto keys = key_rules(
      {
          {"query_key_norm", "use_qk_norm", Absent::as_default},
          {"rope_share", "partial_rotary_factor", Absent::as_default},
          {"scoring_func", ""},
          {"topk_method", ""},
      },
      silu_keys);
  static constexpr FixedKey fixed[] = {
      {"hidden_act", "\"silu\""},
      {"scoring_func", "\"sigmoid\"", "", true, false},
      {"topk_method", "\"noaux_tc\"", "", true, false},
  };
  static constexpr std::string_view rope_types[] = {"yarn"};
  static constexpr RopeKeys rope_keys = {.part_turns = true};

  /// How much of a head turns stands in two places.
  template <class File>
  static constexpr void complete(Config& config, const File& file) {
    GqaConfig& attention = std::get<GqaConfig>(config);
    double own = 0.0;
    const bool both = file.read_at({"partial_rotary_factor"}, own);
    if (file.read_at({"rope_parameters", "partial_rotary_factor"}, attention.rope_share) && both &&
        own != attention.rope_share)
      file.refuse("rope_parameters", "the partial_rotary_factor that stands outside of it");
    attention.complete(std::get<TrunkConfig>(config).hidden);
  }

  static std::string_view model_type(const Config&) { return "glm4_moe"; }
  static std::string_view architecture(std::string_view) { return "Glm4MoeForCausalLM"; }
};

/// Queries and keys are Qwen3's, router and experts DeepSeek's; prediction layers too.
struct Glm4MoeNames {
  static constexpr auto rules = name_rules(shared_expert_names, prediction_names, decoder_names, grouped_query_names,
                                           query_key_norm_names, mlp_names, expert_names, fused_expert_names);
  static constexpr std::string_view scale_suffix = "_scale_inv";
};

}  // namespace v1
}  // namespace guild
