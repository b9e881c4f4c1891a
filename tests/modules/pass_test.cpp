// What a pass keeps and where, who may watch it, and what it refuses.
#include <guild/cpu.hpp>
#include <guild/modules/pass.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

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

/// Counts on the host what it is shown.
struct Counting final : guild::Observer {
  std::vector<std::vector<double>> load, importance;
  std::vector<double> entropy, tokens;
  void on_routing(int layer, guild::View<const std::int32_t, 2> e, guild::View<const float, 2> w) override {
    const auto l = static_cast<std::size_t>(layer);
    for (auto* list : {&load, &importance})
      list->resize(std::size_t{TinySpec::config.layers}, std::vector<double>(std::size_t{TinySpec::routing.experts}));
    for (auto* list : {&entropy, &tokens}) list->resize(std::size_t{TinySpec::config.layers});
    for (Index t = 0; t < e.rows; ++t) {
      double sum = 0;
      for (const float weight : w.row(t)) sum += static_cast<double>(weight);
      for (Index k = 0; k < e.cols; ++k) {
        const auto weight = static_cast<double>(w(t, k));
        load[l][static_cast<std::size_t>(e(t, k))] += 1;
        importance[l][static_cast<std::size_t>(e(t, k))] += weight;
        entropy[l] -= weight / sum * std::log(weight / sum);
      }
      tokens[l] += 1;
    }
  }
};

TEST_F(ModelPass, CountsOfRoutingAreWhatAnObserverSees) {
  Counting seen;
  guild::RoutingStatistics counted(TinySpec::config.layers, Model::routed_experts);
  const guild::Pass pass{.device = device, .batch = flat.batch(), .observer = &seen, .counts = counted.view()};
  Model::forward(pass, weights, list, states.view());
  const Flat next({{0, &tokens, 20, 21}});
  guild::Pass decoding = pass;
  decoding.batch = next.batch();
  Model::forward(decoding, weights, list, states.view().middle_rows(0, 1));
  int layers = 0;
  for (int layer = 0; layer < TinySpec::config.layers; ++layer) {
    const auto l = static_cast<std::size_t>(layer);
    EXPECT_EQ(counted.tokens(layer), seen.tokens[l]);
    if (seen.tokens[l] == 0) continue;
    ++layers;
    EXPECT_EQ(counted.tokens(layer), 51);
    EXPECT_EQ(std::vector<double>(counted.load(layer).begin(), counted.load(layer).end()), seen.load[l]);
    EXPECT_NEAR(counted.entropy(layer), seen.entropy[l] / 51, 1e-12);
    EXPECT_GT(counted.entropy(layer), 0.1);
    for (Index e = 0; e < counted.experts(); ++e)
      EXPECT_NEAR(counted.importance(layer)[e], seen.importance[l][static_cast<std::size_t>(e)], 1e-9);
  }
  EXPECT_EQ(layers, TinySpec::config.layers - TinySpec::dense.layers);
}

TEST_F(ModelPass, ReplayedChoicesAreCountedAsThoseThatWereMade) {
  Choices seen;
  guild::RoutingStatistics made(TinySpec::config.layers, Model::routed_experts), replayed = made;
  guild::Pass pass{.device = device, .batch = flat.batch(), .observer = &seen, .counts = made.view()};
  Model::forward(pass, weights, {}, states.view());
  std::vector<guild::DeviceView<std::int32_t, 2>> choices(seen.of.size());
  for (std::size_t layer = 0; layer < choices.size(); ++layer)
    if (!seen.of[layer].empty()) choices[layer] = {seen.of[layer].data(), 50, TinySpec::routing.top_k};
  pass.choices = choices;
  pass.observer = nullptr;
  pass.counts = replayed.view();
  Model::forward(pass, weights, {}, other.view());
  EXPECT_TRUE(same_bits(other, states));
  const guild::RoutingCounts a = made.view(), b = replayed.view();
  for (int layer = 0; layer < TinySpec::config.layers; ++layer)
    EXPECT_TRUE(std::ranges::equal(host_view(device, a.sums_of(layer)), host_view(device, b.sums_of(layer)))) << layer;
  // Other choices than the model's own: all tokens go to the first experts.
  const int last = TinySpec::config.layers - 1;
  EXPECT_GT(made.effective_experts(last), 1.2 * TinySpec::routing.top_k);
  for (auto& of_layer : seen.of)
    for (std::size_t i = 0; i < of_layer.size(); ++i)
      of_layer[i] = static_cast<std::int32_t>(i % TinySpec::routing.top_k);
  replayed.clear();
  Model::forward(pass, weights, {}, other.view());
  EXPECT_NEAR(replayed.effective_experts(last), TinySpec::routing.top_k, 1e-9);
  EXPECT_EQ(replayed.load(last)[0], 50);
  EXPECT_EQ(replayed.dead_experts(last).size(), std::size_t{TinySpec::routing.experts - TinySpec::routing.top_k});
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
