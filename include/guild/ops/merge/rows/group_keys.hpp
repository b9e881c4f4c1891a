// Which rows a token attends to where each token has a row of the running mean of its group: the last row of each group
// before its own, and its own row.
#pragma once

#include <cstdint>
#include <guild/device/team.hpp>
#include <guild/ops/attention/job.hpp>

namespace guild {
inline namespace v1 {

/// As bits over the n rows of a whole sequence: bit i of token t is set where i = t, and where i < t ends a group. A
/// piece is a token.
struct MarkGroupKeysJob {
  View<const std::int32_t> counts;  ///< [n]: tokens of its group up to each token: 1 where one begins
  View<std::uint32_t, 2> bits;      ///< [n, chosen_words(n)], overwritten

  [[nodiscard]] GUILD_HD Index pieces() const { return bits.rows; }

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    std::uint32_t* const to = bits.data + token * bits.pitch;
    const std::int32_t* const of = counts.data;
    team.for_each(bits.cols, [=](Index word) {
      std::uint32_t set = 0;
      const Index first = word * 32;
      for (Index i = first; i < first + 32 && i <= token; ++i)
        if (i == token || of[i + 1] == 1) set |= std::uint32_t{1} << (i - first);
      to[word] = set;
    });
  }
};

/// As lists, over rows of which the first `before` are groups that ended before token 0, and the others those of the n
/// tokens: chosen[t] gets the `before` ones, those of the tokens before t that end a group, and its own, which are
/// sees[t] in all, and counts[t] = sees[t]. A piece is a token.
struct ListGroupKeysJob {
  Index before = 0;
  View<const std::int32_t> ends;  ///< the tokens that end a group, ascending: all before each token's own group
  View<const std::int32_t> sees;  ///< [n]: rows that each token sees
  View<std::int32_t, 2> chosen;   ///< [n, k], of which sees[t] <= k are written
  View<std::int32_t> counts;      ///< [n]

  [[nodiscard]] GUILD_HD Index pieces() const { return chosen.rows; }

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    std::int32_t* const to = chosen.data + token * chosen.pitch;
    const std::int32_t* const of = ends.data;
    const Index earlier = before, last = sees.data[token] - 1;
    if (team.rank() == 0) counts.data[token] = sees.data[token];
    team.for_each(last + 1, [=](Index i) {
      const Index row = i == last ? earlier + token : i < earlier ? i : earlier + of[i - earlier];
      to[i] = static_cast<std::int32_t>(row);
    });
  }
};

}  // namespace v1
}  // namespace guild
