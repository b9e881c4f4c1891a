// Attention over ragged batches: each job is one chunk of new tokens of one sequence. Two forms: over rows of a cache
// as they are stored, and expanded, over floats of keys and values. Latent attention (DeepSeek-V2 report, section 2.1)
// and grouped-query attention (arXiv 2305.13245) are cases of both.
// Shapes: n new tokens, L rows of context including them, H heads, K columns of a key, V of a value; of expanded keys,
// R columns are rotary and shared by all heads, N are not.
#pragma once

#include <algorithm>
#include <guild/ops/cpu/attention.hpp>
#include <guild/ops/shape_check.hpp>
#include <span>
#include <string>

namespace guild::inline v1 {

namespace detail {

inline void require_chunk(Index rows, Index first_position, Index length, const char* what) {
  if (first_position < 0 || rows < 0 || first_position + rows > length)
    throw Error(ErrorCode::op_shape,
                std::to_string(rows) + " tokens from position " + std::to_string(first_position) +
                    " do not lie within a context of " + std::to_string(length) +
                    " rows; append the new rows to the context before attending",
                Where{.key = what});
}

}  // namespace detail

/// Attention over cached rows: for token t (position p = first_position + t) and head h
///   out[t, h] = sum over s <= p of softmax_s(scale * q[t, h] . row[s][0, K)) * row[s][O, O + V), O = value_offset.
/// All heads of a job share the row. q holds H * K a row, out gets H * V. Two layouts that use it:
/// - absorbed latent attention: a row is [latent C | rotary key R], K = C + R, V = C, O = 0;
/// - grouped-query attention: a job for each key head, whose cache begins at that head's key and whose q and out are
///   the columns of its query heads; O is the same for all, as in [keys of all heads | values of all heads], K = V.
/// Products, softmax (with a running maximum) and sums are in float. A row's keys are cut into ranges by their number
/// and H alone and the ranges are added in their order, so its bits depend on its query and the rows it sees alone:
/// neither on threads, nor on other jobs, nor on the other tokens of its chunk. Reads only rows [0, first_position + n)
/// of a cache, and of them only these columns. Throws op_shape, op_argument.
template <class Device>
void cached_attention(Device& device, std::span<const CachedAttentionJob> jobs, const CachedAttentionSizes& sizes) {
  const auto [heads, key, value, value_offset, scale] = sizes;
  detail::require(heads >= 1 && key >= 1 && value >= 1 && value_offset >= 0,
                  "heads, key and value must be at least 1, value_offset at least 0", "cached_attention: sizes");
  for (const CachedAttentionJob& job : jobs) {
    detail::require_shape(job.q, job.q.rows, heads * key, "cached_attention: q");
    detail::require_shape(job.out, job.q.rows, heads * value, "cached_attention: out");
    detail::require_chunk(job.q.rows, job.first_position, job.length, "cached_attention: positions");
    detail::require(job.cache_type == DType::f32 || job.cache_type == DType::bf16, "the cache must be F32 or BF16",
                    "cached_attention: cache");
    detail::require(job.q.rows == 0 || (job.cache != nullptr && job.cache_pitch >= std::max(key, value_offset + value)),
                    "the cache needs data and a row pitch of at least key and value_offset + value",
                    "cached_attention: cache");
  }
  run_cached_attention(device, jobs, sizes);
}

namespace detail {

template <class Device, class Real>
void checked_expanded_attention(Device& device, std::span<const BasicExpandedAttentionJob<Real>> jobs,
                                const BasicExpandedAttentionSizes<Real>& sizes) {
  const auto [heads, nope, rope, value, scale, mask] = sizes;
  require(heads >= 1 && nope >= 0 && rope >= 0 && nope + rope >= 1 && value >= 1,
          "heads, nope + rope and value must be at least 1", "expanded_attention: sizes");
  for (const BasicExpandedAttentionJob<Real>& job : jobs) {
    const Index length = job.k_rope.rows;
    const Index key_stride = job.key_head_stride > 0 ? job.key_head_stride : nope;
    const Index value_stride = job.value_head_stride > 0 ? job.value_head_stride : value;
    require_shape(job.q, job.q.rows, heads * (nope + rope), "expanded_attention: q");
    require_shape(job.k_nope, length, (heads - 1) * key_stride + nope, "expanded_attention: k_nope");
    require_shape(job.k_rope, length, rope, "expanded_attention: k_rope");
    require_shape(job.v, length, (heads - 1) * value_stride + value, "expanded_attention: v");
    require_shape(job.out, job.q.rows, heads * value, "expanded_attention: out");
    if (job.lse.data != nullptr) require_shape(job.lse, job.q.rows, heads, "expanded_attention: lse");
    require_chunk(job.q.rows, job.first_position, length, "expanded_attention: positions");
  }
  run_expanded_attention(device, jobs, sizes);
}

}  // namespace detail

/// Expanded attention: for token t (position p = first_position + t) and head h, with key[s] = [k_nope[s, h] |
/// k_rope[s]],
///   out[t, h] = sum over visible s of softmax_s(scale * q[t, h] . key[s]) * v[s, h],
/// where s is visible up to p (causal) or always (bidirectional).
/// q [n, H * (N + R)], k_nope [L, H heads of N], k_rope [L, R] shared by all heads, v [L, H heads of V], out [n, H *
/// V]; lse [n, H], where it has data, gets the logarithm of the softmax's denominator. Memory does not grow with n * L:
/// keys are taken in tiles with a running softmax (FlashAttention-2, arXiv 2307.08691, algorithm 1). Numbers and
/// determinism as in cached_attention. Throws op_shape, op_argument.
template <class Device>
void expanded_attention(Device& device, std::span<const ExpandedAttentionJob> jobs, Index heads, Index nope, Index rope,
                        Index value, float scale, AttentionMask mask = AttentionMask::causal) {
  detail::checked_expanded_attention<Device, float>(device, jobs, {heads, nope, rope, value, scale, mask});
}
/// In double with plain loops, for gradient checks.
template <class Device>
void expanded_attention(Device& device, std::span<const BasicExpandedAttentionJob<double>> jobs, Index heads,
                        Index nope, Index rope, Index value, double scale, AttentionMask mask = AttentionMask::causal) {
  detail::checked_expanded_attention<Device, double>(device, jobs, {heads, nope, rope, value, scale, mask});
}

}  // namespace guild::inline v1
