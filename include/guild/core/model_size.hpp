// How large a model is: parameters, bytes of weights and of the cache, from its numbers alone and before anything is
// allocated. All of it is constexpr arithmetic on a valid ModelConfig (see config_check.hpp).
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <tuple>

#include <guild/core/config.hpp>
#include <guild/core/error.hpp>
#include <guild/core/parameter_tally.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/types.hpp>

namespace guild {
inline namespace v1 {

/// Numbers of parameters. "Parameter" is every element of a weight tensor, norms and selection biases included, the
/// scales of quantised weights and tables of whole numbers not.
struct ParameterCount {
  std::int64_t total = 0;  ///< the main model
  std::int64_t active =
      0;                 ///< those of `total` a token is multiplied with: chosen experts only, and no embedding table
  std::int64_t mtp = 0;  ///< the MTP layers, without their copies of embedding and head
  std::int64_t stored = 0;  ///< elements in the published files: total, mtp, and the copies
  friend constexpr bool operator==(const ParameterCount&, const ParameterCount&) = default;
};

namespace detail {

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
/// window need no more from some length on, which the numbers do not say: they count as if they saw all, but not where
/// other layers pool keys: there the pooled rows alone count, and the keys of their indices.
/// `Model::Cache::bytes(tokens)` is exact.
template <class... Parts>
[[nodiscard]] constexpr std::int64_t cache_bytes_per_token(const std::tuple<Parts...>& c, int element_bytes = 2) {
  const std::int64_t row = detail::attention_part(c).cache_dim(), key = part_or(c, IndexerConfig{.dim = 0}).dim;
  if constexpr (detail::has_part<CompressionConfig, std::tuple<Parts...>>) {
    const CompressionConfig rates = std::get<CompressionConfig>(c);
    const LayerTypes& types = std::get<WindowConfig>(c).types;
    const std::int64_t sparse = types.count(LayerType::compressed_sparse_attention) * (row + key) * element_bytes;
    const std::int64_t heavy = types.count(LayerType::heavily_compressed_attention) * row * element_bytes;
    return (sparse + rates.sparse_rate - 1) / rates.sparse_rate + (heavy + rates.heavy_rate - 1) / rates.heavy_rate;
  } else {
    return layer_halves(c) * std::get<TrunkConfig>(c).layers * (row + key) * element_bytes;
  }
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
  return std::int64_t{layer_halves(c)} * std::get<TrunkConfig>(c).layers * attention.heads *
         (attention.query_dim() + value) * element_bytes;
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
