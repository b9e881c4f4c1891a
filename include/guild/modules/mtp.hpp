// Multi-token prediction: one more layer that guesses the token after the next (DeepSeek-V3 report, section 2.2).
#pragma once

#include <guild/modules/block.hpp>
#include <guild/modules/embedding.hpp>

namespace guild::inline v1 {

/// The published layout: its own copies of embedding and head, two norms, a projection of [embedding, hidden], a block.
template <class S, class BlockType>
struct MtpLayer {
  static constexpr Index hidden = S::config.hidden, vocab = S::config.vocab;
  using Block = BlockType;
  using Norm = RmsNorm<hidden>;
  using TokenEmbedding = Embedding<vocab, hidden>;
  using Projection = Linear<hidden, 2 * hidden>;
  using Head = Linear<vocab, hidden>;
  using Cache = typename Block::Cache;

  template <class Store>
  struct Weights {
    typename TokenEmbedding::template Weights<Store> embedding;
    typename Norm::template Weights<Store> embedding_norm;
    typename Norm::template Weights<Store> hidden_norm;
    typename Projection::template Weights<Store> projection;
    typename Block::template Weights<Store> block;
    typename Norm::template Weights<Store> head_norm;
    typename Head::template Weights<Store> head;
  };

  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    const Path embedding = path / "mtp_embedding", head = path / "mtp_head";
    visitor(embedding / "weight", MatrixShape{vocab, hidden, TensorRole::shared}, weights.embedding.weight...);
    Norm::visit(visitor, path / "mtp_embedding_norm", weights.embedding_norm...);
    Norm::visit(visitor, path / "mtp_hidden_norm", weights.hidden_norm...);
    Projection::visit(visitor, path / "mtp_projection", weights.projection...);
    Block::visit(visitor, path, weights.block...);
    Norm::visit(visitor, path / "mtp_head_norm", weights.head_norm...);
    visitor(head / "weight", MatrixShape{vocab, hidden, TensorRole::shared}, weights.head.weight...);
  }

  /// hidden_states [T, hidden]: the main model's states after its final norm; batch.tokens: the *next* token of each
  /// row; logits [T, vocab]: predictions of the token after that. The embedding comes first in the projection's input,
  /// as in the published weights (opposite to the paper's order).
  template <class Device, class Store, class CacheOf, class Observer>
  static void extend(Device& device, const Weights<Store>& weights, const Batch& batch, const RopeView& rope_table,
                     const CacheOf& cache, View<const float, 2> hidden_states, View<float, 2> logits, int layer,
                     Observer& observer) {
    auto scratch = device.scratch();
    const auto joined = scratch.template take<float>(batch.size(), 2 * hidden);
    const auto left = joined.middle_cols(0, hidden);
    TokenEmbedding::forward(device, weights.embedding, batch.tokens, left);
    Norm::forward(device, weights.embedding_norm, left, left, S::config.norm_epsilon);
    Norm::forward(device, weights.hidden_norm, hidden_states, joined.middle_cols(hidden, hidden),
                  S::config.norm_epsilon);
    const auto x = scratch.template take<float>(batch.size(), hidden);
    Projection::forward(device, weights.projection, joined, x);
    Block::extend(device, weights.block, batch, rope_table, cache, x, layer, observer, MlaForm::automatic);
    Norm::forward(device, weights.head_norm, x, x, S::config.norm_epsilon);
    Head::forward(device, weights.head, x, logits);
  }
};

}  // namespace guild::inline v1
