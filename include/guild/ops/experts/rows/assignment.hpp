// Chosen experts to slots, by teams: three passes whose sizes are known on the host, whatever was chosen.
#pragma once

#include <cstdint>
#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

/// offsets[e + 1] = how many pairs chose expert e; a "row" is an expert.
struct CountChoicesRow {
  View<const std::int32_t, 2> chosen;
  View<std::int32_t> offsets;

  template <Team T>
  GUILD_HD void operator()(T team, Index e) const {
    const View<const std::int32_t, 2> from = chosen;
    const std::int32_t count = team.sum(from.rows, [=](Index t) {
      std::int32_t here = 0;
      for (Index k = 0; k < from.cols; ++k) here += from.data[t * from.pitch + k] == e ? 1 : 0;
      return here;
    });
    if (team.rank() == 0) offsets.data[e + 1] = count;
  }
};

/// Counts become offsets; one row, for there are few experts.
struct SumOffsetsRow {
  View<std::int32_t> offsets;

  template <Team T>
  GUILD_HD void operator()(T team, Index) const {
    if (team.rank() != 0) return;
    offsets.data[0] = 0;
    for (Index e = 1; e < offsets.size; ++e) offsets.data[e] += offsets.data[e - 1];
  }
};

/// Fills the slots of expert e with its tokens in their order; a "row" is an expert. Pairs of an expert that does not
/// exist, which a device flags and goes on with, get slot 0, and the slots that they leave over token 0: all stays
/// inside of its memory.
struct FillSlotsRow {
  View<const std::int32_t, 2> chosen;
  View<const std::int32_t> offsets;
  View<std::int32_t> token;
  View<std::int32_t, 2> slot_tk;

  template <Team T>
  GUILD_HD void operator()(T team, Index e) const {
    if (team.rank() != 0) return;
    const Index experts = offsets.size - 1;
    std::int32_t slot = offsets.data[e];
    for (Index t = 0; t < chosen.rows; ++t)
      for (Index k = 0; k < chosen.cols; ++k) {
        const std::int32_t expert = chosen.data[t * chosen.pitch + k];
        if (expert == e) {
          token.data[slot] = static_cast<std::int32_t>(t);
          slot_tk.data[t * slot_tk.pitch + k] = slot++;
        } else if (e == 0 && (expert < 0 || expert >= experts)) {
          slot_tk.data[t * slot_tk.pitch + k] = 0;
        }
      }
    if (e == experts - 1)
      for (Index left = slot; left < token.size; ++left) token.data[left] = 0;
  }
};

}  // namespace v1
}  // namespace guild
