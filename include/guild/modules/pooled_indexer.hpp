// The index of attention over pooled rows (DeepSeek-V4): its keys are pooled of the same tokens as the rows it chooses
// among, by a compressor of its own. Shapes: T tokens, D hidden, Q query rank, H index heads of I values, K rows to
// choose, R rotary dimensions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <guild/core/config.hpp>
#include <guild/device/staged.hpp>
#include <guild/modules/batch.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/compressed_cache.hpp>
#include <guild/modules/compressor.hpp>
#include <guild/modules/index_heads.hpp>
#include <guild/modules/key_choice.hpp>
#include <guild/modules/linear.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/attention/index.hpp>
#include <guild/ops/rope/rope.hpp>

namespace guild {
inline namespace v1 {

/// Chooses, of the pooled rows that a token sees, those of largest score (IndexHeads), where q = query(normed query
/// latent), w = head_weights(x) and keys are pooled of x; the last R values of q and keys are rotated as attention's.
template <class S, const IndexerConfig& Config = S::indexer>
struct PooledIndexer {
  static constexpr IndexerConfig config = Config;
  static constexpr Index heads = config.heads, dim = config.dim, top_k = config.top_k;

  template <class Element, class Pooling, Index Chunk>
  using Cache = CompressorCache<Element, dim, Pooling, Chunk>;

  /// Of an attention kind and what its rows are pooled of.
  template <class Attention, class Pooling>
  struct Of {
    static constexpr bool chooses = true;
    static constexpr Index hidden = S::config.hidden, query_rank = Attention::config.query_rank,
                           rotary = Attention::config.rope_dim, tokens_per_key = Pooling::tokens;
    static_assert(query_rank > 0, "PooledIndexer: attention.query_rank must be positive: it reads the query latent");
    static_assert(config.pairs == Attention::config.rope.pairs,
                  "PooledIndexer: indexer.pairs must equal attention.rope.pairs: it turns by attention's table");
    static_assert(!config.types.has(IndexerType::shared), "PooledIndexer: layers cannot share a choice of pooled rows");
    static_assert(rotary <= dim, "PooledIndexer: attention.rope_dim must not exceed indexer.dim: it turns that many");

    using KeyCompressor = Compressor<hidden, dim, Pooling::tokens, Pooling::windows>;
    using Query = Linear<heads * dim, query_rank>;
    using HeadWeights = Linear<heads, hidden>;
    using OfHeads = IndexHeads<heads, dim, top_k, tokens_per_key>;
    template <class Real>
    using Queries = typename OfHeads::template Queries<Real>;

    template <class Store>
    struct Weights {
      typename KeyCompressor::template Weights<Store> keys;
      typename Query::template Weights<Store> query;               ///< [H * I, Q]
      typename HeadWeights::template Weights<Store> head_weights;  ///< [H, D]
    };
    template <class Visitor, class... W>
    [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
      const Path indexer = path / "indexer";
      KeyCompressor::visit(visitor, indexer / "compressor", weights.keys...);
      Query::visit(visitor, indexer / "query", weights.query...);
      HeadWeights::visit(visitor, indexer / "head_weights", weights.head_weights...);
    }

    /// The choice of a pass over caches, to whose index the keys are appended. query_latent(memory) makes the normed
    /// query latent [T, Q].
    template <class Device, class Store, class Cache, class QueryLatent, class Memory>
    static KeyChoice choose_of_caches(const Pass<Device>& pass, const Weights<Store>& weights, const RopeView& table,
                                      Caches<Cache> caches, DeviceView<const float, 2> x, QueryLatent&& query_latent,
                                      Memory& memory) {
      using Sources = typename Cache::Sources;
      using Rows = typename Cache::Rows;
      const auto sources_of = [&](int sequence) -> Sources& { return caches[sequence].sources(); };
      const auto rows_of = [&](int sequence) -> Rows& { return caches[sequence].rows(); };
      KeyCompressor::append(pass, weights.keys, epsilon, table, rotated(1), Caches<Sources>(sources_of),
                            Caches<Rows>(rows_of), x, memory);
      if (!OfHeads::limits(pass)) return {};
      const auto made = queries(pass, weights, table, x, query_latent(memory), memory);
      const KeyChoice choice = room_for_choice(pass.batch, top_k, memory, tokens_per_key);
      OfHeads::choose(pass, made, choice, [&](std::size_t i) {
        return std::as_const(caches[pass.batch.chunks[i].sequence].rows()).rows();
      });
      return choice;
    }

    /// The choice of a pass over whole sequences, as ChosenBits that `room` keeps; no data: all see all rows.
    template <class Device, class Store, class Real, class QueryLatent, class RoomOf>
    static DeviceView<std::uint32_t> choose_of_itself(const Pass<Device>& pass, const Weights<Store>& weights,
                                                      const RopeView& table, DeviceView<const Real, 2> x,
                                                      QueryLatent&& query_latent, RoomOf& room) {
      if (!OfHeads::limits(pass)) return {};
      const auto bits = room.template keep<std::uint32_t>(ChosenBits::words(pass.batch, top_k, tokens_per_key));
      typename KeyCompressor::template Saved<Real> own;
      auto scratch = pass.room(static_cast<decltype(&own)>(nullptr));
      const auto keys = KeyCompressor::forward(pass, weights.keys, epsilon, table, rotated(1), x, scratch, own);
      const auto made = queries(pass, weights, table, x, query_latent(scratch), scratch);
      const KeyChoice choice = room_for_choice(pass.batch, top_k, scratch, tokens_per_key);
      OfHeads::choose(pass, made, choice, [&](std::size_t i) -> DeviceView<const Real, 2> {
        SequenceRows<const Real> rows(keys, tokens_per_key);
        for (std::size_t before = 0; before < i; ++before) (void)rows.next(pass.batch.chunks[before]);
        return rows.next(pass.batch.chunks[i]);
      });
      detail::mark_all(pass, choice, bits, tokens_per_key);
      return bits;
    }

    /// Adds the gradients of the index's objective, of whole sequences, if it has a weight: see IndexHeads::objective.
    template <class Device, class Store, class Gradients, class Real, class QueryLatent, class AttentionOf>
    static void backward(const Pass<Device>& pass, const Weights<Store>& weights, const RopeView& table,
                         DeviceView<const Real, 2> x, QueryLatent&& query_latent, DeviceView<std::uint32_t> chosen,
                         const BasicExpandedAttentionSizes<std::type_identity_t<Real>>& attention,
                         AttentionOf&& attention_of, Weights<Gradients>& gradients) {
      if (!(pass.indexing.weight > 0.0)) return;
      Device& device = pass.device;
      typename KeyCompressor::template Saved<Real> saved;
      auto scratch = pass.room(static_cast<decltype(&saved)>(nullptr));
      const auto keys = KeyCompressor::forward(pass, weights.keys, epsilon, table, rotated(1), x, scratch, saved);
      const DeviceView<const Real, 2> latent = query_latent(scratch);
      const auto made = queries(pass, weights, table, x, latent, scratch), dmade = Queries<Real>::room(x.rows, scratch);
      const auto dkeys = scratch.template take<Real>(keys.rows, dim);
      OfHeads::objective(pass, made, keys, chosen, attention, attention_of, dmade, dkeys);

      rope_backward(device, table, pass.batch.positions, dmade.query, rotated(heads));
      const DeviceView<Real, 2> none{};  // nothing flows on
      Query::backward(device, weights.query, latent, dmade.query, none, gradients.query);
      HeadWeights::backward(device, weights.head_weights, x, dmade.head_weights, none, gradients.head_weights);
      KeyCompressor::backward(pass, weights.keys, epsilon, table, rotated(1), x, saved, dkeys, none, gradients.keys);
    }

   private:
    static constexpr double epsilon = S::config.norm.epsilon;
    /// The last values of each head.
    static constexpr RopeHeads rotated(Index count) { return {count, dim, dim - rotary}; }

    /// Of x [T, D] and the normed query latent [T, Q].
    template <class Device, class Store, class Real, class Memory>
    static Queries<Real> queries(const Pass<Device>& pass, const Weights<Store>& weights, const RopeView& table,
                                 DeviceView<const Real, 2> x, DeviceView<const std::type_identity_t<Real>, 2> latent,
                                 Memory& memory) {
      const auto made = Queries<Real>::room(x.rows, memory);
      Query::forward(pass.device, weights.query, latent, made.query);
      rope(pass.device, table, pass.batch.positions, made.query, rotated(heads));
      HeadWeights::forward(pass.device, weights.head_weights, x, made.head_weights);
      return made;
    }
  };
};

}  // namespace v1
}  // namespace guild
