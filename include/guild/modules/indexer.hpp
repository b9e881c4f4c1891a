// The index of sparse attention (DeepSeek-V3.2-Exp report, section 2.1): small heads of its own score every key, and
// attention sees those of largest score. Shapes: T tokens, D hidden, Q query rank, H index heads of I values, K keys to
// choose, R rotary dimensions.
//
//   template <class S> using Mixer = SparseTopK<Mla<S>, Indexer<S>>;   // S::indexer says the numbers
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <guild/core/config.hpp>
#include <guild/core/refuse.hpp>
#include <guild/device/staged.hpp>
#include <guild/modules/append_rows.hpp>
#include <guild/modules/cached_rows.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/index_heads.hpp>
#include <guild/modules/indexed_cache.hpp>
#include <guild/modules/key_choice.hpp>
#include <guild/modules/linear.hpp>
#include <guild/modules/norm.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/attention/index.hpp>
#include <guild/ops/rope/rope.hpp>

namespace guild {
inline namespace v1 {

/// Scores of token t and key s: sum over h of w[t, h] relu(q[t, h] . k[s]) / sqrt(H I), where q = query(normed query
/// latent), k = LayerNorm(key(x)) and w = head_weights(x); the first R values of q and k are rotated by the frequencies
/// of the attention `Attention`, in pairs of the index's own. What it reads of the rest of the model is constant to it.
template <class S, const IndexerConfig& Config = S::indexer, const MlaConfig& Attention = S::attention>
struct Indexer {
  static constexpr bool chooses = true, shares = false;
  static constexpr IndexerConfig config = Config;
  static constexpr Index hidden = S::config.hidden, query_rank = Attention.query_rank, heads = config.heads,
                         dim = config.dim, rotary = Attention.rope_dim, top_k = config.top_k;
  static_assert(query_rank > 0, "Indexer: attention.query_rank must be positive: an indexer reads the query latent");
  static_assert(rotary <= dim, "Indexer: attention.rope_dim must not exceed indexer.dim: it turns that many of them");

  using Query = Linear<heads * dim, query_rank>;
  using Key = Linear<dim, hidden>;
  using KeyNorm = LayerNorm<dim>;
  using HeadWeights = Linear<heads, hidden>;
  using Table = PairedRopeTable<config.pairs>;
  using OfHeads = IndexHeads<heads, dim, top_k>;

  template <class Store>
  struct Weights {
    typename Query::template Weights<Store> query;  ///< [H * I, Q]
    typename Key::template Weights<Store> key;      ///< [I, D]
    typename KeyNorm::template Weights<Store> key_norm;
    typename HeadWeights::template Weights<Store> head_weights;  ///< [H, D]
    Table rope{Attention.rope, Attention.rope_dim};              ///< derived, not visited
  };

  template <class Visitor, class... W>
  [[gnu::noinline]] static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    const Path indexer = path / "indexer";
    Query::visit(visitor, indexer / "query", weights.query...);
    Key::visit(visitor, indexer / "key", weights.key...);
    KeyNorm::visit(visitor, indexer / "key_norm", weights.key_norm...);
    HeadWeights::visit(visitor, indexer / "head_weights", weights.head_weights...);
  }

  /// Turns the first R values of each of `count` heads of x [T, count * I].
  template <class Device, RopePairs Pairs, class Real>
  static void rotate(Device& device, const PairedRopeTable<Pairs>& table, DeviceView<const std::int32_t> positions,
                     DeviceView<Real, 2> x, Index count) {
    static_assert(Pairs == config.pairs,
                  "Indexer: this rotary table pairs dimensions as attention does; an indexer has one of its own");
    rope(device, table, positions, x, {count, dim, 0});
  }

  /// Rotated keys [T, I] of x [T, D].
  template <class Device, class Store, class Real, class Memory>
  static DeviceView<Real, 2> keys(const Pass<Device>& pass, const Weights<Store>& weights, DeviceView<const Real, 2> x,
                                  Memory& memory) {
    const DeviceView<Real, 2> keys = memory.template take<Real>(x.rows, dim);
    Key::forward(pass.device, weights.key, x, keys);
    KeyNorm::forward(pass.device, weights.key_norm, keys, keys, norm_epsilon);
    rotate(pass.device, weights.rope, pass.batch.positions, keys, 1);
    return keys;
  }

  template <class Real>
  using Queries = typename OfHeads::template Queries<Real>;
  /// Of x [T, D] and the normed query latent [T, Q].
  template <class Device, class Store, class Real, class Memory>
  static Queries<Real> queries(const Pass<Device>& pass, const Weights<Store>& weights, DeviceView<const Real, 2> x,
                               DeviceView<const std::type_identity_t<Real>, 2> query_latent, Memory& memory) {
    const auto made = Queries<Real>::room(x.rows, memory);
    Query::forward(pass.device, weights.query, query_latent, made.query);
    rotate(pass.device, weights.rope, pass.batch.positions, made.query, heads);
    HeadWeights::forward(pass.device, weights.head_weights, x, made.head_weights);
    return made;
  }

  /// The choice of a pass over caches, to which its index keys are appended. query_latent(memory) makes the normed
  /// query latent [T, Q].
  template <class Device, class Store, class Cache, class QueryLatent, class Memory>
  static KeyChoice choose_of_caches(const Pass<Device>& pass, const Weights<Store>& weights, Caches<Cache> caches,
                                    DeviceView<const float, 2> x, QueryLatent&& query_latent, Memory& memory) {
    using IndexKeys = std::remove_reference_t<decltype(caches[0].index_keys())>;
    Staged<Device, CachedRows<const typename Cache::Element>> seen(pass.device, pass.batch.chunk_count());
    const auto keys_of = [&](int sequence) -> IndexKeys& { return caches[sequence].index_keys(); };
    append_rows(pass, Caches<IndexKeys>(keys_of),
                std::array<DeviceView<const float, 2>, 1>{keys(pass, weights, x, memory)}, memory, seen);
    if (!OfHeads::limits(pass)) return {};
    const auto made = queries(pass, weights, x, query_latent(memory), memory);
    const KeyChoice choice = room_for(pass, memory);
    OfHeads::choose(pass, made, choice, [&](std::size_t i) { return seen.ready()[i].rows; });
    return choice;
  }

  /// The choice of a pass over whole sequences, as ChosenBits that `room` keeps; no data: all see all keys.
  template <class Device, class Store, class Real, class QueryLatent, class RoomOf>
  static DeviceView<std::uint32_t> choose_of_itself(const Pass<Device>& pass, const Weights<Store>& weights,
                                                    DeviceView<const Real, 2> x, QueryLatent&& query_latent,
                                                    RoomOf& room) {
    if (pass.mask != AttentionMask::causal)
      detail::refuse(ErrorCode::op_argument, "an index chooses among the keys up to a token's own", "Pass::mask");
    if (!OfHeads::limits(pass)) return {};
    const auto bits = room.template keep<std::uint32_t>(ChosenBits::words(pass.batch, top_k));
    auto scratch = pass.device.scratch();
    const auto own = keys(pass, weights, x, scratch);
    const auto made = queries(pass, weights, x, query_latent(scratch), scratch);
    const KeyChoice choice = room_for(pass, scratch);
    OfHeads::choose(pass, made, choice, [&](std::size_t i) -> DeviceView<const Real, 2> {
      return own.middle_rows(pass.batch.chunks[i].begin, pass.batch.chunks[i].count);
    });
    detail::mark_all(pass, choice, bits);
    return bits;
  }

  /// Adds the gradients of the index's objective, of whole sequences, if it has a weight. `chosen` is what the forward
  /// chose, `attention` the sizes of the attention, and `seen` what it read and gave of all T tokens.
  template <class Device, class Store, class Gradients, class Real, class QueryLatent>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights, DeviceView<const Real, 2> x,
                       QueryLatent&& query_latent, DeviceView<std::uint32_t> chosen,
                       const BasicExpandedAttentionSizes<std::type_identity_t<Real>>& attention,
                       const IndexLossJob<std::type_identity_t<Real>>& seen, Weights<Gradients>& gradients) {
    if (!(pass.indexing.weight > 0.0)) return;
    Device& device = pass.device;
    auto scratch = device.scratch();
    const auto key = keys(pass, weights, x, scratch);
    const DeviceView<const Real, 2> latent = query_latent(scratch);
    const auto made = queries(pass, weights, x, latent, scratch), dmade = Queries<Real>::room(x.rows, scratch);
    const auto dkey = scratch.template take<Real>(x.rows, dim);
    const auto attention_of = [&](const Chunk& chunk) {
      IndexLossJob<Real> job = seen;
      const auto rows = [&](const auto& all) { return all.middle_rows(chunk.begin, chunk.count); };
      job.q = rows(seen.q), job.k_nope = rows(seen.k_nope), job.k_rope = rows(seen.k_rope), job.lse = rows(seen.lse);
      if (seen.key_bias.data != nullptr) job.key_bias = rows(seen.key_bias);
      return job;
    };
    OfHeads::objective(pass, made, key, chosen, attention, attention_of, dmade, dkey);

    rope_backward(device, weights.rope, pass.batch.positions, dmade.query, {heads, dim, 0});
    rope_backward(device, weights.rope, pass.batch.positions, dkey, {1, dim, 0});
    Key::forward(device, weights.key, x, key);  // before its norm, as that is differentiated
    KeyNorm::backward(device, weights.key_norm, key, dkey, dkey, gradients.key_norm, norm_epsilon);
    const DeviceView<Real, 2> none{};  // nothing flows on
    Key::backward(device, weights.key, x, dkey, none, gradients.key);
    Query::backward(device, weights.query, latent, dmade.query, none, gradients.query);
    HeadWeights::backward(device, weights.head_weights, x, dmade.head_weights, none, gradients.head_weights);
  }

 private:
  static constexpr double norm_epsilon = 1e-6;

  /// Where the choice of a pass goes: to the pass's own room for it, if layers behind shall see it.
  template <class Device, class Memory>
  static KeyChoice room_for(const Pass<Device>& pass, Memory& memory) {
    const bool for_others = pass.keys.chosen.data != nullptr && pass.keys.chosen.cols == top_k;
    return for_others ? pass.keys : room_for_choice(pass.batch, top_k, memory);
  }
};

}  // namespace v1
}  // namespace guild
