// Random numbers by place: each element of a matrix has its own, whoever computes it, when, and how often.
#pragma once

#include <cmath>
#include <cstdint>
#include <guild/core/random.hpp>
#include <guild/core/types.hpp>
#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

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
    return std::sqrt(-2.0 * std::log(open_unit(block[0]))) * std::cos(6.283185307179586 * open_unit(block[1]));
  }
  /// Gumbel: -log(-log(uniform)); from -3.2 to 22.9.
  [[nodiscard]] GUILD_HD double gumbel(Index row, Index col) const { return -std::log(-std::log(uniform(row, col))); }

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
