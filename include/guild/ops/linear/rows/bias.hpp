// The bias of a linear layer, added to one row by a team.
#pragma once

#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

/// y += bias.
template <class Real>
struct AddBiasRow {
  View<const Real> bias;
  View<Real, 2> y;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    Real* const out = y.data + row * y.pitch;
    const Real* const more = bias.data;
    team.for_each(y.cols, [=](Index i) { out[i] += more[i]; });
  }
};

}  // namespace v1
}  // namespace guild
