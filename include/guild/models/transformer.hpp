// A complete decoder-only language model, assembled from a Spec.
#pragma once

#include <algorithm>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <guild/core/config_check.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/embedding.hpp>
#include <guild/modules/mtp.hpp>
#include <guild/modules/observer.hpp>
#include <guild/modules/stack.hpp>

namespace guild::inline v1 {

/// Embedding, dense layers, expert layers, norm and head, as `S::config` counts them and with the modules S chooses.
template <class S>
struct Transformer {
  using Spec = S;
  static constexpr ModelConfig config = S::config;
  static_assert(config.layers > 0, "Transformer: config.layers must be positive");
  static_assert(config.dense_layers >= 0 && config.dense_layers <= config.layers,
                "Transformer: config.dense_layers must be in [0, config.layers]");
  static_assert(config_problem(S::config) == nullptr,
                "Transformer: Spec::config is no possible model; guild::config_problem(Spec::config) says why");

  using Mixer = typename S::template Mixer<S>;
  using DenseBlock = Block<S, Mixer, DenseFeedForward<S>>;
  using MoeBlock = Block<S, Mixer, Moe<S>>;
  static constexpr int dense_layers = config.moe.experts > 0 ? config.dense_layers : config.layers;
  static constexpr bool has_moe = dense_layers < config.layers;
  using Layers =
      std::conditional_t<has_moe,
                         Stack<0, typename S::template Training<Segment<DenseBlock, dense_layers>>,
                               typename S::template Training<Segment<MoeBlock, config.layers - dense_layers>>>,
                         Stack<0, typename S::template Training<Segment<DenseBlock, config.layers>>>>;
  using TokenEmbedding = Embedding<config.vocab, config.hidden>;
  using Norm = RmsNorm<config.hidden>;
  using Head = Linear<config.vocab, config.hidden>;
  using Mtp = MtpLayer<S, std::conditional_t<has_moe, MoeBlock, DenseBlock>>;

  template <class Store>
  struct Weights {
    typename TokenEmbedding::template Weights<Store> embedding;
    typename Layers::template Weights<Store> layers;
    typename Norm::template Weights<Store> final_norm;
    typename Head::template Weights<Store> head;               ///< unused with tied embeddings
    std::vector<typename Mtp::template Weights<Store>> mtp{};  ///< empty unless asked for
    RopeTable rope{config.rope, config.attention.rope_dim};    ///< derived, not stored
  };

  /// What decoding one sequence needs: the cached rows of each layer, and how many of them are filled.
  struct Cache {
    typename Layers::Cache layers;
    std::vector<typename Mtp::Cache> mtp{};
    Index length = 0;
    Index reserved = 0;

    /// Makes room for `tokens` in all. Throws dev_memory.
    void reserve(Index tokens) {
      layers.for_each([&](auto& layer) { layer.reserve(tokens, length); });
      for (auto& layer : mtp) layer.reserve(tokens, length);
      if (tokens > reserved) reserved = tokens;
    }
    /// Makes room for at least `tokens`, doubling, so that growing token by token copies little.
    void grow(Index tokens) {
      reserve(tokens > reserved ? std::min<Index>(config.context, std::max(tokens, 2 * reserved)) : tokens);
    }
  };

  /// Walks all tensors: of one Weights, or of several side by side. Throws op_shape if they differ in their number of
  /// prediction layers, before the first tensor.
  template <class Visitor, class First, class... Rest>
  static void visit(Visitor&& visitor, const Path& path, First& first, Rest&... rest) {
    for (const std::size_t count : {first.mtp.size(), rest.mtp.size()...})
      if (count != first.mtp.size())
        throw Error(ErrorCode::op_shape, "weights with " + std::to_string(first.mtp.size()) + " and with " +
                                             std::to_string(count) +
                                             " prediction layers cannot be walked together; resize `mtp` first");
    TokenEmbedding::visit(visitor, path / "embedding", first.embedding, rest.embedding...);
    const Path layers = path / "layers";
    Layers::visit(visitor, layers, first.layers, rest.layers...);
    Norm::visit(visitor, path / "final_norm", first.final_norm, rest.final_norm...);
    if constexpr (!config.tied_embeddings) Head::visit(visitor, path / "head", first.head, rest.head...);
    for (std::size_t i = 0; i < first.mtp.size(); ++i)
      Mtp::visit(visitor, layers / (config.layers + static_cast<Index>(i)), first.mtp[i], rest.mtp[i]...);
  }

  /// Appends a batch to its sequences: `caches[chunk.sequence]->length` must be the chunk's first position, and each
  /// cache is grown as needed (reserve ahead to allocate nothing while decoding). A sequence may have one chunk in a
  /// batch. states [T, hidden]: hidden states after the final norm. If this throws, all sequences are as before.
  template <class Device, class Store, class Observer = const NoObserver>
  static void extend(Device& device, const Weights<Store>& weights, const Batch& batch, std::span<Cache* const> caches,
                     View<float, 2> states, Observer&& observer = {}, MlaForm form = MlaForm::automatic) {
    check(batch);
    check_caches(batch, caches);
    const auto cache = [&](int sequence) ->
        typename Layers::Cache& { return caches[static_cast<std::size_t>(sequence)]->layers; };
    TokenEmbedding::forward(device, weights.embedding, batch.tokens, states);
    Layers::extend(device, weights.layers, batch, weights.rope, cache, states, observer, form);
    Norm::forward(device, weights.final_norm, states, states, config.norm_epsilon);
    for (const Chunk& chunk : batch.chunks) caches[static_cast<std::size_t>(chunk.sequence)]->length += chunk.count;
  }

  template <class Real>
  struct Saved {
    typename Layers::template Saved<Real> layers;
    View<Real, 2> last;  ///< [T, hidden]: the residual stream before the final norm
  };

  /// Training: states [T, hidden] after the final norm, over whole packed sequences (each chunk of the pass one of
  /// them). Keeps what `backward` needs in `memory`, a frame of an arena that is not the device's scratch.
  template <class Device, class Store, class Real, class Memory>
  static void forward(Device& device, const Weights<Store>& weights, const TrainingPass& pass, View<Real, 2> states,
                      Saved<Real>& saved, Memory& memory) {
    const auto x = memory.template take<Real>(states.rows, states.cols);
    saved.last = memory.template take<Real>(states.rows, states.cols);
    TokenEmbedding::forward(device, weights.embedding, pass.batch.tokens, x);
    Layers::forward(device, weights.layers, pass, x, saved.last, saved.layers, memory);
    Norm::forward(device, weights.final_norm, saved.last, states, config.norm_epsilon);
  }

  /// The same states, keeping nothing.
  template <class Device, class Store, class Real, class Memory>
  static void evaluate(Device& device, const Weights<Store>& weights, const TrainingPass& pass, View<Real, 2> states,
                       Memory& memory) {
    auto own = memory.nested();
    const auto x = own.template take<Real>(states.rows, states.cols);
    TokenEmbedding::forward(device, weights.embedding, pass.batch.tokens, x);
    const auto last = Layers::evaluate(device, weights.layers, pass, x, states, own);
    Norm::forward(device, weights.final_norm, last, states, config.norm_epsilon);
  }

  /// dstates [T, hidden] is overwritten; `saved` is used up. Adds to all gradients but the head's.
  template <class Device, class Store, class Gradients, class Real, class Memory>
  static void backward(Device& device, const Weights<Store>& weights, const TrainingPass& pass, Saved<Real>& saved,
                       View<Real, 2> dstates, Weights<Gradients>& gradients, Memory& memory) {
    Norm::backward(device, weights.final_norm, saved.last, dstates, dstates, gradients.final_norm,
                   config.norm_epsilon);
    Layers::backward(device, weights.layers, pass, saved.layers, dstates, gradients.layers, memory);
    TokenEmbedding::backward(device, pass.batch.tokens, View<const Real, 2>(dstates), gradients.embedding);
  }

  /// The matrix [vocab, hidden] that makes logits of states: the embedding where they are tied.
  template <class AnyWeights>
  static auto& head_of(AnyWeights& weights) {
    if constexpr (config.tied_embeddings) return weights.embedding.weight;
    else return weights.head.weight;
  }

  /// logits [T, vocab] of states [T, hidden].
  template <class Device, class Store>
  static void logits(Device& device, const Weights<Store>& weights, View<const float, 2> states,
                     View<float, 2> logits) {
    if constexpr (config.tied_embeddings)
      linear(device, weights.embedding.weight.view(), states, logits);
    else
      Head::forward(device, weights.head, states, logits);
  }

  /// Runs MTP layer `depth` after `extend`: next_tokens [T] are the tokens that follow the batch's, states [T, hidden]
  /// what `extend` gave, logits [T, vocab] the guess of the tokens after next_tokens.
  template <class Device, class Store, class Observer = const NoObserver>
  static void predict_second(Device& device, const Weights<Store>& weights, const Batch& batch,
                             View<const std::int32_t> next_tokens, std::span<Cache* const> caches,
                             View<const float, 2> states, View<float, 2> logits, std::size_t depth = 0,
                             Observer&& observer = {}) {
    const Batch shifted{next_tokens, batch.positions, batch.chunks};
    check(shifted);
    if (depth >= weights.mtp.size())
      throw Error(ErrorCode::op_argument, "prediction layer " + std::to_string(depth) + " was asked for, but " +
                                              std::to_string(weights.mtp.size()) + " are loaded; set LoadOptions::mtp");
    for (const Chunk& chunk : batch.chunks) {
      Cache& of_sequence = cache_of(chunk, caches);
      if (depth >= of_sequence.mtp.size())
        throw Error(ErrorCode::op_argument, "the cache of sequence " + std::to_string(chunk.sequence) +
                                                " has no part for prediction layer " + std::to_string(depth) +
                                                "; resize its `mtp` first");
      if (chunk.first_position + chunk.count > of_sequence.length)
        throw Error(ErrorCode::op_shape,
                    "a prediction layer was asked for positions that are not in the cache; call `extend` first");
      of_sequence.mtp[depth].reserve(chunk.first_position + chunk.count, chunk.first_position);
    }
    const auto cache = [&](int sequence) ->
        typename Mtp::Cache& { return caches[static_cast<std::size_t>(sequence)]->mtp[depth]; };
    Mtp::extend(device, weights.mtp[depth], shifted, weights.rope, cache, states, logits,
                config.layers + static_cast<int>(depth), observer);
  }

 private:
  static Cache& cache_of(const Chunk& chunk, std::span<Cache* const> caches) {
    if (chunk.sequence < 0 || static_cast<std::size_t>(chunk.sequence) >= caches.size())
      throw Error(ErrorCode::op_shape, "a chunk names sequence " + std::to_string(chunk.sequence) + ", but there are " +
                                           std::to_string(caches.size()) + " caches");
    Cache* const cache = caches[static_cast<std::size_t>(chunk.sequence)];
    if (cache == nullptr)
      throw Error(ErrorCode::op_argument,
                  "sequence " + std::to_string(chunk.sequence) + " of the batch has no cache: its pointer is null");
    return *cache;
  }
  /// All checks come before the first change.
  static void check_caches(const Batch& batch, std::span<Cache* const> caches) {
    for (std::size_t i = 0; i < batch.chunks.size(); ++i) {
      const Chunk& chunk = batch.chunks[i];
      const Cache& cache = cache_of(chunk, caches);
      if (cache.length != chunk.first_position)
        throw Error(ErrorCode::op_shape, "a chunk starts at position " + std::to_string(chunk.first_position) +
                                             ", but its cache holds " + std::to_string(cache.length) + " tokens");
      if (chunk.first_position + chunk.count > config.context)
        throw Error(ErrorCode::in_context, std::to_string(chunk.first_position + chunk.count) +
                                               " tokens do not fit the model's context of " +
                                               std::to_string(config.context));
      for (std::size_t j = 0; j < i && chunk.count > 0; ++j)
        if (batch.chunks[j].count > 0 && &cache == caches[static_cast<std::size_t>(batch.chunks[j].sequence)])
          throw Error(ErrorCode::op_shape, "two chunks of a batch extend sequence " + std::to_string(chunk.sequence) +
                                               "; give each sequence one chunk, with all of its new tokens");
    }
    for (const Chunk& chunk : batch.chunks) cache_of(chunk, caches).grow(chunk.first_position + chunk.count);
  }
};

}  // namespace guild::inline v1
