// The experts of one token from a table, by a team.
#pragma once

#include <cstdint>
#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

/// indices = the table's row of the token; -1 for a token outside of it, never a read outside.
template <class Real>
struct LookUpRow {
  static constexpr bool prefers_warp = true;

  View<const Real> table;  ///< [vocab * K], whole numbers
  View<const std::int32_t> tokens;
  View<std::int32_t, 2> indices;  ///< [T, K]

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index count = indices.cols, token = tokens.data[row];
    std::int32_t* const to = indices.data + row * indices.pitch;
    const bool known = token >= 0 && token < table.size / count;
    const Real* const from = known ? table.data + token * count : nullptr;
    team.for_each(count, [=](Index k) { to[k] = known ? static_cast<std::int32_t>(from[k]) : -1; });
  }
};

}  // namespace v1
}  // namespace guild
