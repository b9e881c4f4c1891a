// Two results of attention over different keys as one, of one token, by a team.
#pragma once

#include <cmath>
#include <guild/device/team.hpp>
#include <guild/ops/common/exponential.hpp>
#include <limits>

namespace guild {
inline namespace v1 {

/// out = (exp(first_lse) first + exp(second_lse) second) / (exp(first_lse) + exp(second_lse)), head by head, and lse
/// the logarithm of the denominator; out and lse may be those of a set.
template <class Real>
struct JoinAttentionRow {
  View<const Real, 2> first, first_lse;    ///< [T, H * V], [T, H]
  View<const Real, 2> second, second_lse;  ///< as of the first set
  View<Real, 2> out, lse;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index heads = lse.cols, value = out.cols / heads;
    const Real *const of_first = first_lse.data + row * first_lse.pitch, *const of_second =
                                                                             second_lse.data + row * second_lse.pitch;
    for (Index h = 0; h < heads; ++h) {
      const Real *const a = first.data + row * first.pitch + h * value, *const b = second.data + row * second.pitch +
                                                                                   h * value;
      Real* const to = out.data + row * out.pitch + h * value;
      if (is_empty(of_first[h]) || is_empty(of_second[h])) {
        const Real* const from = is_empty(of_second[h]) ? a : b;
        team.for_each(value, [=](Index c) { to[c] = from[c]; });
        continue;
      }
      const Real peak = peak_of(of_first[h], of_second[h]);
      const Real x = detail::exponential(of_first[h] - peak), y = detail::exponential(of_second[h] - peak);
      const Real x_share = x / (x + y), y_share = y / (x + y);
      team.for_each(value, [=](Index c) { to[c] = x_share * a[c] + y_share * b[c]; });
    }
    team.sync();  // a member may still read what stands where lse is written
    Real* const to = lse.data + row * lse.pitch;
    team.for_each(heads, [=](Index h) {
      const Real x = of_first[h], y = of_second[h], peak = peak_of(x, y);
      const Real more = std::log(detail::exponential(x - peak) + detail::exponential(y - peak));
      to[h] = is_empty(y) ? x : is_empty(x) ? y : peak + more;
    });
  }

 private:
  /// True of the denominator of a softmax over nothing.
  [[nodiscard]] GUILD_HD static bool is_empty(Real lse) { return lse == -std::numeric_limits<Real>::infinity(); }
  [[nodiscard]] GUILD_HD static Real peak_of(Real x, Real y) { return x < y ? y : x; }
};

}  // namespace v1
}  // namespace guild
