// The normal distribution inside row kernels: one body that compilers turn into vectors, where a call of the library
// would not.
#pragma once

#include <cmath>

#include <guild/core/types.hpp>
#include <guild/ops/common/exponential.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// The share of a standard normal distribution below z, 0.5 erfc(-z / sqrt(2)), to 1e-6 of its value where that is
/// above 1e-7 (Chebyshev approximation of erfc: Numerical Recipes in C, 2nd edition, section 6.2). In double (gradient
/// checks) the library's.
GUILD_HD inline float normal_below(float z) {
  const float x = (z < 0.0f ? -z : z) * 0.70710678118f, t = 1.0f / (1.0f + 0.5f * x);
  float p = 0.17087277f;
  p = p * t - 0.82215223f;
  p = p * t + 1.48851587f;
  p = p * t - 1.13520398f;
  p = p * t + 0.27886807f;
  p = p * t - 0.18628806f;
  p = p * t + 0.09678418f;
  p = p * t + 0.37409196f;
  p = p * t + 1.00002368f;
  p = p * t - 1.26551223f;
  const float tail = 0.5f * t * exponential(p - x * x);  // beyond |z|
  return z < 0.0f ? tail : 1.0f - tail;
}
GUILD_HD inline double normal_below(double z) { return 0.5 * std::erfc(-z * 0.70710678118654752); }

/// The density of a standard normal distribution at z.
template <class Real>
GUILD_HD inline Real normal_density(Real z) {
  return Real(0.39894228040143268) * exponential(Real(-0.5) * z * z);
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
