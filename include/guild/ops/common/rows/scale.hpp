// A row times a number.
#pragma once

#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

/// x *= factor.
template <class Real>
struct ScaleRow {
  View<Real, 2> x;
  Real factor;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    Real* const to = x.data + row * x.pitch;
    const Real by = factor;
    team.for_each(x.cols, [=](Index i) { to[i] *= by; });
  }
};

}  // namespace v1
}  // namespace guild
