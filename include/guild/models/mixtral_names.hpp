// The names that Mixtral's published checkpoints give to the tensors of a model.
#pragma once

#include <string_view>

#include <guild/models/name_rule.hpp>

namespace guild::inline v1 {

/// Mixtral: w1 is the gate, w3 up, w2 down. Files that fuse the experts, as transformers 5 writes them with
/// save_original_format=False, call the router and them `mlp`.
struct MixtralNames {
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
      {"layers.*.feed_forward_norm", "model.layers.*.post_attention_layernorm"},
      {"layers.*.feed_forward", "model.layers.*.block_sparse_moe"},
      {"layers.*.feed_forward.router", "model.layers.*.block_sparse_moe.gate"},
      {"layers.*.feed_forward.router", "model.layers.*.mlp.gate"},
      {"layers.*.feed_forward.experts.*.gate", "model.layers.*.block_sparse_moe.experts.*.w1"},
      {"layers.*.feed_forward.experts.*.up", "model.layers.*.block_sparse_moe.experts.*.w3"},
      {"layers.*.feed_forward.experts.*.down", "model.layers.*.block_sparse_moe.experts.*.w2"},
      {"layers.*.feed_forward.experts.gate.weight", "model.layers.*.mlp.experts.gate_up_proj", {.parts = 2, .part = 0}},
      {"layers.*.feed_forward.experts.up.weight", "model.layers.*.mlp.experts.gate_up_proj", {.parts = 2, .part = 1}},
      {"layers.*.feed_forward.experts.down.weight", "model.layers.*.mlp.experts.down_proj"},
  };
  static constexpr std::string_view scale_suffix = "_scale_inv";
};

}  // namespace guild::inline v1
