// The parameters of a model's parts, from its numbers, by the way they are stored.
#pragma once

#include <cstdint>
#include <tuple>

#include <guild/core/config.hpp>

namespace guild {
inline namespace v1 {
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
  const std::int64_t norms = a.norm_span == NormSpan::head ? 2 * a.head_dim : queries + keys;
  const std::int64_t plain = (a.bias ? queries + 2 * keys : 0) + (a.output_bias ? hidden : 0) +
                             (a.query_key_norm ? norms : 0) + (a.sinks ? a.heads : 0);
  return matrix(queries, hidden) + 2 * matrix(keys, hidden) + matrix(hidden, queries) + Tally{.plain = plain};
}

constexpr Tally attention_tally(std::int64_t hidden, const SharedKvConfig& a) {
  const std::int64_t queries = std::int64_t{a.heads} * a.head_dim,
                     outputs = std::int64_t{a.output_groups} * a.output_rank;
  return matrix(a.query_rank, hidden) + matrix(queries, a.query_rank) + matrix(a.head_dim, hidden) +
         matrix(outputs, queries / a.output_groups) + matrix(hidden, outputs) +
         Tally{.plain = a.query_rank + a.head_dim + (a.sinks ? a.heads : 0)};
}

/// What pools rows of `width` values: projections of each token, which fp8 files do not quantise, a bias of each place
/// in a window, and a norm. `series`: 2 where windows overlap.
constexpr Tally compressor_tally(std::int64_t hidden, std::int64_t width, std::int64_t rate, std::int64_t series) {
  return {.plain = series * width * (2 * hidden + rate) + width};
}

/// Queries from the latent of attention's, one key, a LayerNorm of it, and a weight of each head.
constexpr Tally indexer_tally(std::int64_t hidden, std::int64_t query_rank, const IndexerConfig& indexer) {
  return matrix(std::int64_t{indexer.heads} * indexer.dim, query_rank) + matrix(indexer.dim, hidden) +
         Tally{.plain = 2 * indexer.dim + indexer.heads * hidden};
}

/// The part that is a kind of attention.
template <class... Parts>
constexpr const auto& attention_part(const std::tuple<Parts...>& c) {
  if constexpr (has_part<MlaConfig, std::tuple<Parts...>>)
    return std::get<MlaConfig>(c);
  else if constexpr (has_part<SharedKvConfig, std::tuple<Parts...>>)
    return std::get<SharedKvConfig>(c);
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

/// What pools keys in layers that compress, and the indices of those which choose among pooled rows.
template <class Config>
constexpr Tally compressors_tally(const Config& c) {
  if constexpr (has_part<CompressionConfig, Config>) {
    const CompressionConfig rates = std::get<CompressionConfig>(c);
    const IndexerConfig indexer = std::get<IndexerConfig>(c);
    const SharedKvConfig attention = std::get<SharedKvConfig>(c);
    const LayerTypes& types = std::get<WindowConfig>(c).types;
    const std::int64_t hidden = std::get<TrunkConfig>(c).hidden;
    Tally index = matrix(std::int64_t{indexer.heads} * indexer.dim, attention.query_rank) +
                  compressor_tally(hidden, indexer.dim, rates.sparse_rate, 2);
    index.plain += indexer.heads * hidden;
    return types.count(LayerType::compressed_sparse_attention) *
               (index + compressor_tally(hidden, attention.head_dim, rates.sparse_rate, 2)) +
           types.count(LayerType::heavily_compressed_attention) *
               compressor_tally(hidden, attention.head_dim, rates.heavy_rate, 1);
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

/// An MLP: gate, if it has one, and up projection, down projection.
constexpr Tally mlp_tally(std::int64_t hidden, std::int64_t inner, const ActivationConfig& activation) {
  return (activation.gated ? 2 : 1) * matrix(inner, hidden) + matrix(hidden, inner);
}

/// A dense layer's.
template <class Config>
constexpr Tally dense_tally(const Config& c) {
  const DenseConfig dense = part_or(c, DenseConfig{});
  return mlp_tally(std::get<TrunkConfig>(c).hidden, dense.hidden, dense.activation);
}

/// Router, shared experts and `count` routed ones.
template <class Config>
constexpr Tally experts_tally(const Config& c, std::int64_t count) {
  const TopKConfig routing = part_or(c, TopKConfig{.experts = 0});
  const ExpertConfig experts = part_or(c, ExpertConfig{.shared = 0});
  const std::int64_t hidden = std::get<TrunkConfig>(c).hidden;
  Tally t = count * mlp_tally(hidden, experts.hidden, experts.activation);
  if (experts.shared > 0) t = t + mlp_tally(hidden, experts.shared_width(), experts.activation);
  if (experts.shared_gate) t.plain += hidden;
  if (experts.bias) t.plain += count * (2 * experts.hidden + hidden);
  t.plain += std::int64_t{routing.over_all().experts} * (hidden + (routing.bias ? 1 : 0));
  if (routing.selection == Selection::noaux_tc) t.bias += routing.over_all().experts;
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
  const std::int64_t sparse = expert_layers(c), halves = layer_halves(c);
  const std::int64_t dense = halves > 1 ? halves * trunk.layers : trunk.layers - sparse;  // experts are beside them
  Tally t = halves * trunk.layers * mixer_tally(c) + dense * dense_tally(c);
  if (sparse > 0) t = t + sparse * experts_tally(c, experts);
  t.plain += trunk.hidden + (trunk.tied_embeddings ? 1 : 2) * embedding_count(c);
  if (sparse > 0 && part_or(c, TopKConfig{}).selection == Selection::noaux_tc)  // tables have no selection bias
    t.bias -= std::int64_t{part_or(c, HashConfig{.layers = 0}).layers} * part_or(c, TopKConfig{}).experts;
  return t + indexers_tally(c, trunk.layers) + compressors_tally(c) + streams_tally(c, trunk.layers, 1);
}

/// A block, the norms of its two inputs, of its output, and the projection of the inputs side by side.
template <class Config>
constexpr Tally mtp_tally(const Config& c) {
  const std::int64_t hidden = std::get<TrunkConfig>(c).hidden;
  const int experts = part_or(c, TopKConfig{.experts = 0}).experts;
  Tally t = mixer_tally(c) + (experts > 0 ? experts_tally(c, experts) : dense_tally(c));
  t.plain += 3 * hidden + hidden * 2 * hidden;
  t = t + streams_tally(c, 1, 1);
  if constexpr (has_part<IndexerConfig, Config> && has_part<MlaConfig, Config>)
    t = t + indexer_tally(hidden, std::get<MlaConfig>(c).query_rank, std::get<IndexerConfig>(c));
  return std::get<TrunkConfig>(c).mtp_layers * t;
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
