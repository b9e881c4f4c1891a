// Several residual streams of one token, by a team: made of one row, mixed to one, and spread again.
#pragma once

#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

/// Every stream becomes the row of x.
template <class Real, int Streams>
struct RepeatStreamsRow {
  View<const Real, 2> x;  ///< [T, D]
  View<Real, 2> streams;  ///< [T, Streams * D]

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index dim = x.cols;
    const Real* const from = x.data + row * x.pitch;
    for (int s = 0; s < Streams; ++s) {
      Real* const to = streams.data + row * streams.pitch + s * dim;
      team.for_each(dim, [=](Index i) { to[i] = from[i]; });
    }
  }
};

/// x = the sum of the streams.
template <class Real, int Streams>
struct SumStreamsRow {
  View<const Real, 2> streams;  ///< [T, Streams * D]
  View<Real, 2> x;              ///< [T, D]

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index dim = x.cols;
    const Real* const from = streams.data + row * streams.pitch;
    Real* const to = x.data + row * x.pitch;
    team.for_each(dim, [=](Index i) {
      Real sum = from[i];
      for (int s = 1; s < Streams; ++s) sum += from[s * dim + i];
      to[i] = sum;
    });
  }
};

/// y = sum_s pre_s x_s, where pre are the first weights of the token.
template <class Real, int Streams>
struct CollapseStreamsRow {
  View<const Real, 2> weights;  ///< [T, at least Streams]
  View<const Real, 2> x;        ///< [T, Streams * D]
  View<Real, 2> y;              ///< [T, D]

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index dim = y.cols;
    const Real* const pre = weights.data + row * weights.pitch;
    const Real* const from = x.data + row * x.pitch;
    Real* const to = y.data + row * y.pitch;
    team.for_each(dim, [=](Index i) {
      Real sum = pre[0] * from[i];
      for (int s = 1; s < Streams; ++s) sum += pre[s] * from[s * dim + i];
      to[i] = sum;
    });
  }
};

/// dx_s = pre_s dy, or more of it, and dpre_s = dy . x_s.
template <class Real, int Streams, bool Adds>
struct CollapseStreamsBackwardRow {
  View<const Real, 2> weights;  ///< [T, at least Streams]
  View<const Real, 2> x;        ///< [T, Streams * D]
  View<const Real, 2> dy;       ///< [T, D]
  View<Real, 2> dx;             ///< [T, Streams * D]
  View<Real, 2> dweights;       ///< [T, at least Streams]

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index dim = dy.cols;
    const Real* const pre = weights.data + row * weights.pitch;
    const Real* const d = dy.data + row * dy.pitch;
    for (int s = 0; s < Streams; ++s) {
      const Real* const from = x.data + row * x.pitch + s * dim;
      Real* const to = dx.data + row * dx.pitch + s * dim;
      const Real factor = pre[s];
      const Real along = team.sum(dim, [=](Index i) { return d[i] * from[i]; });
      if (team.rank() == 0) dweights.data[row * dweights.pitch + s] = along;
      if constexpr (Adds)
        team.for_each(dim, [=](Index i) { to[i] += factor * d[i]; });
      else
        team.for_each(dim, [=](Index i) { to[i] = factor * d[i]; });
    }
  }
};

/// y_s = post_s out + sum_r comb_rs x_r, where the token's weights are [pre | post | comb].
template <class Real, int Streams>
struct SpreadStreamsRow {
  View<const Real, 2> weights;  ///< [T, (2 + Streams) * Streams]
  View<const Real, 2> x;        ///< [T, Streams * D]
  View<const Real, 2> out;      ///< [T, D]
  View<Real, 2> y;              ///< [T, Streams * D]

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index dim = out.cols;
    const Real* const post = weights.data + row * weights.pitch + Streams;
    const Real* const comb = post + Streams;
    const Real* const from = x.data + row * x.pitch;
    const Real* const more = out.data + row * out.pitch;
    for (int s = 0; s < Streams; ++s) {
      Real* const to = y.data + row * y.pitch + s * dim;
      team.for_each(dim, [=](Index i) {
        Real sum = post[s] * more[i];
        for (int r = 0; r < Streams; ++r) sum += comb[r * Streams + s] * from[r * dim + i];
        to[i] = sum;
      });
    }
  }
};

/// dout = sum_s post_s dy_s; dx_r = sum_s comb_rs dy_s; dpost_s = dy_s . out; dcomb_rs = dy_s . x_r.
template <class Real, int Streams>
struct SpreadStreamsBackwardRow {
  View<const Real, 2> weights;  ///< [T, (2 + Streams) * Streams]
  View<const Real, 2> x;        ///< [T, Streams * D]
  View<const Real, 2> out;      ///< [T, D]
  View<const Real, 2> dy;       ///< [T, Streams * D]
  View<Real, 2> dx;             ///< [T, Streams * D]
  View<Real, 2> dout;           ///< [T, D]
  View<Real, 2> dweights;       ///< [T, (2 + Streams) * Streams]

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index dim = out.cols;
    const Real* const post = weights.data + row * weights.pitch + Streams;
    const Real* const comb = post + Streams;
    const Real* const from = x.data + row * x.pitch;
    const Real* const more = out.data + row * out.pitch;
    const Real* const d = dy.data + row * dy.pitch;
    Real* const dpost = dweights.data + row * dweights.pitch + Streams;
    Real* const dcomb = dpost + Streams;
    for (int s = 0; s < Streams; ++s) {
      const Real* const of = d + s * dim;
      const Real along = team.sum(dim, [=](Index i) { return of[i] * more[i]; });
      if (team.rank() == 0) dpost[s] = along;
      for (int r = 0; r < Streams; ++r) {
        const Real* const of_x = from + r * dim;
        const Real both = team.sum(dim, [=](Index i) { return of[i] * of_x[i]; });
        if (team.rank() == 0) dcomb[r * Streams + s] = both;
      }
    }
    Real* const to_out = dout.data + row * dout.pitch;
    team.for_each(dim, [=](Index i) {
      Real sum = post[0] * d[i];
      for (int s = 1; s < Streams; ++s) sum += post[s] * d[s * dim + i];
      to_out[i] = sum;
    });
    for (int r = 0; r < Streams; ++r) {
      Real* const to = dx.data + row * dx.pitch + r * dim;
      team.for_each(dim, [=](Index i) {
        Real sum = comb[r * Streams] * d[i];
        for (int s = 1; s < Streams; ++s) sum += comb[r * Streams + s] * d[s * dim + i];
        to[i] = sum;
      });
    }
  }
};

}  // namespace v1
}  // namespace guild
