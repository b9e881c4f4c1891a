// One AdamW step of a tensor (arXiv 1711.05101, algorithm 2), in one pass over its memory.
#pragma once

#include <cmath>
#include <guild/ops/common/pieces.hpp>

namespace guild {
inline namespace v1 {

/// With g the scaled gradient: m += (1 - beta1) (g - m), v = beta2 v + (1 - beta2) g^2,
/// w -= decay w + rate m / (sqrt(v) second_scale + epsilon). All views are of one size and do not overlap.
template <class Real>
struct AdamWJob {
  View<Real> weight;
  View<const Real> gradient;
  View<Real> first;   ///< m
  View<Real> second;  ///< v
  Real gradient_scale = 1;
  Real beta1 = 0;
  Real beta2 = 0;
  Real rate = 0;          ///< lr / (1 - beta1^t) at step t = 1, 2, ...
  Real second_scale = 1;  ///< 1 / sqrt(1 - beta2^t)
  Real epsilon = 0;
  Real decay = 0;  ///< lr * weight decay

  [[nodiscard]] GUILD_HD Index pieces() const { return pieces_of(weight.size); }

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    run(team, piece_range(piece, weight.size));
  }

  /// The elements of a range.
  template <Team T>
  GUILD_HD void run(T team, PieceRange range) const {
    Real* const w = weight.data + range.begin;
    const Real* const dw = gradient.data + range.begin;
    Real* const m = first.data + range.begin;
    Real* const v = second.data + range.begin;
    const Real scale = gradient_scale, keep = beta2, take1 = Real(1) - beta1, take2 = Real(1) - beta2;
    const Real step = rate, root_scale = second_scale, floor = epsilon, shrink = decay;
    team.for_each(range.count, [=](Index i) {
      const Real g = dw[i] * scale;
      const Real mean = m[i] + (g - m[i]) * take1;
      const Real square = v[i] * keep + g * g * take2;
      m[i] = mean;
      v[i] = square;
      w[i] -= shrink * w[i] + step * mean / (std::sqrt(square) * root_scale + floor);
    });
  }
};

}  // namespace v1
}  // namespace guild
