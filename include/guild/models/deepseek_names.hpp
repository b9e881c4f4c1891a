// The names that DeepSeek's published checkpoints give to the tensors of a model.
#pragma once

#include <string_view>

#include <guild/models/name_rule.hpp>

namespace guild::inline v1 {

/// DeepSeek-V2, V3 and R1, Moonlight and Kimi-K2. Experts may be fused as transformers 5 writes them with
/// save_original_format=False.
struct DeepSeekNames {
  static constexpr NameRule rules[] = {
      {"embedding", "model.embed_tokens"},
      {"final_norm", "model.norm"},
      {"head", "lm_head"},
      {"layers.*", "model.layers.*"},
      {"layers.*.mixer_norm", "model.layers.*.input_layernorm"},
      {"layers.*.mixer", "model.layers.*.self_attn"},
      {"layers.*.mixer.query", "model.layers.*.self_attn.q_proj"},
      {"layers.*.mixer.query_down", "model.layers.*.self_attn.q_a_proj"},
      {"layers.*.mixer.query_norm", "model.layers.*.self_attn.q_a_layernorm"},
      {"layers.*.mixer.query_up", "model.layers.*.self_attn.q_b_proj"},
      {"layers.*.mixer.latent_down", "model.layers.*.self_attn.kv_a_proj_with_mqa"},
      {"layers.*.mixer.latent_norm", "model.layers.*.self_attn.kv_a_layernorm"},
      {"layers.*.mixer.latent_up", "model.layers.*.self_attn.kv_b_proj"},
      {"layers.*.mixer.output", "model.layers.*.self_attn.o_proj"},
      {"layers.*.feed_forward_norm", "model.layers.*.post_attention_layernorm"},
      {"layers.*.feed_forward", "model.layers.*.mlp"},
      {"layers.*.feed_forward.gate", "model.layers.*.mlp.gate_proj"},
      {"layers.*.feed_forward.up", "model.layers.*.mlp.up_proj"},
      {"layers.*.feed_forward.down", "model.layers.*.mlp.down_proj"},
      {"layers.*.feed_forward.router", "model.layers.*.mlp.gate"},
      {"layers.*.feed_forward.router.selection_bias", "model.layers.*.mlp.gate.e_score_correction_bias"},
      {"layers.*.feed_forward.experts.*.gate", "model.layers.*.mlp.experts.*.gate_proj"},
      {"layers.*.feed_forward.experts.*.up", "model.layers.*.mlp.experts.*.up_proj"},
      {"layers.*.feed_forward.experts.*.down", "model.layers.*.mlp.experts.*.down_proj"},
      {"layers.*.feed_forward.experts.gate.weight", "model.layers.*.mlp.experts.gate_up_proj", {.parts = 2, .part = 0}},
      {"layers.*.feed_forward.experts.up.weight", "model.layers.*.mlp.experts.gate_up_proj", {.parts = 2, .part = 1}},
      {"layers.*.feed_forward.experts.down.weight", "model.layers.*.mlp.experts.down_proj"},
      {"layers.*.feed_forward.shared", "model.layers.*.mlp.shared_experts"},
      {"layers.*.feed_forward.shared.gate", "model.layers.*.mlp.shared_experts.gate_proj"},
      {"layers.*.feed_forward.shared.up", "model.layers.*.mlp.shared_experts.up_proj"},
      {"layers.*.feed_forward.shared.down", "model.layers.*.mlp.shared_experts.down_proj"},
      {"layers.*.mtp_embedding", "model.layers.*.embed_tokens"},
      {"layers.*.mtp_embedding_norm", "model.layers.*.enorm"},
      {"layers.*.mtp_hidden_norm", "model.layers.*.hnorm"},
      {"layers.*.mtp_projection", "model.layers.*.eh_proj"},
      {"layers.*.mtp_head_norm", "model.layers.*.shared_head.norm"},
      {"layers.*.mtp_head", "model.layers.*.shared_head.head"},
  };
  static constexpr std::string_view scale_suffix = "_scale_inv";
};

}  // namespace guild::inline v1
