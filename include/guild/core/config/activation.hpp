// What joins the two products of a gated network.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include <guild/core/config/field.hpp>

namespace guild {
inline namespace v1 {

/// The nonlinearity of the gate.
enum class Activation : std::uint8_t {
  silu,       ///< z * sigmoid(alpha * z); alpha 1: SwiGLU (arXiv 2002.05202)
  gelu_tanh,  ///< GELU in its tanh form (arXiv 1606.08415), 0.5 z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))): Gemma
};

/// The spelling of `hidden_act` in config.json.
[[nodiscard]] constexpr std::string_view name(Activation activation) noexcept {
  return activation == Activation::silu ? "silu" : "gelu_pytorch_tanh";
}

/// h = f(gate) * (up + up_offset), where f is `kind`; with a limit, of gate no more than limit, and of up no more and
/// no less than +-limit. GPT-OSS: alpha 1.702, limit 7, up_offset 1.
struct ActivationConfig {
  Activation kind = Activation::silu;  ///< `hidden_act`
  double alpha = 1.0;                  ///< `swiglu_alpha`, of silu
  double limit = 0.0;                  ///< `swiglu_limit`; 0: none
  double up_offset = 0.0;
  friend constexpr bool operator==(const ActivationConfig&, const ActivationConfig&) = default;

  /// Calls f(ConfigField, value...) for each field of a part's member `activation`.
  template <class F, class... C>
  static constexpr void fields(F&& f, C&... c) {
    f(ConfigField{"hidden_act", "activation.kind", Absent::as_default}, c.kind...);
    f(ConfigField{"swiglu_alpha", "activation.alpha", Absent::as_default}, c.alpha...);
    f(ConfigField{"swiglu_limit", "activation.limit", Absent::as_default}, c.limit...);
    f(ConfigField{"", "activation.up_offset"}, c.up_offset...);
  }

  [[nodiscard]] constexpr std::optional<ConfigProblem> problem() const {
    const auto broken = [](const char* key, const char* rule, double found) {
      return ConfigProblem{ErrorCode::cf_range, key, rule, found};
    };
    if (!(alpha > 0.0) || !detail::is_finite(alpha))
      return broken("swiglu_alpha", "swiglu_alpha must be above 0", alpha);
    if (kind != Activation::silu && alpha != 1.0)
      return broken("swiglu_alpha", "swiglu_alpha must be 1 where hidden_act is not silu", alpha);
    if (!(limit >= 0.0) || !detail::is_finite(limit))
      return broken("swiglu_limit", "swiglu_limit must not be negative", limit);
    if (!detail::is_finite(up_offset))
      return broken("hidden_act", "activation.up_offset must be a finite number", up_offset);
    return std::nullopt;
  }
};

}  // namespace v1
}  // namespace guild
