// Which numbers are a model at all: the same rules at compile time (a Spec) and at run time (a file).
#pragma once

#include <optional>
#include <tuple>

#include <guild/core/config.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// Rules between parts. `config` breaks no rule of a single one.
template <class... Parts>
constexpr std::optional<ConfigProblem> problem_between_parts(const std::tuple<Parts...>& config) {
  const TrunkConfig& trunk = std::get<TrunkConfig>(config);
  const TopKConfig routing = part_or(config, TopKConfig{.experts = 0});
  if constexpr (has_part<DenseConfig, std::tuple<Parts...>>) {
    const DenseConfig& dense = std::get<DenseConfig>(config);
    if (has_part<TopKConfig, std::tuple<Parts...>> && (dense.layers < 0 || dense.layers > trunk.layers))
      return ConfigProblem{ErrorCode::cf_range, "first_k_dense_replace",
                           "first_k_dense_replace must be from 0 to num_hidden_layers", double(dense.layers)};
    if (const int inside = dense.others.count(dense.layers, trunk.layers); inside != dense.others.count())
      return ConfigProblem{ErrorCode::cf_range, "others",
                           "others must name layers of the model, behind the leading dense ones", double(inside)};
  }
  if constexpr (has_part<WindowConfig, std::tuple<Parts...>>) {
    const LayerTypes& types = std::get<WindowConfig>(config).types;
    if (const int entries = types.size(); entries != trunk.layers)
      return ConfigProblem{ErrorCode::cf_range, "layer_types",
                           "layer_types must have as many entries as num_hidden_layers, at most 128", double(entries)};
    const int compressing =
        types.count(LayerType::compressed_sparse_attention) + types.count(LayerType::heavily_compressed_attention);
    if (!has_part<CompressionConfig, std::tuple<Parts...>> && compressing > 0)
      return ConfigProblem{ErrorCode::cf_range, "layer_types",
                           "layer_types must not name layers that compress where no part says how",
                           double(compressing)};
    if (const int full = types.count(LayerType::full_attention);
        has_part<CompressionConfig, std::tuple<Parts...>> && full > 0)
      return ConfigProblem{ErrorCode::cf_range, "layer_types",
                           "layer_types must not name layers of full attention beside layers that compress",
                           double(full)};
  }
  if constexpr (has_part<HashConfig, std::tuple<Parts...>>)
    if (const int hashed = std::get<HashConfig>(config).layers; hashed > trunk.layers)
      return ConfigProblem{ErrorCode::cf_range, "num_hash_layers",
                           "num_hash_layers must be from 0 to num_hidden_layers", double(hashed)};
  if constexpr (has_part<IndexerConfig, std::tuple<Parts...>>) {
    const IndexerConfig& indexer = std::get<IndexerConfig>(config);
    const auto turns = [&](const auto& attention) -> std::optional<ConfigProblem> {
      if (attention.query_rank == 0)
        return ConfigProblem{ErrorCode::cf_range, "q_lora_rank",
                             "q_lora_rank must be above 0 where an index takes its queries from that latent", 0.0};
      if (indexer.dim < attention.rope_dim)
        return ConfigProblem{ErrorCode::cf_rope, "index_head_dim", "index_head_dim must be at least qk_rope_head_dim",
                             double(indexer.dim)};
      return std::nullopt;
    };
    if (const int entries = indexer.types.size(); entries != 0 && entries != trunk.layers)
      return ConfigProblem{ErrorCode::cf_range, "indexer_types",
                           "indexer_types must have as many entries as num_hidden_layers, at most 128",
                           double(entries)};
    std::optional<ConfigProblem> problem;
    if constexpr (has_part<MlaConfig, std::tuple<Parts...>>) problem = turns(std::get<MlaConfig>(config));
    if constexpr (has_part<SharedKvConfig, std::tuple<Parts...>>) problem = turns(std::get<SharedKvConfig>(config));
    if (problem) return problem;
  }
  const ExpertConfig experts = part_or(config, ExpertConfig{});
  const double inner = double(routing.experts) * experts.hidden + experts.shared_width();
  const double weights = 3.0 * trunk.hidden * inner * (trunk.layers + trunk.mtp_layers);
  if (routing.experts > 0 && weights > 1e15)
    return ConfigProblem{ErrorCode::cf_limit, "n_routed_experts",
                         "the experts of all layers together must have at most 1e15 parameters",
                         double(routing.experts)};
  return std::nullopt;
}

}  // namespace detail

/// The first rule `config` breaks, or nothing. Without experts the rest of their parts is not looked at.
template <class... Parts>
[[nodiscard]] constexpr std::optional<ConfigProblem> find_config_problem(const std::tuple<Parts...>& config) {
  const bool sparse = part_or(config, TopKConfig{.experts = 0}).experts != 0;
  std::optional<ConfigProblem> problem;
  const auto look_at = [&]<class Part>(const Part& part) {
    if (!problem && (sparse || !std::is_same_v<Part, ExpertConfig>)) problem = part.problem();
  };
  (look_at(std::get<Parts>(config)), ...);
  return problem ? problem : detail::problem_between_parts(config);
}

/// The broken rule as one sentence, or nullptr when the numbers are fine:
/// `static_assert(guild::config_problem(guild::config_of<MySpec>) == nullptr);`
template <class... Parts>
[[nodiscard]] constexpr const char* config_problem(const std::tuple<Parts...>& config) {
  const auto problem = find_config_problem(config);
  return problem ? problem->rule : nullptr;
}

}  // namespace v1
}  // namespace guild
