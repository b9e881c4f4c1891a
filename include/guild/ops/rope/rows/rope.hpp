// Rotary position of one token by a team.
#pragma once

#include <cstdint>
#include <guild/core/config.hpp>
#include <guild/device/team.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// Cosine and sine of `turns` full turns, to about 1e-14 for |turns| < 2^29 (any position: no pair turns faster than
/// one radian a position): the whole turns are taken off exactly, the rest is within an eighth of a turn of a multiple
/// of a quarter. One body for both devices, without library calls or branches, so that compilers make vectors of it.
GUILD_HD inline void cos_sin_of_turns(double turns, double& cosine, double& sine) {
  const auto whole = static_cast<std::int32_t>(turns * 4.0 + (turns < 0.0 ? -0.5 : 0.5));  // nearest quarter
  const double a = (turns - static_cast<double>(whole) * 0.25) * 6.283185307179586476925287;
  const double z = a * a;
  const double s =
      a * (1.0 + z * (-1.0 / 6 +
                      z * (1.0 / 120 + z * (-1.0 / 5040 +
                                            z * (1.0 / 362880 + z * (-1.0 / 39916800 + z * (1.0 / 6227020800.0 -
                                                                                            z / 1307674368000.0)))))));
  const double c =
      1.0 +
      z * (-0.5 + z * (1.0 / 24 +
                       z * (-1.0 / 720 + z * (1.0 / 40320 + z * (-1.0 / 3628800 + z * (1.0 / 479001600 +
                                                                                       z * (-1.0 / 87178291200.0)))))));
  const bool swapped = (whole & 1) != 0;
  const double even = swapped ? s : c, odd = swapped ? c : s;
  cosine = ((whole + 1) & 2) != 0 ? -even : even;
  sine = (whole & 2) != 0 ? -odd : odd;
}

}  // namespace detail

/// Where the rotary parts lie in a row: head h's part begins at column h * head_stride + offset.
struct RopeHeads {
  Index heads = 1;
  Index head_stride = 0;
  Index offset = 0;
};

/// Which way pairs turn: onwards with the position, or back, as gradients do.
enum class RopeTurn : std::uint8_t { onwards, back };

/// Turns the pairs of each head's rotary part by position * frequency i, in place.
template <class Real>
struct RopeRow {
  View<const double> turns;  ///< per pair: turns per position
  double magnitude;
  RopePairs pairs;
  View<const std::int32_t> positions;
  View<Real, 2> x;
  RopeHeads at;
  RopeTurn turn = RopeTurn::onwards;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
#if defined(__CUDA_ARCH__)
    constexpr Index tile = 1;
#else
    constexpr Index tile = 8;  // pairs whose angles are computed side by side, as vectors
#endif
    const auto position = static_cast<double>(positions.data[row]);
    Real* const first = x.data + row * x.pitch + at.offset;
    const RopeRow self = *this;
    const Index tiles = turns.size / tile, rest = tiles * tile;
    team.for_each(tiles, [=](Index n) { self.template turn_pairs<tile>(position, first, n * tile); });
    team.for_each(turns.size - rest, [=](Index n) { self.template turn_pairs<1>(position, first, rest + n); });
  }

 private:
  template <Index Count>
  GUILD_TEAM_INLINE GUILD_HD void turn_pairs(double position, Real* first, Index begin) const {
    const double* const per_position = turns.data + begin;
    const double sine_factor = turn == RopeTurn::back ? -magnitude : magnitude;
    Real c[Count], s[Count];
    for (Index i = 0; i < Count; ++i) {
      double cosine, sine;
      detail::cos_sin_of_turns(position * per_position[i], cosine, sine);
      c[i] = static_cast<Real>(cosine * magnitude);
      s[i] = static_cast<Real>(sine * sine_factor);
    }
    if (pairs == RopePairs::interleaved)
      turn_heads<2>(first + 2 * begin, 1, c, s);
    else
      turn_heads<1>(first + begin, turns.size, c, s);
  }

  /// Pair i of each head: elements Step * i of `one`, and `apart` behind it.
  template <Index Step, Index Count>
  GUILD_TEAM_INLINE GUILD_HD void turn_heads(Real* one, Index apart, const Real (&c)[Count],
                                             const Real (&s)[Count]) const {
    for (Index head = 0; head < at.heads; ++head, one += at.head_stride) {
      Real* const other = one + apart;
      GUILD_INDEPENDENT for (Index i = 0; i < Count; ++i) {
        const Real a = one[Step * i], b = other[Step * i];
        one[Step * i] = a * c[i] - b * s[i];
        other[Step * i] = a * s[i] + b * c[i];
      }
    }
  }
};

}  // namespace v1
}  // namespace guild
