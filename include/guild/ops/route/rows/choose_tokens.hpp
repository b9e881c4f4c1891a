// Experts that choose tokens, by teams: see `choose_tokens`. A group is an expert in one sequence.
#pragma once

#include <cstdint>
#include <guild/ops/experts/rows/assignment.hpp>
#include <guild/ops/route/rows/capacity.hpp>

namespace guild {
inline namespace v1 {

/// numbers[t, i] = i.
struct CountUpRow {
  View<std::int32_t, 2> numbers;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    std::int32_t* const to = numbers.data + row * numbers.pitch;
    team.for_each(numbers.cols, [=](Index i) { to[i] = static_cast<std::int32_t>(i); });
  }
};

/// The candidates of a group are the tokens of its sequence: those of sequence s begin at begin_s * E in the list of
/// all, those of expert e in it at e times its length.
template <class Real>
struct CandidatesRow {
  View<const std::int32_t> offsets;  ///< [sequences * E + 1]
  View<const Real, 2> weights;       ///< [T, E]
  View<std::uint64_t> priority;      ///< [T * E]

  template <Team T>
  GUILD_HD void operator()(T team, Index group) const {
    const Index experts = weights.cols, e = group % experts, begin = offsets.data[group];
    const Index first = offsets.data[group - e] / experts, pitch = weights.pitch;
    const Real* const from = weights.data + first * pitch + e;
    std::uint64_t* const to = priority.data + begin;
    team.for_each(offsets.data[group + 1] - begin,
                  [=](Index i) { to[i] = detail::ordered(static_cast<float>(from[i * pitch])); });
  }
};

/// chosen[t, e] = e for the tokens that expert e keeps, no_expert for the others.
struct TakeTokensRow {
  View<const std::int32_t> offsets;  ///< [sequences * E + 1]
  View<const std::uint8_t> kept;     ///< [T * E]
  View<std::int32_t, 2> chosen;      ///< [T, E]

  template <Team T>
  GUILD_HD void operator()(T team, Index group) const {
    const Index experts = chosen.cols, e = group % experts, begin = offsets.data[group];
    const Index first = offsets.data[group - e] / experts, pitch = chosen.pitch;
    const std::uint8_t* const from = kept.data + begin;
    std::int32_t* const to = chosen.data + first * pitch + e;
    team.for_each(offsets.data[group + 1] - begin,
                  [=](Index i) { to[i * pitch] = from[i] != 0 ? static_cast<std::int32_t>(e) : no_expert; });
  }
};

}  // namespace v1
}  // namespace guild
