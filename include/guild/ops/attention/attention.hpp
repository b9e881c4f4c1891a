// Attention over ragged batches: each job is one chunk of new tokens of one sequence. Two forms: over rows of a cache
// as they are stored, and expanded, over floats of keys and values. Latent attention (DeepSeek-V2 report, section 2.1)
// and grouped-query attention (arXiv 2305.13245) are cases of both.
// Shapes: n new tokens, L rows of context including them, H heads, K columns of a key, V of a value; of expanded keys,
// R columns are rotary and shared by all heads, N are not.
#pragma once

#include <algorithm>
#include <guild/core/refuse.hpp>
#include <guild/ops/attention/job.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/common/twins.hpp>
#include <span>
#include <string>

namespace guild {
inline namespace v1 {

namespace detail {

inline void check_window(const KeyWindow& keys, AttentionMask mask, const char* what) {
  require(keys.window >= 0 && keys.pinned >= 0, "a window must not be negative", what);
  require(keys.all() || mask == AttentionMask::causal, "a window is of causal attention", what);
}

template <class Real>
void check_far_bias(View<const Real, 2> far_bias, Index rows, Index heads, const KeyWindow& near, const KeyWindow& keys,
                    const char* what) {
  if (far_bias.data == nullptr) return;
  require_shape(far_bias, rows, heads, what);
  require(keys.all() || near.window <= keys.window, "what is near must lie within the window of all keys", what);
  require(!near.all(), "there is nothing far where sizes.near shows all keys", what);
}

/// Bits of the keys that tokens see, for attention over rows that are all there.
template <class Real>
void check_chosen(View<const std::uint32_t, 2> chosen, Index rows, Index length,
                  const BasicExpandedAttentionSizes<Real>& sizes, const char* what) {
  if (chosen.data == nullptr) return;
  require_shape(chosen, rows, chosen_words(length), what);
  require(sizes.mask == AttentionMask::causal && sizes.keys.all() && sizes.near.all(),
          "chosen keys are of causal attention without a window and without a far bias", what);
}

/// `plain`: attention that is causal over all rows, and no more.
inline void check_tokens_per_key(Index tokens_per_key, bool plain, const char* what) {
  require(tokens_per_key >= 1, "a key must stand for at least 1 token", what);
  require(tokens_per_key == 1 || plain,
          "keys that stand for several tokens are of causal attention over rows that are all there, without a window, "
          "a far bias and a rotary part of its own",
          what);
}

inline void require_chunk(Index rows, Index first_position, Index length, const char* what, Index tokens_per_key = 1) {
  if (first_position < 0 || rows < 0 || visible_keys(first_position + rows - 1, tokens_per_key) > length)
    refuse(
        ErrorCode::op_shape,
        {rows, " tokens from position ", first_position, " do not lie within a context of ", length, " rows",
         tokens_per_key == 1 ? "" : " of several tokens each", "; append the new rows to the context before attending"},
        what);
}

}  // namespace detail

/// Attention over cached rows: for token t (position p = first_position + t) and head h
///   out[t, h] = sum over s of softmax_s(scale * q[t, h] . row[s][0, K)) * row[s][O, O + V), O = value_offset,
/// over the positions s <= p that sizes.keys shows to p: all, or a window and the pinned first ones. With sinks the
/// softmax has one more logit for each head, sinks[h], that no value belongs to (GPT-OSS; arXiv 2309.17453). With a far
/// bias far_bias[t, h] is added to the scaled scores of the keys that sizes.near does not show to p. With a key bias
/// key_bias[s] is added to those of key s, of all heads: a key with log(m) counts as much as m of its kind (ToMe, arXiv
/// 2210.09461, "proportional attention"), and zeros change no bit. It goes with all of the others.
/// A job with chosen keys sees those alone, as if the cache held no other rows: with counts[t] = p + 1 a row's bits are
/// those of a job without. They go neither with a ring, nor with a window, nor with a far bias.
/// Where a key stands for several tokens (rows pooled of m = sizes.tokens_per_key each) token t sees the rows s < (p +
/// 1) / m. lse [n, H], where it has data, gets the logarithm of the softmax's denominator. A token without a key has an
/// out of 0, and an lse of -infinity, or of its sink.
/// All heads of a job share the row. q holds H * K a row, out gets H * V. Two layouts that use it:
/// - absorbed latent attention: a row is [latent C | rotary key R], K = C + R, V = C, O = 0;
/// - grouped-query attention: a job for each key head, whose cache begins at that head's key and whose q and out are
///   the columns of its query heads; O is the same for all, as in [keys of all heads | values of all heads], K = V.
/// Products, softmax (with a running maximum) and sums are in float. A row's keys are cut into ranges by its position
/// and H alone and the ranges are added in their order, so its bits depend on its query and the rows it sees alone:
/// neither on threads, nor on other jobs, nor on the other tokens of its chunk. Reads only the rows up to the last that
/// a token sees, of a ring those it keeps, and of them only these columns. Throws op_shape, op_argument.
template <class Device>
void cached_attention(Device& device, std::span<const CachedAttentionJob> jobs, const CachedAttentionSizes& sizes) {
  const auto [heads, key, value, value_offset, scale, keys, near, tokens_per_key] = sizes;
  detail::require(heads >= 1 && key >= 1 && value >= 1 && value_offset >= 0,
                  "heads, key and value must be at least 1, value_offset at least 0", "cached_attention: sizes");
  detail::check_window(keys, AttentionMask::causal, "cached_attention: keys");
  detail::check_window(near, AttentionMask::causal, "cached_attention: near");
  detail::check_tokens_per_key(tokens_per_key, keys.all() && near.all(), "cached_attention: tokens_per_key");
  for (const CachedAttentionJob& job : jobs) {
    detail::require_shape(job.q, job.q.rows, heads * key, "cached_attention: q");
    detail::require_shape(job.out, job.q.rows, heads * value, "cached_attention: out");
    detail::require_chunk(job.q.rows, job.first_position, job.length, "cached_attention: positions", tokens_per_key);
    detail::require(job.cache_type == DType::f32 || job.cache_type == DType::bf16, "the cache must be F32 or BF16",
                    "cached_attention: cache");
    const bool sees = job.q.rows > 0 && visible_keys(job.first_position + job.q.rows - 1, tokens_per_key) > 0;
    detail::require(!sees || (job.cache != nullptr && job.cache_pitch >= std::max(key, value_offset + value)),
                    "the cache needs data and a row pitch of at least key and value_offset + value",
                    "cached_attention: cache");
    detail::check_tokens_per_key(tokens_per_key, job.ring.rows == 0, "cached_attention: ring");
    const Index oldest = std::max(keys.begin(job.first_position), job.ring.pinned);
    detail::require(job.ring.rows == 0 || job.first_position + job.q.rows - oldest <= job.ring.rows,
                    "a ring must hold the new tokens and the window of the first of them", "cached_attention: ring");
    detail::require(job.ring.rows == 0 || job.ring.pinned >= keys.pinned, "a ring must keep the pinned keys",
                    "cached_attention: ring");
    if (job.sinks.data != nullptr) detail::require_size(job.sinks, heads, "cached_attention: sinks");
    if (job.lse.data != nullptr) detail::require_shape(job.lse, job.q.rows, heads, "cached_attention: lse");
    if (job.key_bias.data != nullptr) {
      const Index seen = visible_keys(job.first_position + job.q.rows - 1, tokens_per_key);
      detail::require_shape(job.key_bias, job.key_bias.rows, 1, "cached_attention: key_bias");
      detail::require(!sees || job.ring.holds(oldest, seen, job.key_bias.rows),
                      "a key bias must have a row for each row of the cache", "cached_attention: key_bias");
    }
    detail::check_far_bias(job.far_bias, job.q.rows, heads, near, keys, "cached_attention: far_bias");
    if (job.chosen.data == nullptr) continue;
    detail::require_shape(job.chosen, job.q.rows, job.chosen.cols, "cached_attention: chosen");
    detail::require_size(job.counts, job.q.rows, "cached_attention: counts");
    detail::require(keys.all() && near.all() && job.ring.rows == 0,
                    "chosen keys are of a cache of all rows, without a window and without a far bias",
                    "cached_attention: chosen");
  }
  detail::require_twins<Device>();
  run_cached_attention(device, jobs, sizes);
}

namespace detail {

template <class Real>
void check_expanded_sizes(const BasicExpandedAttentionSizes<Real>& z, const char* what) {
  require(z.heads >= 1 && z.nope >= 0 && z.rope >= 0 && z.width() >= 1 && z.value >= 1,
          "heads, nope + rope and value must be at least 1", what);
  require(z.heads_per_key >= 1 && z.heads % z.heads_per_key == 0, "heads must be a multiple of heads_per_key", what);
  check_window(z.keys, z.mask, what);
  check_window(z.near, z.mask, what);
  check_tokens_per_key(z.tokens_per_key, z.mask == AttentionMask::causal && z.keys.all() && z.near.all() && z.rope == 0,
                       what);
}

template <class Device, class Real>
void checked_expanded_attention(Device& device, std::span<const BasicExpandedAttentionJob<Real>> jobs,
                                const BasicExpandedAttentionSizes<Real>& sizes) {
  check_expanded_sizes(sizes, "expanded_attention: sizes");
  const Index heads = sizes.heads, later_keys = sizes.key_heads() - 1, nope = sizes.nope, value = sizes.value;
  for (const BasicExpandedAttentionJob<Real>& job : jobs) {
    const Index length = job.v.rows;
    const Index key_stride = job.key_head_stride > 0 ? job.key_head_stride : nope;
    const Index value_stride = job.value_head_stride > 0 ? job.value_head_stride : value;
    require_shape(job.q, job.q.rows, heads * sizes.width(), "expanded_attention: q");
    require_shape(job.k_nope, length, later_keys * key_stride + nope, "expanded_attention: k_nope");
    if (sizes.rope > 0) require_shape(job.k_rope, length, sizes.rope, "expanded_attention: k_rope");
    require_shape(job.v, length, later_keys * value_stride + value, "expanded_attention: v");
    require_shape(job.out, job.q.rows, heads * value, "expanded_attention: out");
    if (job.lse.data != nullptr) require_shape(job.lse, job.q.rows, heads, "expanded_attention: lse");
    if (job.sinks.data != nullptr) require_size(job.sinks, heads, "expanded_attention: sinks");
    check_far_bias(job.far_bias, job.q.rows, heads, sizes.near, sizes.keys, "expanded_attention: far_bias");
    check_chosen(job.chosen, job.q.rows, length, sizes, "expanded_attention: chosen");
    if (job.key_bias.data != nullptr) require_shape(job.key_bias, length, 1, "expanded_attention: key_bias");
    const Index pinned = (sizes.keys.pinned + attention_tile - 1) / attention_tile * attention_tile;
    require(job.skipped >= 0 && job.skipped % attention_tile == 0 &&
                (job.skipped == 0 || sizes.keys.begin(job.first_position) >= pinned + job.skipped),
            "skipped positions are whole tiles that no window reaches", "expanded_attention: skipped");
    check_tokens_per_key(sizes.tokens_per_key, job.skipped == 0, "expanded_attention: skipped");
    require_chunk(job.q.rows, job.first_position - job.skipped, length, "expanded_attention: positions",
                  sizes.tokens_per_key);
  }
  require_twins<Device>();
  run_expanded_attention(device, jobs, sizes);
}

}  // namespace detail

/// Expanded attention: for token t (position p = first_position + t) and head h, with g = h / heads_per_key and
/// key[s] = [k_nope[s, g] | k_rope[s]],
///   out[t, h] = sum over visible s of softmax_s(scale * q[t, h] . key[s]) * v[s, g],
/// where s is visible up to p (causal; sizes.keys may show a window of them alone) or always (bidirectional), and sinks
/// and far bias are as in cached_attention. Where a job has bits of chosen keys (causal, without a window and a far
/// bias) a token sees those alone whose bit is set; with all bits set its bits are those of a job without. A key bias
/// is as in cached_attention, row s that of key row s. Latent
/// attention has keys for each head (heads_per_key = 1); grouped-query attention shares them and has no part without
/// rotation: N = the head's width, R = 0. q [n, H * (N + R)], k_nope [L, G heads of N], k_rope [L, R] shared by all
/// heads, v [L, G heads of V], out [n, H * V], where G = H / heads_per_key; lse [n, H], where it has data, gets the
/// logarithm of the softmax's denominator. Keys that stand for several tokens, and tokens without a key, are as in
/// cached_attention. Memory does not grow with n * L: keys are taken in tiles with a running
/// softmax (FlashAttention-2, arXiv 2307.08691, algorithm 1). Numbers and determinism as in cached_attention. Throws
/// op_shape, op_argument.
template <class Device>
void expanded_attention(Device& device, std::span<const ExpandedAttentionJob> jobs,
                        const ExpandedAttentionSizes& sizes) {
  detail::checked_expanded_attention(device, jobs, sizes);
}
/// In double with plain loops, for gradient checks.
template <class Device>
void expanded_attention(Device& device, std::span<const BasicExpandedAttentionJob<double>> jobs,
                        const BasicExpandedAttentionSizes<double>& sizes) {
  detail::checked_expanded_attention(device, jobs, sizes);
}

namespace detail {

template <class Device, class Real>
void checked_expanded_attention_backward(Device& device, std::span<const ExpandedAttentionGradientJob<Real>> jobs,
                                         const BasicExpandedAttentionSizes<Real>& sizes) {
  check_expanded_sizes(sizes, "expanded_attention_backward: sizes");
  const Index heads = sizes.heads, later_keys = sizes.key_heads() - 1, nope = sizes.nope, value = sizes.value;
  for (const ExpandedAttentionGradientJob<Real>& job : jobs) {
    const Index n = job.q.rows, length = n / sizes.tokens_per_key;
    const Index query_cols = heads * sizes.width(), out_cols = heads * value;
    const Index key_stride = job.key_head_stride > 0 ? job.key_head_stride : nope;
    const Index value_stride = job.value_head_stride > 0 ? job.value_head_stride : value;
    require(key_stride >= nope && value_stride >= value, "heads must not overlap: their gradients would",
            "expanded_attention_backward: head strides");
    const Index key_cols = later_keys * key_stride + nope, value_cols = later_keys * value_stride + value;
    require_shape(job.q, n, query_cols, "expanded_attention_backward: q");
    require_shape(job.k_nope, length, key_cols, "expanded_attention_backward: k_nope");
    require_shape(job.v, length, value_cols, "expanded_attention_backward: v");
    require_shape(job.out, n, out_cols, "expanded_attention_backward: out");
    require_shape(job.lse, n, heads, "expanded_attention_backward: lse");
    require_shape(job.dout, n, out_cols, "expanded_attention_backward: dout");
    require_shape(job.dq, n, query_cols, "expanded_attention_backward: dq");
    require_shape(job.dk_nope, length, key_cols, "expanded_attention_backward: dk_nope");
    require_shape(job.dv, length, value_cols, "expanded_attention_backward: dv");
    if (job.sinks.data != nullptr) {
      require_size(job.sinks, heads, "expanded_attention_backward: sinks");
      require_shape(job.dsinks, n, heads, "expanded_attention_backward: dsinks");
    }
    check_far_bias(job.far_bias, n, heads, sizes.near, sizes.keys, "expanded_attention_backward: far_bias");
    check_chosen(job.chosen, n, length, sizes, "expanded_attention_backward: chosen");
    if (job.key_bias.data != nullptr) require_shape(job.key_bias, length, 1, "expanded_attention_backward: key_bias");
    if (job.far_bias.data != nullptr) require_shape(job.dfar_bias, n, heads, "expanded_attention_backward: dfar_bias");
    if (sizes.rope == 0) continue;
    require_shape(job.k_rope, n, sizes.rope, "expanded_attention_backward: k_rope");
    require_shape(job.dk_rope, n, sizes.rope, "expanded_attention_backward: dk_rope");
  }
  require_twins<Device>();
  run_expanded_attention_backward(device, jobs, sizes);
}

}  // namespace detail

/// Gradients of expanded_attention; each job is one whole sequence (L = n / tokens_per_key, first position 0). With
/// P[t, s] = exp(scale * q[t] . key[s] + key_bias[s] - lse[t]) and D[t] = dout[t] . out[t], for each head:
///   dv[s] = sum over t of P[t, s] dout[t],    dS[t, s] = P[t, s] (dout[t] . v[s] - D[t]) scale,
///   dq[t] = sum over s of dS[t, s] key[s],    dkey[s] = sum over t of dS[t, s] q[t],
///   dsinks[t] = -exp(sink - lse[t]) D[t],    dfar_bias[t] = sum over the far s of P[t, s] (dout[t] . v[s] - D[t]),
/// over the visible pairs (FlashAttention-2, arXiv 2307.08691, algorithm 2); the key bias is a constant. So with the
/// out and lse of one softmax over several sets of keys (join_attention) a call for each set gives the gradients of its
/// keys and its part of dq. A token whose lse is -infinity has no share in anything. Heads that share keys and values
/// add up theirs in the order of heads, and dk_rope is the sum of all groups' in their order. Overwrites dq, dk_nope,
/// dk_rope, dv, which must not overlap what is read. Work is cut by the shapes alone: bits depend neither on the
/// threads nor on other jobs. Throws op_shape, op_argument. P is made anew tile by tile, so scratch grows with the
/// tokens and never with their square. On the CPU, in floats, of G = H / heads_per_key groups: a token, G * R; a token
/// of a sequence of 512 and more and of at most 16 groups, up to max(32 / H, min(32 / G, 4)) - 1 partial dq of H * (N +
/// R) (large batches are done in rounds that keep these two below 64 MiB where one sequence does); a thread, 2 * (N + R
/// + V) + 1 for each key of the longest range (n / sqrt(number of ranges)) and about 10^4 + 256 * (N + R + V).
template <class Device>
void expanded_attention_backward(Device& device, std::span<const ExpandedAttentionGradientJob<float>> jobs,
                                 const ExpandedAttentionSizes& sizes) {
  detail::checked_expanded_attention_backward(device, jobs, sizes);
}
/// In double with plain loops, for gradient checks.
template <class Device>
void expanded_attention_backward(Device& device, std::span<const ExpandedAttentionGradientJob<double>> jobs,
                                 const BasicExpandedAttentionSizes<double>& sizes) {
  detail::checked_expanded_attention_backward(device, jobs, sizes);
}

}  // namespace v1
}  // namespace guild
