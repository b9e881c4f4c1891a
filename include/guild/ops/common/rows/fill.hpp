// One value for every element of a row.
#pragma once

#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

/// Every element of a row becomes `value`.
template <class Real>
struct FillRow {
  View<Real, 2> to;
  Real value;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    Real* const out = to.data + row * to.pitch;
    const Real same = value;
    team.for_each(to.cols, [=](Index i) { out[i] = same; });
  }
};

}  // namespace v1
}  // namespace guild
