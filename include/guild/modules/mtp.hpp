// Multi-token prediction: one more layer that guesses the token after the next (DeepSeek-V3 report, section 2.2).
#pragma once

#include <cstdint>
#include <type_traits>

#include <guild/modules/block.hpp>
#include <guild/modules/embedding.hpp>

namespace guild {
inline namespace v1 {

/// The published layout: its own copies of embedding and head, two norms, a projection of [embedding, hidden], a block.
template <class S, class BlockType>
struct MtpLayer {
  static constexpr Index hidden = S::config.hidden, vocab = S::config.vocab;
  using Block = BlockType;
  using Norm = RmsNorm<hidden, S::config.norm.gain>;
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

  template <class Real>
  struct Saved {
    DeviceView<Real, 2> embedded;  ///< [T, hidden]: rows of the next tokens, before their norm
    DeviceView<Real, 2> x;         ///< [T, hidden]: the block's input
    typename Block::template Saved<Real> block;
    DeviceView<Real, 2> y;  ///< [T, hidden]: the block's output, before the norm of the head
  };

  /// y [T, hidden]: the states of which a head guesses the token after the pass's. The tokens of the pass are the
  /// *next* ones: each row's is the one after that of its hidden_states [T, hidden], which the main model gave after
  /// its final norm. `embedding` is the layer's own copy, or in training the main model's, which it shares as it shares
  /// the head. The embedding comes first in the projection's input, as in the published weights (opposite to the
  /// paper's order).
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, const WeightView& embedding,
                      Caches<Cache> caches, DeviceView<const std::type_identity_t<Real>, 2> hidden_states,
                      DeviceView<Real, 2> y, Saved<std::type_identity_t<Real>>* keep = nullptr) {
    Saved<Real> here;
    Saved<Real>& saved = keep != nullptr ? *keep : here;
    auto room = pass.room(keep);
    saved.embedded = room.template keep<Real>(y.rows, hidden);
    saved.x = room.template keep<Real>(y.rows, hidden);
    saved.y = room.template keep<Real>(y.rows, hidden);
    const auto joined = room.template take<Real>(y.rows, 2 * hidden);
    embed(pass.device, embedding, pass.batch.tokens, saved.embedded);
    join(pass.device, weights, saved.embedded, hidden_states, joined);
    Projection::forward(pass.device, weights.projection, joined, saved.x);
    Block::forward(pass, weights.block, caches, saved.x, saved.y, part_of(keep, &Saved<Real>::block));
    Norm::forward(pass.device, weights.head_norm, saved.y, y, S::config.norm.epsilon);
  }

  /// dy [T, hidden] is overwritten. Adds to the gradients of the layer and of the shared embedding [vocab, hidden];
  /// overwrites dhidden_states [T, hidden].
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights,
                       DeviceView<const std::type_identity_t<Real>, 2> hidden_states,
                       const Saved<std::type_identity_t<Real>>& saved, DeviceView<Real, 2> dy,
                       DeviceView<std::type_identity_t<Real>, 2> dhidden_states,
                       DeviceView<std::type_identity_t<Real>, 2> dembedding, Weights<Gradients>& gradients) {
    Device& device = pass.device;
    constexpr double epsilon = S::config.norm.epsilon;
    Norm::backward(device, weights.head_norm, saved.y, dy, dy, gradients.head_norm, epsilon);
    Block::backward(pass, weights.block, saved.x, saved.block, dy, dy, gradients.block);
    auto scratch = device.scratch();
    const auto joined = scratch.template take<Real>(dy.rows, 2 * hidden);
    const auto djoined = scratch.template take<Real>(dy.rows, 2 * hidden);
    join(device, weights, saved.embedded, hidden_states, joined);
    Projection::backward(device, weights.projection, joined, dy, djoined, gradients.projection);
    Norm::backward(device, weights.embedding_norm, saved.embedded, djoined.middle_cols(0, hidden), dy,
                   gradients.embedding_norm, epsilon);
    embedding_backward(device, pass.batch.tokens, dy, dembedding);
    Norm::backward(device, weights.hidden_norm, hidden_states, djoined.middle_cols(hidden, hidden), dhidden_states,
                   gradients.hidden_norm, epsilon);
  }

 private:
  template <class Device, class Store, class Real>
  static void join(Device& device, const Weights<Store>& weights,
                   DeviceView<const std::type_identity_t<Real>, 2> embedded,
                   DeviceView<const std::type_identity_t<Real>, 2> hidden_states, DeviceView<Real, 2> joined) {
    Norm::forward(device, weights.embedding_norm, embedded, joined.middle_cols(0, hidden), S::config.norm.epsilon);
    Norm::forward(device, weights.hidden_norm, hidden_states, joined.middle_cols(hidden, hidden),
                  S::config.norm.epsilon);
  }
};

}  // namespace v1
}  // namespace guild
