// What merging lost of each token, tokens made of slots, and the way back. A token's slot is the last one closed when
// it came, itself included; before the first close it has none.
#pragma once

#include <cstdint>
#include <guild/ops/attention/job.hpp>
#include <guild/ops/common/exponential.hpp>
#include <guild/ops/common/pieces.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// 1 + tanh(gate), as 2 / (1 + e^(-2 gate)): exactly 1 at 0. Its derivative is f (2 - f).
template <class Real>
GUILD_HD inline Real one_plus_tanh(Real gate) {
  return Real(2) / (Real(1) + exponential(Real(-2) * gate));
}

/// The tokens of slot `slot` of a whole sequence of `tokens`: from the one that closed it up to the next close. Those
/// of slot M are the ones before the first close.
struct TokensOfSlot {
  Index begin, end;
  GUILD_HD TokensOfSlot(const View<const std::int32_t>& closing, Index slot, Index tokens)
      : begin(slot == closing.size ? 0 : closing.data[slot]),
        end(slot == closing.size ? (slot == 0 ? tokens : closing.data[0])
                                 : (slot + 1 == closing.size ? tokens : closing.data[slot + 1])) {}
};

}  // namespace detail

/// r[t] = x[t] - z[slot of t]; 0 where a token has none. A piece is a token.
template <class Real>
struct LostDetailJob {
  View<const Real, 2> x;          ///< [n, D]
  View<const Real, 2> z;          ///< [.., D]: the row of each slot, as `ring` says
  Index before = 0;               ///< slots of the sequence that were closed before token 0
  Index length = 0;               ///< slots of the sequence up to token n - 1
  View<const std::int32_t> slot;  ///< [n]: of the sequence, -1: none
  View<Real, 2> r;                ///< [n, D]
  RingRows ring{};

  [[nodiscard]] GUILD_HD Index pieces() const { return x.rows; }

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    const Index of = slot.data[token];
    const Real* const from = x.data + token * x.pitch;
    Real* const to = r.data + token * r.pitch;
    if (of < 0) return team.for_each(x.cols, [=](Index i) { to[i] = Real(0); });
    const Real* const mean = z.data + ring.row_of(of) * z.pitch;
    team.for_each(x.cols, [=](Index i) { to[i] = from[i] - mean[i]; });
  }
};

/// A whole sequence of n tokens on the way back: dx += dr; dz[slot] -= the sum of dr over its tokens, in their order. A
/// piece is a slot; tokens without one are left alone.
template <class Real>
struct LostDetailGradientJob {
  View<const std::int32_t> closing;  ///< [M]: the position that closed each slot, ascending
  View<const Real, 2> dr;            ///< [n, D]
  View<Real, 2> dx;                  ///< [n, D]
  View<Real, 2> dz;                  ///< [M, D]

  [[nodiscard]] GUILD_HD Index pieces() const { return dz.rows; }

  template <Team T>
  GUILD_HD void operator()(T team, Index slot) const {
    const detail::TokensOfSlot tokens(closing, slot, dr.rows);
    Real* const to_slot = dz.data + slot * dz.pitch;
    for (Index token = tokens.begin; token < tokens.end; ++token) {
      const Real* const from = dr.data + token * dr.pitch;
      Real* const to = dx.data + token * dx.pitch;
      team.for_each(dr.cols, [=](Index i) {
        to[i] += from[i];
        to_slot[i] -= from[i];
      });
    }
  }
};

/// y[t] = x[t] + (1 + tanh(gate[t])) d[slot of t] + details[t]; the inner layers' own row where t closed a group of
/// itself alone; x[t] where it has no slot. A piece is a token.
template <class Real>
struct InflateJob {
  View<const Real, 2> x;            ///< [n, D]
  View<const Real, 2> gate{};       ///< [n, D], or no data: 0
  View<const Real, 2> details{};    ///< [n, D], or no data: 0
  View<const Real, 2> d;            ///< [.., D]: smoothed, the row of each slot, as `ring` says
  Index before = 0;                 ///< slots of the sequence that were closed before token 0
  View<const Real, 2> made;         ///< [M, D]: what the inner layers made of the slots that are closed from token 0 on
  View<const std::int32_t> slot;    ///< [n]: of the sequence, -1: none
  /// [n]: not 0 where the token closed a group of itself alone; or no data: none is copied
  View<const std::int32_t> single{};
  View<Real, 2> y;                  ///< [n, D]
  RingRows ring{};

  [[nodiscard]] GUILD_HD Index pieces() const { return x.rows; }

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    const Index of = slot.data[token], dim = x.cols;
    const bool copied = of >= 0 && single.data != nullptr && single.data[token] != 0;
    const Real* const from = copied ? made.data + (of - before) * made.pitch : x.data + token * x.pitch;
    Real* const to = y.data + token * y.pitch;
    if (copied || of < 0) return team.for_each(dim, [=](Index i) { to[i] = from[i]; });
    const Real* const added = d.data + ring.row_of(of) * d.pitch;
    const Real* const gates = gate.data + token * gate.pitch;
    const Real* const more = details.data + token * details.pitch;
    if (gate.data != nullptr && details.data != nullptr)
      team.for_each(dim, [=](Index i) { to[i] = from[i] + detail::one_plus_tanh(gates[i]) * added[i] + more[i]; });
    else if (gate.data != nullptr)
      team.for_each(dim, [=](Index i) { to[i] = from[i] + detail::one_plus_tanh(gates[i]) * added[i]; });
    else if (details.data != nullptr)
      team.for_each(dim, [=](Index i) { to[i] = from[i] + added[i] + more[i]; });
    else
      team.for_each(dim, [=](Index i) { to[i] = from[i] + added[i]; });
  }
};

/// A whole sequence of n tokens on the way back, see inflate_backward. A piece is a slot; the last one is the tokens
/// before the first close. dx may be dy.
template <class Real>
struct InflateGradientJob {
  View<const Real, 2> gate{};        ///< [n, D], or no data
  View<const Real, 2> d;             ///< [M, D]
  View<const std::int32_t> closing;  ///< [M]: the position that closed each slot, ascending
  View<const std::int32_t> single{};  ///< [n], or no data
  View<const Real, 2> dy;            ///< [n, D]
  View<Real, 2> dx;                  ///< [n, D]
  View<Real, 2> dgate{};             ///< [n, D], where gate has data
  View<Real, 2> ddetails{};          ///< [n, D], or no data
  View<Real, 2> dd;                  ///< [M, D]
  View<Real, 2> dmade;               ///< [M, D]
  View<Real> dconfidence{};          ///< [n], or no data

  [[nodiscard]] GUILD_HD Index pieces() const { return dy.rows > 0 ? d.rows + 1 : 0; }

  template <Team T>
  GUILD_HD void operator()(T team, Index slot) const {
    const detail::TokensOfSlot tokens(closing, slot, dy.rows);
    const Index dim = dy.cols;
    const bool none = slot == d.rows;
    const Real* const added = none ? nullptr : d.data + slot * d.pitch;
    Real* const to_slot = none ? nullptr : dd.data + slot * dd.pitch;
    Real* const to_made = none ? nullptr : dmade.data + slot * dmade.pitch;
    if (!none) team.for_each(dim, [=](Index i) { to_slot[i] = to_made[i] = Real(0); });
    for (Index token = tokens.begin; token < tokens.end; ++token) {
      const Real* const along = dy.data + token * dy.pitch;
      const bool copied = !none && single.data != nullptr && single.data[token] != 0;
      if (none || copied) {
        const Real confidence = copied && dconfidence.data != nullptr
                                    ? team.sum(dim, [=](Index i) { return along[i] * added[i]; })
                                    : Real(0);
        if (dconfidence.data != nullptr && team.rank() == 0) dconfidence.data[token] = confidence;
        if (copied) team.for_each(dim, [=](Index i) { to_made[i] = along[i]; });
        pass_on(team, token, copied ? nullptr : along);
      } else {
        pass_to_slot(team, token, added, to_slot);
      }
    }
  }

 private:
  /// A token whose row has nothing of d: dx is its dy, or 0, and gates and details have no gradient.
  template <Team T>
  GUILD_TEAM_INLINE GUILD_HD void pass_on(T team, Index token, const Real* along) const {
    const Index dim = dy.cols;
    Real* const to_x = dx.data + token * dx.pitch;
    team.for_each(dim, [=](Index i) { to_x[i] = along == nullptr ? Real(0) : along[i]; });
    clear(team, token, dgate);
    clear(team, token, ddetails);
  }

  template <Team T>
  GUILD_TEAM_INLINE GUILD_HD static void clear(T team, Index token, const View<Real, 2>& rows) {
    if (rows.data == nullptr) return;
    Real* const to = rows.data + token * rows.pitch;
    team.for_each(rows.cols, [=](Index i) { to[i] = Real(0); });
  }

  template <Team T>
  GUILD_TEAM_INLINE GUILD_HD void pass_to_slot(T team, Index token, const Real* added, Real* to_slot) const {
    const Index dim = dy.cols;
    const Real* const along = dy.data + token * dy.pitch;
    const Real* const gates = gate.data == nullptr ? nullptr : gate.data + token * gate.pitch;
    if (dconfidence.data != nullptr) {
      const Real confidence = team.sum(dim, [=](Index i) {
        return along[i] * (gates == nullptr ? Real(1) : detail::one_plus_tanh(gates[i])) * added[i];
      });
      if (team.rank() == 0) dconfidence.data[token] = confidence;
    }
    Real* const to_x = dx.data + token * dx.pitch;
    if (ddetails.data != nullptr) {
      Real* const to = ddetails.data + token * ddetails.pitch;
      team.for_each(dim, [=](Index i) { to[i] = along[i]; });
    }
    if (gates == nullptr) {
      team.for_each(dim, [=](Index i) {
        to_slot[i] += along[i];
        to_x[i] = along[i];
      });
      return;
    }
    Real* const to_gate = dgate.data + token * dgate.pitch;
    team.for_each(dim, [=](Index i) {
      const Real factor = detail::one_plus_tanh(gates[i]), d_y = along[i];
      to_slot[i] += factor * d_y;
      to_gate[i] = factor * (Real(2) - factor) * added[i] * d_y;
      to_x[i] = d_y;
    });
  }
};

/// dp[t] += dconfidence[t] of tokens that closed a group, -= of others.
template <class Real>
struct ConfidenceBackwardPiece {
  View<const std::int32_t> closes;  ///< [n]: not 0 where the token closed a group
  View<const Real> dconfidence;     ///< [n]
  View<Real> dp;                    ///< [n]

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const PieceRange range = piece_range(piece, dp.size);
    const std::int32_t* const closed = closes.data + range.begin;
    const Real* const from = dconfidence.data + range.begin;
    Real* const to = dp.data + range.begin;
    team.for_each(range.count, [=](Index i) { to[i] += closed[i] != 0 ? from[i] : -from[i]; });
  }
};

}  // namespace v1
}  // namespace guild
