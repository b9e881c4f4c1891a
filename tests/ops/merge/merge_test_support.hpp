// A plan made by hand or at random, for tests of merging and inflation.
#pragma once

#include <guild/cpu.hpp>
#include <span>

#include "../gradient_check.hpp"

namespace guild_test {

/// Runs one job of a front door.
template <class Job, class Device, class Operation>
void run_one(Device& device, const Job& job, Operation&& operation) {
  operation(device, std::span<const Job>(&job, 1));
}

/// Which tokens of a sequence close a group, and what follows from it.
struct Groups {
  std::vector<std::int32_t> first, last, marked, slot, single, closes;

  /// Groups of these lengths, and `tail` tokens of none behind them.
  Groups(const std::vector<Index>& lengths, Index tail) {
    std::int32_t next = 0;
    for (const Index length : lengths) {
      for (Index i = 0; i < length; ++i) {
        const bool closing = i + 1 == length;
        slot.push_back(static_cast<std::int32_t>(first.size()) - (closing ? 0 : 1));
        single.push_back(length == 1 ? 1 : 0);
        closes.push_back(closing ? 1 : 0);
      }
      first.push_back(next);
      next += static_cast<std::int32_t>(length);
      last.push_back(next - 1);
      marked.push_back(0);
    }
    for (Index i = 0; i < tail; ++i) {
      slot.push_back(static_cast<std::int32_t>(first.size()) - 1);
      single.push_back(0);
      closes.push_back(0);
    }
  }
  [[nodiscard]] Index slots() const { return static_cast<Index>(first.size()); }
  [[nodiscard]] Index tokens() const { return static_cast<Index>(slot.size()); }
};

/// How many tokens of its group there are up to each token, of groups of these lengths.
inline std::vector<std::int32_t> counts_of(const std::vector<std::int32_t>& lengths) {
  std::vector<std::int32_t> counts;
  for (const std::int32_t length : lengths)
    for (std::int32_t i = 1; i <= length; ++i) counts.push_back(i);
  return counts;
}

template <class Real>
Matrix<Real> random_matrix(std::mt19937& random, Index rows, Index cols, Index spare = 1) {
  Matrix<Real> out(rows, cols, cols + spare);
  out.fill_normal(random);
  return out;
}

/// Rows by position in a ring, of those before `length` the last.
template <class Real>
Matrix<Real> in_ring(const Matrix<Real>& rows, guild::RingRows ring, Index length) {
  Matrix<Real> out(ring.pinned + ring.rows, rows.cols, rows.cols + 2);
  for (Index t = 0; t < length; ++t)
    for (Index c = 0; c < rows.cols; ++c) out(ring.row_of(t), c) = rows(t, c);
  return out;
}

}  // namespace guild_test
