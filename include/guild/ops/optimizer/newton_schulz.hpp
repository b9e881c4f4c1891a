// Orthogonalisation by the Newton-Schulz iteration (Muon, kellerjordan.github.io/posts/muon; arXiv 2502.16982, eq. 2).
#pragma once

#include <algorithm>
#include <guild/ops/common/shape_check.hpp>
#include <guild/ops/linear/linear.hpp>
#include <guild/ops/optimizer/rows/newton_schulz.hpp>
#include <guild/ops/optimizer/rows/sum_of_squares.hpp>

namespace guild {
inline namespace v1 {

/// A matrix that `orthogonalize` replaces; its rows lie one after the other (pitch = cols).
using OrthogonalizeJob = View<float, 2>;

/// Floats of scratch that a matrix of this shape needs in `orthogonalize`, apart from some hundred bytes a job.
[[nodiscard]] constexpr Index orthogonalize_scratch(Index rows, Index cols) {
  const Index n = std::min(rows, cols);
  return 2 * rows * cols + 2 * n * n;
}

namespace detail {

/// The matrices of one job. `wide` [n, m] and `tall` [m, n], n <= m, hold the same matrix X and X^T.
struct NewtonSchulz {
  View<float, 2> x;
  Index n, m;
  float* wide;
  float* tall;
  View<float, 2> gram, square;
};

inline WeightView weight_of(const float* data, Index rows, Index cols) { return {DType::f32, data, rows, cols}; }

}  // namespace detail

/// Replaces each matrix U by about the nearest semi-orthogonal one: X = U / (|U|_F + 1e-7), then `iterations` times
/// X = a X + (b A + c A^2) X with A = X X^T and (a, b, c) = (3.4445, -4.7750, 2.0315); a matrix with more rows than
/// columns is done transposed. After 5 iterations singular values that were not tiny lie between about 0.68 and 1.2.
/// Everything in float; results depend neither on threads nor on the other jobs. Throws op_shape or op_argument before
/// anything changed.
template <class Device>
void orthogonalize(Device& device, std::span<const OrthogonalizeJob> matrices, int iterations) {
  constexpr float a = 3.4445f, b = -4.7750f, c = 2.0315f;
  constexpr double epsilon = 1e-7;
  detail::require(iterations >= 1, "orthogonalize needs at least one iteration; five are usual", "orthogonalize");
  for (const auto& x : matrices) {
    detail::require_shape(x, x.rows, x.cols, "orthogonalize: matrix");
    detail::require(x.pitch == x.cols, "the rows of a matrix must lie one after the other", "orthogonalize: matrix");
  }
  auto scratch = device.scratch();
  const auto count = static_cast<Index>(matrices.size());
  const View states = scratch.template take<detail::NewtonSchulz>(count);
  const View squares = scratch.template take<double>(count);
  const View products = scratch.template take<LinearJob>(count);
  const View sums = scratch.template take<SumOfSquaresJob<float>>(count);
  const View totals = scratch.template take<SumOfPartialsJob>(count);
  const View scales = scratch.template take<NormalizeJob<float>>(count);
  const View polynomials = scratch.template take<PolynomialJob<float>>(count);
  const View transposes = scratch.template take<TransposeJob<float>>(count);
  const auto size = static_cast<std::size_t>(count);
  const auto run_products = [&] { linear(device, std::span<const LinearJob>(products.data, size)); };
  const auto run = [&]<class Job>(View<Job> jobs) { for_each_piece(device, std::span<const Job>(jobs.data, size)); };

  for (Index i = 0; i < count; ++i) {
    const View<float, 2> x = matrices[static_cast<std::size_t>(i)];
    const Index n = std::min(x.rows, x.cols), m = std::max(x.rows, x.cols), elements = n * m;
    float* const wide = scratch.template take<float>(elements).data;
    float* const tall = scratch.template take<float>(elements).data;
    states[i] = {x, n, m, wide, tall, scratch.template take<float>(n, n), scratch.template take<float>(n, n)};
    sums[i] = {{x.data, elements}, scratch.template take<double>(pieces_of(elements))};
    totals[i] = {sums[i].partial, squares.slice(i, 1)};
    scales[i] = {{x.data, elements}, {x.rows > x.cols ? tall : wide, elements}, squares.slice(i, 1), epsilon};
    polynomials[i] = {{states[i].gram.data, n * n}, {states[i].square.data, n * n}, n, a, b, c};
    if (x.rows > x.cols)
      transposes[i] = {{tall, m, n}, {wide, n, m}};
    else
      transposes[i] = {{wide, n, m}, {tall, m, n}};
  }
  run(sums);
  run(totals);
  run(scales);
  for (int iteration = 0; iteration < iterations; ++iteration) {
    run(transposes);
    for (Index i = 0; i < count; ++i) {  // A = X X^T
      const auto& s = states[i];
      products[i] = {detail::weight_of(s.wide, s.n, s.m), {s.wide, s.n, s.m}, s.gram};
    }
    run_products();
    for (Index i = 0; i < count; ++i) {  // A^2 = A A^T: A is symmetric
      const auto& s = states[i];
      products[i] = {detail::weight_of(s.gram.data, s.n, s.n), s.gram, s.square};
    }
    run_products();
    run(polynomials);
    const bool last = iteration + 1 == iterations;
    for (Index i = 0; i < count; ++i) {
      // With P = a I + b A + c A^2, symmetric: X^T <- X^T P. The new X^T takes the memory of X, which is spent, and the
      // transposition of the next round puts X where X^T was. The last round writes to the matrix itself.
      auto& s = states[i];
      if (!last || s.x.rows > s.x.cols)
        products[i] = {detail::weight_of(s.square.data, s.n, s.n),
                       {s.tall, s.m, s.n},
                       last ? s.x : View<float, 2>(s.wide, s.m, s.n)};
      else
        products[i] = {detail::weight_of(s.tall, s.m, s.n), s.square, s.x};
      std::swap(s.wide, s.tall);
      transposes[i] = {{s.tall, s.m, s.n}, {s.wide, s.n, s.m}};
    }
    run_products();
  }
}

}  // namespace v1
}  // namespace guild
