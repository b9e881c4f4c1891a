// What the files of DeepSeek-V2, V3, R1, Kimi-K2 and Moonlight have in common: the keys of config.json and the names of
// tensors.
#pragma once

#include <string>
#include <string_view>
#include <tuple>

#include <guild/core/config/family.hpp>
#include <guild/models/common_keys.hpp>
#include <guild/models/common_names.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// Latent attention shares its keys in another way than heads that are grouped.
template <class File>
void refuse_grouped_heads(const File& file, int heads) {
  int key_heads = heads;
  file.read({"num_key_value_heads", "", Absent::as_default}, key_heads);
  if (key_heads != heads)
    file.refuse("num_key_value_heads", {"num_attention_heads = ", heads, ": latent attention has no grouped heads"});
}

}  // namespace detail

struct DeepSeekFamily {
  static constexpr std::string_view model_types[] = {"deepseek_v3", "deepseek_v2", "kimi_k2"};
  using Config = ModelConfig<TrunkConfig, MlaConfig, DenseConfig, TopKConfig, ExpertConfig>;

  static constexpr std::string_view base = "SpecDefaults", header = "guild/models/spec.hpp";

  /// Source: the published configuration classes.
  static constexpr Config defaults(std::string_view type) {
    TopKConfig routing = {.experts = 0};
    if (type == "deepseek_v2")
      routing.scoring = Scoring::softmax, routing.selection = Selection::greedy, routing.normalize = false;
    return {{.norm = {.epsilon = 1e-6}}, {}, {}, routing, {.shared = 0}};
  }

  static constexpr auto keys = silu_keys;
  static constexpr FixedKey fixed[] = {
      {"attention_bias", "false"},
      {"mlp_bias", "false", "", true, false},
      {"hidden_act", "\"silu\""},
      {"moe_layer_freq", "1", "every layer from first_k_dense_replace on has experts"},
      // Rotary pairs in two halves would permute the rows of the query and key projections.
      {"rope_interleave", "true", "rotary pairs are stored side by side", false, false},
  };
  static constexpr std::string_view rope_types[] = {"yarn"};

  /// Groups need not be there where nothing is chosen by groups, nor the scale in files of V2.
  static constexpr Absent absent(const ConfigField& field, const Config& so_far, std::string_view type) {
    const bool greedy = std::get<TopKConfig>(so_far).selection == Selection::greedy;
    if (greedy && (field.key == "n_group" || field.key == "topk_group")) return Absent::as_default;
    if (type == "deepseek_v2" && field.key == "routed_scaling_factor") return Absent::as_default;
    return field.absent;
  }

  template <class File>
  static void complete(Config& config, const File& file) {
    detail::refuse_grouped_heads(file, std::get<MlaConfig>(config).heads);
    // The published V2 code scales only what it does not normalise; later code scales without normalising.
    const TopKConfig& routing = std::get<TopKConfig>(config);
    if (file.model_type() == "deepseek_v2" && routing.normalize && routing.scale != 1.0 && routing.experts > 0)
      file.refuse("routed_scaling_factor",
                  "1 for a deepseek_v2 with norm_topk_prob, where published programs disagree on its meaning");
  }

  /// deepseek_v2 where scores are softmax and chosen without a bias, because other programs take a deepseek_v3 for
  /// sigmoid and noaux_tc whatever the file says; not where it normalises and scales, which is read in two ways.
  static std::string_view model_type(const Config& config) {
    const TopKConfig& routing = std::get<TopKConfig>(config);
    const bool v2 = routing.experts > 0 && routing.scoring == Scoring::softmax &&
                    routing.selection != Selection::noaux_tc && !(routing.normalize && routing.scale != 1.0);
    return v2 ? "deepseek_v2" : "deepseek_v3";
  }
  /// Keys that other programs want to see.
  template <class Put>
  static void complete_file(const Config& config, Put&& put) {
    put("num_key_value_heads", std::get<MlaConfig>(config).heads);
  }
  static std::string_view architecture(std::string_view type) {
    return type == "deepseek_v2" ? "DeepseekV2ForCausalLM" : "DeepseekV3ForCausalLM";
  }
};

/// DeepSeek-V2, V3 and R1, Moonlight and Kimi-K2. Experts may be fused as transformers 5 writes them with
/// save_original_format=False.
struct DeepSeekNames {
  static constexpr auto rules = name_rules(
      {
          {"layers.*.mixer.query", "model.layers.*.self_attn.q_proj"},
          {"layers.*.mixer.query_down", "model.layers.*.self_attn.q_a_proj"},
          {"layers.*.mixer.query_norm", "model.layers.*.self_attn.q_a_layernorm"},
          {"layers.*.mixer.query_up", "model.layers.*.self_attn.q_b_proj"},
          {"layers.*.mixer.latent_down", "model.layers.*.self_attn.kv_a_proj_with_mqa"},
          {"layers.*.mixer.latent_norm", "model.layers.*.self_attn.kv_a_layernorm"},
          {"layers.*.mixer.latent_up", "model.layers.*.self_attn.kv_b_proj"},
      },
      shared_expert_names, prediction_names, decoder_names, mlp_names, expert_names, fused_expert_names);
  static constexpr std::string_view scale_suffix = "_scale_inv";
};

}  // namespace v1
}  // namespace guild
