// Attention over rows that are key and value of all heads (multi-query attention, arXiv 1911.02150, with K = V): those
// of tokens, or rows that each stand for several. Shapes: T tokens, H heads, D dimensions of a head and of a row.
#pragma once

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include <guild/core/types.hpp>
#include <guild/core/view.hpp>
#include <guild/device/staged.hpp>
#include <guild/modules/batch.hpp>
#include <guild/modules/cached_rows.hpp>
#include <guild/modules/gates.hpp>
#include <guild/modules/key_choice.hpp>
#include <guild/modules/pass.hpp>
#include <guild/ops/attention/attention.hpp>

namespace guild {
inline namespace v1 {

/// A row stands for `TokensPerKey` tokens, the last of which is the first to see it.
template <Index Heads, Index Width, Index TokensPerKey = 1>
struct SharedRowAttention {
  template <class Real>
  static BasicExpandedAttentionSizes<Real> sizes(AttentionMask mask, const AttentionBranch<Real>& branch) {
    return {.heads = Heads,
            .nope = Width,
            .rope = 0,
            .value = Width,
            .scale = static_cast<Real>(scale()),
            .mask = mask,
            .heads_per_key = Heads,
            .keys = branch.keys,
            .near = branch.near,
            .tokens_per_key = TokensPerKey};
  }

  /// Of whole sequences: query [T, H * D], rows [keys of all sequences, D], chosen as bits. Gives branch.out and, where
  /// there is room, branch.lse.
  template <class Device, class Real>
  static void attend(const Pass<Device>& pass, DeviceView<const std::type_identity_t<Real>, 2> query,
                     DeviceView<const std::type_identity_t<Real>, 2> rows,
                     DeviceView<const std::type_identity_t<Real>> sinks, ChosenBits chosen,
                     const AttentionBranch<Real>& branch) {
    Staged<Device, BasicExpandedAttentionJob<Real>> jobs(pass.device, pass.batch.chunk_count());
    SequenceRows<const Real> keys(rows, TokensPerKey);
    for (const Chunk& chunk : pass.batch.chunks) {
      const auto of_chunk = [&](auto all) { return branch.rows(all, chunk); };
      const DeviceView<const Real, 2> key = keys.next(chunk);
      jobs.add({.q = of_chunk(query),
                .k_nope = key,
                .v = key,
                .out = of_chunk(branch.out),
                .lse = of_chunk(branch.lse),
                .sinks = sinks,
                .far_bias = of_chunk(branch.far_bias),
                .chosen = chosen.next(chunk)});
    }
    expanded_attention(pass.device, jobs.ready(), sizes(pass.mask, branch));
  }

  /// The gradients of `attend`, from branch.out, lse and dout: of queries, and of rows as keys and as values. dsinks
  /// [T, H] is what each token adds to that of the sinks. All are overwritten.
  template <class Device, class Real>
  static void attend_backward(const Pass<Device>& pass, DeviceView<const std::type_identity_t<Real>, 2> query,
                              DeviceView<const std::type_identity_t<Real>, 2> rows,
                              DeviceView<const std::type_identity_t<Real>> sinks, ChosenBits chosen,
                              const AttentionBranch<Real>& branch, DeviceView<Real, 2> dquery, DeviceView<Real, 2> dkey,
                              DeviceView<Real, 2> dvalue, DeviceView<Real, 2> dsinks) {
    Staged<Device, ExpandedAttentionGradientJob<Real>> jobs(pass.device, pass.batch.chunk_count());
    SequenceRows<const Real> keys(rows, TokensPerKey);
    SequenceRows<Real> dkeys(dkey, TokensPerKey), dvalues(dvalue, TokensPerKey);
    for (const Chunk& chunk : pass.batch.chunks) {
      const auto of_chunk = [&](auto all) { return branch.rows(all, chunk); };
      const DeviceView<const Real, 2> key = keys.next(chunk);
      jobs.add({.q = of_chunk(query),
                .k_nope = key,
                .v = key,
                .out = of_chunk(branch.out),
                .lse = of_chunk(branch.lse),
                .dout = of_chunk(branch.dout),
                .dq = of_chunk(dquery),
                .dk_nope = dkeys.next(chunk),
                .dv = dvalues.next(chunk),
                .sinks = sinks,
                .dsinks = of_chunk(dsinks),
                .far_bias = of_chunk(branch.far_bias),
                .dfar_bias = of_chunk(branch.dfar_bias),
                .chosen = chosen.next(chunk)});
    }
    expanded_attention_backward(pass.device, jobs.ready(), sizes(pass.mask, branch));
  }

  /// Over cached rows, those `seen` by each chunk and, where branch.choice limits them, chosen.
  template <class Device, class Element>
  static void attend(const Pass<Device>& pass, DeviceView<const float, 2> query,
                     std::span<const CachedRows<const Element>> seen, DeviceView<const float> sinks,
                     const AttentionBranch<float>& branch) {
    Staged<Device, CachedAttentionJob> jobs(pass.device, pass.batch.chunk_count());
    for (std::size_t i = 0; i < pass.batch.chunks.size(); ++i) {
      const Chunk& chunk = pass.batch.chunks[i];
      if (chunk.count == 0) continue;
      const Index keys = keys_up_to(chunk, TokensPerKey);
      const KeyChoice choice = branch.choice.limits(keys) ? branch.choice.rows(chunk) : KeyChoice{};
      jobs.add({.cache = seen[i].rows.data,
                .cache_type = dtype_of<Element>,
                .cache_pitch = seen[i].rows.pitch,
                .length = keys,
                .q = branch.rows(query, chunk),
                .out = branch.rows(branch.out, chunk),
                .first_position = chunk.first_position,
                .ring = seen[i].ring,
                .sinks = sinks,
                .far_bias = branch.rows(branch.far_bias, chunk),
                .chosen = choice.chosen,
                .counts = choice.counts,
                .lse = branch.rows(branch.lse, chunk)});
    }
    cached_attention(pass.device, jobs.ready(),
                     {.heads = Heads,
                      .key = Width,
                      .value = Width,
                      .value_offset = 0,
                      .scale = static_cast<float>(scale()),
                      .keys = branch.keys,
                      .near = branch.near,
                      .tokens_per_key = TokensPerKey});
  }

 private:
  static double scale() { return 1.0 / std::sqrt(static_cast<double>(Width)); }
};

}  // namespace v1
}  // namespace guild
