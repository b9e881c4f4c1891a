// Published routers with capacity, and experts that choose tokens: numbers frozen by
// tests/oracle/make_capacity_fixture.py, and what chance does to GShard's second expert.
#include <guild/modules/switch_router.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include <guild/device/host_team.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/expert_choice_router.hpp>
#include <guild/modules/gshard_router.hpp>
#include <guild/modules/moe.hpp>

#include "../core/code_of.hpp"
#include "../support/frozen_tensors.hpp"
#include "../support/one_router.hpp"

namespace switch_router_test {

using guild::Capacity;
using guild::DropOrder;
using guild::ErrorCode;
using guild::Index;
using guild::View;
using guild_test::code_of;
using guild_test::FrozenTensors;
using guild_test::OneRouter;

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 19, .hidden = 6, .layers = 1};
  static constexpr guild::TopKConfig routing = {.experts = 4,
                                                .top_k = 1,
                                                .scoring = guild::Scoring::softmax,
                                                .selection = guild::Selection::greedy,
                                                .normalize = false};
  static constexpr Capacity capacity = {.factor = 1.1};
};
struct Two : Spec {
  static constexpr guild::TopKConfig routing = {
      .experts = 4, .top_k = 2, .scoring = guild::Scoring::softmax, .selection = guild::Selection::greedy};
  static constexpr Capacity capacity = {.factor = 1.0, .order = DropOrder::choice};
};
struct Roomy : Two {  // for all, so that chance alone drops
  static constexpr Capacity capacity = {.factor = 4.0};
};
struct Choosing : Spec {
  static constexpr guild::AttentionMask mask = guild::AttentionMask::bidirectional;
  static constexpr guild::ExpertConfig experts = {.hidden = 5, .shared = 1};
  static constexpr Capacity capacity = {.factor = 2.0};
  template <class S>
  using Router = guild::ExpertChoiceRouter<S>;
};
using Switch = guild::SwitchRouter<Spec>;
using GShard = guild::GShardRouter<Two>;
using Choice = guild::ExpertChoiceRouter<Choosing>;

template <class Router>
void load(OneRouter<Router, double>& one, const FrozenTensors& frozen, const std::string& name) {
  frozen.load(name + ".x", one.x.view());
  frozen.load(name + ".weight", one.weights.weight.data.view());
  frozen.load(name + ".dweights", one.dweights.view());
  for (double& value : one.gradients.weight.data.view()) value = 0.0;
}
template <class Router>
void expect_numbers(OneRouter<Router, double>& one, const FrozenTensors& frozen, const std::string& name) {
  EXPECT_LE(frozen.error(View<const double>(one.weights_tk.view()), name + ".weights"), 1e-7);
  EXPECT_LE(frozen.error(View<const double>(one.dx.view()), name + ".dx"), 1e-7);
  EXPECT_LE(frozen.error(View<const double>(one.gradients.weight.data.view()), name + ".dweight"), 1e-7);
}
template <class Router>
void expect_published(const std::string& name) {
  const FrozenTensors frozen("capacity");
  OneRouter<Router, double> one(24, 6);
  load(one, frozen, name);
  one.pass.balance.auxiliary = 0.05;
  one.both();
  EXPECT_EQ(one.chosen, frozen.integers(name + ".chosen"));
  EXPECT_NEAR(one.terms.auxiliary, double(frozen.floats(name + ".loss")[0]), 1e-8);
  expect_numbers(one, frozen, name);
}

TEST(SwitchRouter, ChoosesDropsWeighsAndBalancesAsPublished) { expect_published<Switch>("switch"); }
TEST(GShardRouter, ChoosesDropsWeighsAndBalancesAsPublished) { expect_published<GShard>("gshard"); }

/// Of a token, in the mean: the probability of its best expert, and (log sum exp of the logits)^2.
struct Confidence {
  double probability, squares;
};
/// After `steps` of gradient descent on -sum of the best experts' probabilities, and the z-loss.
Confidence confidence_after(int steps, double router_z) {
  OneRouter<Switch, double> one(24, 6);
  one.pass.balance.router_z = router_z;
  for (double& value : one.dweights.view()) value = -1.0;
  const auto learn = [&] {
    for (double& value : one.gradients.weight.data.view()) value = 0.0;
    one.both();
  };
  for (int step = 0; step < steps; ++step) {
    learn();
    for (Index i = 0; i < one.weights.weight.data.size(); ++i)
      one.weights.weight.data[i] -= 0.5 * one.gradients.weight.data[i];
  }
  if (router_z == 0.0) one.pass.balance.router_z = 1.0;
  learn();
  const double sum = std::accumulate(one.weights_tk.view().begin(), one.weights_tk.view().end(), 0.0);
  return {sum / 24.0, one.terms.router_z / one.pass.balance.router_z};
}

TEST(SwitchRouter, ItsZLossDampsOverconfidentScores) {
  const Confidence first = confidence_after(0, 0.0), free = confidence_after(30, 0.0),
                   damped = confidence_after(30, 2.0);
  EXPECT_GT(free.probability, first.probability + 0.2) << "the loss rewards being sure";
  EXPECT_GT(free.squares, 4.0 * first.squares);
  EXPECT_LT(damped.probability, free.probability - 0.2);
  EXPECT_LT(damped.squares, std::min(first.squares, 0.1 * free.squares));
  RecordProperty("figures", std::to_string(free.probability) + " and " + std::to_string(free.squares) + ", damped " +
                                std::to_string(damped.probability) + " and " + std::to_string(damped.squares));
}

TEST(GShardRouter, KeepsTheSecondExpertByChanceInPassesWithNoise) {
  constexpr Index tokens = 4000;
  OneRouter<guild::GShardRouter<Roomy, guild::gshard_second_threshold>, double> one(tokens, 6);
  const auto seconds = [&] {
    Index kept = 0;
    for (Index t = 0; t < tokens; ++t) kept += one.chosen[std::size_t(2 * t + 1)] >= 0 ? 1 : 0;
    return static_cast<double>(kept);
  };
  one.forward();
  EXPECT_EQ(seconds(), double{tokens}) << "there is no noise";
  one.pass.noise = {.on = true, .seed = 7};
  one.forward();
  const auto first = one.chosen;
  double expected = 0.0, variance = 0.0;
  for (Index t = 0; t < tokens; ++t) {
    EXPECT_GE(first[std::size_t(2 * t)], 0);
    const double p = std::min(1.0, one.weights_tk[2 * t + 1] / 0.5);
    expected += p, variance += p * (1.0 - p);
  }
  EXPECT_NEAR(seconds(), expected, 4.0 * std::sqrt(variance));
  one.forward();
  EXPECT_EQ(one.chosen, first) << "the same pass draws the same";
  one.forward(true, guild::Choice::given);
  EXPECT_EQ(one.chosen, first);
  ++one.pass.layer;
  one.forward();
  EXPECT_NE(one.chosen, first);
  --one.pass.layer;
  one.pass.noise.seed = 8;
  one.forward();
  EXPECT_NE(one.chosen, first);

  for (const int size : {1, 2, 3}) {
    guild::HostTeams teams(size);
    std::vector<std::int32_t> chosen = first;
    for (std::int32_t& e : chosen) e = e < 0 ? ~e : e;
    guild::drop_second_by_chance(teams, guild::Noise{true, 7}.draws(3, guild::NoisePurpose::second_expert), 0.5,
                                 View<const double, 2>(one.weights_tk.view(tokens, 2)), {chosen.data(), tokens, 2});
    EXPECT_EQ(chosen, first) << size;
  }
}

TEST(GShardRouter, BackwardAgreesWithCentralDifferences) {
  OneRouter<GShard, double> one(24, 6);
  one.pass.balance.auxiliary = 0.3;
  one.pass.noise = {.on = true, .seed = 7};
  one.expect_true_gradients();
}

/// Two sequences of the fixture.
struct TwoSequences {
  FrozenTensors frozen{"capacity"};
  OneRouter<Choice, double> one{17, 6};
  std::vector<guild::Chunk> chunks{{0, 0, 10, 0}, {1, 10, 7, 0}};
  TwoSequences() {
    load(one, frozen, "choosing");
    one.pass.batch.chunks = chunks;
    one.pass.mask = guild::AttentionMask::bidirectional;
  }
  [[nodiscard]] std::vector<std::int32_t> taken() const {
    std::vector<std::int32_t> taken;
    for (const std::int32_t e : one.chosen) taken.push_back(e >= 0 ? 1 : 0);
    return taken;
  }
};

TEST(ExpertChoiceRouter, TakesAndWeighsTheTokensOfEachSequenceAsPublished) {
  TwoSequences two;
  two.one.both();
  EXPECT_EQ(two.taken(), two.frozen.integers("choosing.taken"));
  expect_numbers(two.one, two.frozen, "choosing");
  EXPECT_EQ(Choice::slots(two.one.pass, 17, guild::Phase::training), 4 * (5 + 3));
}

TEST(ExpertChoiceRouter, TeamsTakeTheSameTokens) {
  TwoSequences two;
  two.one.forward();
  std::vector<std::int32_t> offsets{0}, most;
  for (const guild::Chunk& chunk : two.chunks)
    for (int e = 0; e < 4; ++e) {
      offsets.push_back(offsets.back() + static_cast<std::int32_t>(chunk.count));
      most.push_back(static_cast<std::int32_t>(Choice::tokens_of_expert(chunk.count)));
    }
  for (const int size : {1, 2, 3}) {
    guild::HostTeams teams(size);
    std::vector<std::int32_t> chosen(two.one.chosen.size());
    guild::choose_tokens(teams, View<const std::int32_t>(offsets.data(), 9), View<const std::int32_t>(most.data(), 8),
                         View<const double, 2>(two.one.weights_tk.view(17, 4)), {chosen.data(), 17, 4});
    EXPECT_EQ(chosen, two.one.chosen) << size;
    guild::count_up(teams, {chosen.data(), 17, 4});
    for (std::size_t i = 0; i < chosen.size(); ++i) EXPECT_EQ(chosen[i], static_cast<std::int32_t>(i % 4));
  }
}

TEST(ExpertChoiceRouter, RefusesCausalPassesAndRowsOfNoSequence) {
  TwoSequences two;
  two.one.pass.mask = guild::AttentionMask::causal;
  EXPECT_EQ(code_of([&] { two.one.forward(); }), ErrorCode::op_argument);
  two.one.pass.mask = guild::AttentionMask::bidirectional;
  two.chunks.pop_back();
  two.one.pass.batch.chunks = two.chunks;
  EXPECT_EQ(code_of([&] { two.one.forward(); }), ErrorCode::op_shape);
}

template <class M>
struct MoeCase {
  using Module = M;
  static constexpr Index inputs = 6, outputs = 6;
  static constexpr std::int32_t vocab = 19;
  template <class Real>
  using Saved = typename M::template Saved<Real>;
  static auto bidirectional(auto pass) {
    pass.mask = guild::AttentionMask::bidirectional;
    pass.balance.router_z = 0.2;
    return pass;
  }
  template <class P, class W, class X, class Y, class Saved>
  static void forward(const P& pass, const W& weights, X x, Y y, Saved& saved) {
    M::forward(bidirectional(pass), weights, x, y, &saved);
  }
  template <class P, class... A>
  static void backward(const P& pass, A&&... a) {
    M::backward(bidirectional(pass), std::forward<A>(a)...);
  }
  /// The z-loss of the router.
  template <class P, class W, class Saved>
  static double extra_loss(const P& pass, const W&, const Saved& saved) {
    guild::BalanceTerms terms;
    guild::balance_losses(pass.device, M::config, {.router_z = 0.2}, View<const double, 2>(saved.router.logits),
                          View<const std::int32_t, 2>(saved.chosen), {}, 1.0, {}, {&terms, 1});
    return terms.sum();
  }
};

TEST(ExpertChoiceRouter, BackwardOfAMixtureAgreesWithCentralDifferences) {
  guild_test::gradient_check<MoeCase<guild::Moe<Choosing>>>({9, 6, 1}, 5);
}

}  // namespace switch_router_test
