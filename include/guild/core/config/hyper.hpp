// The numbers of hyper-connections: residual streams that every layer mixes.
#pragma once

#include <cstdint>
#include <optional>

#include <guild/core/config/field.hpp>

namespace guild {
inline namespace v1 {

/// Several residual streams for each token (arXiv 2409.19606), mixed by doubly stochastic matrices (arXiv 2512.24880).
struct HyperConfig {
  static constexpr int most_streams = 16;

  int streams = 4;           ///< `hc_mult`
  int sinkhorn_rounds = 20;  ///< `hc_sinkhorn_iters`: how often columns are normalised; rows once less
  double epsilon = 1e-6;     ///< `hc_eps`: added to weights of streams, and to the sums that are divided by
  friend constexpr bool operator==(const HyperConfig&, const HyperConfig&) = default;

  static constexpr ConfigPart part = {"HyperConfig", "hyper"};

  /// Calls f(ConfigField, value...) for each field, with its value in each of the configs.
  template <class F, class... C>
  static constexpr void fields(F&& f, C&... c) {
    f(ConfigField{"hc_mult", "streams"}, c.streams...);
    f(ConfigField{"hc_sinkhorn_iters", "sinkhorn_rounds"}, c.sinkhorn_rounds...);
    f(ConfigField{"hc_eps", "epsilon"}, c.epsilon...);
  }

  /// Numbers that a sub-layer makes for each token: a weight of each stream before it and one behind it, and a matrix.
  [[nodiscard]] constexpr int weights() const { return (2 + streams) * streams; }

  [[nodiscard]] constexpr std::optional<ConfigProblem> problem() const {
    const detail::ConfigRange ranges[] = {
        {"hc_mult", "hc_mult must be from 1 to 16", streams, 1, most_streams},
        {"hc_sinkhorn_iters", "hc_sinkhorn_iters must be from 1 to 1024", sinkhorn_rounds, 1, 1 << 10},
    };
    if (auto problem = detail::problem_of(ranges)) return problem;
    if (!(epsilon > 0.0) || !(epsilon < 1.0))
      return ConfigProblem{ErrorCode::cf_range, "hc_eps", "hc_eps must be above 0 and below 1", epsilon};
    return std::nullopt;
  }
};

/// Which weights are made of a token's residual streams.
enum class StreamEnd : std::uint8_t {
  passed_on,  ///< [pre | post | comb], (2 + N) N of them, with three scales: a sub-layer reads and writes streams
  mixed,      ///< pre alone, N of them, with one scale: the streams become one row
};

}  // namespace v1
}  // namespace guild
