// Central differences in double, for operations that write gradients.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <guild/core/view.hpp>

#include "ops_test_support.hpp"

namespace guild_test {

/// Compares gradient[i] with (value at x[i] + eps - value at x[i] - eps) / 2 eps for each element of x, which `value()`
/// reads. The bound is 1e-7 + 1e-5 |numerical|.
template <class Value>
void expect_gradient(Matrix<double>& x, const Matrix<double>& gradient, Value&& value, const char* what,
                     double eps = 1e-6) {
  ASSERT_EQ(x.rows, gradient.rows);
  ASSERT_EQ(x.cols, gradient.cols);
  for (Index r = 0; r < x.rows; ++r)
    for (Index c = 0; c < x.cols; ++c) {
      const double kept = x(r, c);
      x(r, c) = kept + eps;
      const double above = value();
      x(r, c) = kept - eps;
      const double below = value();
      x(r, c) = kept;
      const double numerical = (above - below) / (2 * eps);
      ASSERT_NEAR(gradient(r, c), numerical, 1e-7 + 1e-5 * std::abs(numerical)) << what << " " << r << ", " << c;
    }
}

/// Sum of a * b: a random direction makes one number of many outputs.
inline double dot(const Matrix<double>& a, const Matrix<double>& b) {
  double sum = 0;
  for (Index r = 0; r < a.rows; ++r)
    for (Index c = 0; c < a.cols; ++c) sum += a(r, c) * b(r, c);
  return sum;
}

/// The same numbers in another type.
template <class To, class From>
Matrix<To> cast(const Matrix<From>& from) {
  Matrix<To> to(from.rows, from.cols, from.pitch);
  for (Index r = 0; r < from.rows; ++r)
    for (Index c = 0; c < from.cols; ++c) to(r, c) = static_cast<To>(from(r, c));
  return to;
}

template <class A, class B>
void expect_near(const Matrix<A>& a, const Matrix<B>& b, double tolerance) {
  for (Index r = 0; r < a.rows; ++r)
    for (Index c = 0; c < a.cols; ++c)
      ASSERT_NEAR(double(a(r, c)), double(b(r, c)), tolerance * (1 + std::abs(double(b(r, c))))) << r << ", " << c;
}

}  // namespace guild_test
