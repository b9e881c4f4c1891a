// How files of DeepSeek-V4 name tensors: as published, as modules of transformers are called, and as transformers saves
// by default, which is a mixture of both.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

#include <guild/models/common_names.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// Rules whose names have `model.` before them.
template <const auto& Rules>
struct UnderModel {
  static constexpr std::string_view prefix = "model.";
  static constexpr std::size_t size = [] {
    std::size_t size = 0;
    for (const NameRule& rule : Rules) size += prefix.size() + rule.published.size();
    return size;
  }();
  static constexpr std::array<char, size> text = [] {
    std::array<char, size> text{};
    char* to = text.data();
    for (const NameRule& rule : Rules) {
      for (const char c : prefix) *to++ = c;
      for (const char c : rule.published) *to++ = c;
    }
    return text;
  }();
  static constexpr auto rules = [] {
    auto rules = Rules;
    std::size_t at = 0;
    for (NameRule& rule : rules) {
      rule.published = {text.data() + at, prefix.size() + rule.published.size()};
      at += rule.published.size();
    }
    return rules;
  }();
};

/// As published.
inline constexpr std::array v4_names = {
    NameRule{"embedding", "embed"},
    NameRule{"final_norm", "norm"},
    NameRule{"head", "head"},
    NameRule{"layers.*", "layers.*"},
    NameRule{"layers.stream_head.weight", "hc_head_fn"},
    NameRule{"layers.stream_head.bias", "hc_head_base"},
    NameRule{"layers.stream_head.scale", "hc_head_scale"},
    NameRule{"layers.*.mixer_norm", "layers.*.attn_norm"},
    NameRule{"layers.*.mixer_residual.weight", "layers.*.hc_attn_fn"},
    NameRule{"layers.*.mixer_residual.bias", "layers.*.hc_attn_base"},
    NameRule{"layers.*.mixer_residual.scale", "layers.*.hc_attn_scale"},
    NameRule{"layers.*.mixer", "layers.*.attn"},
    NameRule{"layers.*.mixer.query_down", "layers.*.attn.wq_a"},
    NameRule{"layers.*.mixer.query_norm", "layers.*.attn.q_norm"},
    NameRule{"layers.*.mixer.query_up", "layers.*.attn.wq_b"},
    NameRule{"layers.*.mixer.key_value", "layers.*.attn.wkv"},
    NameRule{"layers.*.mixer.key_value_norm", "layers.*.attn.kv_norm"},
    NameRule{"layers.*.mixer.sinks", "layers.*.attn.attn_sink"},
    NameRule{"layers.*.mixer.output_down", "layers.*.attn.wo_a"},
    NameRule{"layers.*.mixer.output", "layers.*.attn.wo_b"},
    NameRule{"layers.*.mixer.compressor.key_value", "layers.*.attn.compressor.wkv"},
    NameRule{"layers.*.mixer.compressor.gate", "layers.*.attn.compressor.wgate"},
    NameRule{"layers.*.mixer.compressor.position_bias", "layers.*.attn.compressor.ape"},
    NameRule{"layers.*.mixer.compressor.norm", "layers.*.attn.compressor.norm"},
    NameRule{"layers.*.mixer.indexer.query", "layers.*.attn.indexer.wq_b"},
    NameRule{"layers.*.mixer.indexer.head_weights", "layers.*.attn.indexer.weights_proj"},
    NameRule{"layers.*.mixer.indexer.compressor.key_value", "layers.*.attn.indexer.compressor.wkv"},
    NameRule{"layers.*.mixer.indexer.compressor.gate", "layers.*.attn.indexer.compressor.wgate"},
    NameRule{"layers.*.mixer.indexer.compressor.position_bias", "layers.*.attn.indexer.compressor.ape"},
    NameRule{"layers.*.mixer.indexer.compressor.norm", "layers.*.attn.indexer.compressor.norm"},
    NameRule{"layers.*.feed_forward_norm", "layers.*.ffn_norm"},
    NameRule{"layers.*.feed_forward_residual.weight", "layers.*.hc_ffn_fn"},
    NameRule{"layers.*.feed_forward_residual.bias", "layers.*.hc_ffn_base"},
    NameRule{"layers.*.feed_forward_residual.scale", "layers.*.hc_ffn_scale"},
    NameRule{"layers.*.feed_forward", "layers.*.ffn"},
    NameRule{"layers.*.feed_forward.router", "layers.*.ffn.gate"},
    NameRule{"layers.*.feed_forward.router.selection_bias", "layers.*.ffn.gate.bias"},
    NameRule{"layers.*.feed_forward.router.table", "layers.*.ffn.gate.tid2eid"},
    NameRule{"layers.*.feed_forward.experts.*.gate", "layers.*.ffn.experts.*.w1"},
    NameRule{"layers.*.feed_forward.experts.*.up", "layers.*.ffn.experts.*.w3"},
    NameRule{"layers.*.feed_forward.experts.*.down", "layers.*.ffn.experts.*.w2"},
    NameRule{"layers.*.feed_forward.shared", "layers.*.ffn.shared_experts"},
    NameRule{"layers.*.feed_forward.shared.gate", "layers.*.ffn.shared_experts.w1"},
    NameRule{"layers.*.feed_forward.shared.up", "layers.*.ffn.shared_experts.w3"},
    NameRule{"layers.*.feed_forward.shared.down", "layers.*.ffn.shared_experts.w2"},
};

/// As the modules of transformers are called. Some norms lose a part of their names when it saves what it has loaded.
inline constexpr std::array v4_module_names = {
    NameRule{"embedding", "model.embed_tokens"},
    NameRule{"head", "lm_head"},
    NameRule{"layers.*.mixer_norm", "model.layers.*.input_layernorm"},
    NameRule{"layers.*.mixer", "model.layers.*.self_attn"},
    NameRule{"layers.*.feed_forward_norm", "model.layers.*.post_attention_layernorm"},
    NameRule{"layers.stream_head.weight", "model.hc_head.hc_fn"},
    NameRule{"layers.stream_head.bias", "model.hc_head.hc_base"},
    NameRule{"layers.stream_head.scale", "model.hc_head.hc_scale"},
    NameRule{"layers.*.mixer_residual.weight", "model.layers.*.attn_hc.fn"},
    NameRule{"layers.*.mixer_residual.bias", "model.layers.*.attn_hc.base"},
    NameRule{"layers.*.mixer_residual.scale", "model.layers.*.attn_hc.scale"},
    NameRule{"layers.*.mixer.query_down", "model.layers.*.self_attn.q_a_proj"},
    NameRule{"layers.*.mixer.query_norm", "model.layers.*.self_attn.q_a_norm"},
    NameRule{"layers.*.mixer.query_up", "model.layers.*.self_attn.q_b_proj"},
    NameRule{"layers.*.mixer.key_value", "model.layers.*.self_attn.kv_proj"},
    NameRule{"layers.*.mixer.key_value_norm", "model.layers.*.self_attn.kv_norm"},
    NameRule{"layers.*.mixer.key_value_norm", "model.layers.*.self_attn.norm"},
    NameRule{"layers.*.mixer.key_value_norm", "model.layers.*.attn.norm"},
    NameRule{"layers.*.mixer.sinks", "model.layers.*.self_attn.sinks"},
    NameRule{"layers.*.mixer.output_down", "model.layers.*.self_attn.o_a_proj"},
    NameRule{"layers.*.mixer.output", "model.layers.*.self_attn.o_b_proj"},
    NameRule{"layers.*.mixer.compressor.key_value", "model.layers.*.self_attn.compressor.kv_proj"},
    NameRule{"layers.*.mixer.compressor.gate", "model.layers.*.self_attn.compressor.gate_proj"},
    NameRule{"layers.*.mixer.compressor.position_bias", "model.layers.*.self_attn.compressor.position_bias"},
    NameRule{"layers.*.mixer.compressor.norm", "model.layers.*.self_attn.compressor.kv_norm"},
    NameRule{"layers.*.mixer.compressor.norm", "model.layers.*.self_attn.compressor.norm"},
    NameRule{"layers.*.mixer.indexer.query", "model.layers.*.self_attn.compressor.indexer.q_b_proj"},
    NameRule{"layers.*.mixer.indexer.head_weights", "model.layers.*.self_attn.compressor.indexer.scorer.weights_proj"},
    NameRule{"layers.*.mixer.indexer.compressor.key_value", "model.layers.*.self_attn.compressor.indexer.kv_proj"},
    NameRule{"layers.*.mixer.indexer.compressor.gate", "model.layers.*.self_attn.compressor.indexer.gate_proj"},
    NameRule{"layers.*.mixer.indexer.compressor.position_bias",
             "model.layers.*.self_attn.compressor.indexer.position_bias"},
    NameRule{"layers.*.mixer.indexer.compressor.norm", "model.layers.*.self_attn.compressor.indexer.kv_norm"},
    NameRule{"layers.*.mixer.indexer.compressor.norm", "model.layers.*.self_attn.compressor.indexer.norm"},
    NameRule{"layers.*.feed_forward_residual.weight", "model.layers.*.ffn_hc.fn"},
    NameRule{"layers.*.feed_forward_residual.bias", "model.layers.*.ffn_hc.base"},
    NameRule{"layers.*.feed_forward_residual.scale", "model.layers.*.ffn_hc.scale"},
    NameRule{"layers.*.feed_forward", "model.layers.*.mlp"},
    NameRule{"layers.*.feed_forward.router", "model.layers.*.mlp.gate"},
    NameRule{"layers.*.feed_forward.router.selection_bias", "model.layers.*.mlp.gate.e_score_correction_bias"},
    NameRule{"layers.*.feed_forward.router.table", "model.layers.*.mlp.gate.tid2eid"},
    NameRule{"layers.*.feed_forward.shared", "model.layers.*.mlp.shared_experts"},
    NameRule{"layers.*.feed_forward.shared.gate", "model.layers.*.mlp.shared_experts.gate_proj"},
    NameRule{"layers.*.feed_forward.shared.up", "model.layers.*.mlp.shared_experts.up_proj"},
    NameRule{"layers.*.feed_forward.shared.down", "model.layers.*.mlp.shared_experts.down_proj"},
};

}  // namespace detail

/// Files are written as published. Experts may be fused as transformers 5 writes them with save_original_format=False,
/// or be of 4 bits as published: MXFP4, two values in a byte, scales beside them.
struct DeepSeekV4Names {
  static constexpr auto rules = name_rules(detail::v4_names, detail::UnderModel<detail::v4_names>::rules,
                                           detail::v4_module_names, fused_expert_names);
  static constexpr std::string_view scale_suffix = ".scale";
  static constexpr std::string_view skipped[] = {"mtp."};  ///< prediction layers, which are not read
};

}  // namespace v1
}  // namespace guild
