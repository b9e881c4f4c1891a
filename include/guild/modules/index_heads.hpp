// The heads of an index of keys: what they score, which keys they choose, and what trains them. Shapes: T tokens, H
// heads of I values, K keys to choose.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include <guild/core/types.hpp>
#include <guild/core/view.hpp>
#include <guild/device/staged.hpp>
#include <guild/device/tuning.hpp>
#include <guild/modules/batch.hpp>
#include <guild/modules/key_choice.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/attention/index.hpp>
#include <guild/ops/common/add_sum.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// True if a token of the pass sees fewer keys than there are.
template <class Device>
bool limits_keys(const Pass<Device>& pass, Index top_k, Index tokens_per_key = 1) {
  return pass.indexing.sight == KeySight::chosen &&
         std::any_of(pass.batch.chunks.begin(), pass.batch.chunks.end(),
                     [top_k, tokens_per_key](const Chunk& chunk) { return must_choose(chunk, top_k, tokens_per_key); });
}

/// A choice among the keys of whole sequences as the bits of ChosenBits.
template <class Device>
void mark_all(const Pass<Device>& pass, const KeyChoice& choice, DeviceView<std::uint32_t> bits,
              Index tokens_per_key = 1) {
  Staged<Device, MarkChosenJob> marks(pass.device, pass.batch.chunk_count());
  ChosenBits rest(bits, choice.chosen.cols, tokens_per_key);
  for (const Chunk& chunk : pass.batch.chunks)
    if (const auto to = rest.next(chunk); to.data != nullptr)
      marks.add({choice.rows(chunk).chosen, choice.rows(chunk).counts, to});
  mark_chosen(pass.device, marks.ready());
}

}  // namespace detail

/// Scores of token t and key s:
///   sum over h of w[t, h] relu(q[t, h] . k[s]) / sqrt(H I).
/// A key stands for `TokensPerKey` tokens.
template <Index Heads, Index Dim, Index TopK, Index TokensPerKey = 1>
struct IndexHeads {
  static_assert(Heads > 0 && Dim > 0 && TopK > 0,
                "Indexer: indexer.heads, indexer.dim and indexer.top_k must be positive");

  /// What scores are made of besides keys.
  template <class Real>
  struct Queries {
    DeviceView<Real, 2> query;         ///< [T, H * I], rotated
    DeviceView<Real, 2> head_weights;  ///< [T, H]

    template <class Memory>
    [[nodiscard]] static Queries room(Index tokens, Memory& memory) {
      return {memory.template take<Real>(tokens, Heads * Dim), memory.template take<Real>(tokens, Heads)};
    }
    [[nodiscard]] Queries rows(const Chunk& chunk) const { return rows(chunk.begin, chunk.count); }
    [[nodiscard]] Queries rows(Index begin, Index count) const {
      return {query.middle_rows(begin, count), head_weights.middle_rows(begin, count)};
    }
  };

  /// True if a token of the pass sees fewer keys than there are.
  template <class Device>
  [[nodiscard]] static bool limits(const Pass<Device>& pass) {
    return detail::limits_keys(pass, TopK, TokensPerKey);
  }

  /// Chooses for the chunks that have more than K keys, from keys_of(i) [keys, I] of chunk i; into `choice`. Scores are
  /// made for as many tokens at a time as fit in Tuning::most_index_scores, or for one.
  template <class Device, class Real, class KeysOf>
  static void choose(const Pass<Device>& pass, const Queries<Real>& queries, const KeyChoice& choice,
                     KeysOf&& keys_of) {
    using Element = std::remove_const_t<std::remove_reference_t<decltype(*keys_of(std::size_t{0}).data)>>;
    Device& device = pass.device;
    const auto chunks = pass.batch.chunks;
    Index longest = 0, all = 0;
    for (const Chunk& chunk : chunks) {
      if (!must_choose(chunk, TopK, TokensPerKey)) continue;
      longest = std::max(longest, keys_up_to(chunk, TokensPerKey));
      all += chunk.count * keys_up_to(chunk, TokensPerKey);
    }
    const Index most = device.tuning().most_index_scores;
    auto scratch = device.scratch();
    const DeviceView<Real> room = scratch.template take<Real>(std::max(longest, std::min(all, most)));
    Index row = 0;  // of chunk i, the first that has not chosen yet
    for (std::size_t i = 0; i < chunks.size();) {
      Staged<Device, BasicIndexScoresJob<Real, Element>> scores(device, pass.batch.chunk_count());
      Staged<Device, BasicChooseKeysJob<Real>> choices(device, pass.batch.chunk_count());
      for (Index used = 0; i < chunks.size(); ++i, row = 0) {
        if (!must_choose(chunks[i], TopK, TokensPerKey)) continue;
        const Index length = keys_up_to(chunks[i], TokensPerKey), left = chunks[i].count - row;
        const Index count = std::min(left, (room.size - used) / length);
        if (count > 0) {
          const Index begin = chunks[i].begin + row, position = chunks[i].first_position + row;
          const DeviceView<Real, 2> here{room.data + used, count, length};
          const Queries<Real> own = queries.rows(begin, count);
          scores.add({own.query, own.head_weights, keys_of(i), here, position});
          choices.add({.scores = here,
                       .first_position = position,
                       .chosen = choice.chosen.middle_rows(begin, count),
                       .counts = choice.counts.slice(begin, count),
                       .tokens_per_key = TokensPerKey});
          used += count * length;
        }
        if (count < left) {
          row += count;
          break;
        }
      }
      index_scores(device, scores.ready(), sizes());
      choose_keys(device, choices.ready(), TopK);
    }
  }

  /// The gradients of the index's objective, of whole sequences: of its queries and its keys [keys of all sequences,
  /// I]. `chosen` is what the forward chose, as ChosenBits; attention_of(chunk) is what the attention of a chunk read
  /// and gave, as an IndexLossJob, and `attention` its sizes.
  template <class Device, class Real, class AttentionOf>
  static void objective(const Pass<Device>& pass, const Queries<Real>& queries, DeviceView<Real, 2> keys,
                        DeviceView<std::uint32_t> chosen,
                        const BasicExpandedAttentionSizes<std::type_identity_t<Real>>& attention,
                        AttentionOf&& attention_of, const Queries<Real>& dqueries, DeviceView<Real, 2> dkeys) {
    Device& device = pass.device;
    auto scratch = device.scratch();
    const Index tokens = queries.query.rows;
    const auto loss = scratch.template take<Real>(tokens);
    const double share = pass.balance_scale / static_cast<double>(std::max(tokens, Index{1}));
    ChosenBits bits(chosen, TopK, TokensPerKey);
    SequenceRows<Real> key_rows(keys, TokensPerKey), dkey_rows(dkeys, TokensPerKey);
    for (const Chunk& chunk : pass.batch.chunks) {  // one by one: scores take the square of a sequence
      const auto keys_here = key_rows.next(chunk), dkeys_here = dkey_rows.next(chunk);
      if (chunk.count == 0) continue;
      auto own = device.scratch();
      const auto scores = own.template take<Real>(chunk.count, keys_here.rows),
                 dscores = own.template take<Real>(chunk.count, keys_here.rows);
      const Queries<Real> here = queries.rows(chunk), dhere = dqueries.rows(chunk);
      Staged<Device, BasicIndexScoresJob<Real, Real>> score(device, 1);
      score.add({here.query, here.head_weights, keys_here, scores, 0});
      index_scores(device, score.ready(), sizes());
      IndexLossJob<Real> job = attention_of(chunk);
      job.scores = scores, job.dscores = dscores;
      job.loss = loss.slice(chunk.begin, chunk.count);
      job.chosen = bits.next(chunk);
      Staged<Device, IndexLossJob<Real>> objective(device, 1);
      objective.add(job);
      index_loss(device, objective.ready(), attention, static_cast<Real>(pass.indexing.weight * share));
      Staged<Device, IndexScoresGradientJob<Real>> back(device, 1);
      back.add({here.query, here.head_weights, keys_here, dscores, dhere.query, dhere.head_weights, dkeys_here});
      index_scores_backward(device, back.ready(), sizes());
    }
    if (pass.indexing.loss_l.data != nullptr) add_sum(device, loss, pass.indexing.loss_l.slice(pass.layer, 1), share);
  }

 private:
  /// Weights of heads are divided by sqrt(H), products by sqrt(I): relu lets both be one factor.
  static IndexSizes sizes() {
    return {.heads = Heads,
            .dim = Dim,
            .scale = 1.0 / std::sqrt(static_cast<double>(Heads * Dim)),
            .tokens_per_key = TokensPerKey};
  }
};

}  // namespace v1
}  // namespace guild
