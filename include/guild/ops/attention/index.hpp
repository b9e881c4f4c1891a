// The index of sparse attention (DeepSeek-V3.2-Exp report, section 2.1; "lightning indexer"): small heads of its own
// score every key, attention is over the keys of largest score, and a loss of its own teaches the index what attention
// looks at. Shapes: n new tokens, L rows of keys including them, H index heads of I columns, k keys to choose.
#pragma once

#include <guild/core/refuse.hpp>
#include <guild/ops/attention/attention.hpp>
#include <guild/ops/attention/index_job.hpp>
#include <guild/ops/attention/rows/index.hpp>
#include <guild/ops/common/pieces.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/common/twins.hpp>
#include <limits>
#include <span>

namespace guild {
inline namespace v1 {

namespace detail {

inline void check_index_sizes(const IndexSizes& sizes, const char* what) {
  require(sizes.heads >= 1 && sizes.dim >= 1, "heads and dim must be at least 1", what);
  require(sizes.scale > 0, "the scale must be positive", what);
  check_tokens_per_key(sizes.tokens_per_key, true, what);
}

template <class Device, class Real, class Key>
void checked_index_scores(Device& device, std::span<const BasicIndexScoresJob<Real, Key>> jobs,
                          const IndexSizes& sizes) {
  check_index_sizes(sizes, "index_scores: sizes");
  for (const BasicIndexScoresJob<Real, Key>& job : jobs) {
    const Index n = job.q.rows, length = job.keys.rows;
    require_shape(job.q, n, sizes.heads * sizes.dim, "index_scores: q");
    require_shape(job.weights, n, sizes.heads, "index_scores: weights");
    require_shape(job.keys, length, sizes.dim, "index_scores: keys");
    require_shape(job.scores, n, length, "index_scores: scores");
    require_chunk(n, job.first_position, length, "index_scores: positions", sizes.tokens_per_key);
  }
  require_twins<Device>();
  run_index_scores(device, jobs, sizes);
}

}  // namespace detail

/// Index scores: for token t (position p = first_position + t) and the keys s that it sees, s <= p or, of keys that
/// stand for m = sizes.tokens_per_key tokens, s < (p + 1) / m,
///   scores[t, s] = sum over h of weights[t, h] * relu(scale * q[t, h] . keys[s]).
/// Products and sums are in float, over columns and heads in an order of their numbers alone: a score depends on its
/// token and its key alone. Throws op_shape, op_argument.
template <class Device>
void index_scores(Device& device, std::span<const BasicIndexScoresJob<float, float>> jobs, const IndexSizes& sizes) {
  detail::checked_index_scores(device, jobs, sizes);
}
/// Over rows of a bf16 cache.
template <class Device>
void index_scores(Device& device, std::span<const BasicIndexScoresJob<float, bf16>> jobs, const IndexSizes& sizes) {
  detail::checked_index_scores(device, jobs, sizes);
}
/// In double with plain loops, for gradient checks.
template <class Device>
void index_scores(Device& device, std::span<const BasicIndexScoresJob<double, double>> jobs, const IndexSizes& sizes) {
  detail::checked_index_scores(device, jobs, sizes);
}

namespace detail {

template <class Device, class Real>
void checked_index_scores_backward(Device& device, std::span<const IndexScoresGradientJob<Real>> jobs,
                                   const IndexSizes& sizes) {
  check_index_sizes(sizes, "index_scores_backward: sizes");
  const Index heads = sizes.heads, cols = heads * sizes.dim;
  for (const IndexScoresGradientJob<Real>& job : jobs) {
    const Index n = job.q.rows, length = n / sizes.tokens_per_key;
    require_shape(job.q, n, cols, "index_scores_backward: q");
    require_shape(job.weights, n, heads, "index_scores_backward: weights");
    require_shape(job.keys, length, sizes.dim, "index_scores_backward: keys");
    require_shape(job.dscores, n, length, "index_scores_backward: dscores");
    require_shape(job.dq, n, cols, "index_scores_backward: dq");
    require_shape(job.dweights, n, heads, "index_scores_backward: dweights");
    require_shape(job.dkeys, length, sizes.dim, "index_scores_backward: dkeys");
  }
  require_twins<Device>();
  run_index_scores_backward(device, jobs, sizes);
}

}  // namespace detail

/// Gradients of index_scores; each job is one whole sequence (L = n / tokens_per_key, first position 0). With z = scale
/// * q[t, h] . keys[s] and g = dscores[t, s], over the visible pairs where z > 0:
///   dweights[t, h] = sum over s of g z,    dq[t, h] = sum over s of g weights[t, h] scale keys[s],
///   dkeys[s] = sum over t and h of g weights[t, h] scale q[t, h].
/// Overwrites dq, dweights, dkeys, which must not overlap what is read. Work is cut by the shapes alone: bits depend
/// neither on the threads nor on other jobs. Scratch on the CPU: up to 4 times dkeys. Throws op_shape, op_argument.
template <class Device>
void index_scores_backward(Device& device, std::span<const IndexScoresGradientJob<float>> jobs,
                           const IndexSizes& sizes) {
  detail::checked_index_scores_backward(device, jobs, sizes);
}
/// In double with plain loops, for gradient checks.
template <class Device>
void index_scores_backward(Device& device, std::span<const IndexScoresGradientJob<double>> jobs,
                           const IndexSizes& sizes) {
  detail::checked_index_scores_backward(device, jobs, sizes);
}

namespace detail {

template <class Device, class Real>
void checked_choose_keys(Device& device, std::span<const BasicChooseKeysJob<Real>> jobs, Index top_k) {
  require(top_k >= 1, "at least 1 key must be chosen", "choose_keys: top_k");
  for (const BasicChooseKeysJob<Real>& job : jobs) {
    const Index n = job.scores.rows;
    require_shape(job.scores, n, job.scores.cols, "choose_keys: scores");
    require(job.scores.cols <= std::numeric_limits<std::int32_t>::max(), "positions must be 32-bit integers",
            "choose_keys: scores");
    require_shape(job.chosen, n, top_k, "choose_keys: chosen");
    require_size(job.counts, n, "choose_keys: counts");
    check_tokens_per_key(job.tokens_per_key, true, "choose_keys: tokens_per_key");
    require_chunk(n, job.first_position, job.scores.cols, "choose_keys: positions", job.tokens_per_key);
  }
  for_each_piece(device, jobs);
}

}  // namespace detail

/// The top_k keys of largest score among those that each token sees, see BasicChooseKeysJob. Keys behind it are
/// masked before the choice, and of equal scores (relu makes many zeros) the latest positions win: so the choice of a
/// token depends on its prefix alone, whatever follows. A score that is not a number loses against all others. Throws
/// op_shape, op_argument.
template <class Device>
void choose_keys(Device& device, std::span<const BasicChooseKeysJob<float>> jobs, Index top_k) {
  detail::checked_choose_keys(device, jobs, top_k);
}
template <class Device>
void choose_keys(Device& device, std::span<const BasicChooseKeysJob<double>> jobs, Index top_k) {
  detail::checked_choose_keys(device, jobs, top_k);
}

/// Chosen keys as bits, which expanded_attention and its backward take, see MarkChosenJob. Throws op_shape,
/// op_argument.
template <class Device>
void mark_chosen(Device& device, std::span<const MarkChosenJob> jobs) {
  for (const MarkChosenJob& job : jobs) {
    detail::require_shape(job.chosen, job.bits.rows, job.chosen.cols, "mark_chosen: chosen");
    detail::require_size(job.counts, job.bits.rows, "mark_chosen: counts");
    detail::require_shape(job.bits, job.bits.rows, job.bits.cols, "mark_chosen: bits");
  }
  for_each_piece(device, jobs);
}

namespace detail {

template <class Device, class Real>
void checked_index_loss(Device& device, std::span<const IndexLossJob<Real>> jobs,
                        const BasicExpandedAttentionSizes<Real>& sizes, Real weight) {
  check_expanded_sizes(sizes, "index_loss: sizes");
  require(sizes.mask == AttentionMask::causal && sizes.keys.all() && sizes.near.all(),
          "an index is of causal attention without a window and without a far bias", "index_loss: sizes");
  for (const IndexLossJob<Real>& job : jobs) {
    const Index n = job.q.rows, length = n / sizes.tokens_per_key, nope = sizes.nope;
    const Index stride = job.key_head_stride > 0 ? job.key_head_stride : nope;
    require_shape(job.q, n, sizes.heads * sizes.width(), "index_loss: q");
    require_shape(job.k_nope, length, (sizes.key_heads() - 1) * stride + nope, "index_loss: k_nope");
    if (sizes.rope > 0) require_shape(job.k_rope, length, sizes.rope, "index_loss: k_rope");
    require_shape(job.lse, n, sizes.heads, "index_loss: lse");
    require_shape(job.scores, n, length, "index_loss: scores");
    check_chosen(job.chosen, n, length, sizes, "index_loss: chosen");
    if (job.key_bias.data != nullptr) require_shape(job.key_bias, length, 1, "index_loss: key_bias");
    require_shape(job.dscores, n, length, "index_loss: dscores");
    require_size(job.loss, n, "index_loss: loss");
  }
  require_twins<Device>();
  run_index_loss(device, jobs, sizes, weight);
}

}  // namespace detail

/// The objective of an index: for each token t, over the keys it sees (those up to its position, or of them the chosen
/// ones),
///   loss[t] = KL(p || softmax_s(scores[t, s])),    p[s] = sum over h of P[t, h, s] / sum over h and s of it,
/// where P[t, h, s] = exp(scale * q[t, h] . key[s] + key_bias[s] - lse[t, h]) is what the expanded attention of these
/// sizes gave s (DeepSeek-V3.2-Exp report, equations 3 and 4: over all keys while attention is dense, then over the
/// chosen ones);
///   dscores[t, s] = weight * (softmax_s(scores[t, s]) - p[s]).
/// The attention is a constant: nothing flows to q and keys. Its softmax may be over more keys than these: p is what it
/// gave these ones, to a sum of 1. A token that sees none of them, or to which all of them are worth less than the
/// least normal number, has a loss and dscores of 0. sizes.value is not looked at. Scratch on the CPU: of each thread
/// 65 floats a key of the longest sequence. Throws op_shape, op_argument.
template <class Device>
void index_loss(Device& device, std::span<const IndexLossJob<float>> jobs, const ExpandedAttentionSizes& sizes,
                float weight) {
  detail::checked_index_loss(device, jobs, sizes, weight);
}
/// In double with plain loops, for gradient checks.
template <class Device>
void index_loss(Device& device, std::span<const IndexLossJob<double>> jobs,
                const BasicExpandedAttentionSizes<double>& sizes, double weight) {
  detail::checked_index_loss(device, jobs, sizes, weight);
}

}  // namespace v1
}  // namespace guild
