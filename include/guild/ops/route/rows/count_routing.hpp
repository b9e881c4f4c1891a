// What a router did with the tokens of a pass, summed by teams: see `count_routing`.
#pragma once

#include <cstdint>
#include <guild/device/team.hpp>
#include <guild/ops/route/rows/balance.hpp>

namespace guild {
inline namespace v1 {

/// Where the sums of a layer stand in a row of numbers: load, importance and dropped have one for each expert.
struct RoutingColumns {
  Index experts;

  [[nodiscard]] GUILD_HD constexpr Index load() const { return 0; }
  [[nodiscard]] GUILD_HD constexpr Index importance() const { return experts; }
  [[nodiscard]] GUILD_HD constexpr Index dropped() const { return 2 * experts; }
  [[nodiscard]] GUILD_HD constexpr Index tokens() const { return 3 * experts; }
  [[nodiscard]] GUILD_HD constexpr Index entropy() const { return 3 * experts + 1; }
  [[nodiscard]] GUILD_HD constexpr Index count() const { return 3 * experts + 2; }
  /// Of a row of so many.
  [[nodiscard]] static constexpr RoutingColumns of(Index count) { return {(count - 2) / 3}; }
};

/// Row 0 sums over tokens, row 1 + e over the choices of expert e.
template <class Real>
struct CountRoutingRow {
  RoutingColumns at;
  View<const std::int32_t, 2> chosen;  ///< [T, K]
  View<const Real, 2> weights;         ///< [T, K]
  View<double> sums;                   ///< [at.count()]

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    if (row == 0)
      add_tokens(team);
    else if (chosen.pitch == chosen.cols && weights.pitch == weights.cols)
      add_expert(team, row - 1, Packed{});
    else
      add_expert(team, row - 1, Pitched{chosen.cols});
  }

 private:
  /// Where element i of [T, K] is.
  struct Packed {
    GUILD_HD Index operator()(Index i, Index) const { return i; }
  };
  struct Pitched {
    Index cols;
    GUILD_HD Index operator()(Index i, Index pitch) const { return i / cols * pitch + i % cols; }
  };

  template <Team T, class Place>
  GUILD_HD void add_expert(T team, Index e, Place place) const {
    const Index choices = chosen.rows * chosen.cols, pitch = chosen.pitch, weight_pitch = weights.pitch;
    const auto expert = static_cast<std::int32_t>(e);
    const std::int32_t* const choice = chosen.data;
    const Real* const weight = weights.data;
    const auto load =
        team.sum(choices, [=](Index i) { return std::int32_t{choice[place(i, pitch)] == expert ? 1 : 0}; });
    const auto dropped =
        team.sum(choices, [=](Index i) { return std::int32_t{choice[place(i, pitch)] == ~expert ? 1 : 0}; });
    const auto importance = team.sum(choices, [=](Index i) {
      const auto its = static_cast<double>(weight[place(i, weight_pitch)]);
      return choice[place(i, pitch)] == expert ? its : 0.0;
    });
    if (team.rank() != 0) return;
    sums.data[at.load() + e] += static_cast<double>(load);
    sums.data[at.importance() + e] += importance;
    sums.data[at.dropped() + e] += static_cast<double>(dropped);
  }

  template <Team T>
  GUILD_HD void add_tokens(T team) const {
    const CountRoutingRow self = *this;
    const double entropy = team.sum(chosen.rows, [self](Index token) { return self.entropy_of(token); });
    if (team.rank() != 0) return;
    sums.data[at.tokens()] += static_cast<double>(chosen.rows);
    sums.data[at.entropy()] += entropy;
  }

  GUILD_HD double entropy_of(Index token) const {
    const std::int32_t* const choice = chosen.data + token * chosen.pitch;
    const Real* const weight = weights.data + token * weights.pitch;
    const auto served = [&](Index k) {
      const bool counts = choice[k] >= 0 && choice[k] < at.experts && weight[k] > Real(0);
      return counts ? static_cast<double>(weight[k]) : 0.0;
    };
    double sum = 0.0, entropy = 0.0;
    for (Index k = 0; k < chosen.cols; ++k) sum += served(k);
    for (Index k = 0; sum > 0.0 && k < chosen.cols; ++k) entropy += detail::entropy_term(served(k) / sum);
    return entropy;
  }
};

}  // namespace v1
}  // namespace guild
