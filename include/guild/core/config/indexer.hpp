// The numbers of the index of sparse attention.
#pragma once

#include <optional>

#include <guild/core/config/field.hpp>
#include <guild/core/config/rope.hpp>

namespace guild {
inline namespace v1 {

/// Small heads that choose which keys attention sees (DeepSeek-V3.2-Exp report, section 2.1: the "lightning indexer").
struct IndexerConfig {
  int heads = 64;    ///< `index_n_heads`
  int dim = 128;     ///< `index_head_dim`: of its queries, and of its key, which all of its heads share
  int top_k = 2048;  ///< `index_topk`: keys a token's attention sees at most, its own among those it may choose
  /// How the first qk_rope_head_dim values of its queries and keys turn, by the frequencies of attention; attention may
  /// pair them otherwise.
  RopePairs pairs = RopePairs::halves;
  friend constexpr bool operator==(const IndexerConfig&, const IndexerConfig&) = default;

  static constexpr ConfigPart part = {"IndexerConfig", "indexer"};

  /// Calls f(ConfigField, value...) for each field, with its value in each of the configs.
  template <class F, class... C>
  static constexpr void fields(F&& f, C&... c) {
    f(ConfigField{"index_n_heads", "heads"}, c.heads...);
    f(ConfigField{"index_head_dim", "dim"}, c.dim...);
    f(ConfigField{"index_topk", "top_k"}, c.top_k...);
    f(ConfigField{"", "pairs"}, c.pairs...);
  }

  [[nodiscard]] constexpr std::optional<ConfigProblem> problem() const {
    const detail::ConfigRange ranges[] = {
        {"index_n_heads", "index_n_heads must be from 1 to 4096", heads, 1, 1 << 12},
        {"index_head_dim", "index_head_dim must be from 1 to 4096", dim, 1, 1 << 12},
        {"index_topk", "index_topk must be from 1 to 268435456", top_k, 1, 1 << 28},
    };
    return detail::problem_of(ranges);
  }
};

}  // namespace v1
}  // namespace guild
