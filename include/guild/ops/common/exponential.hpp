// The exponential inside row kernels: one body that compilers turn into vectors, where a call of the library would not.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include <guild/core/types.hpp>

namespace guild {
inline namespace v1 {
namespace detail {

/// e^x in float, to 2 units in the last place for -87 <= x <= 88 (x = n ln 2 + r, a polynomial in r, n into the
/// exponent). Below it is e^-87 or a little more and never 0, above e^88: for ratios in which both are as good. NaN
/// stays NaN. In double (gradient checks) the library's.
GUILD_HD inline float exponential(float x) {
#if defined(__CUDA_ARCH__)
  return std::exp(x);
#else
  x = x < -87.0f ? -87.0f : x;
  x = x > 88.0f ? 88.0f : x;
  constexpr float shift = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest whole number in the low bits
  const float shifted = x * 1.44269504089f + shift;
  const float n = shifted - shift;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;  // minimax on [-ln 2 / 2, ln 2 / 2]
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  const float power = p * r * r + r + 1.0f;
  const std::uint32_t exponent = (std::bit_cast<std::uint32_t>(shifted) + 127U) << 23;
  return power * std::bit_cast<float>(exponent);
#endif
}
GUILD_HD inline double exponential(double x) { return std::exp(x); }

}  // namespace detail
}  // namespace v1
}  // namespace guild
