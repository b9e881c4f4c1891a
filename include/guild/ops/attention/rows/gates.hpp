// What attention's gates do to one token, by a team.
#pragma once

#include <cmath>
#include <cstdint>
#include <guild/device/team.hpp>
#include <guild/ops/common/exponential.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// log(1 + (position + 1) / window): how many windows a token looks back on.
template <class Real>
GUILD_HD inline Real windows_behind(std::int32_t position, Index window) {
  return std::log1p((static_cast<Real>(position) + Real(1)) / static_cast<Real>(window));
}

}  // namespace detail

/// bias += head + length * log(1 + (position + 1) / window).
template <class Real>
struct LengthBiasRow {
  View<const Real> head, length;  ///< [H]
  View<const std::int32_t> positions;
  Index window;
  View<Real, 2> bias;  ///< [T, H]

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Real behind = detail::windows_behind<Real>(positions.data[row], window);
    const Real *const a = head.data, *const b = length.data;
    Real* const to = bias.data + row * bias.pitch;
    team.for_each(bias.cols, [=](Index h) { to[h] += a[h] + b[h] * behind; });
  }
};

/// dlength = dbias * log(1 + (position + 1) / window), of each token.
template <class Real>
struct LengthBiasBackwardRow {
  View<const std::int32_t> positions;
  Index window;
  View<const Real, 2> dbias;
  View<Real, 2> dlength;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Real behind = detail::windows_behind<Real>(positions.data[row], window);
    const Real* const from = dbias.data + row * dbias.pitch;
    Real* const to = dlength.data + row * dlength.pitch;
    team.for_each(dlength.cols, [=](Index h) { to[h] = from[h] * behind; });
  }
};

/// y = 1 / (1 + exp(-(y + bias))).
template <class Real>
struct SigmoidRow {
  View<const Real> bias;
  View<Real, 2> y;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Real* const more = bias.data;
    Real* const to = y.data + row * y.pitch;
    team.for_each(y.cols, [=](Index i) { to[i] = Real(1) / (Real(1) + detail::exponential(-(to[i] + more[i]))); });
  }
};

/// dy *= y (1 - y).
template <class Real>
struct SigmoidBackwardRow {
  View<const Real, 2> y;
  View<Real, 2> dy;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Real* const of = y.data + row * y.pitch;
    Real* const to = dy.data + row * dy.pitch;
    team.for_each(dy.cols, [=](Index i) { to[i] *= of[i] * (Real(1) - of[i]); });
  }
};

/// weights = [1 - alpha | alpha].
template <class Real>
struct HeadWeightsRow {
  View<const Real> alpha;  ///< [H]
  View<Real, 2> weights;   ///< [T, 2 H]

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index count = alpha.size;
    const Real* const of = alpha.data;
    Real* const to = weights.data + row * weights.pitch;
    team.for_each(count, [=](Index h) {
      to[h] = Real(1) - of[h];
      to[count + h] = of[h];
    });
  }
};

/// dalpha = dweights[:, H, 2 H) - dweights[:, 0, H), of each token.
template <class Real>
struct HeadWeightsBackwardRow {
  View<const Real, 2> dweights;
  View<Real, 2> dalpha;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index count = dalpha.cols;
    const Real* const from = dweights.data + row * dweights.pitch;
    Real* const to = dalpha.data + row * dalpha.pitch;
    team.for_each(count, [=](Index h) { to[h] = from[count + h] - from[h]; });
  }
};

/// out = weights[:, 0, H) * near + weights[:, H, 2 H) * all, head by head.
template <class Real>
struct MixBranchesRow {
  View<const Real, 2> weights;    ///< [T, 2 H]
  View<const Real, 2> near, all;  ///< [T, H * V]
  View<Real, 2> out;              ///< [T, H * V]
  Index heads;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index count = heads, value = out.cols / heads;
    const Real* const weight = weights.data + row * weights.pitch;
    const Real *const a = near.data + row * near.pitch, *const b = all.data + row * all.pitch;
    Real* const to = out.data + row * out.pitch;
    team.for_each(out.cols, [=](Index i) {
      const Index h = i / value;
      to[i] = weight[h] * a[i] + weight[count + h] * b[i];
    });
  }
};

/// dnear and dall from dout, and dweights.
template <class Real>
struct MixBranchesBackwardRow {
  View<const Real, 2> weights, near, all, dout;
  View<Real, 2> dnear, dall;
  View<Real, 2> dweights;
  Index heads;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index count = heads, value = dout.cols / heads;
    const Real* const weight = weights.data + row * weights.pitch;
    const Real *const a = near.data + row * near.pitch, *const b = all.data + row * all.pitch;
    const Real* const d = dout.data + row * dout.pitch;
    Real *const da = dnear.data + row * dnear.pitch, *const db = dall.data + row * dall.pitch;
    Real* const dw = dweights.data + row * dweights.pitch;
    team.for_each(2 * count, [=](Index i) {
      const Index h = i % count;
      const Real* const branch = i < count ? a : b;
      Real* const to = i < count ? da : db;
      Real sum = 0;
      for (Index c = h * value; c < (h + 1) * value; ++c) {
        sum += d[c] * branch[c];
        to[c] = weight[i] * d[c];
      }
      dw[i] = sum;
    });
  }
};

}  // namespace v1
}  // namespace guild
