// Ragged batches from pieces of sequences, and matrices to compare.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include <guild/core/random.hpp>
#include <guild/core/view.hpp>
#include <guild/modules/batch.hpp>

namespace guild_test {

using guild::Index;
using Tokens = std::vector<std::int32_t>;

/// A row-major matrix of its own.
struct Matrix {
  Index rows = 0, cols = 0;
  std::vector<float> values{};

  Matrix() = default;
  Matrix(Index rows_, Index cols_) : rows(rows_), cols(cols_), values(static_cast<std::size_t>(rows_ * cols_)) {}
  [[nodiscard]] guild::View<float, 2> view() { return {values.data(), rows, cols}; }
  [[nodiscard]] guild::View<const float, 2> view() const { return {values.data(), rows, cols}; }
  [[nodiscard]] Matrix middle_rows(Index begin, Index count) const {
    Matrix out(count, cols);
    std::copy_n(values.begin() + begin * cols, count * cols, out.values.begin());
    return out;
  }
  void append(const Matrix& more) {
    cols = more.cols;
    rows += more.rows;
    values.insert(values.end(), more.values.begin(), more.values.end());
  }
};

/// Equal in every bit.
inline bool same_bits(const Matrix& a, const Matrix& b) {
  return a.rows == b.rows && a.cols == b.cols &&
         (a.values.empty() || std::memcmp(a.values.data(), b.values.data(), a.values.size() * 4) == 0);
}

/// The largest difference, relative to the largest magnitude of the expected values. NaN counts as infinite.
inline double relative_error(std::span<const float> found, std::span<const float> expected) {
  if (found.size() != expected.size() || found.empty()) return INFINITY;
  double worst = 0.0, largest = 0.0;
  for (std::size_t i = 0; i < found.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(found[i]) - static_cast<double>(expected[i]));
    if (!std::isfinite(difference)) return INFINITY;
    worst = std::max(worst, difference);
    largest = std::max(largest, std::fabs(static_cast<double>(expected[i])));
  }
  return worst / largest;
}
inline double relative_error(const Matrix& found, const Matrix& expected) {
  if (found.rows != expected.rows || found.cols != expected.cols) return INFINITY;
  return relative_error(std::span<const float>(found.values), std::span<const float>(expected.values));
}

inline Tokens random_tokens(Index count, int vocab, std::uint64_t seed) {
  guild::Random random(seed, 0x746f6b656e73);
  Tokens tokens(static_cast<std::size_t>(count));
  for (std::int32_t& token : tokens) token = static_cast<std::int32_t>(random.uniform() * vocab);
  return tokens;
}

/// Tokens [begin, end) of a sequence.
struct Piece {
  int sequence = 0;
  const Tokens* tokens = nullptr;
  Index begin = 0, end = 0;
};

/// The pieces as one batch.
struct Flat {
  Tokens tokens{}, positions{};
  std::vector<guild::Chunk> chunks{};

  explicit Flat(const std::vector<Piece>& pieces) {
    for (const Piece& piece : pieces) {
      chunks.push_back({piece.sequence, static_cast<Index>(tokens.size()), piece.end - piece.begin, piece.begin});
      for (Index i = piece.begin; i < piece.end; ++i) {
        tokens.push_back((*piece.tokens)[static_cast<std::size_t>(i)]);
        positions.push_back(static_cast<std::int32_t>(i));
      }
    }
  }
  [[nodiscard]] guild::Batch batch() const {
    const auto size = static_cast<Index>(tokens.size());
    return {{tokens.data(), size}, {positions.data(), size}, chunks};
  }
};

}  // namespace guild_test
