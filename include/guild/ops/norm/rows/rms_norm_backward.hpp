// Gradients of RMSNorm: of the input by rows, of the weight by sums over blocks of rows, then over blocks.
#pragma once

#include <cmath>
#include <guild/device/team.hpp>
#include <guild/ops/norm/rows/rms_norm.hpp>

namespace guild {
inline namespace v1 {

/// One block of rows. With r = 1 / sqrt(mean x^2 + epsilon) of a row, and w the weight, 1 + weight or 1: dx = r w dy -
/// x r^3 / D sum(w dy x), plus the row of `plus` where it has data; partial[block] = the block's sum of dy x r, in the
/// order of rows. dx may be dy or plus.
template <class Real, NormGain Gain = NormGain::weight>
struct RmsNormBackwardBlock {
  static constexpr Index rows = 32;  ///< of a block

  View<const Real> weight;
  View<const Real, 2> x;
  View<const Real, 2> dy;
  View<const Real, 2> plus;  ///< no data: nothing is added
  View<Real, 2> dx;
  View<Real, 2> partial;  ///< [blocks, D]
  Real epsilon;

  template <Team T>
  GUILD_HD void operator()(T team, Index block) const {
    const Index dim = x.cols, end = (block + 1) * rows < x.rows ? (block + 1) * rows : x.rows;
    const Real* const gain = weight.data;
    Real* const sum = partial.data + block * partial.pitch;
    team.for_each(dim, [=](Index i) { sum[i] = Real(0); });
    team.sync();
    for (Index row = block * rows; row < end; ++row) {
      const Real* const in = x.data + row * x.pitch;
      const Real* const grad = dy.data + row * dy.pitch;
      Real* const out = dx.data + row * dx.pitch;
      const Real squares = team.sum(dim, [in](Index i) { return in[i] * in[i]; });
      const Real r = Real(1) / std::sqrt(squares / static_cast<Real>(dim) + epsilon);
      const Real along = team.sum(dim, [=](Index i) { return detail::gain_of<Gain>(gain, i) * grad[i] * in[i]; });
      const Real pull = along * r * r * r / static_cast<Real>(dim);
      if (plus.data != nullptr) {
        const Real* const more = plus.data + row * plus.pitch;
        team.for_each(dim, [=](Index i) {
          sum[i] += grad[i] * in[i] * r;
          out[i] = detail::gain_of<Gain>(gain, i) * grad[i] * r - in[i] * pull + more[i];
        });
      } else {
        team.for_each(dim, [=](Index i) {
          sum[i] += grad[i] * in[i] * r;
          out[i] = detail::gain_of<Gain>(gain, i) * grad[i] * r - in[i] * pull;
        });
      }
    }
  }
};

}  // namespace v1
}  // namespace guild
