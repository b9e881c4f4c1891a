// The weights of one token's residual streams by a team, and their gradients back through the Sinkhorn rounds.
#pragma once

#include <cmath>
#include <guild/device/team.hpp>
#include <guild/ops/common/exponential.hpp>

namespace guild {
inline namespace v1 {

/// What the kernels below know besides their views.
template <class Real>
struct StreamNumbers {
  Real norm_epsilon;  ///< of the root mean square; not read on the way back
  Real epsilon;       ///< added to weights and to the sums that are divided by
  int rounds;         ///< how often columns are normalised; rows once less
};

namespace detail {

template <class Real>
GUILD_HD inline Real logistic(Real z) {
  return Real(1) / (Real(1) + exponential(-z));
}

/// The weights of `Streams` residual streams: [pre | post | comb], or pre alone where they end (`All` false).
template <class Real, int Streams, bool All>
struct StreamWeights {
  static constexpr int count = All ? (2 + Streams) * Streams : Streams, groups = All ? 3 : 1;

  /// Which scale belongs to a weight.
  GUILD_HD static constexpr int group(int weight) { return weight < Streams ? 0 : weight < 2 * Streams ? 1 : 2; }

  /// Half-steps of Sinkhorn's algorithm for `rounds`: columns, then rows and columns in turn.
  GUILD_HD static constexpr int steps(int rounds) { return 2 * rounds - 1; }
  /// Line `line` of a step begins here, and its elements are so far apart: columns are first.
  struct Line {
    int first, stride;
    GUILD_HD Line(int step, Index line)
        : first(static_cast<int>(line) * (step % 2 == 0 ? 1 : Streams)), stride(step % 2 == 0 ? Streams : 1) {}
    GUILD_HD int operator[](int k) const { return first + k * stride; }
  };

  /// comb, a matrix of logits, becomes what its rows' softmax plus epsilon is.
  template <Team T, class Logit>
  GUILD_HD static void soften(T team, const Logit& logit, Real* comb, Real epsilon) {
    team.for_each(Streams, [=](Index r) {
      const int first = static_cast<int>(r) * Streams;
      Real peak = logit(first), total = Real(0);
      for (int s = 1; s < Streams; ++s) peak = logit(first + s) > peak ? logit(first + s) : peak;
      for (int s = 0; s < Streams; ++s) total += comb[first + s] = exponential(logit(first + s) - peak);
      for (int s = 0; s < Streams; ++s) comb[first + s] = comb[first + s] / total + epsilon;
    });
  }

  /// Sinkhorn's rounds in place. Sums that were divided by go to divisors [steps, Streams] where that has data.
  template <Team T>
  GUILD_HD static void normalise(T team, Real* comb, Real* divisors, const StreamNumbers<Real>& numbers) {
    const Real epsilon = numbers.epsilon;
    for (int step = 0; step < steps(numbers.rounds); ++step) {
      team.sync();
      team.for_each(Streams, [=](Index l) {
        const Line line(step, l);
        Real sum = epsilon;
        for (int k = 0; k < Streams; ++k) sum += comb[line[k]];
        if (divisors != nullptr) divisors[step * Streams + l] = sum;
        for (int k = 0; k < Streams; ++k) comb[line[k]] /= sum;
      });
    }
    team.sync();
  }

  /// The way back: comb is what `normalise` made and becomes what it was given; dcomb likewise, the gradients. With
  /// b = a / d and d = sum a + epsilon of a line: da = (db - sum db b) / d.
  template <Team T>
  GUILD_HD static void walk_back(T team, Real* comb, Real* dcomb, const Real* divisors, int rounds) {
    for (int step = steps(rounds); step-- > 0;) {
      team.sync();
      team.for_each(Streams, [=](Index l) {
        const Line line(step, l);
        const Real divisor = divisors[step * Streams + l];
        Real along = Real(0);
        for (int k = 0; k < Streams; ++k) along += dcomb[line[k]] * comb[line[k]];
        for (int k = 0; k < Streams; ++k) {
          dcomb[line[k]] = (dcomb[line[k]] - along) / divisor;
          comb[line[k]] *= divisor;
        }
      });
    }
    team.sync();
  }
};

}  // namespace detail

/// The weights of a token's streams: see `stream_weights`.
template <class Real, int Streams, bool All>
struct StreamWeightsRow {
  using Of = detail::StreamWeights<Real, Streams, All>;

  View<const Real, 2> x;         ///< [T, Streams * D]
  View<const Real, 2> products;  ///< [T, count]: x times the projection
  View<const Real> bias;         ///< [count]
  View<const Real> scale;        ///< [groups]
  StreamNumbers<Real> numbers;
  View<Real> roots;       ///< [T]: 1 / the root mean square of x
  View<Real, 2> weights;  ///< [T, count]

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Real* const in = x.data + row * x.pitch;
    const Real squares = team.sum(x.cols, [in](Index i) { return in[i] * in[i]; });
    const Real root = Real(1) / std::sqrt(squares / static_cast<Real>(x.cols) + numbers.norm_epsilon);
    if (team.rank() == 0) roots.data[row] = root;
    const Real* const product = products.data + row * products.pitch;
    const Real *const more = bias.data, *const factor = scale.data;
    Real* const weight = weights.data + row * weights.pitch;
    const Real epsilon = numbers.epsilon;
    const auto logit = [=](int m) { return product[m] * root * factor[Of::group(m)] + more[m]; };
    team.for_each(Streams, [=](Index s) { weight[s] = detail::logistic(logit(static_cast<int>(s))) + epsilon; });
    if constexpr (All) {
      constexpr int post = Streams, comb = 2 * Streams;
      team.for_each(Streams,
                    [=](Index s) { weight[post + s] = Real(2) * detail::logistic(logit(post + static_cast<int>(s))); });
      Of::soften(
          team, [=](int m) { return logit(comb + m); }, weight + comb, epsilon);
      Of::normalise(team, weight + comb, nullptr, numbers);
    }
  }
};

/// From the gradients of the weights to those of all they come from: see `stream_weights_backward`. With z = scale r p
/// + bias of a product p and r = 1 / sqrt(mean x^2 + epsilon): dp = dz scale r, dscale = sum dz r p, dr = sum dz scale
/// p, and dx = -x r^3 / D dr. The rounds are computed again, and walked back by the sums that they divided by.
template <class Real, int Streams, bool All>
struct StreamWeightsBackwardRow {
  using Of = detail::StreamWeights<Real, Streams, All>;
  static constexpr int square = Streams * Streams;
  /// Of a token: two matrices, and the divisors.
  GUILD_HD static constexpr Index work_size(int rounds) {
    return All ? Index{2} * square + Index{Of::steps(rounds)} * Streams : 0;
  }

  View<const Real, 2> x, products;
  View<const Real> roots, bias, scale;
  StreamNumbers<Real> numbers;
  View<Real, 2> work;       ///< [T, work_size]
  View<Real, 2> dlogits;    ///< [T, count]: on entry the gradients of the weights, afterwards of the logits z
  View<Real, 2> dproducts;  ///< [T, count]
  View<Real, 2> dscale;     ///< [T, groups]
  View<Real, 2> dx;         ///< [T, Streams * D], added to

  template <Team T>
  GUILD_HD void operator()(T team, Index row) const {
    const Real* const product = products.data + row * products.pitch;
    const Real *const more = bias.data, *const factor = scale.data;
    const Real root = roots.data[row];
    Real* const dlogit = dlogits.data + row * dlogits.pitch;
    Real* const dproduct = dproducts.data + row * dproducts.pitch;
    const auto logit = [=](int m) { return product[m] * root * factor[Of::group(m)] + more[m]; };
    team.for_each(All ? 2 * Streams : Streams, [=](Index m) {
      const Real s = detail::logistic(logit(static_cast<int>(m)));
      dlogit[m] *= (m < Streams ? Real(1) : Real(2)) * s * (Real(1) - s);
    });
    if constexpr (All) derive_matrix(team, logit, dlogit + 2 * Streams, work.data + row * work.pitch);
    team.for_each(Of::count, [=](Index m) { dproduct[m] = dlogit[m] * factor[Of::group(static_cast<int>(m))] * root; });
    team.sync();
    // Sums over the few weights: by every member alike, in their order.
    Real droot = Real(0);
    for (int m = 0; m < Of::count; ++m) droot += dlogit[m] * factor[Of::group(m)] * product[m];
    if (team.rank() == 0) {
      Real* const sum = dscale.data + row * dscale.pitch;
      for (int g = 0; g < Of::groups; ++g) sum[g] = Real(0);
      for (int m = 0; m < Of::count; ++m) sum[Of::group(m)] += dlogit[m] * root * product[m];
    }
    const Real pull = droot * root * root * root / static_cast<Real>(x.cols);
    const Real* const in = x.data + row * x.pitch;
    Real* const to = dx.data + row * dx.pitch;
    team.for_each(x.cols, [=](Index i) { to[i] -= in[i] * pull; });
  }

 private:
  /// dmatrix: of the finished matrix on entry, of its logits afterwards.
  template <Team T, class Logit>
  GUILD_HD void derive_matrix(T team, const Logit& logit, Real* dmatrix, Real* memory) const {
    Real *const comb = memory, *const soft = memory + square, *const divisors = memory + 2 * square;
    const auto of_matrix = [=](int m) { return logit(2 * Streams + m); };
    Of::soften(team, of_matrix, comb, numbers.epsilon);
    Of::soften(team, of_matrix, soft, Real(0));
    Of::normalise(team, comb, divisors, numbers);
    Of::walk_back(team, comb, dmatrix, divisors, numbers.rounds);
    team.for_each(Streams, [=](Index r) {
      const int first = static_cast<int>(r) * Streams;
      Real along = Real(0);
      for (int s = 0; s < Streams; ++s) along += soft[first + s] * dmatrix[first + s];
      for (int s = 0; s < Streams; ++s) dmatrix[first + s] = soft[first + s] * (dmatrix[first + s] - along);
    });
    team.sync();
  }
};

}  // namespace v1
}  // namespace guild
