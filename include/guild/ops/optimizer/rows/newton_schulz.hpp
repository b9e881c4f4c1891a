// The elementwise parts of a Muon step: momentum, scaling, polynomial, transposition, and the change of the weights.
#pragma once

#include <cmath>
#include <guild/ops/common/pieces.hpp>

namespace guild {
inline namespace v1 {

/// With g the scaled gradient: b = momentum b + g, update = g + momentum b (Nesterov's form).
template <class Real>
struct MomentumJob {
  View<const Real> gradient;
  View<Real> buffer;  ///< b
  View<Real> update;
  Real gradient_scale = 1;
  Real momentum = 0;

  [[nodiscard]] GUILD_HD Index pieces() const { return pieces_of(gradient.size); }

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const PieceRange range = piece_range(piece, gradient.size);
    const Real* const dw = gradient.data + range.begin;
    Real* const b = buffer.data + range.begin;
    Real* const out = update.data + range.begin;
    const Real scale = gradient_scale, keep = momentum;
    team.for_each(range.count, [=](Index i) {
      const Real g = dw[i] * scale;
      const Real sum = keep * b[i] + g;
      b[i] = sum;
      out[i] = g + keep * sum;
    });
  }
};

/// weight -= decay weight + rate update.
template <class Real>
struct DescendJob {
  View<Real> weight;
  View<const Real> update;
  Real rate = 0;
  Real decay = 0;

  [[nodiscard]] GUILD_HD Index pieces() const { return pieces_of(weight.size); }

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const PieceRange range = piece_range(piece, weight.size);
    Real* const w = weight.data + range.begin;
    const Real* const u = update.data + range.begin;
    const Real step = rate, shrink = decay;
    team.for_each(range.count, [=](Index i) { w[i] -= shrink * w[i] + step * u[i]; });
  }
};

/// y = x / (sqrt(squares[0]) + epsilon): a matrix of Frobenius norm about 1.
template <class Real>
struct NormalizeJob {
  View<const Real> x;
  View<Real> y;
  View<const double> squares;  ///< [1]: the sum of x^2
  double epsilon = 0;

  [[nodiscard]] GUILD_HD Index pieces() const { return pieces_of(x.size); }

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const PieceRange range = piece_range(piece, x.size);
    const Real* const in = x.data + range.begin;
    Real* const out = y.data + range.begin;
    const auto scale = static_cast<Real>(1.0 / (std::sqrt(squares.data[0]) + epsilon));
    team.for_each(range.count, [=](Index i) { out[i] = in[i] * scale; });
  }
};

/// square = a I + b gram + c square, for n x n matrices.
template <class Real>
struct PolynomialJob {
  View<const Real> gram;  ///< [n * n]
  View<Real> square;      ///< [n * n]: gram^2 before
  Index n = 0;
  Real a = 0;
  Real b = 0;
  Real c = 0;

  [[nodiscard]] GUILD_HD Index pieces() const { return pieces_of(gram.size); }

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const PieceRange range = piece_range(piece, gram.size);
    const Real* const g = gram.data + range.begin;
    Real* const s = square.data + range.begin;
    const Real linear = b, quadratic = c, constant = a;
    const Index step = n + 1, to_diagonal = (step - range.begin % step) % step;
    team.for_each(range.count, [=](Index i) { s[i] = linear * g[i] + quadratic * s[i]; });
    team.sync();
    const Index diagonals = range.count > to_diagonal ? (range.count - to_diagonal + step - 1) / step : 0;
    team.for_each(diagonals, [=](Index k) { s[to_diagonal + k * step] += constant; });
  }
};

/// y = x transposed, tile by tile; x and y do not overlap.
template <class Real>
struct TransposeJob {
  static constexpr Index side = 64, inner = 8;  // an inner square of x lies in few enough cache lines for any pitch
  static_assert(side * side == piece_elements);
  View<const Real, 2> x;  ///< [rows, cols]
  View<Real, 2> y;        ///< [cols, rows]

  [[nodiscard]] GUILD_HD Index across() const { return (x.cols + side - 1) / side; }
  [[nodiscard]] GUILD_HD Index pieces() const { return (x.rows + side - 1) / side * across(); }

  template <Team T>
  GUILD_HD void operator()(T team, Index piece) const {
    const Index top = piece / across() * side, left = piece % across() * side;
    constexpr Index squares = side / inner;
    const View<const Real, 2> in = x;
    const View<Real, 2> out = y;
    team.for_each(squares * squares, [=](Index i) {
      const Index row = top + i / squares * inner, col = left + i % squares * inner;
      const Index row_end = row + inner < in.rows ? row + inner : in.rows;
      const Index col_end = col + inner < in.cols ? col + inner : in.cols;
      for (Index c = col; c < col_end; ++c)
        for (Index r = row; r < row_end; ++r) out.data[c * out.pitch + r] = in.data[r * in.pitch + c];
    });
  }
};

}  // namespace v1
}  // namespace guild
