// The cache of attention whose keys are merged: a row for each group of tokens.
#pragma once

#include <algorithm>
#include <type_traits>

#include <guild/core/view.hpp>
#include <guild/modules/merge_budget.hpp>
#include <guild/modules/merge_policies.hpp>
#include <guild/modules/merge_states.hpp>
#include <guild/modules/ring_cache.hpp>
#include <guild/modules/row_cache.hpp>

namespace guild {
inline namespace v1 {

/// Counts tokens; its rows count groups. That of the open group, the last one, is written anew by each pass, so going
/// back needs none that was overwritten: a ring holds the means after each of the last tokens, in floats. A
/// SequenceCache.
template <class ElementType, Index Width, Index Latent, class Policy>
struct RunningCache {
  using Element = ElementType;
  using Budget = typename Policy::Budget;
  static constexpr Index width = Width, latent = Latent, rotary = Width - Latent;
  static constexpr DType type = dtype_of<Element>;
  static constexpr bool measures = !std::is_same_v<typename Policy::Novelty, NoNovelty>;
  /// After each token [mean latent | mean key, rotated | the same, not rotated | the token's own latent, if novelty is
  /// measured].
  static constexpr Index own_latent = Width + rotary;
  using Means = RingCache<float, own_latent + (measures ? Latent : 0), 2, 0, Policy::chunk>;
  using States = MergeStates<Policy::chunk>;
  using Rows = RowCache<Element, Width>;
  using Biases = RowCache<float, 1>;  ///< logarithms of how many tokens a row stands for
  struct Mark {
    typename Means::Mark means{};
    typename States::Mark states{};
    typename Rows::Mark rows{};
  };
  Means means{};
  States states{};
  Rows rows{};
  Biases biases{};

  [[nodiscard]] Index length() const { return means.length(); }
  /// Rows of groups.
  [[nodiscard]] Index groups() const { return rows.length(); }
  /// Of a copy, whose rows may have no room behind them, few more than its length.
  [[nodiscard]] Index reserved() const {
    return tokens_that_fit<Budget>(length(), means.reserved(), std::min(rows.reserved(), biases.reserved()));
  }
  void reserve(Index tokens) {
    const Index most = Budget::max_slots(tokens);
    rows.reserve(most);
    biases.reserve(most);
    states.reserve(tokens);
    means.reserve(tokens);
  }
  [[nodiscard]] Mark mark() const { return {means.mark(), states.mark(), rows.mark()}; }
  [[nodiscard]] Mark mark(Index tokens) const {
    if (tokens == length()) return mark();
    const Index begun = tokens == 0 ? 0 : states.state(tokens).slots;
    return {means.mark(tokens), states.mark(tokens), rows.mark(begun)};
  }
  [[nodiscard]] Index oldest() const { return std::max(means.oldest(), states.oldest()); }
  /// Throws what a part does that cannot go back so far.
  void check_rewind(const Mark& mark) const {
    means.check_rewind(mark.means);
    states.check_rewind(mark.states);
    rows.check_rewind(mark.rows);
  }
  /// Throws as `check_rewind` does, and then changes nothing.
  void rewind(const Mark& mark) {
    check_rewind(mark);
    means.rewind(mark.means);
    states.rewind(mark.states);
    rows.rewind(mark.rows);
    biases.rewind({mark.rows.length});
  }
  /// Bytes of the rows of as many groups as `tokens` tokens may begin, and of the rings.
  [[nodiscard]] static constexpr Index bytes(Index tokens) {
    const Index most = Budget::max_slots(tokens);
    return Means::bytes(tokens) + States::bytes(tokens) + Rows::bytes(most) + Biases::bytes(most);
  }
};

}  // namespace v1
}  // namespace guild
