// Sums and differences of two rows.
#pragma once

#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

/// x += y.
template <class Real>
struct AddRow {
  View<Real, 2> x;
  View<const Real, 2> y;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    Real* const to = x.data + row * x.pitch;
    const Real* const from = y.data + row * y.pitch;
    team.for_each(x.cols, [=](Index i) { to[i] += from[i]; });
  }
};

/// x, y = x - y, x + y.
template <class Real>
struct DifferenceAndSumRow {
  View<Real, 2> x;
  View<Real, 2> y;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    Real* const difference = x.data + row * x.pitch;
    Real* const sum = y.data + row * y.pitch;
    team.for_each(x.cols, [=](Index i) {
      const Real a = difference[i], b = sum[i];
      difference[i] = a - b;
      sum[i] = a + b;
    });
  }
};

}  // namespace v1
}  // namespace guild
