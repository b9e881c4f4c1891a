// Multi-token prediction: one more layer that guesses the token after the next (DeepSeek-V3 report, section 2.2).
#pragma once

#include <cstdint>
#include <type_traits>

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

  template <class Real>
  struct Saved {
    View<Real, 2> embedded;  ///< [T, hidden]: rows of the next tokens, before their norm
    View<Real, 2> x;         ///< [T, hidden]: the block's input
    typename Block::template Saved<Real> block;
    View<Real, 2> y;  ///< [T, hidden]: the block's output, before the norm of the head
  };

  /// Training: the layer shares the main model's `embedding` and head (DeepSeek-V3 report, section 2.2), which is why
  /// it ends at y [T, hidden], the states that the shared head reads. next_tokens [T] follow the pass's tokens.
  template <class Device, class Store, class Real, class Memory>
  static void forward(Device& device, const Weights<Store>& weights, const WeightView& embedding,
                      const TrainingPass& pass, View<const std::int32_t> next_tokens,
                      View<const std::type_identity_t<Real>, 2> hidden_states, View<Real, 2> y, Saved<Real>& saved,
                      Memory& memory) {
    saved.embedded = memory.template take<Real>(y.rows, hidden);
    saved.x = memory.template take<Real>(y.rows, hidden);
    saved.y = memory.template take<Real>(y.rows, hidden);
    embed(device, embedding, next_tokens, saved.embedded);
    auto scratch = device.scratch();
    const auto joined = scratch.template take<Real>(y.rows, 2 * hidden);
    join(device, weights, saved.embedded, hidden_states, joined);
    Projection::forward(device, weights.projection, joined, saved.x);
    Block::forward(device, weights.block, pass, saved.x, saved.y, saved.block, memory);
    Norm::forward(device, weights.head_norm, saved.y, y, S::config.norm_epsilon);
  }

  /// dy [T, hidden] is overwritten. Adds to the gradients of the layer and of the shared embedding [vocab, hidden];
  /// overwrites dhidden_states [T, hidden].
  template <class Device, class Store, class Gradients, class Real>
  static void backward(Device& device, const Weights<Store>& weights, const TrainingPass& pass,
                       View<const std::int32_t> next_tokens, View<const std::type_identity_t<Real>, 2> hidden_states,
                       const Saved<std::type_identity_t<Real>>& saved, View<Real, 2> dy,
                       View<std::type_identity_t<Real>, 2> dhidden_states,
                       View<std::type_identity_t<Real>, 2> dembedding, Weights<Gradients>& gradients) {
    constexpr double epsilon = S::config.norm_epsilon;
    Norm::backward(device, weights.head_norm, saved.y, dy, dy, gradients.head_norm, epsilon);
    Block::backward(device, weights.block, pass, saved.x, saved.block, dy, dy, gradients.block);
    auto scratch = device.scratch();
    const auto joined = scratch.template take<Real>(dy.rows, 2 * hidden);
    const auto djoined = scratch.template take<Real>(dy.rows, 2 * hidden);
    join(device, weights, saved.embedded, hidden_states, joined);
    Projection::backward(device, weights.projection, joined, dy, djoined, gradients.projection);
    Norm::backward(device, weights.embedding_norm, saved.embedded, djoined.middle_cols(0, hidden), dy,
                   gradients.embedding_norm, epsilon);
    embedding_backward(device, next_tokens, dy, dembedding);
    Norm::backward(device, weights.hidden_norm, hidden_states, djoined.middle_cols(hidden, hidden), dhidden_states,
                   gradients.hidden_norm, epsilon);
  }

 private:
  template <class Device, class Store, class Real>
  static void join(Device& device, const Weights<Store>& weights, View<const std::type_identity_t<Real>, 2> embedded,
                   View<const std::type_identity_t<Real>, 2> hidden_states, View<Real, 2> joined) {
    Norm::forward(device, weights.embedding_norm, embedded, joined.middle_cols(0, hidden), S::config.norm_epsilon);
    Norm::forward(device, weights.hidden_norm, hidden_states, joined.middle_cols(hidden, hidden),
                  S::config.norm_epsilon);
  }
};

}  // namespace guild::inline v1
