// The numbers of rotary position embedding.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include <guild/core/config/field.hpp>

namespace guild {
inline namespace v1 {

/// Which values of a head turn together.
enum class RopePairs : std::uint8_t {
  interleaved,  ///< (2i, 2i + 1): latent attention as published
  halves,       ///< (i, i + width / 2): Llama and most others
  none,         ///< nothing turns: attention without position, and the rest means nothing
};

/// How frequencies change for contexts longer than the trained one, where factor > 1.
enum class RopeScaling : std::uint8_t {
  yarn,    ///< arXiv 2309.00071
  llama3,  ///< Llama 3.1: long wavelengths are slowed, short ones kept, a smooth ramp between
  linear,  ///< all alike (arXiv 2306.15595): Gemma 3
};

/// The spelling of `rope_type` in config.json.
[[nodiscard]] constexpr std::string_view name(RopeScaling scaling) noexcept {
  return scaling == RopeScaling::yarn ? "yarn" : scaling == RopeScaling::llama3 ? "llama3" : "linear";
}
[[nodiscard]] constexpr std::string_view name(RopePairs pairs) noexcept {
  return pairs == RopePairs::interleaved ? "interleaved" : pairs == RopePairs::halves ? "halves" : "none";
}

/// Rotary position embedding (arXiv 2104.09864), with scaling when factor > 1.
struct RopeConfig {
  double base = 10000.0;  ///< `rope_theta`
  double factor = 1.0;    ///< 1: plain rotary embedding, and the rest means nothing
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double mscale = 1.0;
  double mscale_all_dim = 0.0;  ///< 0: the softmax scale is not corrected
  int original_context = 4096;  ///< `original_max_position_embeddings`
  RopePairs pairs = RopePairs::interleaved;
  /// yarn reads beta_..., mscale... and truncate, llama3 the next two, linear none
  RopeScaling scaling = RopeScaling::yarn;
  double low_frequency_factor = 1.0;   ///< `low_freq_factor`: pairs of fewer turns in original_context slow down
  double high_frequency_factor = 4.0;  ///< `high_freq_factor`: pairs of more turns stay
  bool truncate = true;                ///< yarn: the ramp begins and ends at whole pairs
  friend constexpr bool operator==(const RopeConfig&, const RopeConfig&) = default;

  /// The same rotation, with the numbers that mean nothing for it at their defaults.
  [[nodiscard]] constexpr RopeConfig canonical() const {
    if (pairs == RopePairs::none) return {.pairs = pairs};
    RopeConfig c = {.base = base, .pairs = pairs};
    if (factor == 1.0) return c;
    c.factor = factor, c.scaling = scaling;
    if (scaling == RopeScaling::linear) return c;
    c.original_context = original_context;
    if (scaling == RopeScaling::llama3) {
      c.low_frequency_factor = low_frequency_factor, c.high_frequency_factor = high_frequency_factor;
    } else {
      c.beta_fast = beta_fast, c.beta_slow = beta_slow, c.mscale = mscale, c.mscale_all_dim = mscale_all_dim;
      c.truncate = truncate;
    }
    return c;
  }

  /// Calls f(ConfigField, value...) for each field of a part's member `rope`. Readers of files know these keys
  /// themselves, because they come in several spellings.
  template <class F, class... C>
  static constexpr void fields(F&& f, C&... c) {
    f(ConfigField{"rope_theta", "rope.base"}, c.base...);
    f(ConfigField{"rope_scaling.factor", "rope.factor"}, c.factor...);
    f(ConfigField{"rope_scaling.beta_fast", "rope.beta_fast"}, c.beta_fast...);
    f(ConfigField{"rope_scaling.beta_slow", "rope.beta_slow"}, c.beta_slow...);
    f(ConfigField{"rope_scaling.mscale", "rope.mscale"}, c.mscale...);
    f(ConfigField{"rope_scaling.mscale_all_dim", "rope.mscale_all_dim"}, c.mscale_all_dim...);
    f(ConfigField{"rope_scaling.original_max_position_embeddings", "rope.original_context"}, c.original_context...);
    f(ConfigField{"", "rope.pairs"}, c.pairs...);
    f(ConfigField{"rope_scaling.rope_type", "rope.scaling"}, c.scaling...);
    f(ConfigField{"rope_scaling.low_freq_factor", "rope.low_frequency_factor"}, c.low_frequency_factor...);
    f(ConfigField{"rope_scaling.high_freq_factor", "rope.high_frequency_factor"}, c.high_frequency_factor...);
    f(ConfigField{"rope_scaling.truncate", "rope.truncate"}, c.truncate...);
  }

  [[nodiscard]] constexpr std::optional<ConfigProblem> problem() const {
    const auto broken = [](const char* key, const char* rule, double found) {
      return ConfigProblem{ErrorCode::cf_rope, key, rule, found};
    };
    if (!(base > 1.0) || !detail::is_finite(base)) return broken("rope_theta", "rope_theta must be above 1", base);
    if (!(factor >= 1.0) || !detail::is_finite(factor))
      return broken("rope_scaling.factor", "rope_scaling.factor must be at least 1", factor);
    if (!(beta_slow > 0.0) || !detail::is_finite(beta_slow))
      return broken("rope_scaling.beta_slow", "rope_scaling.beta_slow must be above 0", beta_slow);
    if (!(beta_fast >= beta_slow) || !detail::is_finite(beta_fast))
      return broken("rope_scaling.beta_fast", "rope_scaling.beta_fast must be at least beta_slow", beta_fast);
    if (!(mscale >= 0.0) || !detail::is_finite(mscale))
      return broken("rope_scaling.mscale", "rope_scaling.mscale must not be negative", mscale);
    if (!(mscale_all_dim >= 0.0) || !detail::is_finite(mscale_all_dim))
      return broken("rope_scaling.mscale_all_dim", "rope_scaling.mscale_all_dim must not be negative", mscale_all_dim);
    if (pairs == RopePairs::none && factor != 1.0)
      return broken("rope_scaling.factor", "rope_scaling.factor must be 1 where nothing turns", factor);
    if (original_context < 1)
      return broken("rope_scaling.original_max_position_embeddings",
                    "rope_scaling.original_max_position_embeddings must be at least 1", original_context);
    if (scaling != RopeScaling::llama3) return std::nullopt;
    if (!(low_frequency_factor > 0.0) || !detail::is_finite(low_frequency_factor))
      return broken("rope_scaling.low_freq_factor", "rope_scaling.low_freq_factor must be above 0",
                    low_frequency_factor);
    if (!(high_frequency_factor > low_frequency_factor) || !detail::is_finite(high_frequency_factor))
      return broken("rope_scaling.high_freq_factor", "rope_scaling.high_freq_factor must be above low_freq_factor",
                    high_frequency_factor);
    return std::nullopt;
  }
};

}  // namespace v1
}  // namespace guild
