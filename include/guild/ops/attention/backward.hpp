// Gradients of expanded attention over whole sequences; see ops/attention/attention.hpp for the forward.
#pragma once

#include <guild/ops/attention/attention.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/common/twins.hpp>
#include <span>

namespace guild {
inline namespace v1 {

namespace detail {

template <class Device, class Real>
void checked_expanded_attention_backward(Device& device, std::span<const ExpandedAttentionGradientJob<Real>> jobs,
                                         const BasicExpandedAttentionSizes<Real>& sizes) {
  check_expanded_sizes(sizes, "expanded_attention_backward: sizes");
  const Index heads = sizes.heads, later_keys = sizes.key_heads() - 1, nope = sizes.nope, value = sizes.value;
  for (const ExpandedAttentionGradientJob<Real>& job : jobs) {
    const Index n = job.q.rows, query_cols = heads * sizes.width(), out_cols = heads * value;
    const Index key_stride = job.key_head_stride > 0 ? job.key_head_stride : nope;
    const Index value_stride = job.value_head_stride > 0 ? job.value_head_stride : value;
    require(key_stride >= nope && value_stride >= value, "heads must not overlap: their gradients would",
            "expanded_attention_backward: head strides");
    const Index key_cols = later_keys * key_stride + nope, value_cols = later_keys * value_stride + value;
    require_shape(job.q, n, query_cols, "expanded_attention_backward: q");
    require_shape(job.k_nope, n, key_cols, "expanded_attention_backward: k_nope");
    require_shape(job.v, n, value_cols, "expanded_attention_backward: v");
    require_shape(job.out, n, out_cols, "expanded_attention_backward: out");
    require_shape(job.lse, n, heads, "expanded_attention_backward: lse");
    require_shape(job.dout, n, out_cols, "expanded_attention_backward: dout");
    require_shape(job.dq, n, query_cols, "expanded_attention_backward: dq");
    require_shape(job.dk_nope, n, key_cols, "expanded_attention_backward: dk_nope");
    require_shape(job.dv, n, value_cols, "expanded_attention_backward: dv");
    if (sizes.rope == 0) continue;
    require_shape(job.k_rope, n, sizes.rope, "expanded_attention_backward: k_rope");
    require_shape(job.dk_rope, n, sizes.rope, "expanded_attention_backward: dk_rope");
  }
  require_twins<Device>();
  run_expanded_attention_backward(device, jobs, sizes);
}

}  // namespace detail

/// Gradients of expanded_attention; each job is one whole sequence (L = n, first position 0). With P[t, s] =
/// exp(scale * q[t] . key[s] - lse[t]) and D[t] = dout[t] . out[t], for each head:
///   dv[s] = sum over t of P[t, s] dout[t],    dS[t, s] = P[t, s] (dout[t] . v[s] - D[t]) scale,
///   dq[t] = sum over s of dS[t, s] key[s],    dkey[s] = sum over t of dS[t, s] q[t],
/// over the visible pairs (FlashAttention-2, arXiv 2307.08691, algorithm 2). Heads that share keys and values add up
/// theirs in the order of heads, and dk_rope is the sum of all groups' in their order. Overwrites dq, dk_nope, dk_rope,
/// dv, which must not overlap what is read. Work is cut by the shapes alone: bits depend neither on the threads nor on
/// other jobs. Throws op_shape, op_argument. P is made anew tile by tile, so scratch grows with the tokens and never
/// with their square. On the CPU, in floats, of G = H / heads_per_key groups: a token, G * R; a token of a sequence of
/// 512 and more and of at most 16 groups, up to max(32 / H, min(32 / G, 4)) - 1 partial dq of H * (N + R) (large
/// batches are done in rounds that keep these two below 64 MiB where one sequence does); a thread, 2 * (N + R + V) for
/// each key of the longest range (n / sqrt(number of ranges)) and about 10^4 + 256 * (N + R + V).
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
