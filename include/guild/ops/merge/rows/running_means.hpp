// Running means of tokens within their groups, and the way back, group by group.
#pragma once

#include <cstdint>
#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

/// z[t] = x[t] where a group begins, z[t - 1] + (x[t] - z[t - 1]) / counts[t] where it goes on. A piece is a token,
/// which does the work of the group that it begins, or of the one that goes on with token 0.
template <class Real>
struct RunningMeansJob {
  View<const Real, 2> x;            ///< [n, D]
  View<const std::int32_t> counts;  ///< [n]: tokens of its group up to each token: 1 where one begins
  View<const Real, 2> before{};     ///< [1, D], or no data: z before token 0, where its group began earlier
  View<Real, 2> z;                  ///< [n, D], which may be x

  [[nodiscard]] GUILD_HD Index pieces() const { return z.rows; }

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    if (token > 0 && counts.data[token] != 1) return;
    for (Index at = token; at < z.rows && (at == token || counts.data[at] != 1); ++at) {
      const Real* const from = x.data + at * x.pitch;
      const Real* const mean = at == token ? before.data : z.data + (at - 1) * z.pitch;
      Real* const to = z.data + at * z.pitch;
      const Real count = static_cast<Real>(counts.data[at]);
      if (counts.data[at] == 1)
        team.for_each(z.cols, [=](Index i) { to[i] = from[i]; });
      else
        team.for_each(z.cols, [=](Index i) { to[i] = mean[i] + (from[i] - mean[i]) / count; });
    }
  }
};

/// Of whole sequences on the way back, in place: dx[i] = the sum over the tokens t from i to the end of its group of
/// dz[t] / counts[t]. Pieces as before.
template <class Real>
struct RunningMeansGradientJob {
  View<const std::int32_t> counts;  ///< [n]
  View<Real, 2> d;                  ///< [n, D]: dz, which becomes dx

  [[nodiscard]] GUILD_HD Index pieces() const { return d.rows; }

  template <Team T>
  GUILD_HD void operator()(T team, Index token) const {
    if (counts.data[token] != 1) return;
    Index end = token + 1;
    while (end < d.rows && counts.data[end] != 1) ++end;
    for (Index at = end - 1; at >= token; --at) {
      Real* const row = d.data + at * d.pitch;
      const Real* const behind = row + d.pitch;
      const Real count = static_cast<Real>(counts.data[at]);
      if (at == end - 1)
        team.for_each(d.cols, [=](Index i) { row[i] /= count; });
      else
        team.for_each(d.cols, [=](Index i) { row[i] = row[i] / count + behind[i]; });
    }
  }
};

}  // namespace v1
}  // namespace guild
