// Names of tensors that the files of most families share, as tables to put together with a family's own:
//
//   struct Names {
//     static constexpr auto rules = name_rules({{"layers.*.mixer.query", "model.layers.*.self_attn.q_proj"}},
//                                              decoder_names, mlp_names);
//     static constexpr std::string_view scale_suffix = "_scale_inv";
//   };
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

#include <guild/models/name_rule.hpp>

namespace guild {
inline namespace v1 {

/// Tables put together. Of two rules for the same beginning the first is written.
template <std::size_t... Shared>
[[nodiscard]] constexpr auto name_rules(const std::array<NameRule, Shared>&... shared) {
  std::array<NameRule, (0 + ... + Shared)> all{};
  auto end = all.begin();
  ((end = std::copy(shared.begin(), shared.end(), end)), ...);
  return all;
}
/// A family's own rules, then those that it shares.
template <std::size_t Own, std::size_t... Shared>
[[nodiscard]] constexpr auto name_rules(const NameRule (&own)[Own], const std::array<NameRule, Shared>&... shared) {
  return name_rules(std::to_array(own), shared...);
}

/// Embedding, layers, their norms before attention and feed-forward, and the head.
inline constexpr std::array decoder_names = {
    NameRule{"embedding", "model.embed_tokens"},
    NameRule{"final_norm", "model.norm"},
    NameRule{"head", "lm_head"},
    NameRule{"layers.*", "model.layers.*"},
    NameRule{"layers.stream_head", "model.stream_head"},
    NameRule{"layers.*.mixer_norm", "model.layers.*.input_layernorm"},
    NameRule{"layers.*.mixer", "model.layers.*.self_attn"},
    NameRule{"layers.*.mixer.output", "model.layers.*.self_attn.o_proj"},
    NameRule{"layers.*.feed_forward_norm", "model.layers.*.post_attention_layernorm"},
};

/// Grouped-query attention.
inline constexpr std::array grouped_query_names = {
    NameRule{"layers.*.mixer.query", "model.layers.*.self_attn.q_proj"},
    NameRule{"layers.*.mixer.key", "model.layers.*.self_attn.k_proj"},
    NameRule{"layers.*.mixer.value", "model.layers.*.self_attn.v_proj"},
};

/// Norms of each head's query and key, as Qwen3 calls them.
inline constexpr std::array query_key_norm_names = {
    NameRule{"layers.*.mixer.query_norm", "model.layers.*.self_attn.q_norm"},
    NameRule{"layers.*.mixer.key_norm", "model.layers.*.self_attn.k_norm"},
};

/// A dense feed-forward, or what stands in its place.
inline constexpr std::array mlp_names = {
    NameRule{"layers.*.feed_forward", "model.layers.*.mlp"},
    NameRule{"layers.*.feed_forward.gate", "model.layers.*.mlp.gate_proj"},
    NameRule{"layers.*.feed_forward.up", "model.layers.*.mlp.up_proj"},
    NameRule{"layers.*.feed_forward.down", "model.layers.*.mlp.down_proj"},
};

/// A router and its experts, a tensor for each matrix.
inline constexpr std::array expert_names = {
    NameRule{"layers.*.feed_forward.router", "model.layers.*.mlp.gate"},
    NameRule{"layers.*.feed_forward.experts.*.gate", "model.layers.*.mlp.experts.*.gate_proj"},
    NameRule{"layers.*.feed_forward.experts.*.up", "model.layers.*.mlp.experts.*.up_proj"},
    NameRule{"layers.*.feed_forward.experts.*.down", "model.layers.*.mlp.experts.*.down_proj"},
};

/// The router's bias and shared experts, as DeepSeek calls them.
inline constexpr std::array shared_expert_names = {
    NameRule{"layers.*.feed_forward.router.selection_bias", "model.layers.*.mlp.gate.e_score_correction_bias"},
    NameRule{"layers.*.feed_forward.shared", "model.layers.*.mlp.shared_experts"},
    NameRule{"layers.*.feed_forward.shared.gate", "model.layers.*.mlp.shared_experts.gate_proj"},
    NameRule{"layers.*.feed_forward.shared.up", "model.layers.*.mlp.shared_experts.up_proj"},
    NameRule{"layers.*.feed_forward.shared.down", "model.layers.*.mlp.shared_experts.down_proj"},
};

/// Prediction layers, as DeepSeek calls them.
inline constexpr std::array prediction_names = {
    NameRule{"layers.*.mtp_embedding", "model.layers.*.embed_tokens"},
    NameRule{"layers.*.mtp_embedding_norm", "model.layers.*.enorm"},
    NameRule{"layers.*.mtp_hidden_norm", "model.layers.*.hnorm"},
    NameRule{"layers.*.mtp_projection", "model.layers.*.eh_proj"},
    NameRule{"layers.*.mtp_head_norm", "model.layers.*.shared_head.norm"},
    NameRule{"layers.*.mtp_head", "model.layers.*.shared_head.head"},
};

/// Experts fused, as transformers 5 writes them with save_original_format=False.
inline constexpr std::array fused_expert_names = {
    NameRule{"layers.*.feed_forward.experts.gate.weight", "model.layers.*.mlp.experts.gate_up_proj", {2, 0}},
    NameRule{"layers.*.feed_forward.experts.up.weight", "model.layers.*.mlp.experts.gate_up_proj", {2, 1}},
    NameRule{"layers.*.feed_forward.experts.down.weight", "model.layers.*.mlp.experts.down_proj"},
};

}  // namespace v1
}  // namespace guild
