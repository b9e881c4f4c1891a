// How many tokens become one row where attention sees pooled rows.
#pragma once

#include <optional>

#include <guild/core/config/field.hpp>

namespace guild {
inline namespace v1 {

/// Layers that see, besides a window of keys, rows pooled of all tokens (DeepSeek-V4). Which layers do, says
/// WindowConfig::types; a token at position p sees a row pooled from the tokens up to p or earlier.
struct CompressionConfig {
  int sparse_rate = 4;   ///< `compress_rate_csa`: tokens a row, where windows overlap and an index chooses rows
  int heavy_rate = 128;  ///< `compress_rate_hca`: tokens a row, where all rows are seen
  friend constexpr bool operator==(const CompressionConfig&, const CompressionConfig&) = default;

  static constexpr ConfigPart part = {"CompressionConfig", "compression"};

  /// Calls f(ConfigField, value...) for each field, with its value in each of the configs.
  template <class F, class... C>
  static constexpr void fields(F&& f, C&... c) {
    f(ConfigField{"compress_rate_csa", "sparse_rate", Absent::as_default}, c.sparse_rate...);
    f(ConfigField{"compress_rate_hca", "heavy_rate", Absent::as_default}, c.heavy_rate...);
  }

  [[nodiscard]] constexpr std::optional<ConfigProblem> problem() const {
    const detail::ConfigRange ranges[] = {
        {"compress_rate_csa", "compress_rate_csa must be from 2 to 65536", sparse_rate, 2, 1 << 16},
        {"compress_rate_hca", "compress_rate_hca must be from 2 to 65536", heavy_rate, 2, 1 << 16},
    };
    return detail::problem_of(ranges);
  }
};

}  // namespace v1
}  // namespace guild
