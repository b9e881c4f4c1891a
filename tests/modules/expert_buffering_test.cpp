// Experts that served too much rest: the rule against a loop in Python, its bounds under adversarial loads, and what a
// router makes of it.
#include <guild/modules/expert_buffering.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include <guild/device/host_team.hpp>
#include <guild/modules/gumbel_choice.hpp>
#include <guild/modules/router.hpp>

#include "../core/code_of.hpp"
#include "../support/frozen_tensors.hpp"
#include "../support/one_router.hpp"

namespace expert_buffering_test {

using guild::BufferingRule;
using guild::Choice;
using guild::Index;
using guild::View;
using guild_test::FrozenTensors;
using guild_test::OneRouter;

/// The state of a layer, and who is blocked.
struct Layer {
  Index experts;
  BufferingRule rule;
  guild::Cpu device{{.threads = 2}};
  std::vector<float> state = std::vector<float>(std::size_t(2 * experts));

  void step(const std::vector<double>& counts) {
    guild::update_buffering(device, guild::DeviceView<float>(state.data(), 2 * experts), {counts.data(), experts},
                            rule);
  }
  [[nodiscard]] double average(Index e) const {
    return double(state[std::size_t(e)]) + double(rule.top_k) / double(experts);
  }
  [[nodiscard]] int blocked(Index e) const { return int(state[std::size_t(experts + e)]); }
  [[nodiscard]] Index open(Index begin, Index end) const {
    Index count = 0;
    for (Index e = begin; e < end; ++e) count += blocked(e) == 0 ? 1 : 0;
    return count;
  }
};

TEST(ExpertBuffering, FollowsItsRuleAsALoopInPythonDoes) {
  const FrozenTensors frozen("routers");
  const auto counts = frozen.floats("buffering.counts"), states = frozen.floats("buffering.states");
  Layer layer{.experts = 16, .rule = {.slack = 0.4, .decay = 0.7, .most_steps = 4, .top_k = 2, .groups = 2}};
  Layer of_teams = layer;
  guild::HostTeams teams(3);
  std::size_t blocks = 0;
  for (std::size_t step = 0; step < counts.size() / 16; ++step) {
    const std::vector<double> now(counts.begin() + long(16 * step), counts.begin() + long(16 * step + 16));
    layer.step(now);
    guild::update_buffering(teams, View<float>(of_teams.state.data(), 32), View<const double>(now.data(), 16),
                            layer.rule);
    ASSERT_EQ(of_teams.state, layer.state);
    for (std::size_t i = 0; i < 16; ++i) {
      ASSERT_NEAR(layer.state[i], states[32 * step + i], 1e-6) << step;
      ASSERT_EQ(layer.state[16 + i], states[32 * step + 16 + i]) << step << ", expert " << i;
      blocks += layer.state[16 + i] > 0 ? 1 : 0;
    }
  }
  EXPECT_GT(blocks, 60U);
  const auto before = layer.state;
  layer.step(std::vector<double>(16));
  EXPECT_EQ(layer.state, before) << "a step without tokens";
}

TEST(ExpertBuffering, BoundsTheAverageUnderLoadsThatAlwaysTakeTheFullest) {
  // All tokens choose the same top_k experts: those open ones that already have most.
  const BufferingRule rule{.slack = 0.5, .decay = 0.9, .most_steps = 30, .top_k = 2, .groups = 1};
  Layer layer{.experts = 8, .rule = rule};
  const double mean = 0.25, overshoot = 0.1 * (1.0 - mean);
  double highest = 0.0;
  Index fewest = 8;
  for (int step = 0; step < 500; ++step) {
    std::vector<Index> order(8);
    std::iota(order.begin(), order.end(), Index{0});
    std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) {
      return std::pair(layer.blocked(a), -layer.average(a)) < std::pair(layer.blocked(b), -layer.average(b));
    });
    std::vector<double> counts(8);
    counts[std::size_t(order[0])] = counts[std::size_t(order[1])] = 64.0;
    layer.step(counts);
    for (Index e = 0; e < 8; ++e) highest = std::max(highest, layer.average(e));
    fewest = std::min(fewest, layer.open(0, 8));
  }
  EXPECT_LE(highest, 1.5 * mean + overshoot);
  EXPECT_GT(highest, 1.5 * mean) << "nothing was ever blocked";
  EXPECT_GE(fewest, 3);
}

TEST(ExpertBuffering, KeepsEnoughExpertsOfEachGroupOpen) {
  const BufferingRule rule{.slack = 0.1, .decay = 0.0, .most_steps = 100, .top_k = 2, .groups = 2};
  Layer layer{.experts = 10, .rule = rule};
  layer.step({10, 9, 8, 7, 6, 0, 0, 0, 0, 0});  // all of the first group are far above the mean
  EXPECT_EQ(layer.open(0, 5), 3);
  EXPECT_EQ(layer.open(5, 10), 5);
  EXPECT_TRUE(layer.blocked(0) == 1 && layer.blocked(1) == 1) << "the fullest rest";
}

TEST(ExpertBuffering, ReleasesBelowHalfTheSlackOrAfterMostSteps) {
  const BufferingRule rule{.slack = 0.5, .decay = 0.5, .most_steps = 3, .top_k = 1, .groups = 1};
  Layer layer{.experts = 4, .rule = rule};
  layer.step({4, 2, 1, 1});  // averages 0.375, 0.3125: blocked above 0.375, which a value just at it is not
  EXPECT_EQ(layer.open(0, 4), 4);
  layer.step({4, 2, 1, 1});
  EXPECT_EQ(layer.blocked(0), 1);
  layer.step({3, 2, 2, 1});  // 0.40625: above what blocks
  EXPECT_EQ(layer.blocked(0), 2);
  Layer other = layer;
  layer.step({2, 2, 2, 2});  // 0.328: between the two, so it stays
  EXPECT_EQ(layer.blocked(0), 3);
  other.step({0, 3, 3, 2});  // 0.203: below 1.25 of the mean
  EXPECT_EQ(other.blocked(0), 0);
  layer.step({5, 1, 1, 1});  // still too much, but three steps have passed
  EXPECT_EQ(layer.blocked(0), 0);
  layer.step({5, 1, 1, 1});
  EXPECT_EQ(layer.blocked(0), 1);
}

struct Spec {
  static constexpr guild::TrunkConfig config = {.hidden = 6};
  static constexpr guild::TopKConfig routing = {.experts = 10, .top_k = 2, .groups = 2, .top_groups = 1};
};
struct AlsoAtInference : guild::DefaultBuffering {
  static constexpr bool at_inference = true;
};
using TopK = guild::TopKRouter<Spec>;

template <class Router, class Real>
std::vector<Real> weights_of(OneRouter<Router, Real>& router) {
  return {router.weights_tk.data(), router.weights_tk.data() + router.weights_tk.size()};
}
template <class Router>
bool chose(const Router& router, std::int32_t e) {
  return std::find(router.chosen.begin(), router.chosen.end(), e) != router.chosen.end();
}

TEST(ExpertBuffering, BlocksInTrainingAndWhereThePolicySaysSoAtInference) {
  OneRouter<guild::ExpertBuffering<TopK>, double> router(40, 6);
  OneRouter<guild::ExpertBuffering<TopK, AlsoAtInference>, double> always(40, 6);
  const auto block = [&](double steps) {
    for (const Index e : {1, 2, 7})
      router.weights.buffering.data[10 + e] = always.weights.buffering.data[10 + e] = steps;
  };
  for (auto* state : {&router.weights.buffering, &always.weights.buffering, &router.weights.selection_bias,
                      &always.weights.selection_bias})
    for (double& value : state->data.view()) value = 0.0;
  router.forward();
  const auto open = router.chosen;
  ASSERT_TRUE(chose(router, 1) && chose(router, 2) && chose(router, 7));
  block(1.0);
  router.forward(false), always.forward(false);
  EXPECT_EQ(router.chosen, open) << "inference without";
  EXPECT_FALSE(chose(always, 1) || chose(always, 2) || chose(always, 7)) << "inference with";
  router.forward();
  EXPECT_FALSE(chose(router, 1) || chose(router, 2) || chose(router, 7));
  EXPECT_EQ(router.chosen, always.chosen);
  // Weights are those of the plain router for these experts, and so are gradients.
  OneRouter<TopK, double> plain(40, 6);
  std::copy_n(router.weights.weight.data.data(), 60, plain.weights.weight.data.data());
  std::copy_n(router.x.data(), 240, plain.x.data());
  for (double& value : plain.weights.selection_bias.data.view()) value = 0.0;
  plain.chosen = router.chosen;
  plain.forward(true, Choice::given);
  EXPECT_EQ(weights_of(router), weights_of(plain));
  router.expect_true_gradients();
  // What is given is taken, blocked or not.
  router.chosen = open;
  router.forward(true, Choice::given);
  EXPECT_EQ(router.chosen, open);
}

TEST(ExpertBuffering, GoesAroundOtherDecoratorsAndSurvivesAStateThatBlocksAll) {
  OneRouter<guild::ExpertBuffering<guild::GumbelChoice<TopK>>, float> router(40, 6);
  for (float& value : router.weights.buffering.data.view()) value = 0.0f;
  router.weights.buffering.data[10 + 4] = 2.0f;
  router.pass.noise = {.on = true, .seed = 3};
  router.forward();
  EXPECT_FALSE(chose(router, 4));
  for (Index e = 0; e < 10; ++e) router.weights.buffering.data[10 + e] = 1.0f;
  router.forward();
  for (Index t = 0; t < 40; ++t) EXPECT_NE(router.chosen[std::size_t(2 * t)], router.chosen[std::size_t(2 * t + 1)]);
}

TEST(ExpertBuffering, RefusesStatesOfAnotherSize) {
  Layer layer{.experts = 8, .rule = {.slack = 0.5, .decay = 0.9, .most_steps = 3, .top_k = 2, .groups = 1}};
  layer.state.resize(12);
  const std::vector<double> counts(8, 1.0);
  EXPECT_EQ(guild_test::code_of([&] {
              guild::update_buffering(layer.device, guild::DeviceView<float>(layer.state.data(), 12),
                                      guild::DeviceView<const double>(counts.data(), 8), layer.rule);
            }),
            guild::ErrorCode::op_shape);
}

}  // namespace expert_buffering_test
