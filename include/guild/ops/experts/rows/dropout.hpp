// Dropout of the inner rows of experts, by teams: see guild/ops/experts/dropout.hpp.
#pragma once

#include <cstdint>
#include <guild/device/team.hpp>
#include <guild/ops/common/rows/draws.hpp>
#include <guild/ops/experts/rows/bias.hpp>

namespace guild {
inline namespace v1 {

/// h[s] = h[s] / (1 - probability) where the number of (token of s, expert of s, column) is not below it, 0 elsewhere.
template <class Real>
struct DropSlotsRow {
  Draws draws;
  double probability;
  View<const std::int32_t> offsets;  ///< [E + 1]
  View<const std::int32_t> token;    ///< [S]
  View<Real, 2> h;                   ///< [S, F]

  template <Team T>
  GUILD_HD void operator()(T team, Index s) const {
    const Index place = token.data[s] * (offsets.size - 1) + detail::expert_of(offsets, s);
    Real* const to = h.data + s * h.pitch;
    const Draws random = draws;
    const double dropped = probability;
    const auto scale = static_cast<Real>(1.0 / (1.0 - probability));
    team.for_each(h.cols, [=](Index i) { to[i] = random.uniform(place, i) < dropped ? Real(0) : to[i] * scale; });
  }
};

}  // namespace v1
}  // namespace guild
