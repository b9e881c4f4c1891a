// Slots that are each a soft mean of all tokens of a sequence, what tokens take back of them, and the way back.
#pragma once

#include <guild/device/team.hpp>
#include <guild/ops/common/exponential.hpp>

namespace guild {
inline namespace v1 {

/// dispatch[t, j] = softmax over tokens t of logits[t, j] + log masses[t]; z[j] = sum_t dispatch[t, j] x[t], in the
/// order of tokens. A piece is a slot j.
template <class Real>
struct DispatchSlotsJob {
  View<const Real, 2> logits;    ///< [n, M]
  View<const Real, 2> masses{};  ///< [n, 1], or no data: 1 each
  View<const Real, 2> x;         ///< [n, D]
  View<Real, 2> dispatch;        ///< [n, M]
  View<Real, 2> z;               ///< [M, D]

  [[nodiscard]] GUILD_HD Index pieces() const { return x.rows > 0 ? z.rows : 0; }

  template <Team T>
  GUILD_HD void operator()(T team, Index slot) const {
    const Real* const logit = logits.data + slot;
    const Index pitch = logits.pitch, dim = x.cols;
    const Real most = team.max(x.rows, [=](Index t) { return logit[t * pitch]; });
    const auto share = [=, mass = masses](Index t) {
      const Real one = detail::exponential(logit[t * pitch] - most);
      return mass.data == nullptr ? one : mass.data[t * mass.pitch] * one;
    };
    const Real total = team.sum(x.rows, share);
    Real* const out = z.data + slot * z.pitch;
    for (Index t = 0; t < x.rows; ++t) {
      const Real* const row = x.data + t * x.pitch;
      const Real weight = share(t) / total;
      if (team.rank() == 0) dispatch.data[t * dispatch.pitch + slot] = weight;
      if (t == 0)
        team.for_each(dim, [=](Index i) { out[i] = weight * row[i]; });
      else
        team.for_each(dim, [=](Index i) { out[i] += weight * row[i]; });
    }
  }
};

/// combine[t, j] = softmax over slots j of logits[t, j]; y[t] = x[t] + sum_j combine[t, j] (made[j] - z[j]), in the
/// order of slots. A piece is a token t.
template <class Real>
struct CombineSlotsJob {
  View<const Real, 2> logits;  ///< [n, M]
  View<const Real, 2> x;       ///< [n, D]
  View<const Real, 2> made;    ///< [M, D]: what the inner layers made of the slots
  View<const Real, 2> z;       ///< [M, D]: the slots
  View<Real, 2> combine;       ///< [n, M]
  View<Real, 2> y;             ///< [n, D]

  [[nodiscard]] GUILD_HD Index pieces() const { return x.rows; }

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    const Real* const logit = logits.data + token * logits.pitch;
    const Index slots = z.rows, dim = x.cols;
    const Real most = team.max(slots, [=](Index j) { return logit[j]; });
    const Real total = team.sum(slots, [=](Index j) { return detail::exponential(logit[j] - most); });
    const Real* const row = x.data + token * x.pitch;
    Real* const out = y.data + token * y.pitch;
    for (Index j = 0; j < slots; ++j) {
      const Real weight = detail::exponential(logit[j] - most) / total;
      if (team.rank() == 0) combine.data[token * combine.pitch + j] = weight;
      const Real* const after = made.data + j * made.pitch;
      const Real* const before = z.data + j * z.pitch;
      if (j == 0)
        team.for_each(dim, [=](Index i) { out[i] = row[i] + weight * (after[i] - before[i]); });
      else
        team.for_each(dim, [=](Index i) { out[i] += weight * (after[i] - before[i]); });
    }
  }
};

/// dmade[j] = sum_t combine[t, j] dy[t], in the order of tokens, and dz[j] = -dmade[j]. A piece is a slot j.
template <class Real>
struct CombineSlotsGradientJob {
  View<const Real, 2> combine;  ///< [n, M]
  View<const Real, 2> dy;       ///< [n, D]
  View<Real, 2> dmade, dz;      ///< [M, D]

  [[nodiscard]] GUILD_HD Index pieces() const { return dmade.rows; }

  template <Team T>
  GUILD_HD void operator()(T team, Index slot) const {
    Real* const out = dmade.data + slot * dmade.pitch;
    Real* const opposite = dz.data + slot * dz.pitch;
    team.for_each(dy.cols, [=](Index i) { out[i] = Real(0); });
    for (Index t = 0; t < dy.rows; ++t) {
      const Real* const along = dy.data + t * dy.pitch;
      const Real weight = combine.data[t * combine.pitch + slot];
      team.for_each(dy.cols, [=](Index i) { out[i] += weight * along[i]; });
    }
    team.for_each(dy.cols, [=](Index i) { opposite[i] = -out[i]; });
  }
};

/// What tokens and logits get, both overwritten; with a = <dz[j], x - z[j]>, c = <dy, made[j] - z[j]>:
///   dx = dy + sum_j dispatch[j] dz[j], dlogits[j] = dispatch[j] a + combine[j] (c - sum over all slots of combine c).
/// A piece is a token. dx may be dy.
template <class Real>
struct LearnedSlotsGradientJob {
  View<const Real, 2> x;                  ///< [n, D]
  View<const Real, 2> dispatch, combine;  ///< [n, M]
  View<const Real, 2> z, dz, made;        ///< [M, D]
  View<const Real, 2> dy;                 ///< [n, D]
  View<Real, 2> dx;                       ///< [n, D]
  View<Real, 2> dlogits;                  ///< [n, M]

  [[nodiscard]] GUILD_HD Index pieces() const { return x.rows; }

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    const Index dim = x.cols;
    const Real* const row = x.data + token * x.pitch;
    const Real* const along = dy.data + token * dy.pitch;
    const Real* const sent = dispatch.data + token * dispatch.pitch;
    const Real* const taken = combine.data + token * combine.pitch;
    Real* const out = dx.data + token * dx.pitch;
    Real* const to = dlogits.data + token * dlogits.pitch;
    Real mean = Real(0);
    for (Index j = 0; j < z.rows; ++j) {
      const Real* const after = made.data + j * made.pitch;
      const Real* const before = z.data + j * z.pitch;
      const Real of_slot = team.sum(dim, [=](Index i) { return along[i] * (after[i] - before[i]); });
      mean += taken[j] * of_slot;
      if (team.rank() == 0) to[j] = of_slot;  // read by the same thread
    }
    team.for_each(dim, [=](Index i) { out[i] = along[i]; });
    for (Index j = 0; j < z.rows; ++j) {
      const Real* const slot = z.data + j * z.pitch;
      const Real* const of_slot = dz.data + j * dz.pitch;
      const Real weight = sent[j];
      const Real a = team.sum(dim, [=](Index i) { return of_slot[i] * (row[i] - slot[i]); });
      team.for_each(dim, [=](Index i) { out[i] += weight * of_slot[i]; });
      if (team.rank() == 0) to[j] = weight * a + taken[j] * (to[j] - mean);
    }
  }
};

}  // namespace v1
}  // namespace guild
