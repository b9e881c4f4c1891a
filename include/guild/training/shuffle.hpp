// A new order of the samples for every epoch, computed and not stored.
#pragma once

#include <bit>
#include <cstdint>
#include <string>

#include <guild/core/error.hpp>
#include <guild/core/random.hpp>
#include <guild/core/view.hpp>

namespace guild::inline v1 {

/// Another seed for each use of one, so that no two uses share their numbers.
[[nodiscard]] inline std::uint64_t derive_seed(std::uint64_t seed, std::uint64_t use) {
  const Philox::Block words = Philox::words(
      {static_cast<std::uint32_t>(use), static_cast<std::uint32_t>(use >> 32), 0x64657269U, 0x76655F73U}, seed);
  return std::uint64_t{words[0]} << 32 | words[1];
}

/// A bijection of 0..size-1 in O(1) memory: a Feistel network (Luby and Rackoff, "How to construct pseudorandom
/// permutations from pseudorandom functions", SIAM J. Comput. 17, 1988) of Philox words over the next power of four,
/// with cycle walking (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002): what falls outside is
/// mapped again until it falls inside. Fewer than four rounds of walking on average.
class Permutation {
 public:
  /// Throws in_param for a negative size.
  Permutation(Index size, std::uint64_t seed, std::uint64_t epoch = 0) : size_(size), seed_(seed), epoch_(epoch) {
    if (size < 0)
      throw Error(ErrorCode::in_param, "a permutation of " + std::to_string(size) + " samples; expected 0 or more");
    const int bits = size > 1 ? static_cast<int>(std::bit_width(static_cast<std::uint64_t>(size - 1))) : 0;
    half_ = (bits + 1) / 2;
  }

  [[nodiscard]] Index size() const { return size_; }
  /// Where position i (0 <= i < size) of this epoch leads.
  [[nodiscard]] Index operator()(Index i) const {
    if (size_ <= 1) return i;
    auto value = static_cast<std::uint64_t>(i);
    do value = mix(value);
    while (value >= static_cast<std::uint64_t>(size_));
    return static_cast<Index>(value);
  }

 private:
  static constexpr std::uint32_t rounds_ = 8;

  [[nodiscard]] std::uint64_t mix(std::uint64_t value) const {
    const std::uint64_t mask = (std::uint64_t{1} << half_) - 1;
    auto left = static_cast<std::uint32_t>(value >> half_), right = static_cast<std::uint32_t>(value & mask);
    for (std::uint32_t round = 0; round < rounds_; ++round) {
      const std::uint32_t word = Philox::words(
          {right, round, static_cast<std::uint32_t>(epoch_), static_cast<std::uint32_t>(epoch_ >> 32)}, seed_)[0];
      const auto next = static_cast<std::uint32_t>(left ^ (word & mask));
      left = right;
      right = next;
    }
    return std::uint64_t{left} << half_ | right;
  }

  Index size_;
  std::uint64_t seed_, epoch_;
  int half_ = 0;  // bits of each half
};

}  // namespace guild::inline v1
