// Copies of rows: every element of every part once and exactly rounded, whatever lies between stays, wrong layouts are
// refused.
#include <guild/ops/common/copy_rows.hpp>

#include <gtest/gtest.h>

#include <guild/device/cpu.hpp>
#include <vector>

#include "../ops_test_support.hpp"

namespace copy_rows_test {
using namespace guild_test;
using guild::CopyRowsJob;

View<const float, 2> read(const Matrix<float>& x) { return x.view(); }

template <class From, class To>
void expect_exact(Index rows, guild::RowParts parts) {
  const Index x_cols = parts.from_stride * (parts.count - 1) + parts.width;
  const Index y_cols = parts.to_stride * (parts.count - 1) + parts.width;
  Matrix<float> values(rows, x_cols);
  std::mt19937 random(3);
  values.fill_normal(random);
  Matrix<From> x(rows, x_cols, x_cols + 3);
  Matrix<To> y(rows, y_cols, y_cols + 2), expected(rows, y_cols, y_cols + 2);
  for (To& e : y.data) e = To(7.0f);
  for (To& e : expected.data) e = To(7.0f);
  for (Index t = 0; t < rows; ++t) {
    for (Index i = 0; i < x_cols; ++i) x(t, i) = From(values(t, i));
    for (Index p = 0; p < parts.count; ++p)
      for (Index i = 0; i < parts.width; ++i)
        expected(t, p * parts.to_stride + i) = static_cast<To>(x(t, p * parts.from_stride + i));
  }
  guild::Cpu device({.threads = 2});
  const CopyRowsJob<From, To> job{x.view(), y.view(), parts};
  guild::copy_rows(device, std::span(&job, 1));
  for (std::size_t i = 0; i < y.data.size(); ++i)
    ASSERT_EQ(static_cast<float>(y.data[i]), static_cast<float>(expected.data[i]))
        << rows << " rows, " << parts.count << " parts of " << parts.width << ", element " << i;
}

TEST(CopyRows, AreExactForEveryShapeAndElement) {
  for (const Index rows : {0, 1, 7, 300})
    for (const guild::RowParts parts : {guild::RowParts{1, 40, 0, 0}, {1, 5000, 0, 0}, {4, 8, 32, 40}, {3, 1, 2, 1}}) {
      expect_exact<float, float>(rows, parts);
      expect_exact<float, guild::bf16>(rows, parts);
      expect_exact<guild::bf16, float>(rows, parts);
    }
}

TEST(CopyRows, RunAllJobsAndPassOverEmptyOnes) {
  Matrix<float> x(50, 100), y(50, 100);
  std::mt19937 random(3);
  x.fill_normal(random);
  guild::Cpu device({.threads = 3});
  const CopyRowsJob<float, float> jobs[] = {{},
                                            guild::copy_of(read(x).middle_rows(0, 20), y.view().middle_rows(30, 20)),
                                            {x.view(), y.view(), {0, 0, 0, 0}},
                                            guild::copy_of(read(x).middle_rows(20, 30), y.view().middle_rows(0, 30))};
  guild::copy_rows(device, std::span(jobs, std::size(jobs)));
  for (Index t = 0; t < 50; ++t)
    for (Index i = 0; i < 100; ++i) ASSERT_EQ(y(t, i), x((t + 20) % 50, i));
  guild::copy_rows(device, std::span<const CopyRowsJob<float, float>>());
}

TEST(CopyRows, RefuseLayoutsThatDoNotFit) {
  Matrix<float> x(4, 20), y(4, 20);
  guild::Cpu device({.threads = 1});
  const auto code = [&](View<const float, 2> from, guild::RowParts parts) {
    const CopyRowsJob<float, float> job{from, y.view(), parts};
    return code_of([&] { guild::copy_rows(device, std::span(&job, 1)); });
  };
  using guild::ErrorCode;
  EXPECT_EQ(code(read(x).middle_rows(0, 3), {1, 20, 0, 0}), ErrorCode::op_shape);  // rows
  EXPECT_EQ(code(read(x), {1, 21, 0, 0}), ErrorCode::op_shape);                    // beyond the columns
  EXPECT_EQ(code(read(x), {3, 8, 7, 8}), ErrorCode::op_shape);                     // beyond those of x
  EXPECT_EQ(code(read(x), {3, 4, 4, 9}), ErrorCode::op_shape);                     // beyond those of y
  EXPECT_EQ(code(read(x), {3, 4, 4, 3}), ErrorCode::op_shape);                     // parts of y overlap
  EXPECT_EQ(code(read(x), {-1, 4, 4, 4}), ErrorCode::op_shape);
  EXPECT_EQ(code({nullptr, 4, 20}, {1, 20, 0, 0}), ErrorCode::op_argument);
}

}  // namespace copy_rows_test
