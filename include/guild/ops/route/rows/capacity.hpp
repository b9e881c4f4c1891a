// Who keeps the room of an expert, by teams: see `drop_over_capacity` and `choose_tokens`.
#pragma once

#include <bit>
#include <cstdint>
#include <guild/core/config/capacity.hpp>
#include <guild/device/team.hpp>
#include <guild/ops/common/rows/draws.hpp>

namespace guild {
inline namespace v1 {

namespace detail {
/// A number with the order of floats: NaN above all of its sign.
GUILD_HD inline std::uint32_t ordered(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
}
}  // namespace detail

/// Who comes first, of the slots of a token: the level of the choice in the upper half, a weight in the lower.
template <class Real>
struct SlotPriorityRow {
  DropOrder order;
  View<const std::int32_t, 2> slot_tk;  ///< [T, K]; below 0: none
  View<const Real, 2> weights;          ///< [T, K]
  View<std::uint64_t> priority_s;       ///< [S]

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    const std::int32_t* const slot = slot_tk.data + token * slot_tk.pitch;
    const Real* const weight = weights.data + token * weights.pitch;
    const Index choices = slot_tk.cols;
    const bool by_choice = order == DropOrder::choice || order == DropOrder::prioritized;
    Real best = weight[0];  // by every member alike
    for (Index k = 1; k < choices; ++k) best = weight[k] > best ? weight[k] : best;
    const View<std::uint64_t> to = priority_s;
    const DropOrder how = order;
    team.for_each(choices, [=](Index k) {
      if (slot[k] < 0) return;
      const auto level = static_cast<std::uint64_t>(by_choice ? choices - 1 - k : 0);
      const Real value = how == DropOrder::probability ? weight[k] : how == DropOrder::prioritized ? best : Real(0);
      to.data[slot[k]] = level << 32 | detail::ordered(static_cast<float>(value));
    });
  }
};

/// kept[i] = 1 for the candidates of a group, a "row", that are among its `most` first ones, else 0: those of largest
/// priority, ties in their order; without priorities the first ones.
struct KeepFirstRow {
  View<const std::int32_t> offsets;    ///< [groups + 1]: where the candidates of each begin
  View<const std::uint64_t> priority;  ///< [candidates], or no data
  View<const std::int32_t> most;       ///< [groups], or no data: `most_of_each`
  Index most_of_each;
  View<std::uint8_t> kept;  ///< [candidates]

  template <Team T>
  GUILD_HD void operator()(T team, Index group) const {
    const Index begin = offsets.data[group], count = offsets.data[group + 1] - begin;
    const Index room = most.data != nullptr ? Index{most.data[group]} : most_of_each;
    std::uint8_t* const to = kept.data + begin;
    if (count <= room || priority.data == nullptr) {
      team.for_each(count, [=](Index i) { to[i] = i < room ? 1 : 0; });
      return;
    }
    const std::uint64_t* const from = priority.data + begin;
    const auto at_least = [=](std::uint64_t least) {
      return team.sum(count, [=](Index i) { return std::int32_t{from[i] >= least ? 1 : 0}; });
    };
    std::uint64_t last = 0;  // the lowest priority that is kept, bit by bit
    for (int bit = 63; bit >= 0; --bit) {
      const std::uint64_t higher = last | std::uint64_t{1} << bit;
      if (at_least(higher) >= room) last = higher;
    }
    const Index above = team.sum(count, [=](Index i) { return std::int32_t{from[i] > last ? 1 : 0}; });
    team.for_each(count, [=](Index i) { to[i] = from[i] > last ? 1 : 0; });
    team.sync();
    if (team.rank() != 0) return;
    Index left = room - above;
    for (Index i = 0; left > 0 && i < count; ++i)
      if (from[i] == last) to[i] = 1, --left;
  }
};

/// A choice whose slot is not kept becomes ~expert.
struct DropChoicesRow {
  View<const std::int32_t, 2> slot_tk;  ///< [T, K]; below 0: none
  View<const std::uint8_t> kept;        ///< [S]
  View<std::int32_t, 2> chosen;         ///< [T, K]

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    const std::int32_t* const slot = slot_tk.data + token * slot_tk.pitch;
    std::int32_t* const to = chosen.data + token * chosen.pitch;
    const std::uint8_t* const stays = kept.data;
    team.for_each(chosen.cols, [=](Index k) {
      if (slot[k] >= 0 && stays[slot[k]] == 0) to[k] = ~to[k];
    });
  }
};

/// The second choice of a token becomes ~expert where a uniform number is above its weight over the threshold.
template <class Real>
struct DropSecondRow {
  Draws draws;
  double threshold;
  View<const Real, 2> weights;   ///< [T, 2]
  View<std::int32_t, 2> chosen;  ///< [T, 2]

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    if (team.rank() != 0) return;
    std::int32_t& second = chosen.data[token * chosen.pitch + 1];
    const auto weight = static_cast<double>(weights.data[token * weights.pitch + 1]);
    if (second >= 0 && draws.uniform(token, 1) * threshold > weight) second = ~second;
  }
};

/// What was dropped as if it had not been: ~e becomes e.
struct UndropRow {
  View<const std::int32_t, 2> chosen;  ///< [T, K]
  View<std::int32_t, 2> wanted;        ///< [T, K]

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    const std::int32_t* const from = chosen.data + token * chosen.pitch;
    std::int32_t* const to = wanted.data + token * wanted.pitch;
    team.for_each(chosen.cols, [=](Index k) { to[k] = from[k] < 0 ? ~from[k] : from[k]; });
  }
};

}  // namespace v1
}  // namespace guild
