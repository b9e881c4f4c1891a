// The names that Llama's published checkpoints, and those of the families after it, give to the tensors of a model.
#pragma once

#include <string_view>

#include <guild/models/name_rule.hpp>

namespace guild::inline v1 {

/// Llama, Qwen2 (biases of query, key and value), Qwen3 (norms of query and key) and Qwen3-MoE (router and experts).
/// Experts may be fused as transformers 5 writes them with save_original_format=False.
struct LlamaNames {
  static constexpr NameRule rules[] = {
      {"embedding", "model.embed_tokens"},
      {"final_norm", "model.norm"},
      {"head", "lm_head"},
      {"layers.*", "model.layers.*"},
      {"layers.*.mixer_norm", "model.layers.*.input_layernorm"},
      {"layers.*.mixer", "model.layers.*.self_attn"},
      {"layers.*.mixer.query", "model.layers.*.self_attn.q_proj"},
      {"layers.*.mixer.key", "model.layers.*.self_attn.k_proj"},
      {"layers.*.mixer.value", "model.layers.*.self_attn.v_proj"},
      {"layers.*.mixer.output", "model.layers.*.self_attn.o_proj"},
      {"layers.*.mixer.query_norm", "model.layers.*.self_attn.q_norm"},
      {"layers.*.mixer.key_norm", "model.layers.*.self_attn.k_norm"},
      {"layers.*.feed_forward_norm", "model.layers.*.post_attention_layernorm"},
      {"layers.*.feed_forward", "model.layers.*.mlp"},
      {"layers.*.feed_forward.gate", "model.layers.*.mlp.gate_proj"},
      {"layers.*.feed_forward.up", "model.layers.*.mlp.up_proj"},
      {"layers.*.feed_forward.down", "model.layers.*.mlp.down_proj"},
      {"layers.*.feed_forward.router", "model.layers.*.mlp.gate"},
      {"layers.*.feed_forward.experts.*.gate", "model.layers.*.mlp.experts.*.gate_proj"},
      {"layers.*.feed_forward.experts.*.up", "model.layers.*.mlp.experts.*.up_proj"},
      {"layers.*.feed_forward.experts.*.down", "model.layers.*.mlp.experts.*.down_proj"},
      {"layers.*.feed_forward.experts.gate.weight", "model.layers.*.mlp.experts.gate_up_proj", {.parts = 2, .part = 0}},
      {"layers.*.feed_forward.experts.up.weight", "model.layers.*.mlp.experts.gate_up_proj", {.parts = 2, .part = 1}},
      {"layers.*.feed_forward.experts.down.weight", "model.layers.*.mlp.experts.down_proj"},
  };
  static constexpr std::string_view scale_suffix = "_scale_inv";
};

}  // namespace guild::inline v1
