// AdamW against torch, its options, and what it leaves alone.
#include <guild/cpu.hpp>
#include <guild/training/gradient_norm.hpp>
#include <guild/training/optimizer.hpp>
#include <guild/training/schedule.hpp>

#include <gtest/gtest.h>

#include <limits>

#include "optimizer_support.hpp"

namespace adamw_test {

using guild::AdamW;
using guild::ErrorCode;
using guild::Optimizer;
using namespace guild_test;

constexpr AdamW fixture_options = {.lr = 3e-3, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .weight_decay = 0.1};

/// The weights and moments of a case of the fixture.
void expect_fixture(const OptimizerFixture& fixture, const std::string& name, const NetWeights& weights,
                    Optimizer<Net>& optimizer, double tolerance) {
  guild::for_each_parameter<Net>(
      [&](const Path& path, const TensorShape&, const Buffer& data) {
        EXPECT_LT(fixture.error(data.view(), name + ".weight." + first_name(path)), tolerance) << path.str();
      },
      weights);
  int moments = 0;
  optimizer.visit_state([&](const std::string& key, const TensorShape&, guild::View<float> values) {
    const std::string tensor = key.substr(12, key.find(".weight") - 12);
    ++moments;
    if (key.starts_with("adamw.first.")) {
      EXPECT_LT(fixture.error(values, name + ".first." + tensor), tolerance) << key;
    } else {
      EXPECT_LT(fixture.error(values, name + ".second." + key.substr(13, key.find(".weight") - 13)), tolerance) << key;
    }
  });
  EXPECT_EQ(moments, 14);
}

TEST(AdamW, MatchesTorchForTwentySteps) {
  const OptimizerFixture fixture;
  guild::Cpu device({.threads = 2});
  NetWeights weights = filled_net(0.0f), gradients = filled_net(0.0f);
  fixture.load("start.", weights);
  Optimizer<Net> optimizer(weights, fixture_options);
  for (Index step = 0; step < OptimizerFixture::steps; ++step) {
    fixture.load("gradient." + std::to_string(step) + ".", gradients);
    optimizer.step(device, weights, gradients);
  }
  EXPECT_EQ(optimizer.steps(), OptimizerFixture::steps);
  expect_fixture(fixture, "adamw", weights, optimizer, 1e-6);
}

TEST(AdamW, MatchesTorchWithClippingAndASchedule) {
  const OptimizerFixture fixture;
  guild::Cpu device({.threads = 2});
  NetWeights weights = filled_net(0.0f), gradients = filled_net(0.0f);
  fixture.load("start.", weights);
  Optimizer<Net> optimizer(weights, fixture_options);
  const auto schedule = guild::Schedule::warmup_cosine(5, 20, 0.1);
  const std::vector<float> norms = fixture.read("clipped.norm"), rates = fixture.read("clipped.rate");
  int clipped = 0;
  for (Index step = 0; step < OptimizerFixture::steps; ++step) {
    fixture.load("gradient." + std::to_string(step) + ".", gradients);
    const double norm = guild::gradient_norm<Net>(device, gradients), rate = schedule(step);
    EXPECT_NEAR(norm, double(norms[static_cast<std::size_t>(step)]), 1e-6 * norm);
    EXPECT_NEAR(rate, double(rates[static_cast<std::size_t>(step)]), 1e-6);
    clipped += norm > 1.0 ? 1 : 0;
    optimizer.step(device, weights, gradients, rate, guild::clip_scale(norm, 1.0));
  }
  EXPECT_GT(clipped, 5);
  EXPECT_LT(clipped, 15);
  expect_fixture(fixture, "clipped", weights, optimizer, 1e-6);
}

TEST(AdamW, DecaysMatricesOnly) {
  guild::Cpu device({.threads = 1});
  NetWeights weights = filled_net(1.0f), gradients = filled_net(0.0f);
  Optimizer<Net> optimizer(weights, AdamW{.lr = 0.5, .weight_decay = 0.1});
  optimizer.step(device, weights, gradients);
  guild::for_each_tensor<Net>(
      [](const Path& path, const TensorShape& shape, TensorRole role, const Buffer& data) {
        const float expected = role == TensorRole::parameter && shape.dimensions == 2 ? 0.95f : 1.0f;
        for (const float value : data.view()) EXPECT_FLOAT_EQ(value, expected) << path.str();
      },
      weights);
}

TEST(AdamW, TheFirstStepIsTheLearningRateWhateverTheSizeOfGradients) {
  guild::Cpu device({.threads = 1});
  for (const float size : {1e-3f, 1.0f, 1e3f}) {
    NetWeights weights = filled_net(0.0f), gradients = filled_net(size);
    Optimizer<Net> optimizer(weights, AdamW{.lr = 0.01, .weight_decay = 0.0});
    optimizer.step(device, weights, gradients, 0.5);
    EXPECT_NEAR(weights.wide.weight.data[0], -0.005f, 1e-6f);
    EXPECT_NEAR(weights.norm.weight.data[0], -0.005f, 1e-6f);
  }
}

TEST(AdamW, AScaleOfTheGradientsIsAsScaledGradients) {
  guild::Cpu device({.threads = 1});
  NetWeights a = filled_net(0.5f), b = filled_net(0.5f), gradients = filled_net(0.0f), scaled = filled_net(0.0f);
  Optimizer<Net> first(a), second(b);
  for (std::uint64_t step = 0; step < 3; ++step) {
    fill_random<Net>(gradients, step);
    fill_random<Net>(scaled, step);
    guild::for_each_parameter<Net>(
        [](const Path&, const TensorShape&, Buffer& data) {
          for (float& g : data.view()) g *= 0.25f;
        },
        scaled);
    first.step(device, a, gradients, 1.0, 0.25);
    second.step(device, b, scaled);
  }
  EXPECT_TRUE(same_bits(elements<Net>(a), elements<Net>(b)));
}

TEST(AdamW, RefusesImpossibleNumbers) {
  const NetWeights shapes;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const AdamW& bad :
       {AdamW{.lr = -1.0}, AdamW{.lr = nan}, AdamW{.beta1 = 1.0}, AdamW{.beta1 = -0.1}, AdamW{.beta2 = 1.0},
        AdamW{.beta2 = nan}, AdamW{.epsilon = 0.0}, AdamW{.weight_decay = -0.1}, AdamW{.weight_decay = nan}})
    EXPECT_EQ(code_of([&] { Optimizer<Net>(shapes, bad); }), ErrorCode::op_argument);
  EXPECT_EQ(code_of([&] { Optimizer<Net>(shapes, AdamW{}); }), ErrorCode::count_);
}

}  // namespace adamw_test
