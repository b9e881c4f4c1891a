// Attention over rows that are pooled of several tokens each, beside the rows of tokens, in one softmax (DeepSeek-V4's
// compressed attention).
//
//   template <class S> using Heavy = Compressed<Local<SharedKv<S>, 128>, Pooled<128>>;   // all pooled rows
//   template <class S>                                                                   // those that an index chooses
//   using Sparse = Compressed<Local<SharedKv<S>, 128>, Pooled<4, PoolWindows::overlapping>, PooledIndexer<S>>;
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#include <guild/core/view.hpp>
#include <guild/device/staged.hpp>
#include <guild/modules/batch.hpp>
#include <guild/modules/cached_rows.hpp>
#include <guild/modules/caches.hpp>
#include <guild/modules/compressed_keys.hpp>
#include <guild/modules/compressor.hpp>
#include <guild/modules/gates.hpp>
#include <guild/modules/key_choice.hpp>
#include <guild/modules/norm.hpp>
#include <guild/modules/pass.hpp>
#include <guild/modules/shared_row_attention.hpp>
#include <guild/ops/attention/index_job.hpp>
#include <guild/ops/attention/join.hpp>
#include <guild/ops/common/add.hpp>
#include <guild/ops/rope/rope.hpp>

namespace guild {
inline namespace v1 {

/// What an attention kind over shared rows sees beside the rows of tokens: nothing.
template <class Attention, class Keys>
struct PooledAttention {
  static constexpr bool sees = false;
  template <class Store>
  struct Weights {};
  template <class Visitor, class... W>
  static void visit(Visitor&&, const Path&, W&...) {}
  template <class Real>
  struct Saved {};
  template <class... A>
  static void attend_to_itself(A&&...) {}
  template <class... A>
  static void attend_to_caches(A&&...) {}
  template <class... A>
  static void backward(A&&...) {}
};

/// Pooled rows: a token sees those whose last token is not behind it, all or the ones that an index chooses. What they
/// give is joined with what the rows of tokens gave, so that both are under one softmax.
template <class Attention, class Keys>
requires PooledKeys<Keys>
struct PooledAttention<Attention, Keys> {
  static constexpr bool sees = true;
  using Pooling = typename Keys::Pooling;
  static constexpr Index hidden = Attention::hidden, heads = Attention::heads, width = Attention::width,
                         tokens_per_key = Pooling::tokens, top_k = Keys::PooledIndexer::top_k;
  using RowCompressor = Compressor<hidden, width, tokens_per_key, Pooling::windows>;
  using RowAttention = SharedRowAttention<heads, width, tokens_per_key>;
  using Indexer = typename Keys::PooledIndexer::template Of<Attention, Pooling>;

  static_assert(std::is_same_v<typename Attention::KeyValueNorm, RmsNorm<width>>,
                "Compressed: config.norm.gain must be weight: pooled rows are normalised by weights alone");

  template <class Store>
  struct Weights {
    typename RowCompressor::template Weights<Store> compressor;
    typename Indexer::template Weights<Store> indexer;
  };
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    RowCompressor::visit(visitor, path / "compressor", weights.compressor...);
    Indexer::visit(visitor, path, weights.indexer...);
  }

  template <class Real>
  struct Saved {
    typename RowCompressor::template Saved<Real> compressor;
    DeviceView<Real, 2> rows;          ///< [pooled rows of all sequences, D], rotated
    DeviceView<std::uint32_t> chosen;  ///< ChosenBits, where an index chose
  };

  /// Of whole sequences. query [T, H * D], rotated; query_latent(memory) makes the normed query latent. What `near`
  /// holds (out and lse of the rows of tokens) becomes that of all.
  template <class Device, class Store, class Real, class QueryLatent, class RoomOf>
  static void attend_to_itself(const Pass<Device>& pass, const Weights<Store>& weights, const RopeView& table,
                               DeviceView<const Real, 2> x, QueryLatent&& query_latent,
                               DeviceView<const std::type_identity_t<Real>, 2> query,
                               const AttentionBranch<std::type_identity_t<Real>>& near,
                               Saved<std::type_identity_t<Real>>& saved, RoomOf& room) {
    if (pass.mask != AttentionMask::causal)
      detail::refuse(ErrorCode::op_argument, "pooled rows are of the tokens up to one's own", "Pass::mask");
    saved.rows = RowCompressor::forward(pass, weights.compressor, epsilon, table, rotated, x, room, saved.compressor);
    saved.chosen = Indexer::choose_of_itself(pass, weights.indexer, table, x, query_latent, room);
    const auto far = room_for_branch<Real>(near, room);
    RowAttention::attend(pass, query, saved.rows, {}, chosen(saved), far);
    join(pass, near, far);
  }

  /// Over caches, to which the pass is appended: caches[sequence].pooled(), and index_keys() where there is an index.
  template <class Device, class Store, class Cache, class QueryLatent, class RoomOf>
  static void attend_to_caches(const Pass<Device>& pass, const Weights<Store>& weights, const RopeView& table,
                               Caches<Cache> caches, DeviceView<const float, 2> x, QueryLatent&& query_latent,
                               DeviceView<const float, 2> query, const AttentionBranch<float>& near, RoomOf& room) {
    auto pooled = [&](int sequence) -> auto& { return caches[sequence].pooled(); };
    using Pooled = std::remove_reference_t<decltype(pooled(0))>;
    using Sources = typename Pooled::Sources;
    using Rows = typename Pooled::Rows;
    const auto sources_of = [&](int sequence) -> Sources& { return pooled(sequence).sources(); };
    const auto rows_of = [&](int sequence) -> Rows& { return pooled(sequence).rows(); };
    RowCompressor::append(pass, weights.compressor, epsilon, table, rotated, Caches<Sources>(sources_of),
                          Caches<Rows>(rows_of), x, room);
    AttentionBranch<float> far = room_for_branch<float>(near, room);
    if constexpr (Indexer::chooses) {
      const auto keys_of = [&](int sequence) -> auto& { return caches[sequence].index_keys(); };
      using IndexKeys = std::remove_reference_t<decltype(keys_of(0))>;
      far.choice =
          Indexer::choose_of_caches(pass, weights.indexer, table, Caches<IndexKeys>(keys_of), x, query_latent, room);
    }
    using Element = typename Rows::Element;
    Staged<Device, CachedRows<const Element>> seen(pass.device, pass.batch.chunk_count());
    for (const Chunk& chunk : pass.batch.chunks) seen.add({std::as_const(rows_of(chunk.sequence)).rows()});
    RowAttention::template attend<Device, Element>(pass, query, seen.ready(), {}, far);
    join(pass, near, far);
  }

  /// The gradients of what attend_to_itself added: adds to dquery [T, H * D] and to dx. `all` holds out, lse and dout
  /// of attention to all rows.
  template <class Device, class Store, class Gradients, class Real, class QueryLatent>
  static void backward(const Pass<Device>& pass, const Weights<Store>& weights, const RopeView& table,
                       DeviceView<const Real, 2> x, QueryLatent&& query_latent,
                       DeviceView<const std::type_identity_t<Real>, 2> query,
                       const AttentionBranch<std::type_identity_t<Real>>& all,
                       const Saved<std::type_identity_t<Real>>& saved, DeviceView<std::type_identity_t<Real>, 2> dquery,
                       DeviceView<std::type_identity_t<Real>, 2> dx, Weights<Gradients>& gradients) {
    Device& device = pass.device;
    auto scratch = device.scratch();
    AttentionBranch<Real> far = all;
    const auto dfar = scratch.template take<Real>(dquery.rows, dquery.cols);
    const auto dkey = scratch.template take<Real>(saved.rows.rows, width),
               dvalue = scratch.template take<Real>(saved.rows.rows, width);
    RowAttention::attend_backward(pass, query, saved.rows, {}, chosen(saved), far, dfar, dkey, dvalue,
                                  DeviceView<Real, 2>{});
    add(device, dquery, dfar);
    add(device, dkey, dvalue);  // the row is key and value
    RowCompressor::backward(pass, weights.compressor, epsilon, table, rotated, x, saved.compressor, dkey, dx,
                            gradients.compressor);
    if constexpr (Indexer::chooses) {
      SequenceRows<const Real> keys(saved.rows, tokens_per_key);
      const auto attention_of = [&](const Chunk& chunk) {
        IndexLossJob<Real> job{};
        job.q = all.rows(query, chunk), job.k_nope = keys.next(chunk), job.lse = all.rows(all.lse, chunk);
        return job;
      };
      Indexer::backward(pass, weights.indexer, table, x, query_latent, saved.chosen,
                        RowAttention::sizes(pass.mask, far), attention_of, gradients.indexer);
    }
  }

 private:
  static constexpr double epsilon = Attention::norm_epsilon;
  static constexpr RopeHeads rotated = {1, width, width - Attention::rotary};

  template <class Real>
  static ChosenBits chosen(const Saved<Real>& saved) {
    return {saved.chosen, top_k, tokens_per_key};
  }
  /// Results of its own, as `near` has.
  template <class Real, class RoomOf>
  static AttentionBranch<Real> room_for_branch(const AttentionBranch<Real>& near, RoomOf& room) {
    return {.out = room.template take<Real>(near.out.rows, near.out.cols),
            .lse = room.template take<Real>(near.lse.rows, near.lse.cols)};
  }
  template <class Device, class Real>
  static void join(const Pass<Device>& pass, const AttentionBranch<Real>& near, const AttentionBranch<Real>& far) {
    join_attention(pass.device, near.out, near.lse, far.out, far.lse, near.out, near.lse);
  }
};

}  // namespace v1
}  // namespace guild
