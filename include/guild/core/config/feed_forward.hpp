// The numbers of feed-forward networks: dense ones, the router, and the experts.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include <guild/core/config/activation.hpp>
#include <guild/core/config/field.hpp>
#include <guild/core/config/layer_set.hpp>

namespace guild {
inline namespace v1 {

/// Dense gated networks (arXiv 2002.05202), and how many layers have one where others have experts.
struct DenseConfig {
  int hidden = 8192;  ///< `intermediate_size`
  int layers = 1;     ///< `first_k_dense_replace`: leading layers; without experts all layers are dense
  ActivationConfig activation{};
  LayerSet others{};  ///< `mlp_only_layers`: dense layers behind the leading ones
  /// Of `total` layers where others have experts.
  [[nodiscard]] constexpr int dense_layers(int total) const { return layers + others.count(layers, total); }
  friend constexpr bool operator==(const DenseConfig&, const DenseConfig&) = default;

  static constexpr ConfigPart part = {"DenseConfig", "dense"};

  /// Calls f(ConfigField, value...) for each field, with its value in each of the configs.
  template <class F, class... C>
  static constexpr void fields(F&& f, C&... c) {
    f(ConfigField{"intermediate_size", "hidden"}, c.hidden...);
    f(ConfigField{"first_k_dense_replace", "layers"}, c.layers...);
    ActivationConfig::fields(f, c.activation...);
    f(ConfigField{"", "others"}, c.others...);
  }

  [[nodiscard]] constexpr std::optional<ConfigProblem> problem() const {
    const detail::ConfigRange ranges[] = {
        {"intermediate_size", "intermediate_size must be from 1 to 1048576", hidden, 1, 1 << 20},
    };
    if (auto problem = detail::problem_of(ranges)) return problem;
    return activation.problem();
  }
};

/// How router logits become scores. Source: DeepSeek-V3 report, eq. 15 (sigmoid); DeepSeek-V2 report, eq. 21 (softmax);
/// DeepSeek-V4 (sqrt_softplus: the root of log(1 + exp(logit))).
enum class Scoring : std::uint8_t { sigmoid, softmax, sqrt_softplus };

/// How experts are selected from scores; the names are those of `topk_method` in config.json.
enum class Selection : std::uint8_t {
  greedy,                ///< the best top_k of all experts (V2-Lite, Mixtral)
  group_limited_greedy,  ///< groups ranked by their best expert (V2)
  noaux_tc,              ///< score + selection bias, groups ranked by the sum of their two best (V3, R1, Kimi-K2)
};

/// The spelling of `scoring_func` in config.json.
[[nodiscard]] constexpr std::string_view name(Scoring scoring) noexcept {
  switch (scoring) {
    case Scoring::sigmoid:
      return "sigmoid";
    case Scoring::softmax:
      return "softmax";
    case Scoring::sqrt_softplus:
      return "sqrtsoftplus";
  }
  return "unknown";
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

/// The router that takes the best top_k experts (DeepSeek-V3 report, section 2.1.2).
struct TopKConfig {
  int experts = 64;    ///< `n_routed_experts`; 0: every layer is dense
  int top_k = 6;       ///< `num_experts_per_tok`
  int groups = 1;      ///< `n_group`
  int top_groups = 1;  ///< `topk_group`
  Scoring scoring = Scoring::sigmoid;
  Selection selection = Selection::noaux_tc;
  bool normalize = true;  ///< `norm_topk_prob`: chosen weights are divided by their sum
  double scale = 1.0;     ///< `routed_scaling_factor`, after normalising
  bool bias = false;      ///< the logits have a bias (GPT-OSS)
  int identities = 0;     ///< experts that give their input, numbered behind the others (LongCat-Flash)
  friend constexpr bool operator==(const TopKConfig&, const TopKConfig&) = default;

  /// The same choice among experts and identities alike.
  [[nodiscard]] constexpr TopKConfig over_all() const {
    TopKConfig all = *this;
    all.experts += identities;
    all.identities = 0;
    return all;
  }

  static constexpr ConfigPart part = {"TopKConfig", "routing"};

  /// Calls f(ConfigField, value...) for each field, with its value in each of the configs.
  template <class F, class... C>
  static constexpr void fields(F&& f, C&... c) {
    f(ConfigField{"n_routed_experts", "experts", Absent::null_is_none}, c.experts...);
    f(ConfigField{"num_experts_per_tok", "top_k"}, c.top_k...);
    f(ConfigField{"n_group", "groups", Absent::null_is_none}, c.groups...);
    f(ConfigField{"topk_group", "top_groups", Absent::null_is_none}, c.top_groups...);
    f(ConfigField{"scoring_func", "scoring", Absent::as_default}, c.scoring...);
    f(ConfigField{"topk_method", "selection", Absent::as_default}, c.selection...);
    f(ConfigField{"norm_topk_prob", "normalize", Absent::as_default}, c.normalize...);
    f(ConfigField{"routed_scaling_factor", "scale"}, c.scale...);
    f(ConfigField{"", "bias"}, c.bias...);
    f(ConfigField{"", "identities"}, c.identities...);
  }

  /// Without experts the rest is not looked at.
  [[nodiscard]] constexpr std::optional<ConfigProblem> problem() const {
    const auto broken = [](ErrorCode code, const char* key, const char* rule, double found) {
      return ConfigProblem{code, key, rule, found};
    };
    const detail::ConfigRange ranges[] = {
        {"n_routed_experts", "n_routed_experts must be from 0 to 1048576", experts, 0, 1 << 20},
        {"identities", "identities must be from 0 to 1048576", identities, 0, 1 << 20},
    };
    if (auto problem = detail::problem_of(ranges); problem || experts == 0) return problem;
    if (identities > 0 && groups != 1)
      return broken(ErrorCode::cf_moe, "n_group", "n_group must be 1 where experts give their input", groups);
    if (top_k < 1)
      return broken(ErrorCode::cf_range, "num_experts_per_tok", "num_experts_per_tok must be at least 1", top_k);
    if (top_k > experts)
      return broken(ErrorCode::cf_moe, "num_experts_per_tok", "num_experts_per_tok must not exceed n_routed_experts",
                    top_k);
    if (groups < 1) return broken(ErrorCode::cf_range, "n_group", "n_group must be at least 1", groups);
    if (top_groups < 1) return broken(ErrorCode::cf_range, "topk_group", "topk_group must be at least 1", top_groups);
    if (experts % groups != 0)
      return broken(ErrorCode::cf_moe, "n_group", "n_group must divide n_routed_experts", groups);
    if (top_groups > groups)
      return broken(ErrorCode::cf_moe, "topk_group", "topk_group must not exceed n_group", top_groups);
    const int group = experts / groups;
    if (selection != Selection::greedy && top_k > std::int64_t{group} * top_groups)
      return broken(ErrorCode::cf_moe, "num_experts_per_tok",
                    "num_experts_per_tok must not exceed the experts of the chosen groups, "
                    "n_routed_experts / n_group * topk_group",
                    top_k);
    if (selection == Selection::noaux_tc && groups > 1 && group < 2)
      return broken(ErrorCode::cf_moe, "n_group",
                    "noaux_tc ranks a group by its two best experts, so n_group must be at most n_routed_experts / 2",
                    groups);
    if (!(scale > 0.0) || !detail::is_finite(scale))
      return broken(ErrorCode::cf_range, "routed_scaling_factor", "routed_scaling_factor must be above 0 and finite",
                    scale);
    return std::nullopt;
  }
};

/// Leading layers whose experts are found by a token's id in a table, and not by scores (HashRouter).
struct HashConfig {
  int layers = 3;  ///< `num_hash_layers`
  friend constexpr bool operator==(const HashConfig&, const HashConfig&) = default;

  static constexpr ConfigPart part = {"HashConfig", "hashed"};

  /// Calls f(ConfigField, value...) for each field, with its value in each of the configs.
  template <class F, class... C>
  static constexpr void fields(F&& f, C&... c) {
    f(ConfigField{"num_hash_layers", "layers", Absent::as_default}, c.layers...);
  }

  [[nodiscard]] constexpr std::optional<ConfigProblem> problem() const {
    const detail::ConfigRange ranges[] = {
        {"num_hash_layers", "num_hash_layers must be from 0 to 1024", layers, 0, 1 << 10},
    };
    return detail::problem_of(ranges);
  }
};

/// The experts of a layer: networks with a gate, or without one.
struct ExpertConfig {
  int hidden = 1408;         ///< `moe_intermediate_size` of one expert
  int shared = 1;            ///< `n_shared_experts`, run as one network for every token
  int shared_hidden = 0;     ///< of that network; 0: shared * hidden
  bool shared_gate = false;  ///< what it gives is multiplied by sigmoid(w . x) (Qwen2-MoE)
  bool bias = false;         ///< the products of routed experts have biases (GPT-OSS)
  ActivationConfig activation{};
  double dropout = 0.0;  ///< of routed experts, in training alone (ExpertDropout); files know nothing of it
  [[nodiscard]] constexpr int shared_width() const { return shared_hidden != 0 ? shared_hidden : shared * hidden; }
  friend constexpr bool operator==(const ExpertConfig&, const ExpertConfig&) = default;
  /// As files say it.
  [[nodiscard]] constexpr ExpertConfig canonical() const {
    ExpertConfig config = *this;
    config.dropout = 0.0;
    return config;
  }

  static constexpr ConfigPart part = {"ExpertConfig", "experts"};

  /// Calls f(ConfigField, value...) for each field, with its value in each of the configs.
  template <class F, class... C>
  static constexpr void fields(F&& f, C&... c) {
    f(ConfigField{"moe_intermediate_size", "hidden"}, c.hidden...);
    f(ConfigField{"n_shared_experts", "shared", Absent::null_is_none}, c.shared...);
    f(ConfigField{"", "shared_hidden"}, c.shared_hidden...);
    f(ConfigField{"", "shared_gate"}, c.shared_gate...);
    f(ConfigField{"", "bias"}, c.bias...);
    ActivationConfig::fields(f, c.activation...);
  }

  [[nodiscard]] constexpr std::optional<ConfigProblem> problem() const {
    const detail::ConfigRange ranges[] = {
        {"moe_intermediate_size", "moe_intermediate_size must be from 1 to 1048576", hidden, 1, 1 << 20},
        {"n_shared_experts", "n_shared_experts must be from 0 to 1024", shared, 0, 1 << 10},
        {"shared_hidden", "shared_hidden must be from 0 to 1048576", shared_hidden, 0, 1 << 20},
    };
    if (auto problem = detail::problem_of(ranges)) return problem;
    if (shared == 0 && (shared_hidden != 0 || shared_gate))
      return ConfigProblem{ErrorCode::cf_moe, "n_shared_experts",
                           "n_shared_experts must be above 0 where shared experts have a width or a gate", 0.0};
    if (bias && !activation.gated)
      return ConfigProblem{ErrorCode::cf_moe, "bias", "bias must be false of experts without a gate", 1.0};
    return activation.problem();
  }
};

}  // namespace v1
}  // namespace guild
