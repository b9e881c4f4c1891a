// The norm of all gradients, what it says of non-finite ones, and clipping.
#include <guild/cpu.hpp>
#include <guild/training/gradient_norm.hpp>

#include <gtest/gtest.h>

#include <bit>
#include <limits>

#include "optimizer_support.hpp"

namespace gradient_norm_test {

using guild::ErrorCode;
using namespace guild_test;

using Wide = guild::Linear<300, 130>;  // several blocks, the last one short
using WideWeights = Wide::Weights<guild::Dense<float>>;

TEST(GradientNorm, IsTheNormOfTrainedTensorsOnly) {
  guild::Cpu device({.threads = 2});
  NetWeights gradients;
  guild::allocate_trained<Net>(gradients);
  fill_random<Net>(gradients, 3);
  double squares = 0.0;
  for (const float g : elements<Net>(gradients)) squares += double(g) * double(g);
  EXPECT_NEAR(guild::gradient_norm<Net>(device, gradients), std::sqrt(squares), 1e-12 * std::sqrt(squares));
  NetWeights all = filled_net(0.0f);  // with memory for state and copies too: it must not count
  std::fill_n(all.bias.data.data(), 3, 100.0f);
  std::fill_n(all.copy.data.data(), 6, 100.0f);
  EXPECT_EQ(guild::gradient_norm<Net>(device, all), 0.0);
}

TEST(GradientNorm, HasTheSameBitsForAnyNumberOfThreads) {
  WideWeights gradients;
  guild::allocate<Wide>(gradients);
  fill_random<Wide>(gradients, 8);
  guild::Cpu one({.threads = 1});
  const double expected = guild::gradient_norm<Wide>(one, gradients);
  for (int threads : {2, 3, 4}) {
    guild::Cpu device({.threads = threads});
    EXPECT_EQ(std::bit_cast<std::uint64_t>(guild::gradient_norm<Wide>(device, gradients)),
              std::bit_cast<std::uint64_t>(expected));
  }
}

TEST(GradientNorm, IsFiniteExactlyIfAllGradientsAre) {
  guild::Cpu device({.threads = 2});
  WideWeights gradients;
  guild::allocate<Wide>(gradients);
  const float largest = std::numeric_limits<float>::max();
  for (float& g : gradients.weight.data.view()) g = largest;
  EXPECT_TRUE(std::isfinite(guild::gradient_norm<Wide>(device, gradients)));
  for (const float bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()})
    for (const Index at : {Index{0}, Index{4095}, Index{4096}, gradients.weight.data.size() - 1}) {
      gradients.weight.data[at] = bad;
      EXPECT_FALSE(std::isfinite(guild::gradient_norm<Wide>(device, gradients))) << bad << " at " << at;
      gradients.weight.data[at] = largest;
    }
}

TEST(GradientNorm, AsksForMemory) {
  guild::Cpu device({.threads = 1});
  const NetWeights empty;
  EXPECT_EQ(code_of([&] { (void)guild::gradient_norm<Net>(device, empty); }), ErrorCode::op_shape);
}

TEST(ClipScale, BringsTheNormToTheLimit) {
  EXPECT_EQ(guild::clip_scale(0.0, 1.0), 1.0);
  EXPECT_EQ(guild::clip_scale(0.5, 1.0), 1.0);
  EXPECT_EQ(guild::clip_scale(1.0, 1.0), 1.0);
  EXPECT_EQ(guild::clip_scale(4.0, 1.0), 0.25);
  EXPECT_EQ(guild::clip_scale(1e30, INFINITY), 1.0);
}

TEST(ClipScale, RefusesImpossibleNumbers) {
  for (const double limit : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN()})
    EXPECT_EQ(code_of([&] { (void)guild::clip_scale(1.0, limit); }), ErrorCode::op_argument);
  for (const double norm : {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()})
    EXPECT_EQ(code_of([&] { (void)guild::clip_scale(norm, 1.0); }), ErrorCode::op_nonfinite);
}

}  // namespace gradient_norm_test
