// Muon against torch, which tensors it trains, and where its scale comes from.
#include <guild/cpu.hpp>
#include <guild/training/optimizer.hpp>

#include <gtest/gtest.h>

#include "optimizer_support.hpp"

namespace muon_test {

using guild::AdamW;
using guild::ErrorCode;
using guild::Muon;
using guild::MuonScale;
using guild::Optimizer;
using namespace guild_test;

void expect_matches_torch(const std::string& name, const Muon& options) {
  const OptimizerFixture fixture;
  guild::Cpu device({.threads = 2});
  NetWeights weights = filled_net(0.0f), gradients = filled_net(0.0f);
  fixture.load("start.", weights);
  Optimizer<Net> optimizer(weights, options);
  for (Index step = 0; step < OptimizerFixture::steps; ++step) {
    fixture.load("gradient." + std::to_string(step) + ".", gradients);
    optimizer.step(device, weights, gradients);
  }
  guild::for_each_parameter<Net>(
      [&](const Path& path, const TensorShape&, const Buffer& data) {
        EXPECT_LT(fixture.error(data.view(), name + ".weight." + first_name(path)), 2e-5) << path.str();
      },
      weights);
  int momenta = 0;
  optimizer.visit_state([&](const std::string& key, const TensorShape&, guild::View<float> values) {
    if (!key.starts_with("muon.momentum.")) return;
    ++momenta;  // torch keeps an average, which is 1 - momentum times the sum
    const std::string tensor = key.substr(14, key.find(".weight") - 14);
    EXPECT_LT(fixture.error(values, name + ".momentum." + tensor, 1.0 - options.momentum), 1e-6) << key;
  });
  EXPECT_EQ(momenta, 4);
}

TEST(Muon, MatchesTorchWithTheScaleOfAdamW) {
  expect_matches_torch("muon", {.lr = 2e-3, .momentum = 0.95, .weight_decay = 0.1, .rest = {.lr = 3e-3}});
}
TEST(Muon, MatchesTorchWithTheOriginalScale) {
  expect_matches_torch(
      "spectral",
      {.lr = 0.02, .momentum = 0.9, .weight_decay = 0.1, .scale = MuonScale::spectral, .rest = {.lr = 3e-3}});
}

TEST(Muon, UpdatesAreAsLargeAsThoseOfAdamW) {
  // Moonlight: a semi-orthogonal [r, c] has root mean square 1 / sqrt(max(r, c)), so updates have 0.2 lr.
  guild::Cpu device({.threads = 1});
  NetWeights weights = filled_net(0.0f), gradients = filled_net(0.0f);
  fill_random<Net>(gradients, 5);
  Optimizer<Net> optimizer(weights, Muon{.lr = 1.0, .weight_decay = 0.0});
  optimizer.step(device, weights, gradients);
  for (const auto* matrix : {&weights.wide.weight, &weights.tall.weight, &weights.large.weight}) {
    double squares = 0.0;
    for (const float value : matrix->data.view()) squares += double(value) * double(value);
    const double short_side = static_cast<double>(std::min(matrix->rows, matrix->cols));
    const double rms = std::sqrt(squares / static_cast<double>(matrix->data.size()));
    const double full_rank = std::sqrt(short_side / static_cast<double>(std::min(matrix->rows, matrix->cols)));
    EXPECT_NEAR(rms, 0.2 * full_rank, 0.06);
  }
}

TEST(Muon, DecaysByItsOwnRate) {
  guild::Cpu device({.threads = 1});
  NetWeights weights = filled_net(1.0f), gradients = filled_net(0.0f);
  Optimizer<Net> optimizer(weights, Muon{.lr = 0.5, .weight_decay = 0.1, .rest = {.lr = 0.25, .weight_decay = 0.2}});
  optimizer.step(device, weights, gradients, 0.5);
  EXPECT_FLOAT_EQ(weights.wide.weight.data[3], 1.0f - 0.5f * 0.5f * 0.1f);
  EXPECT_FLOAT_EQ(weights.head.weight.data[3], 1.0f - 0.5f * 0.25f * 0.2f);
  EXPECT_FLOAT_EQ(weights.norm.weight.data[3], 1.0f);
}

TEST(Muon, KeepsOneMomentForItsMatricesAndTwoForTheRest) {
  const NetWeights shapes;
  Optimizer<Net> optimizer(shapes, Muon{});
  const Index hidden = 6 * 10 + 12 * 5 + 9 * 9 + 20 * 33, rest = 11 * 6 + 7 * 10 + 10;
  EXPECT_EQ(optimizer.bytes(), 4 * (hidden + 2 * rest));
  Optimizer<Net> adamw(shapes, AdamW{});
  EXPECT_EQ(adamw.bytes(), 4 * 2 * (hidden + rest));
}

TEST(Muon, RefusesImpossibleNumbers) {
  const NetWeights shapes;
  for (const Muon& bad : {Muon{.lr = -1.0}, Muon{.momentum = 1.0}, Muon{.weight_decay = INFINITY},
                          Muon{.iterations = 0}, Muon{.iterations = 101}, Muon{.rest = {.beta1 = 2.0}}})
    EXPECT_EQ(code_of([&] { Optimizer<Net>(shapes, bad); }), ErrorCode::op_argument);
}

}  // namespace muon_test
