// Gradients of RMSNorm: of the input by rows, of the weight by columns.
#pragma once

#include <cmath>
#include <guild/device/team.hpp>

namespace guild::inline v1 {

/// inverse_rms[row] = 1 / sqrt(mean x^2 + epsilon).
template <class Real>
struct InverseRmsRow {
  View<const Real, 2> x;
  View<Real> inverse_rms;
  Real epsilon;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Real* in = x.data + row * x.pitch;
    const Real squares = team.sum(x.cols, [in](Index i) { return in[i] * in[i]; });
    if (team.rank() == 0) inverse_rms.data[row] = Real(1) / std::sqrt(squares / static_cast<Real>(x.cols) + epsilon);
  }
};

/// dx of one row. With r the row's inverse_rms: dx = r * w * dy - x * r^3 / D * sum(w * dy * x). dx may be dy.
template <class Real>
struct RmsNormBackwardRow {
  View<const Real> weight;
  View<const Real, 2> x;
  View<const Real, 2> dy;
  View<const Real> inverse_rms;
  View<Real, 2> dx;

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Index dim = x.cols;
    const Real* in = x.data + row * x.pitch;
    const Real* grad = dy.data + row * dy.pitch;
    const Real* gain = weight.data;
    Real* out = dx.data + row * dx.pitch;
    const Real r = inverse_rms.data[row];
    const Real along = team.sum(dim, [=](Index i) { return gain[i] * grad[i] * in[i]; });
    const Real pull = along * r * r * r / static_cast<Real>(dim);
    team.for_each(dim, [=](Index i) { out[i] = gain[i] * grad[i] * r - in[i] * pull; });
  }
};

/// dweight[c] += sum over rows of dy * x * inverse_rms, one "row" of the kernel a column. Rows are added in order.
template <class Real>
struct RmsNormWeightGradient {
  View<const Real, 2> x;
  View<const Real, 2> dy;
  View<const Real> inverse_rms;
  View<Real> dweight;

  template <Team T>
  GUILD_HD void operator()(T team, Index column) const {
    const Real sum = team.sum(x.rows, [&](Index t) {
      return dy.data[t * dy.pitch + column] * x.data[t * x.pitch + column] * inverse_rms.data[t];
    });
    if (team.rank() == 0) dweight.data[column] += sum;
  }
};

}  // namespace guild::inline v1
