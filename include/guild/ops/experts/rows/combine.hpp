// The sum over the rows of a token's experts by a team.
#pragma once

#include <cstdint>
#include <guild/device/team.hpp>
#include <guild/ops/linear/rows/swiglu.hpp>
#include <limits>

namespace guild {
inline namespace v1 {

/// out = sum over k of weights[k] * rows[slots[k]], k ascending, then + shared. A k without a slot adds nothing.
template <class Real>
struct CombineRow {
  View<const Real, 2> rows;
  View<const std::int32_t, 2> slots;
  View<const Real, 2> weights;
  View<const Real, 2> shared;  ///< no data: nothing is added
  View<Real, 2> out;

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    const std::int32_t* const slot = slots.data + token * slots.pitch;
    const Real* const weight = weights.data + token * weights.pitch;
    const Real* const plus = shared.data == nullptr ? nullptr : shared.data + token * shared.pitch;
    Real* const to = out.data + token * out.pitch;
    const Index chosen = slots.cols;
    const View<const Real, 2> from = rows;
    constexpr Index tile = 8;  // elements whose sums stay in registers while k runs
    const Index tiles = out.cols / tile;
    team.for_each(tiles, [=](Index n) {
      Real sum[tile] = {};
      for (Index k = 0; k < chosen; ++k) {
        if (slot[k] < 0) continue;
        const Real* const source = from.data + slot[k] * from.pitch + n * tile;
        const Real factor = weight[k];
        for (Index i = 0; i < tile; ++i) sum[i] += factor * source[i];
      }
      for (Index i = 0; i < tile; ++i) to[n * tile + i] = plus != nullptr ? sum[i] + plus[n * tile + i] : sum[i];
    });
    const Index rest = tiles * tile;
    team.for_each(out.cols - rest, [=](Index n) {
      Real sum = Real(0);
      for (Index k = 0; k < chosen; ++k)
        if (slot[k] >= 0) sum += weight[k] * from.data[slot[k] * from.pitch + rest + n];
      to[rest + n] = plus != nullptr ? sum + plus[rest + n] : sum;
    });
  }
};

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

/// values_tk = values_s[slots_tk], 0 without a slot. A slot outside of values_s gives NaN.
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
      const bool inside = slot[k] >= 0 && slot[k] < from.size;
      to[k] = inside ? from.data[slot[k]] : slot[k] < 0 ? Real(0) : std::numeric_limits<Real>::quiet_NaN();
    });
  }
};

/// As SwigluBackwardRow for a row that counts `weights[row]` times: dweights[row] = <h, dh>; gate and up become the
/// gradients under weight * dh; dh becomes weight * h.
template <class Real>
struct ExpertSwigluBackwardRow {
  View<const Real> weights;
  View<Real, 2> gate;
  View<Real, 2> up;
  View<Real, 2> dh;
  View<Real> dweights;
  ActivationConfig activation{};

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    Real* const g = gate.data + row * gate.pitch;
    Real* const u = up.data + row * up.pitch;
    Real* const d = dh.data + row * dh.pitch;
    const Real weight = weights.data[row];
    const Index count = gate.cols;
    Real* const to = dweights.data + row;
    detail::with_gate<Real>(activation, [=](auto joined) {
      // The sum calls each index once, so the elements are written in passing: one exponential each.
      const Real along = team.sum(count, [=](Index i) {
        const auto at = joined(g[i], u[i]);
        const Real dh_i = d[i], h_i = at.act * at.up;
        g[i] = weight * dh_i * at.up * at.act_slope;
        u[i] = weight * dh_i * at.act * at.up_slope;
        d[i] = weight * h_i;
        return h_i * dh_i;
      });
      if (team.rank() == 0) *to = along;
    });
  }
};

}  // namespace v1
}  // namespace guild
