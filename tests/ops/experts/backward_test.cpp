#include <gtest/gtest.h>

#include <guild/device/cpu.hpp>
#include <guild/ops/experts/combine.hpp>
#include <guild/ops/linear/swiglu.hpp>
#include <utility>

#include "../gradient_check.hpp"

namespace expert_backward_test {
using namespace guild_test;

/// out[s] = weight[s] * h[s] . dh[s] summed: h is the hidden row of an expert, dh what the projection after it sees.
struct Experts {
  Matrix<double> weights{4, 1}, gate{4, 37, 40}, up{4, 37}, dh{4, 37, 38};

  explicit Experts(unsigned seed) {
    std::mt19937 random(seed);
    weights.fill_normal(random);
    gate.fill_normal(random, 2.0);
    up.fill_normal(random);
    dh.fill_normal(random);
  }
  [[nodiscard]] double value(guild::Cpu& device, const guild::ActivationConfig& activation = {}) const {
    Matrix<double> h(4, 37);
    guild::swiglu(device, gate.view(), up.view(), h.view(), activation);
    double sum = 0;
    for (Index s = 0; s < 4; ++s)
      for (Index i = 0; i < 37; ++i) sum += weights(s, 0) * h(s, i) * dh(s, i);
    return sum;
  }
};

TEST(ExpertBackward, GradientsEqualCentralDifferences) {
  guild::Cpu device({.threads = 2});
  Experts at(1);
  auto gate = at.gate, up = at.up, dh = at.dh;
  Matrix<double> dweights(4, 1);
  guild::expert_swiglu_backward(device, guild::View<const double>(at.weights.data.data(), 4), gate.view(), up.view(),
                                dh.view(), guild::View<double>(dweights.data.data(), 4));
  EXPECT_TRUE(gate.padding_is_untouched() && dh.padding_is_untouched() && dweights.padding_is_untouched());
  const auto value = [&] { return at.value(device); };
  expect_gradient(at.gate, gate, value, "gate");
  expect_gradient(at.up, up, value, "up");
  expect_gradient(at.weights, dweights, value, "weight");
  expect_gradient(at.dh, dh, value, "what goes into the projection");  // weight * h
}

TEST(ExpertBackward, OfEveryActivationEqualsCentralDifferences) {
  guild::Cpu device({.threads = 2});
  for (const guild::ActivationConfig& activation :
       {guild::ActivationConfig{.kind = guild::Activation::gelu_tanh},
        guild::ActivationConfig{.alpha = 1.702, .limit = 0.9, .up_offset = 1.0},
        guild::ActivationConfig{.limit = 0.9}}) {
    Experts at(3);
    auto gate = at.gate, up = at.up, dh = at.dh;
    Matrix<double> dweights(4, 1);
    guild::expert_swiglu_backward(device, guild::View<const double>(at.weights.data.data(), 4), gate.view(), up.view(),
                                  dh.view(), guild::View<double>(dweights.data.data(), 4), activation);
    const auto value = [&] { return at.value(device, activation); };
    expect_gradient(at.gate, gate, value, "gate");
    expect_gradient(at.up, up, value, "up");
    expect_gradient(at.weights, dweights, value, "weight");
    expect_gradient(at.dh, dh, value, "what goes into the projection");
  }
}

TEST(ExpertBackward, InFloatIsNearDouble) {
  guild::Cpu device({.threads = 2});
  Experts at(2);
  auto weights_f = cast<float>(at.weights), gate_f = cast<float>(at.gate), up_f = cast<float>(at.up),
       dh_f = cast<float>(at.dh);
  Matrix<float> dweights_f(4, 1);
  Matrix<double> dweights(4, 1);
  guild::expert_swiglu_backward(device, guild::View<const double>(at.weights.data.data(), 4), at.gate.view(),
                                at.up.view(), at.dh.view(), guild::View<double>(dweights.data.data(), 4));
  guild::expert_swiglu_backward(device, guild::View<const float>(weights_f.data.data(), 4), gate_f.view(), up_f.view(),
                                dh_f.view(), guild::View<float>(dweights_f.data.data(), 4));
  expect_near(gate_f, at.gate, 1e-6);
  expect_near(up_f, at.up, 1e-6);
  expect_near(dh_f, at.dh, 1e-6);
  expect_near(dweights_f, dweights, 5e-6);
}

TEST(ExpertBackward, ScattersWeightsToSlotsAndGathersThemBack) {
  guild::Cpu device({.threads = 3});
  Matrix<float> weights(50, 3, 4), back(50, 3, 5);
  Matrix<std::int32_t> slots(50, 3, 3);
  for (Index t = 0; t < 50; ++t)
    for (Index k = 0; k < 3; ++k) weights(t, k) = float(t * 3 + k), slots(t, k) = std::int32_t((t * 3 + k) * 7 % 150);
  std::vector<float> by_slot(150, -1.0f);
  guild::slot_weights(device, slots.view(), weights.view(), view_of(by_slot));
  for (Index s = 0; s < 150; ++s) EXPECT_EQ(Index(by_slot[std::size_t(s)]) * 7 % 150, s);
  guild::gather_slots(device, slots.view(), view_of(std::as_const(by_slot)), back.view());
  EXPECT_TRUE(back.padding_is_untouched());
  expect_near(back, weights, 0.0);
}

TEST(ExpertBackward, NeverWritesOutsideOfTheSlots) {
  guild::Cpu device({.threads = 1});
  Matrix<double> weights(1, 2), back(1, 2);
  Matrix<std::int32_t> slots(1, 2);
  weights(0, 0) = weights(0, 1) = 5.0;
  slots(0, 0) = -1, slots(0, 1) = 1;
  std::vector<double> memory(3, 1.0);
  guild::slot_weights(device, slots.view(), weights.view(), guild::View<double>(memory.data() + 1, 1));
  EXPECT_EQ(memory, std::vector<double>(3, 1.0));
  guild::gather_slots(device, slots.view(), guild::View<const double>(memory.data() + 1, 1), back.view());
  EXPECT_TRUE(back(0, 0) == 0.0 && std::isnan(back(0, 1)));
}

TEST(ExpertBackward, RefusesShapesThatDoNotFit) {
  guild::Cpu device({.threads = 1});
  Matrix<float> a(2, 4), b(2, 4), c(2, 4), wide(2, 5), tk(3, 2);
  Matrix<std::int32_t> slots(3, 2), more(3, 3);
  std::vector<float> two(2), three(3), six(6);
  using guild::ErrorCode;
  const auto code = [&](auto& weights, auto& up, auto& dh, auto& dweights) {
    return code_of([&] {
      guild::expert_swiglu_backward(device, view_of(std::as_const(weights)), a.view(), up.view(), dh.view(),
                                    view_of(dweights));
    });
  };
  EXPECT_EQ(code(two, b, c, two), ErrorCode::count_);
  EXPECT_EQ(code(three, b, c, two), ErrorCode::op_shape);
  EXPECT_EQ(code(two, wide, c, two), ErrorCode::op_shape);
  EXPECT_EQ(code(two, b, wide, two), ErrorCode::op_shape);
  EXPECT_EQ(code(two, b, c, three), ErrorCode::op_shape);
  EXPECT_EQ(code_of([&] { guild::slot_weights(device, more.view(), tk.view(), view_of(six)); }), ErrorCode::op_shape);
  EXPECT_EQ(code_of([&] { guild::gather_slots(device, more.view(), view_of(std::as_const(six)), tk.view()); }),
            ErrorCode::op_shape);
}

}  // namespace expert_backward_test
