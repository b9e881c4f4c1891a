// Random data and double references for tests of operations.
#pragma once

#include <cmath>
#include <cstdint>
#include <guild/core/view.hpp>
#include <random>
#include <type_traits>
#include <vector>

#include "../core/code_of.hpp"

namespace guild_test {

using guild::Index;
using guild::View;

/// A matrix with a pitch of its own; columns beyond `cols` hold a canary that `padding_is_untouched` looks for.
template <class Real>
struct Matrix {
  Index rows, cols, pitch;
  std::vector<Real> data;
  static constexpr Real canary = [] {
    if constexpr (std::is_unsigned_v<Real>)
      return static_cast<Real>(12345);
    else
      return Real(-12345.0);
  }();

  Matrix(Index rows_, Index cols_, Index pitch_)
      : rows(rows_), cols(cols_), pitch(pitch_), data(static_cast<std::size_t>(rows_ * pitch_ + 1), canary) {}
  Matrix(Index rows_, Index cols_) : Matrix(rows_, cols_, cols_) {}

  Real& operator()(Index r, Index c) { return data[static_cast<std::size_t>(r * pitch + c)]; }
  const Real& operator()(Index r, Index c) const { return data[static_cast<std::size_t>(r * pitch + c)]; }
  View<Real, 2> view() { return {data.data(), rows, cols, pitch}; }
  View<const Real, 2> view() const { return {data.data(), rows, cols, pitch}; }
  [[nodiscard]] bool padding_is_untouched() const {
    for (Index r = 0; r < rows; ++r)
      for (Index c = cols; c < pitch; ++c)
        if ((*this)(r, c) != canary) return false;
    return data.back() == canary;
  }
  void fill_normal(std::mt19937& random, double deviation = 1.0) {
    std::normal_distribution<double> normal(0.0, deviation);
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < cols; ++c) (*this)(r, c) = static_cast<Real>(normal(random));
  }
};

template <class Real>
std::vector<Real> normal_vector(std::mt19937& random, Index size, double deviation = 1.0) {
  std::normal_distribution<double> normal(0.0, deviation);
  std::vector<Real> out(static_cast<std::size_t>(size));
  for (auto& value : out) value = static_cast<Real>(normal(random));
  return out;
}

template <class T>
View<const T> view_of(const std::vector<T>& v) {
  return {v.data(), static_cast<Index>(v.size())};
}
template <class T>
View<T> view_of(std::vector<T>& v) {
  return {v.data(), static_cast<Index>(v.size())};
}

}  // namespace guild_test
