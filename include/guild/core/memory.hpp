// How large a model is: parameters, bytes of weights and of the cache, from its numbers alone and before anything is
// allocated. All of it is constexpr arithmetic on a valid ModelConfig (see config_check.hpp).
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include <guild/core/config.hpp>
#include <guild/core/error.hpp>
#include <guild/core/types.hpp>

namespace guild::inline v1 {

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

/// Attention and the two norms of a block.
constexpr Tally attention_tally(const ModelConfig& c) {
  const AttentionConfig& a = c.attention;
  const std::int64_t queries = std::int64_t{a.heads} * a.query_dim();
  Tally t = {.plain = 2 * std::int64_t{c.hidden} + a.latent_rank};
  if (a.query_rank > 0) {
    t = t + matrix(a.query_rank, c.hidden) + matrix(queries, a.query_rank);
    t.plain += a.query_rank;
  } else {
    t = t + matrix(queries, c.hidden);
  }
  return t + matrix(a.cache_dim(), c.hidden) +
         matrix(std::int64_t{a.heads} * (a.nope_dim + a.value_dim), a.latent_rank) +
         matrix(c.hidden, std::int64_t{a.heads} * a.value_dim);
}

/// A gated MLP: gate and up projection, down projection.
constexpr Tally mlp_tally(std::int64_t hidden, std::int64_t inner) {
  return 2 * matrix(inner, hidden) + matrix(hidden, inner);
}

/// Router, shared experts and `experts` routed ones.
constexpr Tally experts_tally(const ModelConfig& c, std::int64_t experts) {
  const MoeConfig& m = c.moe;
  Tally t = experts * mlp_tally(c.hidden, m.hidden);
  if (m.shared_experts > 0) t = t + mlp_tally(c.hidden, std::int64_t{m.shared_experts} * m.hidden);
  t.plain += std::int64_t{m.experts} * c.hidden;
  if (m.selection == Selection::noaux_tc) t.bias += m.experts;
  return t;
}

constexpr std::int64_t embedding_count(const ModelConfig& c) { return std::int64_t{c.vocab} * c.hidden; }

constexpr Tally main_tally(const ModelConfig& c, std::int64_t experts) {
  const std::int64_t dense = c.moe.experts > 0 ? c.dense_layers : c.layers;
  Tally t = c.layers * attention_tally(c) + dense * mlp_tally(c.hidden, c.dense_hidden);
  if (dense < c.layers) t = t + (c.layers - dense) * experts_tally(c, experts);
  t.plain += c.hidden + (c.tied_embeddings ? 1 : 2) * embedding_count(c);
  return t;
}

/// A block, the norms of its two inputs, of its output, and the projection of the inputs side by side.
constexpr Tally mtp_tally(const ModelConfig& c) {
  const std::int64_t hidden = c.hidden;
  Tally t =
      attention_tally(c) + (c.moe.experts > 0 ? experts_tally(c, c.moe.experts) : mlp_tally(hidden, c.dense_hidden));
  t.plain += 3 * hidden + hidden * 2 * hidden;
  return c.mtp_layers * t;
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
[[nodiscard]] constexpr ParameterCount parameter_count(const ModelConfig& c) {
  ParameterCount n;
  n.total = detail::main_tally(c, c.moe.experts).count();
  // A tied embedding table is read as the head.
  n.active = detail::main_tally(c, c.moe.top_k).count() - (c.tied_embeddings ? 0 : detail::embedding_count(c));
  n.mtp = detail::mtp_tally(c).count();
  n.stored = n.total + n.mtp + std::int64_t{c.mtp_layers} * 2 * detail::embedding_count(c);
  return n;
}

/// Bytes of the main model's weights. With f8_e4m3, as published: projections and MLPs one byte each and a float scale
/// for every 128 x 128 block; embedding, head, norms and router in bf16; selection biases in float.
[[nodiscard]] constexpr std::int64_t weight_bytes(const ModelConfig& c, DType type) {
  return detail::bytes_of(detail::main_tally(c, c.moe.experts), type);
}

/// Bytes the MTP layers add, without the copies of embedding and head that the published files hold.
[[nodiscard]] constexpr std::int64_t mtp_weight_bytes(const ModelConfig& c, DType type) {
  return detail::bytes_of(detail::mtp_tally(c), type);
}

/// Bytes a token occupies in the latent cache of all layers: latent_rank + rope_dim values each.
[[nodiscard]] constexpr std::int64_t cache_bytes_per_token(const ModelConfig& c, int element_bytes = 2) {
  return std::int64_t{c.layers} * c.attention.cache_dim() * element_bytes;
}

/// Bytes the same token would occupy with keys and values kept for every head.
[[nodiscard]] constexpr std::int64_t expanded_cache_bytes_per_token(const ModelConfig& c, int element_bytes = 2) {
  return std::int64_t{c.layers} * c.attention.heads * (c.attention.query_dim() + c.attention.value_dim) * element_bytes;
}

/// How many times smaller the latent cache is: 71 for DeepSeek-R1.
[[nodiscard]] constexpr double cache_ratio(const ModelConfig& c) {
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
[[nodiscard]] constexpr MemoryEstimate estimate_memory(const ModelConfig& c, DType weights, std::int64_t tokens,
                                                       int cache_element_bytes = 2) {
  return {weight_bytes(c, weights), detail::saturating_product(cache_bytes_per_token(c, cache_element_bytes), tokens)};
}

/// Throws cf_memory when the estimate exceeds `budget` bytes; call it before allocating.
inline void check_memory(const MemoryEstimate& estimate, std::int64_t budget) {
  if (estimate.total() <= budget) return;
  throw Error(ErrorCode::cf_memory,
              "needs " + std::to_string(estimate.total()) + " bytes (" + std::to_string(estimate.weights) +
                  " for weights, " + std::to_string(estimate.cache) + " for the cache), but only " +
                  std::to_string(budget) +
                  " may be used. Use quantised weights, a shorter context or fewer sequences, map "
                  "the weights from disk, or raise the budget");
}

}  // namespace guild::inline v1
