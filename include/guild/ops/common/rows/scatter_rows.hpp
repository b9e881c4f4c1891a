// Copies of rows to where they belong, by a team.
#pragma once

#include <cstdint>
#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

/// y[to[n]] = x[n]. A row outside of y is left out.
template <class Real>
struct ScatterRow {
  View<const Real, 2> x;
  View<const std::int32_t> to;
  View<Real, 2> y;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index at = to.data[row];
    if (at < 0 || at >= y.rows) return;
    const Real* const from = x.data + row * x.pitch;
    Real* const out = y.data + at * y.pitch;
    team.for_each(y.cols, [=](Index i) { out[i] = from[i]; });
  }
};

/// y[t] = 0 where marks[t] < 0.
template <class Real>
struct ZeroMarkedRow {
  View<const std::int32_t> marks;
  View<Real, 2> y;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    if (marks.data[row] >= 0) return;
    Real* const out = y.data + row * y.pitch;
    team.for_each(y.cols, [=](Index i) { out[i] = Real(0); });
  }
};

}  // namespace v1
}  // namespace guild
