// Slots pooled from groups of tokens, and the way back, group by group.
#pragma once

#include <cstdint>
#include <guild/device/team.hpp>
#include <guild/ops/attention/job.hpp>
#include <guild/ops/common/exponential.hpp>
#include <limits>

namespace guild {
inline namespace v1 {

namespace detail {

/// What the tokens at the positions [first, last] of a group weigh: the softmax of their scores, or the last one alone.
template <class Real>
struct GroupWeights {
  const Real* scores;
  Index pitch;
  RingRows ring;
  Index first, last;  ///< of those that weigh anything
  Real most = Real(0), total = Real(1);

  GUILD_TEAM_INLINE GUILD_HD GroupWeights(const View<const Real, 2>& of, const RingRows& at, Index first_, Index last_,
                                          bool closing_only)
      : scores(of.data), pitch(of.pitch), ring(at), first(closing_only ? last_ : first_), last(last_) {
    if (alone()) return;
    most = score(first);
    for (Index position = first + 1; position <= last; ++position) {
      const Real one = score(position);
      most = one > most ? one : most;
    }
    total = Real(0);
    for (Index position = first; position <= last; ++position) total += share(score(position));
  }

  [[nodiscard]] GUILD_HD bool alone() const { return first == last; }
  [[nodiscard]] GUILD_HD Real operator[](Index position) const { return share(score(position)) / total; }

 private:
  [[nodiscard]] GUILD_HD Real score(Index position) const { return scores[ring.row_of(position) * pitch]; }
  [[nodiscard]] GUILD_HD Real share(Real one) const {
    return one == -std::numeric_limits<Real>::infinity() ? Real(0) : exponential(one - most);
  }
};

}  // namespace detail

/// Slots of one sequence: z[j] = sum_i w_i x_i over the positions first[j] to last[j] in their order, w the softmax of
/// their scores; mass[j] = the sum of their masses. A group of one, and one that is marked, is a copy of its last row.
/// A piece is a slot.
template <class Real>
struct PoolGroupsJob {
  View<const Real, 2> x;              ///< [.., D]: the row of each position, as `ring` says
  View<const Real, 2> scores;         ///< [.., 1], rows as x
  View<const Real, 2> masses{};       ///< [.., 1], rows as x; or no data: 1 each
  Index begin = 0;                    ///< the first position that is pooled: first[0]
  Index length = 0;                   ///< positions that have rows, or had
  View<const std::int32_t> first;     ///< [M]
  View<const std::int32_t> last;      ///< [M]
  View<const std::int32_t> marked{};  ///< [M], or no data: not 0 where the last token alone is the slot
  View<Real, 2> z;                    ///< [M, D]
  View<Real> mass{};                  ///< [M], or no data
  RingRows ring{};

  [[nodiscard]] GUILD_HD Index pieces() const { return z.rows; }

  template <Team T>
  GUILD_HD void operator()(T team, Index slot) const {
    const Index from = first.data[slot], to = last.data[slot], dim = z.cols;
    if (mass.data != nullptr && team.rank() == 0) mass.data[slot] = mass_of(from, to);
    const detail::GroupWeights<Real> weights(scores, ring, from, to, marked.data != nullptr && marked.data[slot] != 0);
    Real* const out = z.data + slot * z.pitch;
    if (weights.alone()) {
      const Real* const row = x.data + ring.row_of(to) * x.pitch;
      return team.for_each(dim, [=](Index i) { out[i] = row[i]; });
    }
    for (Index position = from; position <= to; ++position) {
      const Real* const row = x.data + ring.row_of(position) * x.pitch;
      const Real weight = weights[position];
      if (position == from)
        team.for_each(dim, [=](Index i) { out[i] = weight * row[i]; });
      else
        team.for_each(dim, [=](Index i) { out[i] += weight * row[i]; });
    }
  }

 private:
  [[nodiscard]] GUILD_HD Real mass_of(Index from, Index to) const {
    if (masses.data == nullptr) return static_cast<Real>(to - from + 1);
    Real sum = Real(0);
    for (Index position = from; position <= to; ++position) sum += masses.data[ring.row_of(position) * masses.pitch];
    return sum;
  }
};

/// A whole sequence of n tokens on the way back: what the forward read and gave, and where the gradients go, which are
/// overwritten: dx_i = w_i dz, da_i = w_i <dz, x_i - z>; zeros for tokens of no group and those that weigh nothing. A
/// piece is a slot with the tokens between its group and the one before; the last one is what is left of the tokens.
template <class Real>
struct PoolGroupsGradientJob {
  View<const Real, 2> x;              ///< [n, D]
  View<const Real, 2> scores;         ///< [n, 1]
  View<const std::int32_t> first;     ///< [M], ascending
  View<const std::int32_t> last;      ///< [M]
  View<const std::int32_t> marked{};  ///< [M], or no data
  View<const Real, 2> z;              ///< [M, D]
  View<const Real, 2> dz;             ///< [M, D]
  View<Real, 2> dx;                   ///< [n, D]
  View<Real, 2> da;                   ///< [n, 1]

  [[nodiscard]] GUILD_HD Index pieces() const { return x.rows > 0 ? z.rows + 1 : 0; }

  template <Team T>
  GUILD_HD void operator()(T team, Index slot) const {
    const Index behind = slot == 0 ? 0 : last.data[slot - 1] + 1;
    if (slot == z.rows) return clear(team, behind, x.rows);
    const Index to = last.data[slot], dim = z.cols;
    const detail::GroupWeights<Real> weights(scores, {}, first.data[slot], to,
                                             marked.data != nullptr && marked.data[slot] != 0);
    clear(team, behind, weights.first);
    const Real* const sum = z.data + slot * z.pitch;
    const Real* const along = dz.data + slot * dz.pitch;
    if (weights.alone()) {
      Real* const out = dx.data + to * dx.pitch;
      team.for_each(dim, [=](Index i) { out[i] = along[i]; });
      if (team.rank() == 0) da.data[to * da.pitch] = Real(0);
      return;
    }
    for (Index position = weights.first; position <= to; ++position) {
      const Real* const row = x.data + position * x.pitch;
      Real* const out = dx.data + position * dx.pitch;
      const Real weight = weights[position];
      team.for_each(dim, [=](Index i) { out[i] = weight * along[i]; });
      const Real of_score = weight * team.sum(dim, [=](Index i) { return along[i] * (row[i] - sum[i]); });
      if (team.rank() == 0) da.data[position * da.pitch] = of_score;
    }
  }

 private:
  template <Team T>
  GUILD_HD void clear(T team, Index begin, Index end) const {
    for (Index position = begin; position < end; ++position) {
      Real* const out = dx.data + position * dx.pitch;
      team.for_each(dx.cols, [=](Index i) { out[i] = Real(0); });
      if (team.rank() == 0) da.data[position * da.pitch] = Real(0);
    }
  }
};

}  // namespace v1
}  // namespace guild
