// The index of sparse attention in plain loops of any real type: what gradient checks run in double, and what the tiled
// kernels are compared with.
#pragma once

#include <algorithm>
#include <cmath>
#include <guild/device/cpu.hpp>
#include <guild/ops/attention/cpu/plain.hpp>
#include <guild/ops/attention/cpu/tile.hpp>
#include <guild/ops/attention/index_job.hpp>
#include <limits>
#include <span>
#include <type_traits>

namespace guild {
inline namespace v1 {
namespace cpu {

template <class Job>
struct PlainIndex {
  const Job& job;
  const IndexSizes& sizes;

  using Real = std::remove_cv_t<std::remove_pointer_t<decltype(Job::q.data)>>;
  [[nodiscard]] const Real* query(Index t, Index h) const { return job.q.row(t).data + h * sizes.dim; }
  /// scale * q[t, h] . keys[s]
  [[nodiscard]] Real product(Index t, Index h, Index s) const {
    const Real* const q = query(t, h);
    const auto* const k = job.keys.row(s).data;
    Real sum = 0;
    for (Index c = 0; c < sizes.dim; ++c) sum += q[c] * static_cast<Real>(k[c]);
    return sum * static_cast<Real>(sizes.scale);
  }
};

/// One task a token.
template <class Real, class Key>
void plain_index_scores(Cpu& device, std::span<const BasicIndexScoresJob<Real, Key>> jobs, const IndexSizes& sizes) {
  using Job = BasicIndexScoresJob<Real, Key>;
  const auto count = static_cast<Index>(jobs.size());
  auto frame = device.scratch();
  const View tokens = frame.take<Index>(count + 1);
  task_starts(jobs, tokens, [](const Job& job) { return job.q.rows; });
  device.run(tokens[count], [&](Index token, int) {
    const Index i = part_of(tokens, token), t = token - tokens[i];
    const Job& job = jobs[static_cast<std::size_t>(i)];
    const PlainIndex<Job> one{job, sizes};
    for (Index s = 0; s < visible_keys(job.first_position + t, sizes.tokens_per_key); ++s) {
      Real sum = 0;
      for (Index h = 0; h < sizes.heads; ++h) sum += job.weights(t, h) * std::max(one.product(t, h, s), Real(0));
      job.scores(t, s) = sum;
    }
  });
}

/// One task a sequence.
template <class Real>
void plain_index_scores_backward(Cpu& device, std::span<const IndexScoresGradientJob<Real>> jobs,
                                 const IndexSizes& sizes) {
  using Job = IndexScoresGradientJob<Real>;
  device.run(static_cast<Index>(jobs.size()), [&](Index i, int) {
    const Job& job = jobs[static_cast<std::size_t>(i)];
    const PlainIndex<Job> one{job, sizes};
    const Index n = job.q.rows, heads = sizes.heads, dim = sizes.dim;
    for (Index t = 0; t < n; ++t) {
      std::fill_n(job.dq.row(t).data, heads * dim, Real(0));
      std::fill_n(job.dweights.row(t).data, heads, Real(0));
    }
    for (Index s = 0; s < job.keys.rows; ++s) std::fill_n(job.dkeys.row(s).data, dim, Real(0));
    for (Index t = 0; t < n; ++t)
      for (Index h = 0; h < heads; ++h) {
        const Real* const q = one.query(t, h);
        Real* const dq = job.dq.row(t).data + h * dim;
        for (Index s = 0; s < visible_keys(t, sizes.tokens_per_key); ++s) {
          const Real z = one.product(t, h, s), slope = job.dscores(t, s);
          if (!(z > Real(0))) continue;
          job.dweights(t, h) += slope * z;
          const Real dz = slope * job.weights(t, h) * static_cast<Real>(sizes.scale);
          const Real* const k = job.keys.row(s).data;
          Real* const dk = job.dkeys.row(s).data;
          for (Index c = 0; c < dim; ++c) {
            dq[c] += dz * k[c];
            dk[c] += dz * q[c];
          }
        }
      }
  });
}

/// The loss of one token from `share`, what its heads gave each key together, and its gradient: 0 where they gave no
/// key anything. Those not seen have a share below 0. Sums are in double.
template <class Real>
void index_loss_row(const Real* share, const Real* score, Index visible, Real weight, Real* dscore, Real& loss) {
  double all = 0, sum = 0;
  Real peak = -std::numeric_limits<Real>::infinity();
  for (Index s = 0; s < visible; ++s) {
    if (share[s] < Real(0)) continue;
    all += static_cast<double>(share[s]);
    peak = std::max(peak, score[s]);
  }
  if (all < static_cast<double>(std::numeric_limits<Real>::min())) {
    std::fill_n(dscore, visible, Real(0));
    loss = Real(0);
    return;
  }
  for (Index s = 0; s < visible; ++s)
    if (!(share[s] < Real(0))) sum += static_cast<double>(dscore[s] = std::exp(score[s] - peak));
  const Real log_sum = static_cast<Real>(std::log(sum)), to_share = static_cast<Real>(1 / all);
  const Real to_probability = static_cast<Real>(1 / sum);
  double divergence = 0;
  for (Index s = 0; s < visible; ++s) {
    if (share[s] < Real(0)) {
      dscore[s] = 0;
      continue;
    }
    const Real p = share[s] * to_share;
    if (p != Real(0)) divergence += static_cast<double>(p * (std::log(p) - (score[s] - peak - log_sum)));
    dscore[s] = weight * (dscore[s] * to_probability - p);
  }
  loss = static_cast<Real>(divergence);
}

/// What PlainHead asks of a job beside queries and keys.
template <class Real>
struct IndexLossHead {
  View<const Real, 2> q, k_nope, k_rope, v{}, far_bias{}, key_bias;
  View<const std::uint32_t, 2> chosen;
  Index key_head_stride, value_head_stride = 0;
};

/// One task a token. Memory of one row of scores a thread.
template <class Real>
void plain_index_loss(Cpu& device, std::span<const IndexLossJob<Real>> jobs,
                      const BasicExpandedAttentionSizes<Real>& sizes, Real weight) {
  using Job = IndexLossJob<Real>;
  const auto count = static_cast<Index>(jobs.size());
  auto frame = device.scratch();
  const View tokens = frame.take<Index>(count + 1);
  task_starts(jobs, tokens, [](const Job& job) { return job.q.rows; });
  Index longest = 0;
  for (const Job& job : jobs) longest = std::max(longest, job.k_nope.rows);
  const View shares = frame.take<Real>(device.threads(), longest);
  device.run(tokens[count], [&](Index token, int worker) {
    const Index i = part_of(tokens, token), t = token - tokens[i];
    const Job& job = jobs[static_cast<std::size_t>(i)];
    const IndexLossHead<Real> views{.q = job.q,
                                    .k_nope = job.k_nope,
                                    .k_rope = job.k_rope,
                                    .key_bias = job.key_bias,
                                    .chosen = job.chosen,
                                    .key_head_stride = job.key_head_stride};
    Real* const share = shares.row(worker).data;
    const Index visible = visible_keys(t, sizes.tokens_per_key);
    for (Index s = 0; s < visible; ++s) {
      share[s] = 0;
      for (Index h = 0; h < sizes.heads; ++h) {
        const PlainHead<IndexLossHead<Real>, Real> head{views, sizes, h};
        if (!head.sees(t, s)) {
          share[s] = -1;
          break;
        }
        share[s] += std::exp(head.score(t, s) - log_denominator_again(job.lse(t, h)));
      }
    }
    index_loss_row(share, job.scores.row(t).data, visible, weight, job.dscores.row(t).data, job.loss[t]);
  });
}

}  // namespace cpu
}  // namespace v1
}  // namespace guild
