// The names that DeepSeek's published checkpoints give to the tensors of a model.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <guild/core/path.hpp>
#include <guild/models/name_rule.hpp>

namespace guild::inline v1 {

/// Translates paths of the library's modules into names such as `model.layers.3.mlp.gate.weight`.
struct PublishedNames {
  struct Entry { std::string_view ours, published; };
  static constexpr Entry table[] = {
      {"embedding", "model.embed_tokens"},
      {"layers", "model.layers"},
      {"final_norm", "model.norm"},
      {"head", "lm_head"},
      {"mixer_norm", "input_layernorm"},
      {"feed_forward_norm", "post_attention_layernorm"},
      {"mixer", "self_attn"},
      {"query", "q_proj"},
      {"query_down", "q_a_proj"},
      {"query_norm", "q_a_layernorm"},
      {"query_up", "q_b_proj"},
      {"latent_down", "kv_a_proj_with_mqa"},
      {"latent_norm", "kv_a_layernorm"},
      {"latent_up", "kv_b_proj"},
      {"output", "o_proj"},
      {"feed_forward", "mlp"},
      {"gate", "gate_proj"},
      {"up", "up_proj"},
      {"down", "down_proj"},
      {"router", "gate"},
      {"selection_bias", "e_score_correction_bias"},
      {"shared", "shared_experts"},
      {"mtp_embedding", "embed_tokens"},
      {"mtp_embedding_norm", "enorm"},
      {"mtp_hidden_norm", "hnorm"},
      {"mtp_projection", "eh_proj"},
      {"mtp_head_norm", "shared_head.norm"},
      {"mtp_head", "shared_head.head"},
  };

  /// The published name of a tensor. Steps without an entry ("experts", "weight", numbers) keep their own.
  [[nodiscard]] static std::string name(const Path& path) {
    return path.str([](std::string_view step) {
      for (const Entry& entry : table)
        if (entry.ours == step) return entry.published;
      return step;
    });
  }

  /// How files name stacks of experts that they hold as one tensor (transformers 5: save_original_format=False).
  static constexpr NameRule fused_rules[] = {
      {"layers.*.feed_forward.experts.gate.weight", "model.layers.*.mlp.experts.gate_up_proj", {.parts = 2, .part = 0}},
      {"layers.*.feed_forward.experts.up.weight", "model.layers.*.mlp.experts.gate_up_proj", {.parts = 2, .part = 1}},
      {"layers.*.feed_forward.experts.down.weight", "model.layers.*.mlp.experts.down_proj"},
  };

  /// The fused tensor that may hold a stack; nothing for other tensors. Files without it hold each expert's matrix
  /// under its own `name`, as this library writes them.
  [[nodiscard]] static std::optional<FusedTensor> fused(const Path& path) {
    const std::string ours = path.str();
    for (const NameRule& rule : fused_rules)
      if (std::optional<std::string> name = translate(rule, ours)) return FusedTensor{*name, rule.rows};
    return std::nullopt;
  }

  /// What follows the name of an f8_e4m3 matrix in the name of its scales.
  static constexpr std::string_view scale_suffix = "_scale_inv";
};

}  // namespace guild::inline v1
