// The index of sparse attention (DeepSeek-V3.2-Exp report, section 2.1): small heads of its own score every key, and
// attention sees those of largest score. Shapes: T tokens, D hidden, Q query rank, H index heads of I values, K keys to
// choose, R rotary dimensions.
//
//   template <class S> using Mixer = SparseTopK<Mla<S>, Indexer<S>>;   // S::indexer says the numbers
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <type_traits>

#include <guild/core/config.hpp>
#include <guild/core/refuse.hpp>
#include <guild/device/staged.hpp>
#include <guild/device/tuning.hpp>
#include <guild/modules/append_rows.hpp>
#include <guild/modules/cached_rows.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/indexed_cache.hpp>
#include <guild/modules/key_choice.hpp>
#include <guild/modules/linear.hpp>
#include <guild/modules/norm.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/attention/index.hpp>
#include <guild/ops/common/add_sum.hpp>
#include <guild/ops/rope/rope.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// True if a token of the pass sees fewer keys than there are.
template <class Device>
bool limits_keys(const Pass<Device>& pass, Index top_k) {
  return pass.indexing.sight == KeySight::chosen &&
         std::any_of(pass.batch.chunks.begin(), pass.batch.chunks.end(),
                     [top_k](const Chunk& chunk) { return must_choose(chunk, top_k); });
}

/// A choice among the keys of whole sequences as the bits of ChosenBits.
template <class Device>
void mark_all(const Pass<Device>& pass, const KeyChoice& choice, DeviceView<std::uint32_t> bits) {
  Staged<Device, MarkChosenJob> marks(pass.device, pass.batch.chunk_count());
  ChosenBits rest(bits, choice.chosen.cols);
  for (const Chunk& chunk : pass.batch.chunks)
    if (const auto to = rest.next(chunk); to.data != nullptr)
      marks.add({choice.rows(chunk).chosen, choice.rows(chunk).counts, to});
  mark_chosen(pass.device, marks.ready());
}

}  // namespace detail

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
  static_assert(heads > 0 && dim > 0 && top_k > 0,
                "Indexer: indexer.heads, indexer.dim and indexer.top_k must be positive");
  static_assert(rotary <= dim, "Indexer: attention.rope_dim must not exceed indexer.dim: it turns that many of them");

  using Query = Linear<heads * dim, query_rank>;
  using Key = Linear<dim, hidden>;
  using KeyNorm = LayerNorm<dim>;
  using HeadWeights = Linear<heads, hidden>;
  using Table = PairedRopeTable<config.pairs>;

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

  /// What scores are made of besides keys.
  template <class Real>
  struct Queries {
    DeviceView<Real, 2> query;         ///< [T, H * I], rotated
    DeviceView<Real, 2> head_weights;  ///< [T, H]

    [[nodiscard]] Queries rows(Index begin, Index count) const {
      return {query.middle_rows(begin, count), head_weights.middle_rows(begin, count)};
    }
  };
  /// Of x [T, D] and the normed query latent [T, Q].
  template <class Device, class Store, class Real, class Memory>
  static Queries<Real> queries(const Pass<Device>& pass, const Weights<Store>& weights, DeviceView<const Real, 2> x,
                               DeviceView<const std::type_identity_t<Real>, 2> query_latent, Memory& memory) {
    const Queries<Real> made{memory.template take<Real>(x.rows, heads * dim),
                             memory.template take<Real>(x.rows, heads)};
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
    using IndexKeys = typename Cache::IndexKeys;
    Staged<Device, CachedRows<const typename Cache::Element>> seen(pass.device, pass.batch.chunk_count());
    const auto keys_of = [&](int sequence) -> IndexKeys& { return caches[sequence].parts.keys; };
    append_rows(pass, Caches<IndexKeys>(keys_of),
                std::array<DeviceView<const float, 2>, 1>{keys(pass, weights, x, memory)}, memory, seen);
    if (!detail::limits_keys(pass, top_k)) return {};
    const auto made = queries(pass, weights, x, query_latent(memory), memory);
    return choose(pass, made, memory, [&](std::size_t i) { return seen.ready()[i].rows; });
  }

  /// The choice of a pass over whole sequences, as ChosenBits that `room` keeps; no data: all see all keys.
  template <class Device, class Store, class Real, class QueryLatent, class RoomOf>
  static DeviceView<std::uint32_t> choose_of_itself(const Pass<Device>& pass, const Weights<Store>& weights,
                                                    DeviceView<const Real, 2> x, QueryLatent&& query_latent,
                                                    RoomOf& room) {
    if (pass.mask != AttentionMask::causal)
      detail::refuse(ErrorCode::op_argument, "an index chooses among the keys up to a token's own", "Pass::mask");
    if (!detail::limits_keys(pass, top_k)) return {};
    const auto bits = room.template keep<std::uint32_t>(ChosenBits::words(pass.batch, top_k));
    auto scratch = pass.device.scratch();
    const auto own = keys(pass, weights, x, scratch);
    const auto made = queries(pass, weights, x, query_latent(scratch), scratch);
    const KeyChoice choice = choose(pass, made, scratch, [&](std::size_t i) -> DeviceView<const Real, 2> {
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
    const Index tokens = x.rows;
    ChosenBits bits(chosen, top_k);
    const auto key = keys(pass, weights, x, scratch);
    const DeviceView<const Real, 2> latent = query_latent(scratch);
    const Queries<Real> made = queries(pass, weights, x, latent, scratch);
    const auto loss = scratch.template take<Real>(tokens);
    const Queries<Real> dmade{scratch.template take<Real>(tokens, heads * dim),
                              scratch.template take<Real>(tokens, heads)};
    const auto dkey = scratch.template take<Real>(tokens, dim);
    const double share = pass.balance_scale / static_cast<double>(std::max(tokens, Index{1}));
    for (const Chunk& chunk : pass.batch.chunks) {  // one by one: scores take the square of a sequence
      if (chunk.count == 0) continue;
      auto own = device.scratch();
      const auto scores = own.template take<Real>(chunk.count, chunk.count),
                 dscores = own.template take<Real>(chunk.count, chunk.count);
      const Queries<Real> here = made.rows(chunk.begin, chunk.count), dhere = dmade.rows(chunk.begin, chunk.count);
      const auto keys_here = key.middle_rows(chunk.begin, chunk.count);
      Staged<Device, BasicIndexScoresJob<Real, Real>> score(device, 1);
      score.add({here.query, here.head_weights, keys_here, scores, 0});
      index_scores(device, score.ready(), sizes());
      IndexLossJob<Real> job = seen;
      const auto rows = [&](const auto& all) { return all.middle_rows(chunk.begin, chunk.count); };
      job.q = rows(seen.q), job.k_nope = rows(seen.k_nope), job.k_rope = rows(seen.k_rope), job.lse = rows(seen.lse);
      job.scores = scores, job.dscores = dscores;
      job.loss = loss.slice(chunk.begin, chunk.count);
      job.chosen = bits.next(chunk);
      Staged<Device, IndexLossJob<Real>> objective(device, 1);
      objective.add(job);
      index_loss(device, objective.ready(), attention, static_cast<Real>(pass.indexing.weight * share));
      Staged<Device, IndexScoresGradientJob<Real>> back(device, 1);
      back.add({here.query, here.head_weights, keys_here, dscores, dhere.query, dhere.head_weights,
                dkey.middle_rows(chunk.begin, chunk.count)});
      index_scores_backward(device, back.ready(), sizes());
    }
    if (pass.indexing.loss_l.data != nullptr) add_sum(device, loss, pass.indexing.loss_l.slice(pass.layer, 1), share);

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
  /// Chooses for the chunks whose context is longer than K, from keys_of(chunk) [context, I]. Scores are made for as
  /// many tokens at a time as fit in Tuning::most_index_scores, or for one.
  template <class Device, class Real, class Memory, class KeysOf>
  static KeyChoice choose(const Pass<Device>& pass, const Queries<Real>& queries, Memory& memory, KeysOf&& keys_of) {
    using Element = std::remove_const_t<std::remove_reference_t<decltype(*keys_of(std::size_t{0}).data)>>;
    Device& device = pass.device;
    const auto chunks = pass.batch.chunks;
    const bool for_others = pass.keys.chosen.data != nullptr && pass.keys.chosen.cols == top_k;
    const KeyChoice choice = for_others ? pass.keys : room_for_choice(pass.batch, top_k, memory);
    Index longest = 0, all = 0;
    for (const Chunk& chunk : chunks) {
      if (!must_choose(chunk, top_k)) continue;
      longest = std::max(longest, context_of(chunk));
      all += chunk.count * context_of(chunk);
    }
    const Index most = device.tuning().most_index_scores;
    auto scratch = device.scratch();
    const DeviceView<Real> room = scratch.template take<Real>(std::max(longest, std::min(all, most)));
    Index row = 0;  // of chunk i, the first that has not chosen yet
    for (std::size_t i = 0; i < chunks.size();) {
      Staged<Device, BasicIndexScoresJob<Real, Element>> scores(device, pass.batch.chunk_count());
      Staged<Device, BasicChooseKeysJob<Real>> choices(device, pass.batch.chunk_count());
      for (Index used = 0; i < chunks.size(); ++i, row = 0) {
        if (!must_choose(chunks[i], top_k)) continue;
        const Index length = context_of(chunks[i]), left = chunks[i].count - row;
        const Index count = std::min(left, (room.size - used) / length);
        if (count > 0) {
          const Index begin = chunks[i].begin + row, position = chunks[i].first_position + row;
          const DeviceView<Real, 2> here{room.data + used, count, length};
          const Queries<Real> own = queries.rows(begin, count);
          scores.add({own.query, own.head_weights, keys_of(i), here, position});
          choices.add({here, position, choice.chosen.middle_rows(begin, count), choice.counts.slice(begin, count)});
          used += count * length;
        }
        if (count < left) {
          row += count;
          break;
        }
      }
      index_scores(device, scores.ready(), sizes());
      choose_keys(device, choices.ready(), top_k);
    }
    return choice;
  }

  static constexpr double norm_epsilon = 1e-6;

  static Index context_of(const Chunk& chunk) { return chunk.first_position + chunk.count; }
  /// Weights of heads are divided by sqrt(H), products by sqrt(I): relu lets both be one factor.
  static IndexSizes sizes() { return {heads, dim, 1.0 / std::sqrt(static_cast<double>(heads * dim))}; }
};

}  // namespace v1
}  // namespace guild
