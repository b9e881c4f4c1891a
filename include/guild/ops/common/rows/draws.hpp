// Random numbers by place: each element of a matrix has its own, whoever computes it, when, and how often.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <guild/core/random.hpp>
#include <guild/core/types.hpp>
#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

namespace detail {
// As those of the library, to 14 digits: bodies that compilers turn into vectors, where a call would not.

/// log(x) of a normal x > 0: x = 2^n m, m from sqrt(1/2) to sqrt(2), and log(m) = 2 artanh((m - 1) / (m + 1)).
GUILD_HD inline double logarithm(double x) {
#if defined(__CUDA_ARCH__)
  return std::log(x);
#else
  constexpr std::uint64_t root_of_half = 0x3FE6A09E667F3BCD, bias = std::uint64_t{1024} << 52;
  const auto bits = std::bit_cast<std::uint64_t>(x);
  const std::uint64_t exponent = (bits - root_of_half + bias) >> 52;  // n + 1024
  const double n = std::bit_cast<double>(exponent | 0x4330000000000000) - 0x1p52 - 1024.0;
  const auto m = std::bit_cast<double>(bits + bias - (exponent << 52));
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  double p = 1.0 / 17.0;
  p = p * z + 1.0 / 15.0;
  p = p * z + 1.0 / 13.0;
  p = p * z + 1.0 / 11.0;
  p = p * z + 1.0 / 9.0;
  p = p * z + 1.0 / 7.0;
  p = p * z + 1.0 / 5.0;
  p = p * z + 1.0 / 3.0;
  return n * 0.6931471805599453 + 2.0 * s * (p * z + 1.0);
#endif
}

/// The root of a normal x > 0, by Newton's iteration for 1 / sqrt(x).
GUILD_HD inline double square_root(double x) {
#if defined(__CUDA_ARCH__)
  return std::sqrt(x);
#else
  auto y = std::bit_cast<double>(0x5FE6EB50C7B537A9 - (std::bit_cast<std::uint64_t>(x) >> 1));
  y = y * (1.5 - 0.5 * x * y * y);
  y = y * (1.5 - 0.5 * x * y * y);
  y = y * (1.5 - 0.5 * x * y * y);
  y = y * (1.5 - 0.5 * x * y * y);
  return x * y;
#endif
}

/// cos(2 pi v), v from 0 to 1: the sine of a quarter of a turn less.
GUILD_HD inline double cosine_of_turn(double v) {
#if defined(__CUDA_ARCH__)
  return std::cos(6.283185307179586 * v);
#else
  const double d = v - 0.5, a = d < 0.0 ? -d : d, t = 6.283185307179586 * (a - 0.25), z = t * t;
  double p = 1.0 / 355687428096000.0;  // 17!
  p = p * z - 1.0 / 1307674368000.0;
  p = p * z + 1.0 / 6227020800.0;
  p = p * z - 1.0 / 39916800.0;
  p = p * z + 1.0 / 362880.0;
  p = p * z - 1.0 / 5040.0;
  p = p * z + 1.0 / 120.0;
  p = p * z - 1.0 / 6.0;
  return t * (p * z + 1.0);
#endif
}

}  // namespace detail

/// The random numbers of one matrix. Element (row, col) has the Philox block of (col, row, layer, purpose) under the
/// seed: no state is kept, so threads, batches and a second computation change nothing. Rows and columns count to 2^32.
struct Draws {
  std::uint64_t seed = 0;
  std::uint32_t layer = 0;
  std::uint32_t purpose = 0;

  /// Uniform in (0, 1).
  [[nodiscard]] GUILD_HD double uniform(Index row, Index col) const { return open_unit(words(row, col)[0]); }
  /// Standard normal, by Box-Muller; |z| < 6.8.
  [[nodiscard]] GUILD_HD double normal(Index row, Index col) const {
    const Philox::Block block = words(row, col);
    return detail::square_root(-2.0 * detail::logarithm(open_unit(block[0]))) *
           detail::cosine_of_turn(open_unit(block[1]));
  }
  /// Gumbel: -log(-log(uniform)); from -3.2 to 22.9.
  [[nodiscard]] GUILD_HD double gumbel(Index row, Index col) const {
    return -detail::logarithm(-detail::logarithm(uniform(row, col)));
  }

 private:
  [[nodiscard]] GUILD_HD Philox::Block words(Index row, Index col) const {
    return Philox::words({static_cast<std::uint32_t>(col), static_cast<std::uint32_t>(row), layer, purpose}, seed);
  }
  [[nodiscard]] GUILD_HD static double open_unit(std::uint32_t word) {
    return (static_cast<double>(word) + 0.5) * 0x1p-32;
  }
};

}  // namespace v1
}  // namespace guild
