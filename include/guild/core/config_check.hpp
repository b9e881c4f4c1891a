// Which ModelConfig values are models at all: the same rules at compile time (a Spec) and at run time (a file).
#pragma once

#include <cstdint>
#include <limits>
#include <optional>

#include <guild/core/config.hpp>
#include <guild/core/error.hpp>

namespace guild::inline v1 {

/// The first rule that a config breaks.
struct ConfigProblem {
  ErrorCode code;    ///< cf_range, cf_limit, cf_moe or cf_rope
  const char* key;   ///< the published key
  const char* rule;  ///< a sentence: what must hold
  double found;      ///< the value that breaks it
};

namespace detail {

struct ConfigRange {
  const char* key;
  const char* rule;
  std::int64_t value, low, high;
};

constexpr bool is_finite(double x) {
  return x >= std::numeric_limits<double>::lowest() && x <= std::numeric_limits<double>::max();
}

constexpr std::optional<ConfigProblem> problem_of_ranges(const ModelConfig& c) {
  // The upper limits keep every product of this library inside 63 bits; they are far above any published model.
  const ConfigRange ranges[] = {
      {"vocab_size", "vocab_size must be from 1 to 134217728", c.vocab, 1, 1 << 27},
      {"hidden_size", "hidden_size must be from 1 to 1048576", c.hidden, 1, 1 << 20},
      {"num_hidden_layers", "num_hidden_layers must be from 1 to 1024", c.layers, 1, 1 << 10},
      {"intermediate_size", "intermediate_size must be from 1 to 1048576", c.dense_hidden, 1, 1 << 20},
      {"num_nextn_predict_layers", "num_nextn_predict_layers must be from 0 to 16", c.mtp_layers, 0, 16},
      {"max_position_embeddings", "max_position_embeddings must be from 1 to 268435456", c.context, 1, 1 << 28},
      {"num_attention_heads", "num_attention_heads must be from 1 to 4096", c.attention.heads, 1, 1 << 12},
      {"q_lora_rank", "q_lora_rank must be null or from 1 to 65536", c.attention.query_rank, 0, 1 << 16},
      {"kv_lora_rank", "kv_lora_rank must be from 1 to 65536", c.attention.latent_rank, 1, 1 << 16},
      {"qk_nope_head_dim", "qk_nope_head_dim must be from 1 to 4096", c.attention.nope_dim, 1, 1 << 12},
      {"qk_rope_head_dim", "qk_rope_head_dim must be from 2 to 4096 and even", c.attention.rope_dim, 1, 1 << 12},
      {"v_head_dim", "v_head_dim must be from 1 to 4096", c.attention.value_dim, 1, 1 << 12},
      {"n_routed_experts", "n_routed_experts must be from 0 to 1048576", c.moe.experts, 0, 1 << 20},
  };
  for (const ConfigRange& r : ranges) {
    if (r.value < r.low) return ConfigProblem{ErrorCode::cf_range, r.key, r.rule, static_cast<double>(r.value)};
    if (r.value > r.high) return ConfigProblem{ErrorCode::cf_limit, r.key, r.rule, static_cast<double>(r.value)};
  }
  if (c.dense_layers < 0 || c.dense_layers > c.layers)
    return ConfigProblem{ErrorCode::cf_range, "first_k_dense_replace",
                         "first_k_dense_replace must be from 0 to num_hidden_layers", double(c.dense_layers)};
  if (!(c.norm_epsilon > 0.0) || !(c.norm_epsilon < 1.0))
    return ConfigProblem{ErrorCode::cf_range, "rms_norm_eps", "rms_norm_eps must be above 0 and below 1",
                         c.norm_epsilon};
  return std::nullopt;
}

constexpr std::optional<ConfigProblem> problem_of_experts(const ModelConfig& c) {
  const MoeConfig& m = c.moe;
  const auto broken = [](ErrorCode code, const char* key, const char* rule, double found) {
    return ConfigProblem{code, key, rule, found};
  };
  if (m.hidden < 1)
    return broken(ErrorCode::cf_range, "moe_intermediate_size", "moe_intermediate_size must be from 1 to 1048576",
                  m.hidden);
  if (m.hidden > 1 << 20)
    return broken(ErrorCode::cf_limit, "moe_intermediate_size", "moe_intermediate_size must be from 1 to 1048576",
                  m.hidden);
  if (m.shared_experts < 0)
    return broken(ErrorCode::cf_range, "n_shared_experts", "n_shared_experts must be from 0 to 1024", m.shared_experts);
  if (m.shared_experts > 1 << 10)
    return broken(ErrorCode::cf_limit, "n_shared_experts", "n_shared_experts must be from 0 to 1024", m.shared_experts);
  if (m.top_k < 1)
    return broken(ErrorCode::cf_range, "num_experts_per_tok", "num_experts_per_tok must be at least 1", m.top_k);
  if (m.top_k > m.experts)
    return broken(ErrorCode::cf_moe, "num_experts_per_tok", "num_experts_per_tok must not exceed n_routed_experts",
                  m.top_k);
  if (m.groups < 1) return broken(ErrorCode::cf_range, "n_group", "n_group must be at least 1", m.groups);
  if (m.top_groups < 1) return broken(ErrorCode::cf_range, "topk_group", "topk_group must be at least 1", m.top_groups);
  if (m.experts % m.groups != 0)
    return broken(ErrorCode::cf_moe, "n_group", "n_group must divide n_routed_experts", m.groups);
  if (m.top_groups > m.groups)
    return broken(ErrorCode::cf_moe, "topk_group", "topk_group must not exceed n_group", m.top_groups);
  const int group = m.experts / m.groups;
  if (m.selection != Selection::greedy && m.top_k > std::int64_t{group} * m.top_groups)
    return broken(ErrorCode::cf_moe, "num_experts_per_tok",
                  "num_experts_per_tok must not exceed the experts of the chosen groups, "
                  "n_routed_experts / n_group * topk_group",
                  m.top_k);
  if (m.selection == Selection::noaux_tc && m.groups > 1 && group < 2)
    return broken(ErrorCode::cf_moe, "n_group",
                  "noaux_tc ranks a group by its two best experts, so n_group must be at most n_routed_experts / 2",
                  m.groups);
  if (!(m.scale > 0.0) || !is_finite(m.scale))
    return broken(ErrorCode::cf_range, "routed_scaling_factor", "routed_scaling_factor must be above 0 and finite",
                  m.scale);
  const double weights = 3.0 * c.hidden * m.hidden * (double(m.experts) + m.shared_experts) * (c.layers + c.mtp_layers);
  if (weights > 1e15)
    return broken(ErrorCode::cf_limit, "n_routed_experts",
                  "the experts of all layers together must have at most 1e15 parameters", m.experts);
  return std::nullopt;
}

constexpr std::optional<ConfigProblem> problem_of_rope(const ModelConfig& c) {
  const RopeConfig& r = c.rope;
  const auto broken = [](const char* key, const char* rule, double found) {
    return ConfigProblem{ErrorCode::cf_rope, key, rule, found};
  };
  if (c.attention.rope_dim % 2 != 0)
    return broken("qk_rope_head_dim", "qk_rope_head_dim must be even: rotary position turns pairs",
                  c.attention.rope_dim);
  if (!(r.base > 1.0) || !is_finite(r.base)) return broken("rope_theta", "rope_theta must be above 1", r.base);
  if (!(r.factor >= 1.0) || !is_finite(r.factor))
    return broken("rope_scaling.factor", "rope_scaling.factor must be at least 1", r.factor);
  if (!(r.beta_slow > 0.0) || !is_finite(r.beta_slow))
    return broken("rope_scaling.beta_slow", "rope_scaling.beta_slow must be above 0", r.beta_slow);
  if (!(r.beta_fast >= r.beta_slow) || !is_finite(r.beta_fast))
    return broken("rope_scaling.beta_fast", "rope_scaling.beta_fast must be at least beta_slow", r.beta_fast);
  if (!(r.mscale >= 0.0) || !is_finite(r.mscale))
    return broken("rope_scaling.mscale", "rope_scaling.mscale must not be negative", r.mscale);
  if (!(r.mscale_all_dim >= 0.0) || !is_finite(r.mscale_all_dim))
    return broken("rope_scaling.mscale_all_dim", "rope_scaling.mscale_all_dim must not be negative", r.mscale_all_dim);
  if (r.original_context < 1)
    return broken("rope_scaling.original_max_position_embeddings",
                  "rope_scaling.original_max_position_embeddings must be at least 1", r.original_context);
  if (r.scaling != RopeScaling::llama3) return std::nullopt;
  if (!(r.low_frequency_factor > 0.0) || !is_finite(r.low_frequency_factor))
    return broken("rope_scaling.low_freq_factor", "rope_scaling.low_freq_factor must be above 0",
                  r.low_frequency_factor);
  if (!(r.high_frequency_factor > r.low_frequency_factor) || !is_finite(r.high_frequency_factor))
    return broken("rope_scaling.high_freq_factor", "rope_scaling.high_freq_factor must be above low_freq_factor",
                  r.high_frequency_factor);
  return std::nullopt;
}

}  // namespace detail

/// The first rule `config` breaks, or nothing. Without experts (`moe.experts == 0`) the rest of `moe` is not looked at.
[[nodiscard]] constexpr std::optional<ConfigProblem> find_config_problem(const ModelConfig& config) {
  if (auto problem = detail::problem_of_ranges(config)) return problem;
  if (config.moe.experts > 0)
    if (auto problem = detail::problem_of_experts(config)) return problem;
  return detail::problem_of_rope(config);
}

/// The broken rule as one sentence, or nullptr when the config is fine:
/// `static_assert(guild::config_problem(MySpec::config) == nullptr);`
[[nodiscard]] constexpr const char* config_problem(const ModelConfig& config) {
  const auto problem = find_config_problem(config);
  return problem ? problem->rule : nullptr;
}

}  // namespace guild::inline v1
