#include <gtest/gtest.h>

#include <guild/device/cpu.hpp>
#include <guild/ops/linear/swiglu.hpp>
#include <limits>

#include "../gradient_check.hpp"

namespace swiglu_backward_test {
using namespace guild_test;

TEST(SwigluBackward, EqualsCentralDifferences) {
  guild::Cpu device({.threads = 2});
  std::mt19937 random(1);
  Matrix<double> gate(3, 21, 24), up(3, 21, 22), dh(3, 21), h(3, 21, 23);
  gate.fill_normal(random, 2.0);
  up.fill_normal(random);
  dh.fill_normal(random);
  auto dgate = gate, dup = up;
  guild::swiglu_backward(device, dgate.view(), dup.view(), dh.view(), h.view());
  EXPECT_TRUE(dgate.padding_is_untouched() && dup.padding_is_untouched() && h.padding_is_untouched());
  const auto value = [&] {
    Matrix<double> out(3, 21);
    guild::swiglu(device, gate.view(), up.view(), out.view());
    return dot(out, dh);
  };
  expect_gradient(gate, dgate, value, "gate");
  expect_gradient(up, dup, value, "up");
  Matrix<double> expected(3, 21);
  guild::swiglu(device, gate.view(), up.view(), expected.view());
  expect_near(h, expected, 0.0);
}

TEST(SwigluBackward, InFloatIsNearDoubleAndMayLeaveHOutOrPutItOverDh) {
  guild::Cpu device({.threads = 2});
  std::mt19937 random(2);
  Matrix<double> gate(5, 70), up(5, 70), dh(5, 70);
  gate.fill_normal(random, 3.0);
  up.fill_normal(random);
  dh.fill_normal(random);
  auto gate_f = cast<float>(gate), up_f = cast<float>(up), dh_f = cast<float>(dh), h_f = cast<float>(gate);
  gate = cast<double>(gate_f), up = cast<double>(up_f), dh = cast<double>(dh_f);
  auto gate_alone = gate_f, up_alone = up_f, gate_over = gate_f, up_over = up_f, over = dh_f;
  Matrix<double> h(5, 70);
  guild::swiglu_backward(device, gate.view(), up.view(), dh.view(), h.view());
  guild::swiglu_backward(device, gate_f.view(), up_f.view(), dh_f.view(), h_f.view());
  guild::swiglu_backward(device, gate_alone.view(), up_alone.view(), dh_f.view(), {});
  guild::swiglu_backward(device, gate_over.view(), up_over.view(), over.view(), over.view());
  expect_near(gate_f, gate, 1e-6);
  expect_near(up_f, up, 1e-6);
  expect_near(h_f, h, 1e-6);
  EXPECT_EQ(gate_alone.data, gate_f.data);
  EXPECT_EQ(up_alone.data, up_f.data);
  EXPECT_EQ(gate_over.data, gate_f.data);
  EXPECT_EQ(up_over.data, up_f.data);
  EXPECT_EQ(over.data, h_f.data);
}

TEST(SwigluBackward, StaysFiniteForGatesOfAnySize) {
  guild::Cpu device({.threads = 1});
  Matrix<float> gate(1, 4), up(1, 4), dh(1, 4);
  const float gates[] = {-1e30f, -90.0f, 90.0f, 1e30f}, slopes[] = {0, 0, 1, 1};
  for (Index i = 0; i < 4; ++i) gate(0, i) = gates[i], up(0, i) = 2.0f, dh(0, i) = 3.0f;
  guild::swiglu_backward(device, gate.view(), up.view(), dh.view(), {});
  for (Index i = 0; i < 4; ++i) EXPECT_NEAR(gate(0, i), 6.0f * slopes[i], 1e-5f) << gates[i];
}

TEST(SwigluBackward, RefusesShapesThatDoNotFit) {
  guild::Cpu device({.threads = 1});
  Matrix<float> a(2, 4), b(2, 4), c(2, 4), wide(2, 5);
  const auto code = [&](auto& gate, auto& up, auto& dh, auto& h) {
    return code_of([&] { guild::swiglu_backward(device, gate.view(), up.view(), dh.view(), h.view()); });
  };
  EXPECT_EQ(code(a, b, c, c), guild::ErrorCode::count_);
  EXPECT_EQ(code(a, wide, c, c), guild::ErrorCode::op_shape);
  EXPECT_EQ(code(a, b, wide, c), guild::ErrorCode::op_shape);
  EXPECT_EQ(code(a, b, c, wide), guild::ErrorCode::op_shape);
}

}  // namespace swiglu_backward_test
