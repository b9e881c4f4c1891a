// Which experts rest: the state of a layer after a step of the optimizer, by a team. See guild/ops/route/buffering.hpp.
#pragma once

#include <guild/core/view.hpp>
#include <guild/device/team.hpp>
#include <limits>

namespace guild {
inline namespace v1 {

/// When an expert is blocked and for how long: see `update_buffering`.
struct BufferingRule {
  double slack;    ///< h > 0: blocked above (1 + h) times the mean load
  double decay;    ///< of the moving average of loads, in [0, 1)
  int most_steps;  ///< that an expert is blocked in a row, at least 1
  Index top_k;
  Index groups;  ///< from which tokens choose; 1: from all
};

/// One group of experts a thread.
template <class Real>
struct BufferingRow {
  BufferingRule rule;
  View<const double> counts_e;  ///< [E]
  View<Real> state;             ///< [2 E]

  template <Team T>
  GUILD_HD void operator()(T team, Index) const {
    const Index experts = counts_e.size, size = experts / rule.groups;
    const double* const count = counts_e.data;
    Real* const excess = state.data;
    Real* const blocked = state.data + experts;
    const BufferingRule by = rule;
    double total = 0.0;  // by every member alike
    for (Index e = 0; e < experts; ++e) total += count[e];
    if (!(total > 0.0)) return;
    const double mean = static_cast<double>(by.top_k) / static_cast<double>(experts);
    const auto too_much = static_cast<Real>(by.slack * mean), enough = static_cast<Real>(0.5 * by.slack * mean);
    team.for_each(by.groups, [=](Index g) {
      Index open = 0;
      for (Index e = g * size; e < (g + 1) * size; ++e) {
        const double share = static_cast<double>(by.top_k) * count[e] / total;
        excess[e] = static_cast<Real>(by.decay * static_cast<double>(excess[e]) + (1.0 - by.decay) * (share - mean));
        if (blocked[e] > Real(0)) {
          const bool released = excess[e] < enough || blocked[e] >= static_cast<Real>(by.most_steps);
          blocked[e] = released ? Real(-1) : blocked[e] + Real(1);  // -1: not to be blocked again at once
        }
        open += blocked[e] > Real(0) ? 0 : 1;
      }
      for (; open > by.top_k + 1; --open) {
        Index worst = -1;
        for (Index e = g * size; e < (g + 1) * size; ++e)
          if (blocked[e] == Real(0) && excess[e] > too_much && (worst < 0 || excess[e] > excess[worst])) worst = e;
        if (worst < 0) break;
        blocked[worst] = Real(1);
      }
      for (Index e = g * size; e < (g + 1) * size; ++e)
        if (blocked[e] < Real(0)) blocked[e] = Real(0);
    });
  }
};

/// shift = bias, or so little for blocked experts that any other is chosen before: finite, so that even a state with
/// all of them blocked gives a choice.
template <class Real>
struct BlockedShiftRow {
  View<const Real> state;  ///< [2 E]
  View<const Real> bias;   ///< [E] or empty
  View<Real> shift;        ///< [E]

  template <Team T>
  GUILD_HD void operator()(T team, Index) const {
    constexpr Real least = -std::numeric_limits<Real>::max() / Real(4);
    const Real* const blocked = state.data + shift.size;
    const Real* const from = bias.data;
    Real* const to = shift.data;
    team.for_each(shift.size, [=](Index e) {
      to[e] = blocked[e] > Real(0) ? least : from != nullptr ? from[e] : Real(0);
    });
  }
};

}  // namespace v1
}  // namespace guild
