// How new each token is beside the one before it (the router of H-Net, arXiv 2507.07955, turned by one token: the novel
// token ends a group and does not begin one). Shapes: n tokens, R columns of a router's rows.
#pragma once

#include <algorithm>
#include <guild/ops/common/pieces.hpp>
#include <guild/ops/common/ring_check.hpp>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/merge/rows/novelty.hpp>
#include <span>

namespace guild {
inline namespace v1 {

/// p[t] = (1 - cos(q[t], k[t - 1])) / 2 of each job's tokens, within [0, 1]; p = 1 at position 0, whatever q is. Rows
/// are divided by their length, or by 1e-12 if they are shorter, so a row of zeros has a cosine of 0 and p = 1/2. A
/// token's bits depend on its two rows alone. Throws op_shape, also where the ring does not hold the k before the first
/// token.
template <class Device, class Real>
void novelty(Device& device, std::span<const NoveltyJob<Real>> jobs) {
  for (const NoveltyJob<Real>& job : jobs) {
    detail::require_shape(job.q, job.p.size, job.q.cols, "novelty: q");
    detail::require_size(job.p, job.q.rows, "novelty: p");
    detail::require_shape(job.keys, job.keys.rows, job.q.cols, "novelty: keys");
    if (job.q.rows > 0)
      detail::require_held(job.ring, job.first == 0 ? 0 : job.first - 1, job.first + job.q.rows, job.keys.rows,
                           "novelty: keys");
  }
  for_each_piece(device, jobs);
}

/// Gradients of novelty of whole sequences: overwrites dq and dk [n, R]. Those of the first q and the last k are 0. The
/// bounds of p have none of their own. dq and dk are none of the inputs. Throws op_shape.
template <class Device, class Real>
void novelty_backward(Device& device, std::span<const NoveltyGradientJob<Real>> jobs) {
  for (const NoveltyGradientJob<Real>& job : jobs) {
    const Index tokens = job.q.rows, columns = job.q.cols;
    detail::require_shape(job.q, tokens, columns, "novelty_backward: q");
    detail::require_shape(job.k, tokens, columns, "novelty_backward: k");
    detail::require_size(job.dp, tokens, "novelty_backward: dp");
    detail::require_shape(job.dq, tokens, columns, "novelty_backward: dq");
    detail::require_shape(job.dk, tokens, columns, "novelty_backward: dk");
  }
  for_each_piece(device, jobs);
}

/// The energy of each job's tokens beside the `window` > 0 ones before each: e[t] = mean of f(cos(x[t], x[s])), with
/// f(c) = c from `margin` on and alpha (exp(c - margin) - 1) below; 0 at position 0. Low where a token is like none of
/// them (the score of PiToMe, arXiv 2405.16148, whose mean is over all tokens). A token's bits depend on the rows of
/// its window alone. Throws op_shape, also where the ring does not hold the rows before the first token.
template <class Device, class Real>
void token_energy(Device& device, std::span<const TokenEnergyJob<Real>> jobs) {
  for (const TokenEnergyJob<Real>& job : jobs) {
    detail::require_shape(job.x, job.x.rows, job.x.cols, "token_energy: x");
    detail::require_size(job.e, job.e.size, "token_energy: e");
    if (job.e.size > 0)
      detail::require_held(job.ring, std::max(job.first - job.window, Index{0}), job.first + job.e.size, job.x.rows,
                           "token_energy: x");
  }
  for_each_piece(device, jobs);
}

}  // namespace v1
}  // namespace guild
