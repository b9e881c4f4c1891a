#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
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

/// The kinds of gates, with limits that some of a few normal numbers exceed.
const guild::ActivationConfig activations[] = {
    {},
    {.kind = guild::Activation::gelu_tanh},
    {.alpha = 1.702, .limit = 1.1, .up_offset = 1.0},
    {.limit = 1.1},
    {.kind = guild::Activation::gelu_tanh, .limit = 1.1, .up_offset = -0.5},
};

/// The same in the words of the papers, with functions of the library.
double joined(const guild::ActivationConfig& c, double g, double u) {
  const double limit = c.limit > 0.0 ? c.limit : 1e300;
  g = std::min(g, limit), u = std::clamp(u, -limit, limit) + c.up_offset;
  const double cubic = std::sqrt(2.0 / std::acos(-1.0)) * (g + 0.044715 * g * g * g);
  return u *
         (c.kind == guild::Activation::silu ? g / (1.0 + std::exp(-c.alpha * g)) : 0.5 * g * (1.0 + std::tanh(cubic)));
}

TEST(Swiglu, ComputesEveryActivation) {
  guild::Cpu device({.threads = 2});
  std::mt19937 random(4);
  Matrix<double> gate(5, 70), up(5, 70), h(5, 70), expected(5, 70);
  gate.fill_normal(random, 3.0);
  up.fill_normal(random, 2.0);
  auto gate_f = cast<float>(gate), up_f = cast<float>(up), h_f = gate_f;
  gate = cast<double>(gate_f), up = cast<double>(up_f);
  for (const auto& activation : activations) {
    for (Index t = 0; t < 5; ++t)
      for (Index i = 0; i < 70; ++i) expected(t, i) = joined(activation, gate(t, i), up(t, i));
    guild::swiglu(device, gate.view(), up.view(), h.view(), activation);
    guild::swiglu(device, gate_f.view(), up_f.view(), h_f.view(), activation);
    expect_near(h, expected, 1e-13);
    expect_near(h_f, expected, 2e-6);
  }
}

TEST(SwigluBackward, OfEveryActivationEqualsCentralDifferencesAndIsZeroBeyondLimits) {
  guild::Cpu device({.threads = 2});
  for (const auto& activation : activations) {
    std::mt19937 random(5);
    Matrix<double> gate(3, 40), up(3, 40), dh(3, 40), h(3, 40);
    gate.fill_normal(random, 2.0);
    up.fill_normal(random, 2.0);
    dh.fill_normal(random);
    auto dgate = gate, dup = up;
    guild::swiglu_backward(device, dgate.view(), dup.view(), dh.view(), h.view(), activation);
    const auto value = [&] {
      Matrix<double> out(3, 40);
      guild::swiglu(device, gate.view(), up.view(), out.view(), activation);
      return dot(out, dh);
    };
    expect_gradient(gate, dgate, value, "gate");
    expect_gradient(up, dup, value, "up");
    int beyond = 0;
    for (Index t = 0; t < 3 && activation.limit > 0.0; ++t)
      for (Index i = 0; i < 40; ++i) {
        const bool gate_beyond = gate(t, i) > activation.limit, up_beyond = std::abs(up(t, i)) > activation.limit;
        EXPECT_TRUE((!gate_beyond || dgate(t, i) == 0.0) && (!up_beyond || dup(t, i) == 0.0));
        beyond += int{gate_beyond} + int{up_beyond};
      }
    EXPECT_EQ(beyond > 20, activation.limit > 0.0);
    for (Index t = 0; t < 3; ++t)
      for (Index i = 0; i < 40; ++i) ASSERT_NEAR(h(t, i), joined(activation, gate(t, i), up(t, i)), 1e-13);
  }
}

TEST(SwigluBackward, OfEveryActivationIsFiniteForGatesOfAnySizeAndKeepsNaN) {
  guild::Cpu device({.threads = 1});
  for (const auto& activation : activations) {
    Matrix<float> gate(1, 5), up(1, 5), dh(1, 5), h(1, 5);
    const float gates[] = {-1e30f, -90.0f, 90.0f, 1e30f, std::numeric_limits<float>::quiet_NaN()};
    for (Index i = 0; i < 5; ++i) gate(0, i) = gates[i], up(0, i) = 1.0f, dh(0, i) = 3.0f;
    guild::swiglu_backward(device, gate.view(), up.view(), dh.view(), h.view(), activation);
    const double slope = activation.limit > 0.0 ? 0.0 : 3.0 * (1.0 + activation.up_offset);
    for (Index i = 0; i < 2; ++i) EXPECT_NEAR(gate(0, i), 0.0f, 1e-5f) << gates[i];
    for (Index i = 2; i < 4; ++i) EXPECT_NEAR(gate(0, i), slope, 1e-5f) << gates[i];
    for (Index i = 0; i < 4; ++i) EXPECT_TRUE(std::isfinite(up(0, i)) && std::isfinite(h(0, i))) << gates[i];
    EXPECT_TRUE(std::isnan(h(0, 4)));
  }
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
