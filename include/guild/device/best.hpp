// The running winner of a team's argmax and max: one rule for every kind of team.
#pragma once

#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// The largest value so far and its index; ties go to the lower index, a NaN never beats a number. Index -1: nothing
/// yet. `take` gives the same result in any order of calls.
template <class Real>
struct Best {
  Real value{};
  Index index = -1;

  GUILD_HD constexpr void take(Real other, Index at) {
    if (at < 0) return;
    const bool nan = value != value, other_nan = other != other;
    const bool wins = index < 0 || (nan && !other_nan) || other > value;
    const bool ties = other == value || (nan && other_nan);
    if (wins || (ties && at < index)) {
      value = other;
      index = at;
    }
  }
};

}  // namespace detail
}  // namespace v1
}  // namespace guild
