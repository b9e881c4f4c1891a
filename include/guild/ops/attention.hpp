// Attention over ragged batches: each job is one chunk of new tokens of one sequence. Two forms of latent attention
// (DeepSeek-V2 report, section 2.1): absorbed, over cached latents, and expanded, over keys and values of every head.
// Shapes: n new tokens, L rows of context including them, H heads, C latent rank, R rotary part, N part without.
#pragma once

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

/// Absorbed latent attention: for token t (position p = first_position + t) and head h
///   out[t, h] = sum over s <= p of softmax_s(scale * q[t, h] . row[s]) * row[s][0, C).
/// Row s of the cache is [latent C | rotary key R]; all heads share it. q holds the absorbed and rotated queries, H *
/// (C + R) a row; out gets H * C a row. Products, softmax (with a running maximum) and sums are in float; key ranges
/// are cut by the length of the job alone and added in their order, so the bits depend neither on the threads nor on
/// other jobs. Reads only rows [0, first_position + n) of a cache. Throws op_shape, op_argument.
template <class Device>
void latent_attention(Device& device, std::span<const LatentAttentionJob> jobs, Index heads, Index latent, Index rope,
                      float scale) {
  detail::require(heads >= 1 && latent >= 1 && rope >= 0, "heads and latent must be at least 1, rope at least 0",
                  "latent_attention: sizes");
  for (const LatentAttentionJob& job : jobs) {
    detail::require_shape(job.q, job.q.rows, heads * (latent + rope), "latent_attention: q");
    detail::require_shape(job.out, job.q.rows, heads * latent, "latent_attention: out");
    detail::require_chunk(job.q.rows, job.first_position, job.length, "latent_attention: positions");
    detail::require(job.cache_type == DType::f32 || job.cache_type == DType::bf16, "the cache must be F32 or BF16",
                    "latent_attention: cache");
    detail::require(job.q.rows == 0 || (job.cache != nullptr && job.cache_pitch >= latent + rope),
                    "the cache needs data and a row pitch of at least latent + rope", "latent_attention: cache");
  }
  run_latent_attention(device, jobs, LatentAttentionSizes{heads, latent, rope, scale});
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
/// determinism as in latent_attention. Throws op_shape, op_argument.
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
