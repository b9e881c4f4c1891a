// What a pass keeps and where, who may watch it, and what it refuses.
#include <guild/cpu.hpp>
#include <guild/modules/pass.hpp>

#include <gtest/gtest.h>

#include <string>

#include <guild/modules/caches.hpp>

#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"

namespace pass_test {

using guild::ErrorCode;
using guild::Index;
using namespace guild_test;

using Network = guild::Mlp<12, 20>;

/// An arena, a device and a small network.
struct PassTest : testing::Test {
  guild::Cpu device{{.threads = 1}};
  guild::Arena arena;
  guild::Arena::Frame memory{arena};
  const Network::Weights<guild::Published> weights = random_weights<Network>();
  Matrix x{5, 12}, y{5, 12}, again{5, 12};

  PassTest() {
    const auto values = random_values(60, 2);
    std::copy(values.view().begin(), values.view().end(), x.values.begin());
  }
};

TEST_F(PassTest, WhatIsKeptLiesInItsMemoryAndTheRestInScratch) {
  const guild::Pass pass{.device = device, .memory = &memory};
  Network::forward(pass, weights, x.view(), y.view());
  EXPECT_EQ(arena.taken(), 0) << "nothing was asked for";
  Network::Saved<float> saved;
  Network::forward(pass, weights, x.view(), again.view(), &saved);
  EXPECT_EQ(arena.taken(), 2 * 448) << "gate and up, 5 x 20 floats each, in pieces of 64 bytes";
  EXPECT_LE(relative_error(again, y), 1e-6);
}

TEST_F(PassTest, ARoomWithoutAnythingToKeepTakesAllFromScratch) {
  const guild::Pass pass{.device = device};
  auto room = pass.room(static_cast<const Network::Saved<float>*>(nullptr));
  const auto a = room.keep<float>(3, 4), b = room.take<float>(3, 4);
  EXPECT_EQ(b.data - a.data, 16) << "one frame";
  EXPECT_EQ(arena.taken(), 0);
}

TEST_F(PassTest, KeepingNeedsMemory) {
  Network::Saved<float> saved;
  try {
    Network::forward(guild::Pass{.device = device}, weights, x.view(), y.view(), &saved);
    FAIL() << "no error";
  } catch (const guild::Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::op_argument);
    EXPECT_NE(std::string(error.what()).find("Pass::memory"), std::string::npos) << error.what();
  }
}

TEST(Caches, AreThoseOfAFunctionOrNone) {
  int numbers[] = {10, 20};
  const auto of = [&](int sequence) -> int& { return numbers[sequence]; };
  const guild::Caches<int> caches = of, copy = caches, none;
  EXPECT_TRUE(caches);
  EXPECT_FALSE(none);
  ++copy[1];
  EXPECT_EQ(caches[0], 10);
  EXPECT_EQ(caches[1], 21);
}

/// A model of two layers and a batch of two sequences.
struct ModelPass : testing::Test {
  using Model = guild::Transformer<TinySpec>;
  guild::Cpu device{{.threads = 2}};
  const Model::Weights<guild::Published> weights = random_model<Model>();
  const Tokens tokens = random_tokens(30, 97, 3);
  const Flat flat{{{0, &tokens, 0, 20}, {1, &tokens, 0, 30}}};
  Model::Cache caches[2];
  Model::Cache* list[2] = {&caches[0], &caches[1]};
  Matrix states{50, TinySpec::config.hidden}, other{50, TinySpec::config.hidden};
  guild::Arena arena;
  guild::Arena::Frame memory{arena};

  void expect_refusal(const guild::Pass<guild::Cpu>& pass, bool with_caches, Model::Saved<float>* keep, ErrorCode code,
                      const std::string& part) {
    try {
      Model::forward(pass, weights,
                     with_caches ? std::span<Model::Cache* const>(list) : std::span<Model::Cache* const>(),
                     states.view(), keep);
      FAIL() << "no error";
    } catch (const guild::Error& error) {
      EXPECT_EQ(error.code(), code);
      EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what();
    }
  }
};

TEST_F(ModelPass, DecodingEvaluationAndTrainingAgree) {
  const guild::Pass pass{.device = device, .batch = flat.batch(), .memory = &memory};
  Model::forward(pass, weights, list, states.view());
  Model::forward(pass, weights, {}, other.view());
  EXPECT_LE(relative_error(other, states), 1e-5);
  EXPECT_EQ(arena.taken(), 0);
  Model::Saved<float> saved;
  Model::forward(pass, weights, {}, other.view(), &saved);
  EXPECT_LE(relative_error(other, states), 1e-5);
  EXPECT_GT(arena.taken(), 0);
}

struct Choices final : guild::Observer {
  std::vector<std::vector<std::int32_t>> of{std::size_t{TinySpec::config.layers}};
  void on_routing(int layer, guild::View<const std::int32_t, 2> e, guild::View<const float, 2>) override {
    of[static_cast<std::size_t>(layer)].assign(e.data, e.data + e.rows * e.cols);
  }
};

TEST_F(ModelPass, TheExpertsOfDecodingAreReplayedByAPassWithoutCaches) {
  Choices seen, again;
  Model::forward(guild::Pass{.device = device, .batch = flat.batch(), .observer = &seen}, weights, list, states.view());
  std::vector<guild::DeviceView<std::int32_t, 2>> choices(seen.of.size());
  for (std::size_t layer = 0; layer < choices.size(); ++layer)
    if (!seen.of[layer].empty()) {
      for (std::int32_t& expert : seen.of[layer]) expert = (expert + 1) % TinySpec::routing.experts;
      choices[layer] = {seen.of[layer].data(), 50, TinySpec::routing.top_k};
    }
  const guild::Pass pass{.device = device, .batch = flat.batch(), .observer = &again, .choices = choices};
  Model::forward(pass, weights, {}, other.view());
  EXPECT_EQ(again.of, seen.of);
  EXPECT_GT(relative_error(other, states), 1e-3) << "other experts";
}

TEST_F(ModelPass, RefusesWhatNoPassCanBe) {
  const guild::Pass pass{.device = device, .batch = flat.batch(), .memory = &memory};
  Model::Saved<float> saved;
  expect_refusal(pass, true, &saved, ErrorCode::op_argument, "cannot go backward");
  guild::Pass both = pass;
  both.mask = guild::AttentionMask::bidirectional;
  expect_refusal(both, true, nullptr, ErrorCode::op_argument, "cannot attend to a cache");
  const Flat later({{0, &tokens, 4, 9}});
  guild::Pass in_the_middle = pass;
  in_the_middle.batch = later.batch();
  expect_refusal(in_the_middle, false, nullptr, ErrorCode::op_shape, "begins at position 4");
  std::vector<float> masses(50, 1.0f);  // whether layers heed them or not
  guild::Pass weighed = pass;
  weighed.masses = {masses.data(), 49};
  expect_refusal(weighed, true, nullptr, ErrorCode::op_shape, "Pass::masses");
  weighed.masses.size = 50;
  masses[30] = 0.0f;
  expect_refusal(weighed, true, nullptr, ErrorCode::op_argument, "weighs 0.0");
}

}  // namespace pass_test
