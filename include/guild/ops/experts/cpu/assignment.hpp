// Chosen experts to slots on the CPU: a counting sort.
#pragma once

#include <cstdint>
#include <guild/core/view.hpp>
#include <guild/device/cpu.hpp>

namespace guild {
inline namespace v1 {

/// The CPU's side of `assign_experts`; shapes and experts are checked by the front door.
inline void run_assign_experts(Cpu&, View<const std::int32_t, 2> chosen, View<std::int32_t> offsets,
                               View<std::int32_t> token, View<std::int32_t, 2> slot_tk) {
  const Index experts = offsets.size - 1;
  for (std::int32_t& offset : offsets) offset = 0;
  for (Index t = 0; t < chosen.rows; ++t)
    for (const std::int32_t e : chosen.row(t))
      if (e >= 0 && e < experts) ++offsets[e + 1];
  for (Index e = 1; e < offsets.size; ++e) offsets[e] += offsets[e - 1];
  for (Index t = 0; t < chosen.rows; ++t)
    for (Index k = 0; k < chosen.cols; ++k) {
      if (chosen(t, k) < 0 || chosen(t, k) >= experts) {
        slot_tk(t, k) = -1;
        continue;
      }
      const std::int32_t slot = offsets[chosen(t, k)]++;
      token[slot] = static_cast<std::int32_t>(t);
      slot_tk(t, k) = slot;
    }
  for (Index s = offsets[offsets.size - 1]; s < token.size; ++s) token[s] = 0;
  for (Index e = offsets.size - 1; e > 0; --e) offsets[e] = offsets[e - 1];
  offsets[0] = 0;
}

}  // namespace v1
}  // namespace guild
