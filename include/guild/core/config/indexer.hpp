// The numbers of the index of sparse attention.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <guild/core/config/field.hpp>
#include <guild/core/config/rope.hpp>

namespace guild {
inline namespace v1 {

/// Whose choice of keys a layer sees; the names are those of `indexer_types` in config.json.
enum class IndexerType : std::uint8_t {
  full,    ///< that of an index of its own; letter f
  shared,  ///< that of the last layer with an index; letter s
};

/// The spelling in `indexer_types` of config.json.
[[nodiscard]] constexpr std::string_view name(IndexerType type) noexcept {
  return type == IndexerType::full ? "full" : "shared";
}
/// One letter for a kind, as IndexerTypes is written with.
[[nodiscard]] constexpr char letter(IndexerType type) noexcept { return type == IndexerType::full ? 'f' : 's'; }

namespace detail {
/// Not constexpr: a list of layers that calls it does not compile.
void indexer_types_are_letters_f_or_s_and_at_most_128();
}  // namespace detail

/// The kind of each layer, as a value: `IndexerTypes("fssfs")`.
class IndexerTypes {
 public:
  static constexpr int most = 128;

  constexpr IndexerTypes() = default;
  /// A letter for each layer, see IndexerType.
  consteval explicit IndexerTypes(std::string_view letters) {
    for (const char one : letters) {
      const bool full = one == letter(IndexerType::full);
      if (size_ == most || (!full && one != letter(IndexerType::shared)))
        detail::indexer_types_are_letters_f_or_s_and_at_most_128();
      add(full ? IndexerType::full : IndexerType::shared);
    }
  }

  [[nodiscard]] constexpr int size() const { return size_; }
  /// The kind of layer `i` of `size()`.
  [[nodiscard]] constexpr IndexerType operator[](int i) const { return types_[static_cast<std::size_t>(i)]; }
  /// One more layer; there are fewer than `most`.
  constexpr void add(IndexerType type) { types_[static_cast<std::size_t>(size_++)] = type; }
  [[nodiscard]] constexpr bool has(IndexerType type) const {
    for (int i = 0; i < size_; ++i)
      if ((*this)[i] == type) return true;
    return false;
  }
  /// As it is written in C++, and printed.
  [[nodiscard]] std::string letters() const {
    std::string text;
    for (int i = 0; i < size_; ++i) text += letter((*this)[i]);
    return text;
  }
  friend constexpr bool operator==(const IndexerTypes&, const IndexerTypes&) = default;

 private:
  std::array<IndexerType, most> types_{};
  int size_ = 0;
};

/// Small heads that choose which keys attention sees (DeepSeek-V3.2-Exp report, section 2.1: the "lightning indexer").
struct IndexerConfig {
  int heads = 64;    ///< `index_n_heads`
  int dim = 128;     ///< `index_head_dim`: of its queries, and of its key, which all of its heads share
  int top_k = 2048;  ///< `index_topk`: keys a token's attention sees at most, its own among those it may choose
  /// How the first qk_rope_head_dim values of its queries and keys turn (the last, where keys are pooled rows), by the
  /// frequencies of attention; attention may pair them otherwise.
  RopePairs pairs = RopePairs::halves;
  IndexerTypes types{};  ///< `indexer_types`: one for each layer; empty: each has an index
  friend constexpr bool operator==(const IndexerConfig&, const IndexerConfig&) = default;

  static constexpr ConfigPart part = {"IndexerConfig", "indexer"};

  /// Calls f(ConfigField, value...) for each field, with its value in each of the configs.
  template <class F, class... C>
  static constexpr void fields(F&& f, C&... c) {
    f(ConfigField{"index_n_heads", "heads"}, c.heads...);
    f(ConfigField{"index_head_dim", "dim"}, c.dim...);
    f(ConfigField{"index_topk", "top_k"}, c.top_k...);
    f(ConfigField{"", "pairs"}, c.pairs...);
    f(ConfigField{"indexer_types", "types", Absent::as_default}, c.types...);
  }

  /// The same indices; a list of layers that all have one says nothing.
  [[nodiscard]] constexpr IndexerConfig canonical() const {
    IndexerConfig same = *this;
    if (!types.has(IndexerType::shared)) same.types = {};
    return same;
  }

  [[nodiscard]] constexpr std::optional<ConfigProblem> problem() const {
    const detail::ConfigRange ranges[] = {
        {"index_n_heads", "index_n_heads must be from 1 to 4096", heads, 1, 1 << 12},
        {"index_head_dim", "index_head_dim must be from 1 to 4096", dim, 1, 1 << 12},
        {"index_topk", "index_topk must be from 1 to 268435456", top_k, 1, 1 << 28},
    };
    if (types.size() > 0 && types[0] == IndexerType::shared)
      return ConfigProblem{ErrorCode::cf_range, "indexer_types",
                           "indexer_types must begin with \"full\": there is no index before the first layer", 0.0};
    return detail::problem_of(ranges);
  }
};

}  // namespace v1
}  // namespace guild
