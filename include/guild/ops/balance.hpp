// Balancing of expert load: the losses come here; their front door does nothing yet.
#pragma once

#include <cstdint>
#include <span>

#include <guild/core/config.hpp>
#include <guild/core/view.hpp>

namespace guild::inline v1 {

struct BalanceOptions { double importance = 0, load = 0, load_noise = 1.0, auxiliary = 0, sequence = 0, router_z = 0; };
struct BalanceTerms { double importance = 0, load = 0, auxiliary = 0, sequence = 0, router_z = 0; };

template <class Device, class Real>
BalanceTerms balance_losses(Device&, const MoeConfig&, const BalanceOptions&, View<const Real, 2>,
                            View<const std::int32_t, 2>, std::span<const Index>, Real, View<Real, 2>) {
  return {};
}
inline void count_experts(View<const std::int32_t, 2> chosen, View<double> counts_e) {
  for (Index t = 0; t < chosen.rows; ++t)
    for (const std::int32_t e : chosen.row(t)) counts_e[e] += 1.0;
}
inline void update_selection_bias(View<float>, View<const double>, double) {}

}  // namespace guild::inline v1
