// What the files of LongCat-Flash have in common: the keys of config.json and the names of tensors.
#pragma once

#include <string_view>
#include <tuple>

#include <guild/core/config/family.hpp>
#include <guild/models/common_keys.hpp>
#include <guild/models/common_names.hpp>
#include <guild/models/deepseek_family.hpp>

namespace guild {
inline namespace v1 {

/// Layers of two latent attentions and two dense networks, with experts beside the second half of which some give their
/// input (LongCat-Flash report, arXiv 2509.01322).
struct LongcatFlashFamily {
  static constexpr std::string_view model_types[] = {"longcat_flash"};
  using Config = ModelConfig<TrunkConfig, MlaConfig, DenseConfig, TopKConfig, ExpertConfig, ShortcutConfig>;
  static constexpr std::string_view base = "LongcatFlashDefaults", header = "guild/models/longcat_flash.hpp";

  /// Source: the configuration class of transformers 5.24.
  static constexpr Config defaults(std::string_view) {
    return {{.norm = {.epsilon = 1e-5}},
            {.scaled_latents = true},
            {.layers = 0},
            {.experts = 0, .scoring = Scoring::softmax, .normalize = false, .scale = 6.0, .identities = 256},
            {.shared = 0},
            {}};
  }

  static constexpr auto keys = key_rules(
      {
          {"num_hidden_layers", "num_layers"},
          {"num_nextn_predict_layers", ""},  // `model.mtp.*` is not read
          {"intermediate_size", "ffn_hidden_size"},
          {"first_k_dense_replace", ""},
          {"num_experts_per_tok", "moe_topk"},
          {"n_group", ""},
          {"topk_group", ""},
          {"scoring_func", ""},
          {"topk_method", ""},
          {"norm_topk_prob", ""},
          {"identities", "zero_expert_num", Absent::as_default},
          {"routed_scaling_factor", "routed_scaling_factor", Absent::as_default},
          {"moe_intermediate_size", "expert_ffn_hidden_size"},
          {"n_shared_experts", ""},
      },
      silu_keys);
  static constexpr FixedKey fixed[] = {
      {"attention_bias", "false"},
      {"hidden_act", "\"silu\"", "", true, false},
      {"router_bias", "false", "", true, false},
      {"zero_expert_type", "\"identity\"", "experts that are not computed give their input"},
      {"mla_scale_q_lora", "true", "normalised latents are multiplied by the root of hidden_size / their width", false},
      {"mla_scale_kv_lora", "true", "normalised latents are multiplied by the root of hidden_size / their width",
       false},
  };
  static constexpr std::string_view rope_types[] = {"yarn"};

  template <class File>
  static void complete(Config& config, const File& file) {
    detail::refuse_grouped_heads(file, std::get<MlaConfig>(config).heads);
  }

  static std::string_view model_type(const Config&) { return "longcat_flash"; }
  static std::string_view architecture(std::string_view) { return "LongcatFlashForCausalLM"; }
};

/// DeepSeek's names with a number for each half of a layer. Files of transformers 5 hold matrices of experts that give
/// their input; they are not read, nor are prediction layers.
struct LongcatFlashNames {
  static constexpr NameRule rules[] = {
      {"embedding", "model.embed_tokens"},
      {"final_norm", "model.norm"},
      {"head", "lm_head"},
      {"layers.*", "model.layers.*"},
      {"layers.*.mixer_norm", "model.layers.*.input_layernorm"},
      {"layers.*.feed_forward_norm", "model.layers.*.post_attention_layernorm"},
      {"layers.*.mixer", "model.layers.*.self_attn"},
      {"layers.*.mixer.*.query", "model.layers.*.self_attn.*.q_proj"},
      {"layers.*.mixer.*.query_down", "model.layers.*.self_attn.*.q_a_proj"},
      {"layers.*.mixer.*.query_norm", "model.layers.*.self_attn.*.q_a_layernorm"},
      {"layers.*.mixer.*.query_up", "model.layers.*.self_attn.*.q_b_proj"},
      {"layers.*.mixer.*.latent_down", "model.layers.*.self_attn.*.kv_a_proj_with_mqa"},
      {"layers.*.mixer.*.latent_norm", "model.layers.*.self_attn.*.kv_a_layernorm"},
      {"layers.*.mixer.*.latent_up", "model.layers.*.self_attn.*.kv_b_proj"},
      {"layers.*.mixer.*.output", "model.layers.*.self_attn.*.o_proj"},
      {"layers.*.dense", "model.layers.*.mlps"},
      {"layers.*.dense.*.gate", "model.layers.*.mlps.*.gate_proj"},
      {"layers.*.dense.*.up", "model.layers.*.mlps.*.up_proj"},
      {"layers.*.dense.*.down", "model.layers.*.mlps.*.down_proj"},
      {"layers.*.feed_forward", "model.layers.*.mlp"},
      {"layers.*.feed_forward.router", "model.layers.*.mlp.router.classifier"},
      {"layers.*.feed_forward.router.selection_bias", "model.layers.*.mlp.router.e_score_correction_bias"},
      {"layers.*.feed_forward.experts.*.gate", "model.layers.*.mlp.experts.*.gate_proj"},
      {"layers.*.feed_forward.experts.*.up", "model.layers.*.mlp.experts.*.up_proj"},
      {"layers.*.feed_forward.experts.*.down", "model.layers.*.mlp.experts.*.down_proj"},
  };
  static constexpr std::string_view scale_suffix = "_scale_inv";
  static constexpr std::string_view skipped[] = {"model.mtp."};
};

}  // namespace v1
}  // namespace guild
