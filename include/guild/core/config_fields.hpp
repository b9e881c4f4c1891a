// The fields of ModelConfig as a list: the published key, the C++ member and the value of each.
#pragma once

#include <string_view>

#include <guild/core/config.hpp>

namespace guild::inline v1 {

/// How one field is called: in config.json (`rope_scaling.factor`) and in ModelConfig (`rope.factor`).
struct ConfigField {
  std::string_view key;
  std::string_view member;
};

/// The spelling of `scoring_func` in config.json.
[[nodiscard]] constexpr std::string_view name(Scoring scoring) noexcept {
  return scoring == Scoring::sigmoid ? "sigmoid" : "softmax";
}

/// The spelling of `topk_method` in config.json.
[[nodiscard]] constexpr std::string_view name(Selection selection) noexcept {
  switch (selection) {
    case Selection::greedy:
      return "greedy";
    case Selection::group_limited_greedy:
      return "group_limited_greedy";
    case Selection::noaux_tc:
      return "noaux_tc";
  }
  return "unknown";
}

[[nodiscard]] constexpr std::string_view name(RopePairs pairs) noexcept {
  return pairs == RopePairs::interleaved ? "interleaved" : "halves";
}

/// The spelling of `rope_type` in config.json.
[[nodiscard]] constexpr std::string_view name(RopeScaling scaling) noexcept {
  return scaling == RopeScaling::yarn ? "yarn" : "llama3";
}

/// Calls `f(ConfigField, value...)` for every field in the order of declaration, with the value in each of the configs.
/// Values are int, double, bool or an enumeration. A new field of ModelConfig must be added here.
template <class F, class... Configs>
constexpr void for_each_config_field(F&& f, Configs&... configs) {
  f(ConfigField{"vocab_size", "vocab"}, configs.vocab...);
  f(ConfigField{"hidden_size", "hidden"}, configs.hidden...);
  f(ConfigField{"num_hidden_layers", "layers"}, configs.layers...);
  f(ConfigField{"first_k_dense_replace", "dense_layers"}, configs.dense_layers...);
  f(ConfigField{"intermediate_size", "dense_hidden"}, configs.dense_hidden...);
  f(ConfigField{"num_nextn_predict_layers", "mtp_layers"}, configs.mtp_layers...);
  f(ConfigField{"max_position_embeddings", "context"}, configs.context...);
  f(ConfigField{"rms_norm_eps", "norm_epsilon"}, configs.norm_epsilon...);
  f(ConfigField{"tie_word_embeddings", "tied_embeddings"}, configs.tied_embeddings...);

  f(ConfigField{"num_attention_heads", "attention.heads"}, configs.attention.heads...);
  f(ConfigField{"q_lora_rank", "attention.query_rank"}, configs.attention.query_rank...);
  f(ConfigField{"kv_lora_rank", "attention.latent_rank"}, configs.attention.latent_rank...);
  f(ConfigField{"qk_nope_head_dim", "attention.nope_dim"}, configs.attention.nope_dim...);
  f(ConfigField{"qk_rope_head_dim", "attention.rope_dim"}, configs.attention.rope_dim...);
  f(ConfigField{"v_head_dim", "attention.value_dim"}, configs.attention.value_dim...);

  f(ConfigField{"n_routed_experts", "moe.experts"}, configs.moe.experts...);
  f(ConfigField{"num_experts_per_tok", "moe.top_k"}, configs.moe.top_k...);
  f(ConfigField{"moe_intermediate_size", "moe.hidden"}, configs.moe.hidden...);
  f(ConfigField{"n_shared_experts", "moe.shared_experts"}, configs.moe.shared_experts...);
  f(ConfigField{"n_group", "moe.groups"}, configs.moe.groups...);
  f(ConfigField{"topk_group", "moe.top_groups"}, configs.moe.top_groups...);
  f(ConfigField{"scoring_func", "moe.scoring"}, configs.moe.scoring...);
  f(ConfigField{"topk_method", "moe.selection"}, configs.moe.selection...);
  f(ConfigField{"norm_topk_prob", "moe.normalize"}, configs.moe.normalize...);
  f(ConfigField{"routed_scaling_factor", "moe.scale"}, configs.moe.scale...);

  f(ConfigField{"rope_theta", "rope.base"}, configs.rope.base...);
  f(ConfigField{"rope_scaling.factor", "rope.factor"}, configs.rope.factor...);
  f(ConfigField{"rope_scaling.beta_fast", "rope.beta_fast"}, configs.rope.beta_fast...);
  f(ConfigField{"rope_scaling.beta_slow", "rope.beta_slow"}, configs.rope.beta_slow...);
  f(ConfigField{"rope_scaling.mscale", "rope.mscale"}, configs.rope.mscale...);
  f(ConfigField{"rope_scaling.mscale_all_dim", "rope.mscale_all_dim"}, configs.rope.mscale_all_dim...);
  f(ConfigField{"rope_scaling.original_max_position_embeddings", "rope.original_context"},
    configs.rope.original_context...);
  f(ConfigField{"rope_interleave", "rope.pairs"}, configs.rope.pairs...);
  f(ConfigField{"rope_scaling.rope_type", "rope.scaling"}, configs.rope.scaling...);
  f(ConfigField{"rope_scaling.low_freq_factor", "rope.low_frequency_factor"}, configs.rope.low_frequency_factor...);
  f(ConfigField{"rope_scaling.high_freq_factor", "rope.high_frequency_factor"}, configs.rope.high_frequency_factor...);
}

namespace detail {
// Fails to compile when one of the structs gains or loses a field: then for_each_config_field must too.
constexpr bool fields_are_listed(const ModelConfig& config) {
  [[maybe_unused]] const auto& [vocab, hidden, layers, dense_layers, dense_hidden, mtp_layers, context, norm_epsilon,
                                tied_embeddings, attention, moe, rope] = config;
  [[maybe_unused]] const auto& [heads, query_rank, latent_rank, nope_dim, rope_dim, value_dim] = attention;
  [[maybe_unused]] const auto& [experts, top_k, expert_hidden, shared_experts, groups, top_groups, scoring, selection,
                                normalize, scale] = moe;
  [[maybe_unused]] const auto& [base, factor, beta_fast, beta_slow, mscale, mscale_all_dim, original_context, pairs,
                                scaling, low_frequency_factor, high_frequency_factor] = rope;
  int listed = 0;
  for_each_config_field([&](const ConfigField&, const auto&) { ++listed; }, config);
  return listed == 9 + 6 + 10 + 11;
}
static_assert(fields_are_listed(ModelConfig{}), "for_each_config_field leaves out a field of ModelConfig");
}  // namespace detail

}  // namespace guild::inline v1
