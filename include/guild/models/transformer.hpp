// A complete decoder-only language model, assembled from a Spec.
#pragma once

#include <algorithm>
#include <array>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <guild/core/config_check.hpp>
#include <guild/core/refuse.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/embedding.hpp>
#include <guild/modules/layer_stack.hpp>
#include <guild/modules/mtp.hpp>
#include <guild/ops/common/fault.hpp>

namespace guild {
inline namespace v1 {

/// Embedding, the layers of S, norm and head.
template <class S>
struct Transformer {
  using Spec = S;
  static constexpr TrunkConfig config = S::config;
  static constexpr AttentionMask mask = S::mask;
  static_assert(config.layers > 0, "Transformer: config.layers must be positive");
  static_assert(expert_layers(config_of<S>) >= 0 && expert_layers(config_of<S>) <= config.layers,
                "Transformer: dense.layers must be in [0, config.layers]");
  static constexpr TopKConfig routing = part_or(config_of<S>, TopKConfig{.experts = 0});
  static_assert(routing.experts <= 0 || (routing.top_k >= 1 && routing.top_k <= routing.experts),
                "Transformer: routing.top_k must be in [1, routing.experts]");
  static_assert(routing.experts <= 0 || (routing.groups >= 1 && routing.experts % routing.groups == 0),
                "Transformer: routing.groups must divide routing.experts");
  static_assert(config_problem(config_of<S>) == nullptr,
                "Transformer: the numbers of this Spec are no possible model; "
                "guild::config_problem(guild::config_of<Spec>) says why");

  /// Of a layer, with those that give their input.
  static constexpr int routed_experts = routing.over_all().experts;
  static_assert(LayerStack<typename S::template Layers<S>>,
                "Transformer: Spec::Layers must be a LayerStack, see guild/modules/layer_stack.hpp");
  using Layers = typename S::template Activations<typename S::template Layers<S>>;
  static_assert(Layers::layers == config.layers, "Transformer: Spec::Layers must have config.layers layers");
  static_assert(detail::takes_rows_of<Layers>(config.hidden),
                "Transformer: Spec::Layers takes rows of another width than config.hidden; layers of several residual "
                "streams stand in a Streams, see guild/modules/streams.hpp");
  using TokenEmbedding = Embedding<config.vocab, config.hidden, config.embedding_scale>;
  using Norm = RmsNorm<config.hidden, config.norm.gain>;
  using Head = Linear<config.vocab, config.hidden>;
  using Mtp = MtpLayer<S, typename Layers::LastLayer>;
  static constexpr std::size_t most_mtp = 16;  ///< prediction layers, as core/config_check.hpp allows

  template <class Store>
  struct Weights {
    typename TokenEmbedding::template Weights<Store> embedding;
    typename Layers::template Weights<Store> layers;
    typename Norm::template Weights<Store> final_norm;
    typename Head::template Weights<Store> head;               ///< unused with tied embeddings
    std::vector<typename Mtp::template Weights<Store>> mtp{};  ///< empty unless asked for
  };

  /// What decoding one sequence needs: a SequenceCache of all layers.
  struct Cache {
    typename Layers::Cache layers;
    std::vector<typename Mtp::Cache> mtp{};  ///< one for each prediction layer that is used; they may lag behind

    struct Mark {
      typename Layers::Cache::Mark layers;
      std::array<typename Mtp::Cache::Mark, most_mtp> mtp;
    };
    [[nodiscard]] Index length() const { return layers.length(); }
    [[nodiscard]] Index reserved() const { return layers.reserved(); }
    /// Makes room for `tokens` in all. Throws dev_memory.
    [[gnu::noinline]] void reserve(Index tokens) {
      layers.reserve(tokens);
      for (auto& layer : mtp) layer.reserve(tokens);
    }
    [[gnu::noinline]] [[nodiscard]] Mark mark() const {
      return marks(layers.mark(), [](const auto& layer) { return layer.mark(); });
    }
    /// A prediction layer's row was made with the token after its own: of the last token that stays it is forgotten.
    [[gnu::noinline]] [[nodiscard]] Mark mark(Index tokens) const {
      if (tokens == length()) return mark();
      const Index guessed = std::max<Index>(tokens - 1, 0);
      return marks(layers.mark(tokens),
                   [guessed](const auto& layer) { return layer.mark(std::min(guessed, layer.length())); });
    }
    [[nodiscard]] Index oldest() const {
      Index most = layers.oldest();
      for (const auto& layer : mtp)  // which forgets one token more than the others
        if (layer.oldest() > 0) most = std::max(most, layer.oldest() + 1);
      return most;
    }
    /// Throws op_argument for a mark to which it cannot go back, and then changes nothing.
    [[gnu::noinline]] void rewind(const Mark& mark) {
      for (std::size_t i = 0; i < std::min(mtp.size(), most_mtp); ++i) detail::check_rewind(mtp[i], mark.mtp[i]);
      layers.rewind(mark.layers);
      for (std::size_t i = 0; i < std::min(mtp.size(), most_mtp); ++i) mtp[i].rewind(mark.mtp[i]);
    }
    /// Without prediction layers.
    [[nodiscard]] static constexpr Index bytes(Index tokens) { return Layers::Cache::bytes(tokens); }

   private:
    template <class Of>
    [[nodiscard]] Mark marks(const typename Layers::Cache::Mark& of_layers, Of&& of) const {
      if (mtp.size() > most_mtp)
        detail::refuse(ErrorCode::op_argument,
                       {"a cache has ", mtp.size(), " parts for prediction layers, expected at most ", most_mtp,
                        "; resize its `mtp`"});
      Mark mark{of_layers, {}};
      for (std::size_t i = 0; i < mtp.size(); ++i) mark.mtp[i] = of(mtp[i]);
      return mark;
    }
  };
  static_assert(SequenceCache<Cache>);

  /// Walks all tensors: of one Weights, or of several side by side. Throws op_shape if they differ in their number of
  /// prediction layers, before the first tensor.
  template <class Visitor, class First, class... Rest>
  static void visit(Visitor&& visitor, const Path& path, First& first, Rest&... rest) {
    for (const std::size_t count : {first.mtp.size(), rest.mtp.size()...})
      if (count != first.mtp.size())
        detail::refuse(ErrorCode::op_shape, {"weights with ", first.mtp.size(), " and with ", count,
                                             " prediction layers cannot be walked together; resize `mtp` first"});
    TokenEmbedding::visit(visitor, path / "embedding", first.embedding, rest.embedding...);
    const Path layers = path / "layers";
    Layers::visit(visitor, layers, Index{0}, first.layers, rest.layers...);
    Norm::visit(visitor, path / "final_norm", first.final_norm, rest.final_norm...);
    if constexpr (!config.tied_embeddings) Head::visit(visitor, path / "head", first.head, rest.head...);
    for (std::size_t i = 0; i < first.mtp.size(); ++i)
      Mtp::visit(visitor, layers / (config.layers + static_cast<Index>(i)), first.mtp[i], rest.mtp[i]...);
  }

  template <class Real>
  struct Saved {
    typename Layers::template Saved<Real> layers;
    DeviceView<Real, 2> last;  ///< [T, hidden]: the residual stream before the final norm
  };

  /// states [T, hidden] after the final norm. With caches the batch is appended to its sequences:
  /// `caches[chunk.sequence]->length()` must be the chunk's first position, each cache is grown as needed (reserve
  /// ahead to allocate nothing while decoding), and a sequence may have one chunk in a batch. Without caches each chunk
  /// is a whole sequence, and what `backward` needs may be kept. If this throws, all sequences are as before.
  template <class Device, class Store, class Real>
  static void forward(const Pass<Device>& pass, const Weights<Store>& weights, std::span<Cache* const> caches,
                      DeviceView<Real, 2> states, Saved<std::type_identity_t<Real>>* keep = nullptr) {
    check(pass);
    if (caches.empty()) {
      check_whole(pass.batch);
      run(pass, weights, {}, states, keep);
      return;
    }
    check_caches(pass.batch, caches, keep != nullptr);
    const auto whole = [&](int sequence) -> Cache& { return *caches[static_cast<std::size_t>(sequence)]; };
    const auto layers_of = [&](int sequence) -> auto& { return whole(sequence).layers; };
    or_rewind(pass, Caches<Cache>(whole),
              [&] { run(pass, weights, Caches<typename Layers::Cache>(layers_of), states, keep); });
  }

  /// dstates [T, hidden] is overwritten; `saved` is used up. Adds to all gradients but the head's.
  template <class Device, class Store, class Gradients, class Real>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights, Saved<Real>& saved,
                       DeviceView<Real, 2> dstates, Weights<Gradients>& gradients) {
    Norm::backward(pass.device, weights.final_norm, saved.last, dstates, dstates, gradients.final_norm,
                   config.norm.epsilon);
    Layers::backward(pass, weights.layers, saved.layers, dstates, gradients.layers);
    TokenEmbedding::backward(pass.device, weights.embedding, pass.batch.tokens, DeviceView<const Real, 2>(dstates),
                             gradients.embedding);
  }

  /// The matrix [vocab, hidden] that makes logits of states: the embedding where they are tied.
  template <class AnyWeights>
  static auto& head_of(AnyWeights& weights) {
    if constexpr (config.tied_embeddings) return weights.embedding.weight;
    else return weights.head.weight;
  }

  /// logits [T, vocab] of states [T, hidden].
  template <class Device, class Store>
  static void logits(Device& device, const Weights<Store>& weights, DeviceView<const float, 2> states,
                     DeviceView<float, 2> logits) {
    if constexpr (config.tied_embeddings)
      linear(device, weights.embedding.weight.view(), states, logits);
    else
      Head::forward(device, weights.head, states, logits);
  }

  /// Runs prediction layer `depth` after `forward`: the tokens of `pass` are those that follow the batch's, states
  /// [T, hidden] what `forward` gave, or for a deeper layer `own_states` [T, hidden] of the one before; logits
  /// [T, vocab] the guess of the tokens after the pass's.
  template <class Device, class Store>
  static void predict_second(const Pass<Device>& pass, const Weights<Store>& weights, std::span<Cache* const> caches,
                             DeviceView<const float, 2> states, DeviceView<float, 2> logits, std::size_t depth = 0,
                             DeviceView<float, 2> own_states = {}) {
    check(pass);
    if (depth >= weights.mtp.size())
      detail::refuse(ErrorCode::op_argument, {"prediction layer ", depth, " was asked for, but ", weights.mtp.size(),
                                              " are loaded; set LoadOptions::mtp"});
    for (const Chunk& chunk : pass.batch.chunks) {
      Cache& of_sequence = cache_of(chunk, caches);
      if (depth >= of_sequence.mtp.size())
        detail::refuse(ErrorCode::op_argument,
                       {"the cache of sequence ", chunk.sequence, " has no part for prediction layer ", depth,
                        "; resize its `mtp` first"});
      if (chunk.first_position + chunk.count > of_sequence.length())
        detail::refuse(ErrorCode::op_shape,
                       "a prediction layer was asked for positions that are not in the cache; call `forward` first");
      if (chunk.count > 0 && of_sequence.mtp[depth].length() != chunk.first_position)
        detail::refuse(
            ErrorCode::op_shape,
            {"a chunk starts at position ", chunk.first_position, ", but prediction layer ", depth, " holds ",
             of_sequence.mtp[depth].length(), " tokens; it takes them in order, and rewinds with its sequence"});
    }
    for (const Chunk& chunk : pass.batch.chunks)
      grow(cache_of(chunk, caches).mtp[depth], chunk.first_position + chunk.count, config.context);
    const auto& layer = weights.mtp[depth];
    const auto layer_of = [&](int sequence) -> auto& { return caches[static_cast<std::size_t>(sequence)]->mtp[depth]; };
    const Caches<typename Mtp::Cache> layer_caches(layer_of);
    Pass<Device> at = pass;
    at.layer = config.layers + static_cast<int>(depth);
    or_rewind(pass, layer_caches, [&] {
      auto scratch = pass.device.scratch();
      const auto guess =
          own_states.data != nullptr ? own_states : scratch.template take<float>(states.rows, config.hidden);
      Mtp::forward(at, layer, layer.embedding.weight.view(), layer_caches, states, guess);
      Mtp::Head::forward(pass.device, layer.head, guess, logits);
      raise_faults(pass.device);
    });
  }

 private:
  template <class Device, class Store, class Real>
  static void run(const Pass<Device>& pass, const Weights<Store>& weights, Caches<typename Layers::Cache> caches,
                  DeviceView<Real, 2> states, Saved<Real>* keep) {
    auto room = pass.room(keep);
    const DeviceView<Real, 2> x = keep ? room.template keep<Real>(states.rows, states.cols) : states;
    const DeviceView<Real, 2> last = keep ? room.template keep<Real>(states.rows, states.cols) : states;
    if (keep) keep->last = last;
    TokenEmbedding::forward(pass.device, weights.embedding, pass.batch.tokens, x);
    Pass<Device> at = pass;
    if constexpr (requires { S::indexer.types; })
      if (S::indexer.types.has(IndexerType::shared)) at.keys = room_for_choice(pass.batch, S::indexer.top_k, room);
    Layers::forward(at, weights.layers, caches, x, last, part_of(keep, &Saved<Real>::layers));
    Norm::forward(pass.device, weights.final_norm, last, states, config.norm.epsilon);
    raise_faults(pass.device);
  }

  /// Calls `work`; if it throws, the caches of the pass go back to what they are now.
  template <class Device, class AnyCache, class Work>
  static void or_rewind(const Pass<Device>& pass, Caches<AnyCache> caches, Work&& work) {
    const std::span<const Chunk> chunks = pass.batch.chunks;
    Staged<Device, typename AnyCache::Mark> marks(pass.device, static_cast<Index>(chunks.size()));
    for (const Chunk& chunk : chunks) marks.add(caches[chunk.sequence].mark());
    try {
      work();
    } catch (...) {
      for (std::size_t i = 0; i < chunks.size(); ++i) caches[chunks[i].sequence].rewind(marks.ready()[i]);
      throw;
    }
  }

  static Cache& cache_of(const Chunk& chunk, std::span<Cache* const> caches) {
    if (chunk.sequence < 0 || static_cast<std::size_t>(chunk.sequence) >= caches.size())
      detail::refuse(ErrorCode::op_shape,
                     {"a chunk names sequence ", chunk.sequence, ", but there are ", caches.size(), " caches"});
    Cache* const cache = caches[static_cast<std::size_t>(chunk.sequence)];
    if (cache == nullptr)
      detail::refuse(ErrorCode::op_argument,
                     {"sequence ", chunk.sequence, " of the batch has no cache: its pointer is null"});
    return *cache;
  }
  /// All checks, of a batch that is one, come before the first change.
  static void check_caches(const Batch& batch, std::span<Cache* const> caches, bool keep) {
    if (keep)
      detail::refuse(ErrorCode::op_argument,
                     "a pass that appends to caches cannot go backward; give it whole sequences and no caches, or keep "
                     "nothing");
    for (std::size_t i = 0; i < batch.chunks.size(); ++i) {
      const Chunk& chunk = batch.chunks[i];
      const Cache& cache = cache_of(chunk, caches);
      if (cache.length() != chunk.first_position)
        detail::refuse(ErrorCode::op_shape, {"a chunk starts at position ", chunk.first_position,
                                             ", but its cache holds ", cache.length(), " tokens"});
      if (chunk.first_position + chunk.count > config.context)
        detail::refuse(ErrorCode::in_context, {chunk.first_position + chunk.count,
                                               " tokens do not fit the model's context of ", config.context});
      for (std::size_t j = 0; j < i && chunk.count > 0; ++j)
        if (batch.chunks[j].count > 0 && &cache == caches[static_cast<std::size_t>(batch.chunks[j].sequence)])
          detail::refuse(ErrorCode::op_shape, {"two chunks of a batch extend sequence ", chunk.sequence,
                                               "; give each sequence one chunk, with all of its new tokens"});
    }
    for (const Chunk& chunk : batch.chunks)
      grow(cache_of(chunk, caches), chunk.first_position + chunk.count, config.context);
  }
};

}  // namespace v1
}  // namespace guild
