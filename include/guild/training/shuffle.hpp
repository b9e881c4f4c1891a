// A new order of the samples for every epoch, computed and not stored.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include <guild/core/error.hpp>
#include <guild/core/random.hpp>
#include <guild/core/refuse.hpp>
#include <guild/core/view.hpp>

namespace guild {
inline namespace v1 {

/// Another seed for each use of one, so that no two uses share their numbers.
[[nodiscard]] inline std::uint64_t derive_seed(std::uint64_t seed, std::uint64_t use) {
  const Philox::Block words = Philox::words(
      {static_cast<std::uint32_t>(use), static_cast<std::uint32_t>(use >> 32), 0x64657269U, 0x76655F73U}, seed);
  return std::uint64_t{words[0]} << 32 | words[1];
}

/// A bijection of 0..size-1 in O(1) memory: a generalised Feistel network of Philox words over a rectangle of about
/// sqrt(size) by sqrt(size), with cycle walking: what falls outside is mapped again until it falls inside, which is
/// rarely needed (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, methods 2 and 3).
class Permutation {
 public:
  /// Throws in_param for a negative size.
  Permutation(Index size, std::uint64_t seed, std::uint64_t epoch = 0) : size_(size), seed_(seed), epoch_(epoch) {
    if (size < 0) detail::refuse(ErrorCode::in_param, {"a permutation of ", size, " samples; expected 0 or more"});
    const auto cells = static_cast<std::uint64_t>(size);
    width_ = static_cast<std::uint64_t>(std::sqrt(static_cast<double>(size)));
    while (width_ * width_ < cells) ++width_;
    height_ = width_ == 0 ? 0 : (cells + width_ - 1) / width_;
    // Each round chooses among few permutations if the rectangle is small: 16 show a preference at six samples.
    rounds_ = size <= 1024 ? 24 : 10;
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
  [[nodiscard]] std::uint64_t mix(std::uint64_t value) const {
    std::uint64_t column = value % width_, row = value / width_;  // both below 2^32
    for (std::uint32_t round = 0; round < rounds_; round += 2) {
      column = shifted(column, row, round, width_);
      row = shifted(row, column, round + 1, height_);
    }
    return row * width_ + column;
  }
  // `place` moved round a circle of `size` by a random step that depends on the other coordinate.
  [[nodiscard]] std::uint64_t shifted(std::uint64_t place, std::uint64_t other, std::uint32_t round,
                                      std::uint64_t size) const {
    const std::uint64_t word =
        Philox::words({static_cast<std::uint32_t>(other), round, static_cast<std::uint32_t>(epoch_),
                       static_cast<std::uint32_t>(epoch_ >> 32)},
                      seed_)[0];
    const std::uint64_t moved = place + (word * size >> 32);
    return moved < size ? moved : moved - size;
  }

  Index size_;
  std::uint64_t seed_, epoch_;
  std::uint64_t width_ = 0, height_ = 0;
  std::uint32_t rounds_ = 0;
};

}  // namespace v1
}  // namespace guild
