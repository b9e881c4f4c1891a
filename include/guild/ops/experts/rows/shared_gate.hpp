// A token's share of the shared experts, by a team.
#pragma once

#include <guild/device/team.hpp>
#include <guild/ops/common/exponential.hpp>

namespace guild {
inline namespace v1 {

/// y *= gate = sigmoid(logit). A "row" is a token.
template <class Real>
struct SharedGateRow {
  View<const Real> logits;
  View<Real> gates;
  View<Real, 2> y;

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    const Real gate = Real(1) / (Real(1) + detail::exponential(-logits.data[token]));
    Real* const to = y.data + token * y.pitch;
    team.for_each(y.cols, [=](Index i) { to[i] *= gate; });
    if (team.rank() == 0) gates.data[token] = gate;
  }
};

/// dlogit = dgate * gate (1 - gate), over dgate; one row.
template <class Real>
struct SharedGateBackward {
  View<const Real> gates;
  View<Real> dgates;

  template <Team T>
  GUILD_HD void operator()(T team, Index) const {
    const Real* const gate = gates.data;
    Real* const to = dgates.data;
    team.for_each(dgates.size, [=](Index t) { to[t] *= gate[t] * (Real(1) - gate[t]); });
  }
};

}  // namespace v1
}  // namespace guild
