// Expanded attention in plain loops of any real type: what gradient checks run in double, and what the tiled kernels
// are compared with. Memory of one row of scores a thread.
#pragma once

#include <algorithm>
#include <cmath>
#include <guild/device/cpu.hpp>
#include <guild/ops/attention/cpu/tile.hpp>
#include <guild/ops/attention/job.hpp>
#include <limits>
#include <span>

namespace guild {
inline namespace v1 {
namespace cpu {

/// Where each job's part of the tasks begins: starts[i] = sum of count(job) over the jobs before i.
template <class Jobs, class Count>
void task_starts(const Jobs& jobs, View<Index> starts, const Count& count) {
  starts[0] = 0;
  for (std::size_t i = 0; i < jobs.size(); ++i)
    starts[static_cast<Index>(i) + 1] = starts[static_cast<Index>(i)] + count(jobs[i]);
}

/// One head of a job: the columns of its queries, keys and values.
template <class Job, class Real>
struct PlainHead {
  const Job& job;
  const BasicExpandedAttentionSizes<Real>& sizes;
  Index head;

  [[nodiscard]] Index key_head() const { return head / sizes.heads_per_key; }
  [[nodiscard]] Index key_column() const {
    return key_head() * (job.key_head_stride > 0 ? job.key_head_stride : sizes.nope);
  }
  [[nodiscard]] Index value_column() const {
    return key_head() * (job.value_head_stride > 0 ? job.value_head_stride : sizes.value);
  }
  [[nodiscard]] const Real* query(Index t) const { return job.q.row(t).data + head * sizes.width(); }
  [[nodiscard]] const Real* rope(Index s) const { return sizes.rope > 0 ? job.k_rope.row(s).data : nullptr; }
  [[nodiscard]] const Real* value(Index s) const { return job.v.row(s).data + value_column(); }
  /// scale * q[t] . key[s], with the biases
  [[nodiscard]] Real score(Index t, Index s) const {
    const Real *const q = query(t), *const nope = job.k_nope.row(s).data + key_column(), *const turned = rope(s);
    Real sum = 0;
    for (Index c = 0; c < sizes.nope; ++c) sum += q[c] * nope[c];
    for (Index c = 0; c < sizes.rope; ++c) sum += q[sizes.nope + c] * turned[c];
    return sum * sizes.scale + (is_far(t, s) ? job.far_bias(t, head) : Real(0)) +
           (job.key_bias.data != nullptr ? job.key_bias(s, 0) : Real(0));
  }
  /// True if the far bias of token t counts for row s.
  [[nodiscard]] bool is_far(Index t, Index s) const {
    return job.far_bias.data != nullptr && !sizes.near.sees(first_position() + t, position_of(s));
  }
  /// True if token t sees row s of the keys, where its mask shows it.
  [[nodiscard]] bool sees(Index t, Index s) const {
    if (job.chosen.data != nullptr && (job.chosen(t, s / 32) >> (s % 32) & 1U) == 0) return false;
    return sizes.keys.sees(first_position() + t, position_of(s));
  }
  /// The position of row s.
  [[nodiscard]] Index position_of(Index s) const {
    const Index pinned = (sizes.keys.pinned + attention_tile - 1) / attention_tile * attention_tile;
    return s < pinned ? s : s + skipped();
  }
  [[nodiscard]] Index first_position() const {
    if constexpr (requires { job.first_position; })
      return job.first_position;
    else
      return 0;
  }
  [[nodiscard]] Index skipped() const {
    if constexpr (requires { job.skipped; })
      return job.skipped;
    else
      return 0;
  }
  /// Rows of keys that the mask shows to token t.
  [[nodiscard]] Index visible(Index t) const {
    if (sizes.mask != AttentionMask::causal) return job.v.rows;
    return visible_keys(first_position() + t, sizes.tokens_per_key) - skipped();
  }
};

template <class Real>
void plain_expanded_attention(Cpu& device, std::span<const BasicExpandedAttentionJob<Real>> jobs,
                              const BasicExpandedAttentionSizes<Real>& sizes) {
  const auto count = static_cast<Index>(jobs.size());
  auto frame = device.scratch();
  const View tasks = frame.take<Index>(count + 1);
  task_starts(jobs, tasks, [&](const auto& job) { return job.q.rows * sizes.heads; });
  Index longest = 0;
  for (const auto& job : jobs) longest = std::max(longest, job.v.rows);
  const View scores = frame.take<Real>(device.threads(), longest);
  device.run(tasks[count], [&](Index task, int worker) {
    const Index i = part_of(tasks, task), t = (task - tasks[i]) / sizes.heads, head = (task - tasks[i]) % sizes.heads;
    const auto& job = jobs[static_cast<std::size_t>(i)];
    const PlainHead<BasicExpandedAttentionJob<Real>, Real> one{job, sizes, head};
    const Index visible = one.visible(t);
    Real* const p = scores.row(worker).data;
    const Real nothing = -std::numeric_limits<Real>::infinity(), sink = job.sinks.data ? job.sinks[head] : nothing;
    for (Index s = 0; s < visible; ++s) p[s] = one.sees(t, s) ? one.score(t, s) : nothing;
    const Real peak = visible > 0 ? std::max(sink, *std::max_element(p, p + visible)) : sink;
    Real* const out = job.out.row(t).data + head * sizes.value;
    std::fill(out, out + sizes.value, Real(0));
    if (job.lse.data != nullptr) job.lse(t, head) = peak;
    if (peak == nothing) return;
    Real sum = std::exp(sink - peak);
    for (Index s = 0; s < visible; ++s) sum += p[s] = std::exp(p[s] - peak);
    for (Index s = 0; s < visible; ++s) {
      const Real* const v = one.value(s);
      for (Index c = 0; c < sizes.value; ++c) out[c] += p[s] / sum * v[c];
    }
    if (job.lse.data != nullptr) job.lse(t, head) = peak + std::log(sum);
  });
}

/// One task a group of heads of a sequence. dk_rope waits in scratch, R elements for each group of a token, until all
/// groups are there.
template <class Real>
void plain_expanded_attention_backward(Cpu& device, std::span<const ExpandedAttentionGradientJob<Real>> jobs,
                                       const BasicExpandedAttentionSizes<Real>& sizes) {
  using Job = ExpandedAttentionGradientJob<Real>;
  const auto count = static_cast<Index>(jobs.size());
  const Index nope = sizes.nope, rope = sizes.rope, value = sizes.value, groups = sizes.key_heads();
  auto frame = device.scratch();
  const View tokens = frame.take<Index>(count + 1);
  task_starts(jobs, tokens, [](const Job& job) { return job.q.rows; });
  const View rope_part = frame.take<Real>(tokens[count] * groups, rope);  // row: (job, group, token)
  const auto add_head = [&](const PlainHead<Job, Real>& one, View<Real, 2> dk_rope) {
    const Job& job = one.job;
    const Index head = one.head;
    for (Index t = 0; t < job.q.rows; ++t) {
      const Real* const dout = job.dout.row(t).data + head * value;
      const Real* const out = job.out.row(t).data + head * value;
      const Real* const q = one.query(t);
      Real* const dq = job.dq.row(t).data + head * (nope + rope);
      const Real lse = log_denominator_again(job.lse(t, head));
      Real along = 0;
      for (Index c = 0; c < value; ++c) along += dout[c] * out[c];
      if (job.sinks.data != nullptr) job.dsinks(t, head) = -std::exp(job.sinks[head] - lse) * along;
      std::fill_n(dq, nope + rope, Real(0));
      if (job.far_bias.data != nullptr) job.dfar_bias(t, head) = 0;
      const Index visible = one.visible(t);
      for (Index s = 0; s < visible; ++s) {
        if (!one.sees(t, s)) continue;
        const Real p = std::exp(one.score(t, s) - lse);
        const Real* const v = one.value(s);
        Real* const dv = job.dv.row(s).data + one.value_column();
        Real dp = 0;
        for (Index c = 0; c < value; ++c) {
          dp += dout[c] * v[c];
          dv[c] += p * dout[c];
        }
        if (one.is_far(t, s)) job.dfar_bias(t, head) += p * (dp - along);
        const Real ds = p * (dp - along) * sizes.scale;
        const Real *const k = job.k_nope.row(s).data + one.key_column(), *const r = one.rope(s);
        Real *const dk = job.dk_nope.row(s).data + one.key_column(), *const dr = dk_rope.row(s).data;
        for (Index c = 0; c < nope; ++c) {
          dq[c] += ds * k[c];
          dk[c] += ds * q[c];
        }
        for (Index c = 0; c < rope; ++c) {
          dq[nope + c] += ds * r[c];
          dr[c] += ds * q[nope + c];
        }
      }
    }
  };
  device.run(count * groups, [&](Index task, int) {
    const Index i = task / groups, group = task % groups, begin = group * sizes.heads_per_key;
    const Job& job = jobs[static_cast<std::size_t>(i)];
    const PlainHead<Job, Real> first{job, sizes, begin};
    const Index n = job.q.rows;
    const auto dk_rope = rope_part.middle_rows(tokens[i] * groups + group * n, n);
    for (Index s = 0; s < job.v.rows; ++s) {
      std::fill_n(job.dk_nope.row(s).data + first.key_column(), nope, Real(0));
      std::fill_n(job.dv.row(s).data + first.value_column(), value, Real(0));
      std::fill_n(dk_rope.row(s).data, rope, Real(0));
    }
    for (Index head = begin; head < begin + sizes.heads_per_key; ++head) add_head({job, sizes, head}, dk_rope);
  });
  if (rope == 0) return;
  device.run(tokens[count], [&](Index token, int) {
    const Index i = part_of(tokens, token), s = token - tokens[i];
    const Job& job = jobs[static_cast<std::size_t>(i)];
    Real* const to = job.dk_rope.data + s * job.dk_rope.pitch;
    std::fill_n(to, rope, Real(0));
    for (Index g = 0; g < groups; ++g) {
      const Real* const from = rope_part.data + (tokens[i] * groups + g * job.q.rows + s) * rope;
      for (Index c = 0; c < rope; ++c) to[c] += from[c];
    }
  });
}

}  // namespace cpu
}  // namespace v1
}  // namespace guild
