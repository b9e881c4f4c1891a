// Counter-based random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
#pragma once

#include <array>
#include <cstdint>

#include <guild/core/types.hpp>

namespace guild {
inline namespace v1 {

/// Four 32-bit words from a 128-bit counter and a 64-bit key. The same numbers on every device, in any order.
struct Philox {
  using Block = std::array<std::uint32_t, 4>;

  [[nodiscard]] GUILD_HD static constexpr Block words(Block counter, std::uint64_t key) {
    auto key0 = static_cast<std::uint32_t>(key), key1 = static_cast<std::uint32_t>(key >> 32);
    for (int round = 0; round < 10; ++round) {
      const std::uint64_t a = std::uint64_t{0xD2511F53U} * counter[0], b = std::uint64_t{0xCD9E8D57U} * counter[2];
      counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key0, static_cast<std::uint32_t>(b),
                 static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key1, static_cast<std::uint32_t>(a)};
      key0 += 0x9E3779B9U;
      key1 += 0xBB67AE85U;
    }
    return counter;
  }
};

/// A reproducible stream of numbers: (seed, stream) names it, a counter walks it.
class Random {
 public:
  explicit Random(std::uint64_t seed, std::uint64_t stream = 0) : seed_(seed), stream_(stream) {}

  /// The next 32 bits.
  std::uint32_t bits() {
    if (used_ == 4) {
      block_ = Philox::words({static_cast<std::uint32_t>(counter_), static_cast<std::uint32_t>(counter_ >> 32),
                              static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)}, seed_);
      ++counter_;
      used_ = 0;
    }
    return block_[static_cast<std::size_t>(used_++)];
  }
  /// Uniform in [0, 1), 53 bits.
  double uniform() {
    const std::uint64_t high = bits() >> 5, low = bits() >> 6;
    return static_cast<double>(high << 26 | low) * 0x1p-53;
  }

 private:
  std::uint64_t seed_, stream_, counter_ = 0;
  Philox::Block block_{};
  int used_ = 4;
};

}  // namespace v1
}  // namespace guild
