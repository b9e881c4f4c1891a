// Which keys a token's attention is over, chosen by the scores of an index, by teams: as lists of positions, and as
// bits.
#pragma once

#include <bit>
#include <cstdint>
#include <guild/device/team.hpp>
#include <guild/ops/attention/job.hpp>
#include <limits>
#include <type_traits>

namespace guild {
inline namespace v1 {

namespace detail {

/// Numbers that ascend as scores do: of -0 and 0 the same one, of NaN 0, less than of any other score. Without a
/// branch, so that loops over it become vectors.
template <class Real>
GUILD_HD inline auto rank_of(Real score) {
  using Bits = std::conditional_t<sizeof(Real) == 4, std::uint32_t, std::uint64_t>;
  constexpr Bits sign = Bits{1} << (8 * sizeof(Real) - 1);
  constexpr Bits infinity = std::bit_cast<Bits>(std::numeric_limits<Real>::infinity());
  const Bits bits = std::bit_cast<Bits>(score + Real(0));  // -0 + 0 is 0
  const Bits negative = Bits{0} - (bits >> (8 * sizeof(Real) - 1));
  const Bits number = Bits{0} - static_cast<Bits>((bits & ~sign) <= infinity);
  return static_cast<Bits>((bits ^ (negative | sign)) & number);
}

}  // namespace detail

/// The keys of largest score for each token t of a chunk, among those that it sees from its position p = first_position
/// + t: all, where there are no more than k, and else k; of equal scores the latest. Scores of others are not read.
template <class Real>
struct BasicChooseKeysJob {
  View<const Real, 2> scores;    ///< [n, L]
  Index first_position = 0;      ///< of token 0
  View<std::int32_t, 2> chosen;  ///< [n, k]: keys in ascending order; those behind counts[t] are not written
  View<std::int32_t> counts;     ///< [n]: min(k, keys that t sees)
  Index tokens_per_key = 1;      ///< see visible_keys

  [[nodiscard]] GUILD_HD Index pieces() const { return scores.rows; }

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index visible = visible_keys(first_position + row, tokens_per_key), most = chosen.cols;
    std::int32_t* const to = chosen.data + row * chosen.pitch;
    if (team.rank() == 0) counts.data[row] = static_cast<std::int32_t>(visible < most ? visible : most);
    if (visible <= most) {
      team.for_each(visible, [=](Index s) { to[s] = static_cast<std::int32_t>(s); });
      return;
    }
    const Real* const score = scores.data + row * scores.pitch;
    const auto border = border_of(team, score, visible, most);
    const Index above = count(team, visible, [=](Index s) { return detail::rank_of(score[s]) > border; });
    const Index equal = count(team, visible, [=](Index s) { return detail::rank_of(score[s]) == border; });
    // Each member writes a stretch of the positions, behind what the members before it choose.
    const Index size = team.size(), rank = team.rank(), stretch = (visible + size - 1) / size;
    Index begin = 0, passed = equal - (most - above), at = 0;  // of equal scores the first ones are passed over
    for (Index member = 0; member + 1 < size; ++member) {
      const Index first = member * stretch < visible ? member * stretch : visible;
      const Index keys = visible - first < stretch ? visible - first : stretch;
      const Index more = count(team, keys, [=](Index s) { return detail::rank_of(score[first + s]) > border; });
      const Index same = count(team, keys, [=](Index s) { return detail::rank_of(score[first + s]) == border; });
      if (member >= rank) continue;
      begin = first + keys;
      at += more + (same > passed ? same - passed : Index{0});
      passed = passed > same ? passed - same : Index{0};
    }
    const Index end = visible - begin < stretch ? visible : begin + stretch;
    for (Index s = begin; s < end; ++s) {
      const auto own = detail::rank_of(score[s]);
      if (own < border) continue;
      if (own == border && passed > 0) {
        --passed;
        continue;
      }
      to[at++] = static_cast<std::int32_t>(s);
    }
  }

 private:
  template <Team T, class F>
  [[nodiscard]] GUILD_HD static Index count(T team, Index keys, F&& holds) {
    return static_cast<Index>(team.sum(keys, [=](Index s) { return static_cast<std::int32_t>(holds(s)); }));
  }
  /// A number that k scores reach, bit by bit: the rank of the k-th largest, or less where no score lies between.
  template <Team T>
  [[nodiscard]] GUILD_HD static auto border_of(T team, const Real* score, Index visible, Index k) {
    using Bits = decltype(detail::rank_of(Real(0)));
    Bits border = 0;
    for (Bits bit = Bits{1} << (8 * sizeof(Real) - 1); bit != 0; bit >>= 1) {
      const Bits higher = border | bit;
      const Index reach = count(team, visible, [=](Index s) { return detail::rank_of(score[s]) >= higher; });
      if (reach >= k) border = higher;
      if (reach == k) break;
    }
    return border;
  }
};
using ChooseKeysJob = BasicChooseKeysJob<float>;

/// Bits of the chosen keys: of row t, bit s % 32 of word s / 32 is set if s is among chosen[t][0, counts[t]), which
/// ascend.
struct MarkChosenJob {
  View<const std::int32_t, 2> chosen;  ///< [n, k]
  View<const std::int32_t> counts;     ///< [n]
  View<std::uint32_t, 2> bits;         ///< [n, chosen_words(L)], overwritten

  [[nodiscard]] GUILD_HD Index pieces() const { return bits.rows; }

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const std::int32_t* const from = chosen.data + row * chosen.pitch;
    std::uint32_t* const to = bits.data + row * bits.pitch;
    const Index count = counts.data[row];
    team.for_each(bits.cols, [=](Index word) {
      const Index first = word * 32;
      Index low = 0, high = count;  // the first position that is not before the word
      while (low < high) {
        const Index middle = low + (high - low) / 2;
        if (from[middle] < first)
          low = middle + 1;
        else
          high = middle;
      }
      std::uint32_t set = 0;
      for (; low < count && from[low] < first + 32; ++low) set |= std::uint32_t{1} << (from[low] - first);
      to[word] = set;
    });
  }
};

}  // namespace v1
}  // namespace guild
