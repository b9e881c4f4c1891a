// Values between the order of tokens and the order of slots, by rows.
#pragma once

#include <cstdint>
#include <guild/device/team.hpp>
#include <limits>

namespace guild {
inline namespace v1 {

/// values_s[slots_tk] = values_tk. A slot outside of values_s is left out, never written.
template <class Real>
struct ScatterSlotsRow {
  View<const std::int32_t, 2> slots_tk;
  View<const Real, 2> values_tk;
  View<Real> values_s;

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    const std::int32_t* const slot = slots_tk.data + token * slots_tk.pitch;
    const Real* const from = values_tk.data + token * values_tk.pitch;
    const View<Real> to = values_s;
    team.for_each(slots_tk.cols, [=](Index k) {
      if (slot[k] >= 0 && slot[k] < to.size) to.data[slot[k]] = from[k];
    });
  }
};

/// values_tk = values_s[slots_tk]. A slot outside of values_s gives NaN.
template <class Real>
struct GatherSlotsRow {
  View<const std::int32_t, 2> slots_tk;
  View<const Real> values_s;
  View<Real, 2> values_tk;

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    const std::int32_t* const slot = slots_tk.data + token * slots_tk.pitch;
    Real* const to = values_tk.data + token * values_tk.pitch;
    const View<const Real> from = values_s;
    team.for_each(slots_tk.cols, [=](Index k) {
      to[k] = slot[k] >= 0 && slot[k] < from.size ? from.data[slot[k]] : std::numeric_limits<Real>::quiet_NaN();
    });
  }
};

}  // namespace v1
}  // namespace guild
