#include <gtest/gtest.h>

#include <guild/device/cpu.hpp>
#include <guild/ops/common/add.hpp>
#include <guild/ops/experts/combine.hpp>
#include <guild/ops/linear/swiglu.hpp>

#include "../ops_test_support.hpp"

namespace combine_test {
using namespace guild_test;

TEST(Combine, AddsYToX) {
  guild::Cpu device({.threads = 2});
  std::mt19937 random(1);
  Matrix<float> x(5, 19, 23), y(5, 19);
  x.fill_normal(random);
  y.fill_normal(random);
  const auto before = x;
  guild::add(device, x.view(), y.view());
  EXPECT_TRUE(x.padding_is_untouched());
  for (Index t = 0; t < 5; ++t)
    for (Index i = 0; i < 19; ++i) EXPECT_EQ(x(t, i), before(t, i) + y(t, i));
  EXPECT_EQ(code_of([&] { guild::add(device, x.view(), y.view().middle_rows(0, 4)); }), guild::ErrorCode::op_shape);
}
TEST(Combine, LeavesDifferenceAndSum) {
  guild::Cpu device({.threads = 2});
  std::mt19937 random(2);
  Matrix<float> x(5, 19, 23), y(5, 19, 20);
  x.fill_normal(random);
  y.fill_normal(random);
  const auto a = x, b = y;
  guild::difference_and_sum(device, x.view(), y.view());
  EXPECT_TRUE(x.padding_is_untouched() && y.padding_is_untouched());
  for (Index t = 0; t < 5; ++t)
    for (Index i = 0; i < 19; ++i) {
      EXPECT_EQ(x(t, i), a(t, i) - b(t, i));
      EXPECT_EQ(y(t, i), a(t, i) + b(t, i));
    }
  EXPECT_EQ(code_of([&] { guild::difference_and_sum(device, x.view(), y.view().middle_rows(0, 4)); }),
            guild::ErrorCode::op_shape);
}

TEST(Combine, SwigluEqualsTheFormulaAlsoForLargeValues) {
  guild::Cpu device({.threads = 2});
  Matrix<float> gate(1, 6), up(1, 6), h(1, 6);
  const double gates[] = {-1000, -2, 0, 0.5, 3, 1000};
  for (Index i = 0; i < 6; ++i) gate(0, i) = float(gates[i]), up(0, i) = float(i + 1);
  guild::swiglu(device, gate.view(), up.view(), h.view());
  for (Index i = 0; i < 6; ++i) {
    const double g = gates[i], expected = g / (1 + std::exp(-g)) * double(i + 1);
    EXPECT_NEAR(h(0, i), expected, 1e-6 * std::abs(expected) + 1e-12);
  }
}

TEST(Combine, SumsTheRowsOfATokenInOrderAndTheSharedRowLast) {
  guild::Cpu device({.threads = 3});
  for (Index dim : {1, 7, 8, 9, 64, 100})
    for (bool with_shared : {false, true}) {
      std::mt19937 random(static_cast<unsigned>(dim));
      const Index tokens = 11, chosen = 3;
      Matrix<float> rows(tokens * chosen, dim, dim + 2), weights(tokens, chosen, 5), shared(tokens, dim),
          out(tokens, dim, dim + 1);
      Matrix<std::int32_t> slots(tokens, chosen, 4);
      rows.fill_normal(random);
      weights.fill_normal(random);
      shared.fill_normal(random);
      for (Index t = 0; t < tokens; ++t)
        for (Index k = 0; k < chosen; ++k) slots(t, k) = std::int32_t((t * 7 + k * 13) % (tokens * chosen));
      guild::combine_experts(device, rows.view(), slots.view(), weights.view(),
                             with_shared ? std::as_const(shared).view() : guild::View<const float, 2>{}, out.view());
      EXPECT_TRUE(out.padding_is_untouched());
      for (Index t = 0; t < tokens; ++t)
        for (Index i = 0; i < dim; ++i) {
          double expected = with_shared ? shared(t, i) : 0.0;
          for (Index k = 0; k < chosen; ++k) expected += double(weights(t, k)) * double(rows(slots(t, k), i));
          ASSERT_NEAR(out(t, i), expected, 2e-6);
        }
    }
}

TEST(Combine, MayWriteOverTheSharedRows) {
  guild::Cpu device({.threads = 1});
  Matrix<float> rows(1, 9), weights(1, 1), shared(1, 9);
  Matrix<std::int32_t> slots(1, 1);
  for (Index i = 0; i < 9; ++i) rows(0, i) = float(i), shared(0, i) = 100.0f;
  slots(0, 0) = 0, weights(0, 0) = 2.0f;
  guild::combine_experts(device, rows.view(), slots.view(), weights.view(), shared.view(), shared.view());
  for (Index i = 0; i < 9; ++i) EXPECT_EQ(shared(0, i), 100.0f + 2.0f * float(i));
}

TEST(Combine, ATokenAloneHasTheBitsItHasInABatch) {
  guild::Cpu device({.threads = 4});
  std::mt19937 random(9);
  Matrix<float> rows(40, 33), weights(20, 2), out(20, 33), alone(1, 33);
  Matrix<std::int32_t> slots(20, 2);
  rows.fill_normal(random);
  weights.fill_normal(random);
  for (Index t = 0; t < 20; ++t) slots(t, 0) = std::int32_t(t), slots(t, 1) = std::int32_t(39 - t);
  guild::combine_experts(device, rows.view(), slots.view(), weights.view(), {}, out.view());
  guild::combine_experts(device, rows.view(), slots.view().middle_rows(13, 1), weights.view().middle_rows(13, 1), {},
                         alone.view());
  for (Index i = 0; i < 33; ++i) EXPECT_EQ(alone(0, i), out(13, i));
}

}  // namespace combine_test
