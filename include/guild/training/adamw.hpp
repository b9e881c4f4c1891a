// AdamW: Adam with decoupled weight decay (arXiv 1711.05101).
#pragma once

#include <cmath>

#include <guild/core/error.hpp>
#include <guild/core/refuse.hpp>

namespace guild {
inline namespace v1 {

/// w -= lr (weight_decay w + m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + epsilon)). The defaults are DeepSeek-V3's
/// (report, section 4.2) but for lr and epsilon. Only matrices decay unless parameter groups say otherwise.
struct AdamW {
  double lr = 3e-4;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  friend constexpr bool operator==(const AdamW&, const AdamW&) = default;
};

namespace detail {

inline void require_option(bool holds, const char* key, const char* message) {
  if (!holds) refuse(ErrorCode::op_argument, message, key);
}
[[nodiscard]] inline bool in_unit_interval(double value) { return value >= 0.0 && value < 1.0; }
[[nodiscard]] inline bool at_least_zero(double value) { return value >= 0.0 && std::isfinite(value); }

}  // namespace detail

/// Throws op_argument, with the option's name, unless all numbers are usable.
inline void check(const AdamW& options) {
  using detail::require_option;
  require_option(detail::at_least_zero(options.lr), "AdamW::lr", "the learning rate must be finite and not negative");
  require_option(detail::in_unit_interval(options.beta1), "AdamW::beta1", "beta1 must be in [0, 1); 0.9 is usual");
  require_option(detail::in_unit_interval(options.beta2), "AdamW::beta2", "beta2 must be in [0, 1); 0.95 is usual");
  require_option(options.epsilon > 0.0 && std::isfinite(options.epsilon), "AdamW::epsilon",
                 "epsilon must be positive: a weight without gradient would be divided by zero");
  require_option(detail::at_least_zero(options.weight_decay), "AdamW::weight_decay",
                 "the weight decay must be finite and not negative");
}

}  // namespace v1
}  // namespace guild
