// What joins the two products of a gated network, or follows the one product of a network without a gate.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include <guild/core/config/field.hpp>

namespace guild {
inline namespace v1 {

/// The nonlinearity.
enum class Activation : std::uint8_t {
  silu,          ///< z * sigmoid(alpha * z); alpha 1: SwiGLU (arXiv 2002.05202)
  gelu_tanh,     ///< GELU in its tanh form (arXiv 1606.08415), 0.5 z (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))): Gemma
  gelu,          ///< GELU, z times the normal distribution function of z (arXiv 1606.08415); gated: GeGLU
  relu_squared,  ///< max(z, 0)^2 (Primer, arXiv 2109.08668); without a gate alone
};

/// The spelling of `hidden_act` in config.json.
[[nodiscard]] constexpr std::string_view name(Activation activation) noexcept {
  constexpr std::string_view names[] = {"silu", "gelu_pytorch_tanh", "gelu", "relu2"};
  return names[static_cast<std::size_t>(activation)];
}

/// h = f(gate) * (up + up_offset), where f is `kind`; with a limit, of gate no more than limit, and of up no more and
/// no less than +-limit. GPT-OSS: alpha 1.702, limit 7, up_offset 1. Without a gate h = f(up).
struct ActivationConfig {
  Activation kind = Activation::silu;  ///< `hidden_act`
  bool gated = true;                   ///< false: a network of two matrices, up and down
  double alpha = 1.0;                  ///< `swiglu_alpha`, of silu
  double limit = 0.0;                  ///< `swiglu_limit`; 0: none
  double up_offset = 0.0;
  friend constexpr bool operator==(const ActivationConfig&, const ActivationConfig&) = default;

  /// Calls f(ConfigField, value...) for each field of a part's member `activation`.
  template <class F, class... C>
  static constexpr void fields(F&& f, C&... c) {
    f(ConfigField{"hidden_act", "activation.kind", Absent::as_default}, c.kind...);
    f(ConfigField{"", "activation.gated"}, c.gated...);
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
    if (!gated && (limit != 0.0 || up_offset != 0.0))
      return broken("swiglu_limit", "swiglu_limit and activation.up_offset must be 0 where there is no gate", limit);
    if (gated && kind == Activation::relu_squared)
      return broken("hidden_act", "hidden_act may be relu2 only where there is no gate: activation.gated is true", 1.0);
    return std::nullopt;
  }
};

}  // namespace v1
}  // namespace guild
