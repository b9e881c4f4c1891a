// How large a model is: parameters, bytes of weights and of the cache, from its numbers alone and before anything is
// allocated. All of it is constexpr arithmetic on a valid ModelConfig (see config_check.hpp).
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <tuple>

#include <guild/core/config.hpp>
#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/types.hpp>

namespace guild {
inline namespace v1 {

/// Numbers of parameters. "Parameter" is every element of a weight tensor, norms and selection biases included, the
/// scales of quantised weights not.
struct ParameterCount {
  std::int64_t total = 0;  ///< the main model
  std::int64_t active =
      0;                 ///< those of `total` a token is multiplied with: chosen experts only, and no embedding table
  std::int64_t mtp = 0;  ///< the MTP layers, without their copies of embedding and head
  std::int64_t stored = 0;  ///< elements in the published files: total, mtp, and the copies
  friend constexpr bool operator==(const ParameterCount&, const ParameterCount&) = default;
};

namespace detail {

/// Parameters by the way they are stored.
struct Tally {
  std::int64_t linear = 0;  ///< projections and MLPs: the ones fp8 checkpoints quantise
  std::int64_t blocks = 0;  ///< 128 x 128 blocks of those, each with one float scale in fp8
  std::int64_t plain = 0;   ///< embeddings, head, norms, router, MTP input projection
  std::int64_t bias = 0;    ///< selection biases, always float
  [[nodiscard]] constexpr std::int64_t count() const { return linear + plain + bias; }
  friend constexpr Tally operator+(Tally a, Tally b) {
    return {a.linear + b.linear, a.blocks + b.blocks, a.plain + b.plain, a.bias + b.bias};
  }
  friend constexpr Tally operator*(std::int64_t n, Tally a) {
    return {n * a.linear, n * a.blocks, n * a.plain, n * a.bias};
  }
};

constexpr Tally matrix(std::int64_t outputs, std::int64_t inputs) {
  return {.linear = outputs * inputs, .blocks = (outputs + 127) / 128 * ((inputs + 127) / 128)};
}

constexpr Tally attention_tally(std::int64_t hidden, const MlaConfig& a) {
  const std::int64_t queries = std::int64_t{a.heads} * a.query_dim();
  Tally t = {.plain = a.latent_rank + (a.sinks ? a.heads : 0)};
  if (a.query_rank > 0) {
    t = t + matrix(a.query_rank, hidden) + matrix(queries, a.query_rank);
    t.plain += a.query_rank;
  } else {
    t = t + matrix(queries, hidden);
  }
  return t + matrix(a.cache_dim(), hidden) + matrix(std::int64_t{a.heads} * (a.nope_dim + a.value_dim), a.latent_rank) +
         matrix(hidden, std::int64_t{a.heads} * a.value_dim);
}
constexpr Tally attention_tally(std::int64_t hidden, const GqaConfig& a) {
  const std::int64_t queries = std::int64_t{a.heads} * a.head_dim, keys = std::int64_t{a.key_heads} * a.head_dim;
  const std::int64_t plain = (a.bias ? queries + 2 * keys : 0) + (a.output_bias ? hidden : 0) +
                             (a.query_key_norm ? 2 * a.head_dim : 0) + (a.sinks ? a.heads : 0);
  return matrix(queries, hidden) + 2 * matrix(keys, hidden) + matrix(hidden, queries) + Tally{.plain = plain};
}

/// Queries from the latent of attention's, one key, a LayerNorm of it, and a weight of each head.
constexpr Tally indexer_tally(std::int64_t hidden, std::int64_t query_rank, const IndexerConfig& indexer) {
  return matrix(std::int64_t{indexer.heads} * indexer.dim, query_rank) + matrix(indexer.dim, hidden) +
         Tally{.plain = 2 * indexer.dim + indexer.heads * hidden};
}

/// The first part that is a kind of attention.
template <class First, class... Rest>
constexpr const auto& attention_part(const std::tuple<First, Rest...>& c) {
  if constexpr (has_part<MlaConfig, std::tuple<First, Rest...>>)
    return std::get<MlaConfig>(c);
  else
    return std::get<GqaConfig>(c);
}

/// Attention and the norms of a block: two, or four.
template <class Config>
constexpr Tally mixer_tally(const Config& c) {
  const TrunkConfig& trunk = std::get<TrunkConfig>(c);
  const std::int64_t norms = trunk.norm.place == NormPlace::before ? 2 : 4;
  return attention_tally(trunk.hidden, attention_part(c)) + Tally{.plain = norms * trunk.hidden};
}

/// The indices of `layers` layers, each of which has one unless the config says otherwise.
template <class Config>
constexpr Tally indexers_tally(const Config& c, std::int64_t layers) {
  if constexpr (has_part<IndexerConfig, Config> && has_part<MlaConfig, Config>) {
    const IndexerConfig& indexer = std::get<IndexerConfig>(c);
    for (int i = 0; i < indexer.types.size(); ++i) layers -= indexer.types[i] == IndexerType::shared ? 1 : 0;
    return layers * indexer_tally(std::get<TrunkConfig>(c).hidden, std::get<MlaConfig>(c).query_rank, indexer);
  } else {
    return {};
  }
}

/// What mixes residual streams in two sub-layers of each layer, and `heads` times where streams end.
template <class Config>
constexpr Tally streams_tally(const Config& c, std::int64_t layers, std::int64_t heads) {
  if constexpr (has_part<HyperConfig, Config>) {
    const HyperConfig hyper = std::get<HyperConfig>(c);
    const std::int64_t streams = hyper.streams, width = streams * std::get<TrunkConfig>(c).hidden;
    return {.plain = 2 * layers * (hyper.weights() * (width + 1) + 3) + heads * (streams * (width + 1) + 1)};
  } else {
    return {};
  }
}

/// A gated MLP: gate and up projection, down projection.
constexpr Tally mlp_tally(std::int64_t hidden, std::int64_t inner) {
  return 2 * matrix(inner, hidden) + matrix(hidden, inner);
}

/// Router, shared experts and `count` routed ones.
template <class Config>
constexpr Tally experts_tally(const Config& c, std::int64_t count) {
  const TopKConfig routing = part_or(c, TopKConfig{.experts = 0});
  const ExpertConfig experts = part_or(c, ExpertConfig{.shared = 0});
  const std::int64_t hidden = std::get<TrunkConfig>(c).hidden;
  Tally t = count * mlp_tally(hidden, experts.hidden);
  if (experts.shared > 0) t = t + mlp_tally(hidden, std::int64_t{experts.shared} * experts.hidden);
  if (experts.bias) t.plain += count * (2 * experts.hidden + hidden);
  t.plain += std::int64_t{routing.experts} * (hidden + (routing.bias ? 1 : 0));
  if (routing.selection == Selection::noaux_tc) t.bias += routing.experts;
  return t;
}

template <class Config>
constexpr std::int64_t embedding_count(const Config& c) {
  return std::int64_t{std::get<TrunkConfig>(c).vocab} * std::get<TrunkConfig>(c).hidden;
}

/// The main model, with `experts` of the routed ones.
template <class Config>
constexpr Tally main_tally(const Config& c, std::int64_t experts) {
  const TrunkConfig& trunk = std::get<TrunkConfig>(c);
  const std::int64_t sparse = expert_layers(c), dense = trunk.layers - sparse;
  Tally t = trunk.layers * mixer_tally(c) + dense * mlp_tally(trunk.hidden, part_or(c, DenseConfig{}).hidden);
  if (sparse > 0) t = t + sparse * experts_tally(c, experts);
  t.plain += trunk.hidden + (trunk.tied_embeddings ? 1 : 2) * embedding_count(c);
  return t + indexers_tally(c, trunk.layers) + streams_tally(c, trunk.layers, 1);
}

/// A block, the norms of its two inputs, of its output, and the projection of the inputs side by side.
template <class Config>
constexpr Tally mtp_tally(const Config& c) {
  const std::int64_t hidden = std::get<TrunkConfig>(c).hidden;
  const int experts = part_or(c, TopKConfig{.experts = 0}).experts;
  Tally t =
      mixer_tally(c) + (experts > 0 ? experts_tally(c, experts) : mlp_tally(hidden, part_or(c, DenseConfig{}).hidden));
  t.plain += 3 * hidden + hidden * 2 * hidden;
  t = t + streams_tally(c, 1, 1);
  if constexpr (has_part<IndexerConfig, Config> && has_part<MlaConfig, Config>)
    t = t + indexer_tally(hidden, std::get<MlaConfig>(c).query_rank, std::get<IndexerConfig>(c));
  return std::get<TrunkConfig>(c).mtp_layers * t;
}

constexpr std::int64_t bytes_of(const Tally& t, DType type) {
  if (type != DType::f8_e4m3) return (t.linear + t.plain) * (bits(type) / 8) + t.bias * 4;
  return t.linear + t.blocks * 4 + t.plain * 2 + t.bias * 4;
}

constexpr std::int64_t saturating_product(std::int64_t a, std::int64_t b) {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  return a != 0 && b > most / a ? most : a * b;
}

}  // namespace detail

/// DeepSeek-R1: 671.0e9 in all, 36.6e9 active, 11.6e9 for MTP. Source of the shapes: the published weight names.
template <class... Parts>
[[nodiscard]] constexpr ParameterCount parameter_count(const std::tuple<Parts...>& c) {
  const TrunkConfig& trunk = std::get<TrunkConfig>(c);
  const TopKConfig routing = part_or(c, TopKConfig{.experts = 0});
  ParameterCount n;
  n.total = detail::main_tally(c, routing.experts).count();
  // A tied embedding table is read as the head.
  n.active = detail::main_tally(c, routing.top_k).count() - (trunk.tied_embeddings ? 0 : detail::embedding_count(c));
  n.mtp = detail::mtp_tally(c).count();
  n.stored = n.total + n.mtp + std::int64_t{trunk.mtp_layers} * 2 * detail::embedding_count(c);
  return n;
}

/// Bytes of the main model's weights. With f8_e4m3, as published: projections and MLPs one byte each and a float scale
/// for every 128 x 128 block; embedding, head, norms and router in bf16; selection biases in float.
template <class... Parts>
[[nodiscard]] constexpr std::int64_t weight_bytes(const std::tuple<Parts...>& c, DType type) {
  return detail::bytes_of(detail::main_tally(c, part_or(c, TopKConfig{.experts = 0}).experts), type);
}

/// Bytes the MTP layers add, without the copies of embedding and head that the published files hold.
template <class... Parts>
[[nodiscard]] constexpr std::int64_t mtp_weight_bytes(const std::tuple<Parts...>& c, DType type) {
  return detail::bytes_of(detail::mtp_tally(c), type);
}

/// Bytes a token occupies in the caches of all layers: of latent attention latent_rank + rope_dim values each, and the
/// key of its index if it has one; of grouped-query attention the keys and values of its key heads. Layers that see a
/// window need no more from some length on, which the numbers do not say: they count as if they saw all;
/// `Model::Cache::bytes(tokens)` is exact.
template <class... Parts>
[[nodiscard]] constexpr std::int64_t cache_bytes_per_token(const std::tuple<Parts...>& c, int element_bytes = 2) {
  const std::int64_t values =
      std::int64_t{detail::attention_part(c).cache_dim()} + part_or(c, IndexerConfig{.dim = 0}).dim;
  return std::get<TrunkConfig>(c).layers * values * element_bytes;
}

/// Bytes the same token would occupy with keys and values kept for every head.
template <class... Parts>
[[nodiscard]] constexpr std::int64_t expanded_cache_bytes_per_token(const std::tuple<Parts...>& c,
                                                                    int element_bytes = 2) {
  const auto& attention = detail::attention_part(c);
  const std::int64_t value = [&] {
    if constexpr (requires { attention.value_dim; })
      return attention.value_dim;
    else
      return attention.head_dim;
  }();
  return std::get<TrunkConfig>(c).layers * attention.heads * (attention.query_dim() + value) * element_bytes;
}

/// How many times smaller the cache is: 71 for DeepSeek-R1.
template <class... Parts>
[[nodiscard]] constexpr double cache_ratio(const std::tuple<Parts...>& c) {
  return static_cast<double>(expanded_cache_bytes_per_token(c)) / static_cast<double>(cache_bytes_per_token(c));
}

/// What running a model needs, without activations and scratch.
struct MemoryEstimate {
  std::int64_t weights = 0;  ///< bytes
  std::int64_t cache = 0;    ///< bytes
  /// Bytes together; the largest number there is if that is more.
  [[nodiscard]] constexpr std::int64_t total() const {
    return cache > std::numeric_limits<std::int64_t>::max() - weights ? std::numeric_limits<std::int64_t>::max()
                                                                      : weights + cache;
  }
};

/// `tokens` is the sum of the lengths of all sequences that are kept at once.
template <class... Parts>
[[nodiscard]] constexpr MemoryEstimate estimate_memory(const std::tuple<Parts...>& c, DType weights,
                                                       std::int64_t tokens, int cache_element_bytes = 2) {
  return {weight_bytes(c, weights), detail::saturating_product(cache_bytes_per_token(c, cache_element_bytes), tokens)};
}

/// Throws cf_memory when the estimate exceeds `budget` bytes; call it before allocating.
inline void check_memory(const MemoryEstimate& estimate, std::int64_t budget) {
  if (estimate.total() <= budget) return;
  detail::refuse(ErrorCode::cf_memory,
                 {"needs ", estimate.total(), " bytes (", estimate.weights, " for weights, ", estimate.cache,
                  " for the cache), but only ", budget,
                  " may be used. Use quantised weights, a shorter context or fewer sequences, map "
                  "the weights from disk, or raise the budget"});
}

}  // namespace v1
}  // namespace guild
