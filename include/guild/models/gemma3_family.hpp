// What the files of Gemma 3's text models have in common: the keys of config.json and the names of tensors.
#pragma once

#include <string_view>
#include <tuple>

#include <guild/core/config/family.hpp>
#include <guild/models/common_keys.hpp>
#include <guild/models/common_names.hpp>

namespace guild {
inline namespace v1 {

/// The norms of Gemma 3: weights around 0, before and behind attention and feed-forward.
inline constexpr NormConfig gemma3_norm = {
    .epsilon = 1e-6, .gain = NormGain::one_plus_weight, .place = NormPlace::before_and_after};

/// Gemma 3 without images (arXiv 2503.19786): grouped-query attention with norms of queries and keys, most layers of a
/// window and with a rotary base of their own; four norms a layer; a scaled embedding. Capped logits, as Gemma 2 has
/// them, are refused.
struct Gemma3Family {
  static constexpr std::string_view model_types[] = {"gemma3_text"};
  using Config = ModelConfig<TrunkConfig, GqaConfig, WindowConfig, DenseConfig>;
  static constexpr std::string_view base = "Gemma3Defaults", header = "guild/models/gemma3.hpp";

  /// Source: the configuration class of transformers 5.23.
  static constexpr Config defaults(std::string_view) {
    return {{.tied_embeddings = true, .embedding_scale = EmbeddingScale::root_of_hidden, .norm = gemma3_norm},
            {.key_heads = 4,
             .head_dim = 256,
             .query_key_norm = true,
             .scale_dim = 256,
             .rope = {.base = 1e6, .pairs = RopePairs::halves}},
            {.window = 4096, .rope_base = 1e4},
            {.activation = {.kind = Activation::gelu_tanh}}};
  }

  static constexpr auto keys = key_rules(
      {
          {"scale_dim", "query_pre_attn_scalar", Absent::as_default},
          {"rope_base", "rope_local_base_freq", Absent::as_default},
          {"first_k_dense_replace", ""},
          {"attention_bias", ""},
          {"num_nextn_predict_layers", ""},
      },
      silu_keys);
  static constexpr FixedKey fixed[] = {
      {"attention_bias", "false"},
      {"hidden_activation", "\"gelu_pytorch_tanh\""},
      {"final_logit_softcapping", "null", "logits of the head are not capped"},
      {"attn_logit_softcapping", "null", "attention's scores are not capped"},
      {"use_bidirectional_attention", "false", "a token sees no later ones", true, false},
  };
  static constexpr std::string_view rope_types[] = {"linear", "yarn"};

  /// Without a list of layers, each `sliding_window_pattern`-th sees all keys.
  template <class File>
  static void complete(Config& config, const File& file) {
    if (file.has("layer_types")) return;
    int period = 6;
    file.read({"sliding_window_pattern", "", Absent::as_default}, period);
    if (period < 1) file.refuse("sliding_window_pattern", "a positive integer");
    std::get<WindowConfig>(config).types = LayerTypes::every(period, std::get<TrunkConfig>(config).layers);
  }

  static std::string_view model_type(const Config&) { return "gemma3_text"; }
  static std::string_view architecture(std::string_view) { return "Gemma3ForCausalLM"; }
};

/// `post_attention_layernorm` stands behind attention here, and not before the feed-forward as in other families.
struct Gemma3Names {
  static constexpr auto rules = name_rules(
      {
          {"embedding", "model.embed_tokens"},
          {"final_norm", "model.norm"},
          {"head", "lm_head"},
          {"layers.*", "model.layers.*"},
          {"layers.*.mixer_norm", "model.layers.*.input_layernorm"},
          {"layers.*.mixer", "model.layers.*.self_attn"},
          {"layers.*.mixer.output", "model.layers.*.self_attn.o_proj"},
          {"layers.*.mixer_post_norm", "model.layers.*.post_attention_layernorm"},
          {"layers.*.feed_forward_norm", "model.layers.*.pre_feedforward_layernorm"},
          {"layers.*.feed_forward_post_norm", "model.layers.*.post_feedforward_layernorm"},
      },
      grouped_query_names, query_key_norm_names, mlp_names);
  static constexpr std::string_view scale_suffix = "_scale_inv";
};

}  // namespace v1
}  // namespace guild
