#include <gtest/gtest.h>

#include <cstdint>
#include <guild/device/cpu.hpp>
#include <guild/device/host_team.hpp>
#include <guild/ops/experts/bias.hpp>
#include <random>
#include <utility>
#include <vector>

#include "../gradient_check.hpp"

namespace slot_bias_test {
using namespace guild_test;

/// Five experts, of which the second and the last serve nobody, and the seven slots of four tokens.
struct Slots {
  std::vector<std::int32_t> offsets = {0, 3, 3, 4, 7, 7}, token = {0, 1, 3, 2, 0, 1, 3}, owner = {0, 0, 0, 2, 3, 3, 3};
  [[nodiscard]] guild::View<const std::int32_t> bounds() const { return view_of(offsets); }
};

template <class Real>
Matrix<Real> random_matrix(unsigned seed, Index rows, Index cols, Index pitch = 0) {
  std::mt19937 random(seed);
  Matrix<Real> out(rows, cols, pitch == 0 ? cols : pitch);
  out.fill_normal(random);
  return out;
}

template <class Real>
Matrix<Real> zeros(Index rows, Index cols) {
  Matrix<Real> out(rows, cols);
  for (Real& value : out.data) value = Real(0);
  return out;
}

TEST(SlotBias, IsThatOfTheExpertThatOwnsTheSlot) {
  guild::Cpu device({.threads = 2});
  const Slots slots;
  const auto bias = random_matrix<float>(1, 5, 19), before = random_matrix<float>(2, 7, 19, 21);
  auto y = before;
  guild::add_slot_bias(device, slots.bounds(), bias.view(), y.view());
  EXPECT_TRUE(y.padding_is_untouched());
  for (Index s = 0; s < 7; ++s)
    for (Index i = 0; i < 19; ++i) EXPECT_EQ(y(s, i), before(s, i) + bias(slots.owner[std::size_t(s)], i)) << s;
}

TEST(SlotBias, GradientsEqualCentralDifferences) {
  guild::Cpu device({.threads = 2});
  const Slots slots;
  auto bias = random_matrix<double>(1, 5, 6);
  const auto dy_s = random_matrix<double>(2, 7, 6), dy = random_matrix<double>(3, 4, 6);
  auto weights = random_matrix<double>(4, 7, 1);
  {  // the loss is <y, dy_s>
    const auto value = [&] {
      auto y = zeros<double>(7, 6);
      guild::add_slot_bias(device, slots.bounds(), bias.view(), y.view());
      return dot(y, dy_s);
    };
    auto dbias = zeros<double>(5, 6);
    guild::slot_bias_gradient(device, slots.bounds(), dy_s.view(), dbias.view());
    expect_gradient(bias, dbias, value, "bias");
  }
  // The loss is the sum over slots of weight * <y, dy of the slot's token>.
  const auto value = [&] {
    auto y = zeros<double>(7, 6);
    guild::add_slot_bias(device, slots.bounds(), bias.view(), y.view());
    double sum = 0;
    for (Index s = 0; s < 7; ++s)
      for (Index i = 0; i < 6; ++i) sum += weights(s, 0) * y(s, i) * dy(slots.token[std::size_t(s)], i);
    return sum;
  };
  auto dbias = zeros<double>(5, 6), dweights = zeros<double>(7, 1);
  guild::slot_bias_gradient(device, slots.bounds(), dy.view(), dbias.view(), view_of(slots.token),
                            guild::View<const double>(weights.data.data(), 7));
  guild::slot_bias_weight_gradient(device, slots.bounds(), view_of(slots.token), bias.view(), dy.view(),
                                   guild::View<double>(dweights.data.data(), 7));
  expect_gradient(bias, dbias, value, "bias");
  expect_gradient(weights, dweights, value, "weights");
}

TEST(SlotBias, GradientsAreAddedAndDoNotDependOnTheTeam) {
  const Slots slots;
  const auto run = [&](auto& device) {
    const auto dy = random_matrix<float>(3, 4, 45);
    auto bias = random_matrix<float>(1, 5, 45), dbias = bias;
    std::vector<float> weights = {1, 2, -1, 0.5f, 3, -2, 1}, dweights = weights;
    auto y = random_matrix<float>(2, 7, 45);
    guild::add_slot_bias(device, slots.bounds(), bias.view(), y.view());
    guild::slot_bias_gradient(device, slots.bounds(), dy.view(), dbias.view(), view_of(slots.token),
                              view_of(std::as_const(weights)));
    guild::slot_bias_gradient(device, slots.bounds(), y.view(), dbias.view());
    return std::pair(y.data, dbias.data);
  };
  const auto weights_of = [&](auto& device) {
    const auto bias = random_matrix<float>(1, 5, 45), dy = random_matrix<float>(3, 4, 45);
    std::vector<float> dweights(7, 10.0f);
    guild::slot_bias_weight_gradient(device, slots.bounds(), view_of(slots.token), bias.view(), dy.view(),
                                     view_of(dweights));
    return dweights;
  };
  guild::Cpu cpu({.threads = 2, .isa = guild::Isa::baseline});
  const auto expected = run(cpu);
  const auto expected_weights = weights_of(cpu);
  for (int size : {1, 3, 8}) {
    guild::HostTeams teams(size);
    const auto found = run(teams);
    for (std::size_t i = 0; i < found.first.size(); ++i) ASSERT_EQ(found.first[i], expected.first[i]) << size;
    for (std::size_t i = 0; i < found.second.size(); ++i)
      ASSERT_NEAR(found.second[i], expected.second[i], 1e-5) << size;
    const auto weights = weights_of(teams);
    for (std::size_t i = 0; i < weights.size(); ++i) ASSERT_NEAR(weights[i], expected_weights[i], 1e-5) << size;
  }
}

TEST(SlotBias, RefusesShapesThatDoNotFit) {
  guild::Cpu device({.threads = 1});
  const Slots slots;
  using guild::ErrorCode;
  Matrix<float> bias(5, 4), few(4, 4), y(7, 4), wide(7, 5), dy(4, 4);
  std::vector<float> weights(7), short_weights(6);
  const auto code = [](auto f) { return code_of(f); };
  EXPECT_EQ(code([&] { guild::add_slot_bias(device, slots.bounds(), bias.view(), y.view()); }), ErrorCode::count_);
  EXPECT_EQ(code([&] { guild::add_slot_bias(device, slots.bounds(), few.view(), y.view()); }), ErrorCode::op_shape);
  EXPECT_EQ(code([&] { guild::add_slot_bias(device, slots.bounds(), bias.view(), wide.view()); }), ErrorCode::op_shape);
  EXPECT_EQ(code([&] { guild::slot_bias_gradient(device, slots.bounds(), y.view(), few.view()); }),
            ErrorCode::op_shape);
  EXPECT_EQ(code([&] { guild::slot_bias_gradient(device, slots.bounds(), wide.view(), bias.view()); }),
            ErrorCode::op_shape);
  EXPECT_EQ(code([&] {
              guild::slot_bias_gradient(device, slots.bounds(), dy.view(), bias.view(), view_of(slots.token),
                                        view_of(std::as_const(short_weights)));
            }),
            ErrorCode::op_shape);
  EXPECT_EQ(code([&] {
              guild::slot_bias_weight_gradient(device, slots.bounds(), view_of(slots.token), bias.view(), dy.view(),
                                               view_of(short_weights));
            }),
            ErrorCode::op_shape);
}

}  // namespace slot_bias_test
