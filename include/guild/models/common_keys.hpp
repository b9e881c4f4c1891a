// Keys of config.json that several families do not have, as tables to put together with a family's own:
//
//   static constexpr auto keys = key_rules({{"n_routed_experts", "num_experts"}}, plain_router_keys, silu_keys);
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>

#include <guild/core/config/family.hpp>

namespace guild {
inline namespace v1 {

/// Tables put together.
template <std::size_t... Shared>
[[nodiscard]] constexpr auto key_rules(const std::array<KeyRule, Shared>&... shared) {
  std::array<KeyRule, (0 + ... + Shared)> all{};
  auto end = all.begin();
  ((end = std::copy(shared.begin(), shared.end(), end)), ...);
  return all;
}
/// A family's own rules, then those that it shares.
template <std::size_t Own, std::size_t... Shared>
[[nodiscard]] constexpr auto key_rules(const KeyRule (&own)[Own], const std::array<KeyRule, Shared>&... shared) {
  return key_rules(std::to_array(own), shared...);
}

/// Gates are SiLU without limits, which files say by a fixed `hidden_act` or not at all.
inline constexpr std::array silu_keys = {
    KeyRule{"hidden_act", ""},
    KeyRule{"swiglu_alpha", ""},
    KeyRule{"swiglu_limit", ""},
};

/// A router that takes the best of all experts in one way, no shared experts, and no prediction layers.
inline constexpr std::array plain_router_keys = {
    KeyRule{"n_shared_experts", ""},
    KeyRule{"n_group", ""},
    KeyRule{"topk_group", ""},
    KeyRule{"scoring_func", ""},
    KeyRule{"topk_method", ""},
    KeyRule{"routed_scaling_factor", ""},
    KeyRule{"num_nextn_predict_layers", ""},
};

}  // namespace v1
}  // namespace guild
