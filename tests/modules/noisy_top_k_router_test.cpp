// Routers with noise against tests/oracle/make_router_fixture.py, their gradients against central differences.
#include <guild/modules/noisy_top_k_router.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <guild/modules/gumbel_choice.hpp>
#include <guild/modules/jittered.hpp>
#include <guild/modules/moe.hpp>
#include <guild/training/initialize.hpp>

#include "../support/frozen_tensors.hpp"
#include "../support/one_router.hpp"

namespace noisy_top_k_router_test {

using guild::Choice;
using guild::Index;
using guild::View;
using guild_test::FrozenTensors;
using guild_test::OneRouter;

struct Spec {
  static constexpr guild::TrunkConfig config = {.hidden = 6};
  static constexpr guild::TopKConfig routing = {
      .experts = 8, .top_k = 3, .scoring = guild::Scoring::softmax, .selection = guild::Selection::greedy};
};
constexpr guild::Noise noise{.on = true, .seed = 0x123456789ABCDEF};
using Noisy = guild::NoisyTopKRouter<Spec>;

template <class Router, class Real>
struct FrozenRouter : OneRouter<Router, Real> {
  FrozenTensors frozen{"routers"};
  FrozenRouter() : OneRouter<Router, Real>(7, 6) {
    this->pass.noise = noise;
    frozen.load("x", this->x.view());
    frozen.load("dweights", this->dweights.view());
    frozen.load("weight", this->weights.weight.data.view());
  }
  void expect(const std::string& name, double tolerance) {
    this->both();
    EXPECT_EQ(this->chosen, frozen.integers(name + ".experts"));
    EXPECT_LE(frozen.error(View<const Real>(this->weights_tk.view()), name + ".weights"), tolerance);
    EXPECT_LE(frozen.error(View<const Real>(this->dx.view()), name + ".dx"), tolerance);
    EXPECT_LE(frozen.error(View<const Real>(this->gradients.weight.data.view()), name + ".dweight"), tolerance);
  }
};

template <class Real>
void expect_published(double tolerance) {
  FrozenRouter<Noisy, Real> router;
  router.frozen.load("noise_weight", router.weights.noise_weight.data.view());
  router.pass.balance = {.importance = 0.1, .load = 0.2};
  router.expect("noisy", tolerance);
  EXPECT_LE(router.frozen.error(View<const Real>(router.gradients.noise_weight.data.view()), "noisy.dnoise_weight"),
            tolerance);
  const double terms[] = {router.terms.importance, router.terms.load};
  EXPECT_LE(router.frozen.error(View<const double>(terms, 2), "noisy.terms"), tolerance);
}
TEST(NoisyTopKRouter, IsThePublishedOneWithItsLosses) {
  expect_published<double>(1e-7);
  expect_published<float>(3e-6);
}

TEST(NoisyTopKRouter, HasTheGradientsOfCentralDifferencesThroughBothMatrices) {
  OneRouter<Noisy, double> router(5, 6);
  router.pass.balance = {.importance = 0.3, .load = 0.4, .auxiliary = 0.1, .sequence = 0.1, .router_z = 0.1};
  router.pass.noise = noise;
  router.expect_true_gradients();
  OneRouter<Noisy, double> quiet(5, 6);  // without noise the load loss still knows its deviation
  quiet.pass.balance = {.load = 0.4};
  quiet.expect_true_gradients();
}

TEST(NoisyTopKRouter, DrawsByPlaceSoThatReplayAndASecondPassHaveTheSameBits) {
  OneRouter<Noisy, float> router(40, 6);
  router.pass.noise = noise;
  const auto run = [&](bool keep, Choice choice = Choice::made) {
    router.forward(keep, choice);
    return std::vector<float>(router.weights_tk.data(), router.weights_tk.data() + router.weights_tk.size());
  };
  const auto first = run(true);
  const auto chosen = router.chosen;
  EXPECT_EQ(run(false), first);
  EXPECT_EQ(run(true, Choice::given), first);
  EXPECT_EQ(router.chosen, chosen);
  const auto changes = [&] {
    const bool changed = run(true) != first && router.chosen != chosen;
    router.pass.noise = noise, router.pass.layer = 3;
    return changed;
  };
  router.pass.noise = noise.of(4, 0);
  EXPECT_TRUE(changes());
  router.pass.layer = 2;
  EXPECT_TRUE(changes());
  router.pass.noise.on = false;
  EXPECT_TRUE(changes());
  EXPECT_EQ(run(true), first);
}

TEST(NoisyTopKRouter, BeginsAtZeroWithAllExpertsEquallyLikely) {
  OneRouter<Noisy, float> router(2000, 6);
  guild::initialize<Noisy>(router.weights);
  for (const auto* matrix : {&router.weights.weight, &router.weights.noise_weight})
    for (const float value : matrix->data.view()) ASSERT_EQ(value, 0.0f);
  router.pass.noise = noise;
  router.forward();
  std::vector<int> counts(8);
  for (const std::int32_t e : router.chosen) ++counts[std::size_t(e)];
  for (const int count : counts) EXPECT_NEAR(count, 750, 4 * 22);  // binomial: deviation 21.7
}

using TopK = guild::TopKRouter<Spec>;

TEST(Jittered, MultipliesTheInputOfARouterAsSwitchDoes) {
  FrozenRouter<guild::Jittered<TopK, 0.1>, double>().expect("jitter", 1e-7);
  FrozenRouter<guild::Jittered<TopK, 0.1>, float>().expect("jitter", 3e-6);
  FrozenRouter<guild::Jittered<TopK, 0.1>, float> quiet;
  FrozenRouter<TopK, float> plain;
  quiet.pass.noise.on = plain.pass.noise.on = false;
  quiet.both(), plain.both();
  EXPECT_TRUE(std::equal(quiet.dx.data(), quiet.dx.data() + quiet.dx.size(), plain.dx.data()));
}

TEST(GumbelChoice, ChoosesByNoisyLogitsAndWeighsByThoseWithout) {
  FrozenRouter<guild::GumbelChoice<TopK>, double>().expect("gumbel", 1e-7);
  FrozenRouter<guild::GumbelChoice<TopK>, float> router;
  router.expect("gumbel", 3e-6);
  const auto chosen = router.chosen;
  router.pass.noise.on = false;
  router.forward();
  EXPECT_NE(router.chosen, chosen) << "noise chose what logits alone do";
}

struct OneOfFour : Spec {
  static constexpr guild::TopKConfig routing = {
      .experts = 4, .top_k = 1, .scoring = guild::Scoring::softmax, .selection = guild::Selection::greedy};
};
TEST(GumbelChoice, DrawsExpertsByTheirProbabilities) {
  OneRouter<guild::GumbelChoice<guild::TopKRouter<OneOfFour>>, float> router(4000, 6);
  for (float& value : router.x.view()) value = 1.0f;
  for (Index e = 0; e < 4; ++e)  // probabilities 0.1, 0.2, 0.3, 0.4
    for (Index i = 0; i < 6; ++i) router.weights.weight.data[e * 6 + i] = std::log(float(e + 1)) / 6.0f;
  router.pass.noise = noise;
  router.forward(false);
  double counts[4] = {};
  for (const std::int32_t e : router.chosen) counts[e] += 1.0;
  for (int e = 0; e < 4; ++e) EXPECT_NEAR(counts[e], 400.0 * (e + 1), 4 * 31);
}

/// Of a whole feed-forward network: router, routed and shared experts see the same jittered rows.
struct MoeSpec : Spec {
  static constexpr guild::ExpertConfig experts = {.hidden = 5, .shared = 1};
  template <class S>
  using Router = guild::TopKRouter<S>;
  template <class S>
  using Experts = guild::ExpertPool<S>;
  template <class S>
  using Dispatch = guild::Here;
};
struct JitteredMoeCase {
  using Module = guild::Jittered<guild::Moe<MoeSpec>, 0.2>;
  static constexpr Index inputs = 6, outputs = 6;
  static constexpr std::int32_t vocab = 5;
  template <class Real>
  using Saved = Module::Saved<Real>;
  template <class P>
  static P noisy(P pass) {
    pass.noise = noise;
    return pass;
  }
  template <class P, class W, class X, class Y, class S>
  static void forward(const P& pass, const W& weights, X x, Y y, S& saved) {
    Module::forward(noisy(pass), weights, x, y, &saved);
  }
  template <class P, class... A>
  static void backward(const P& pass, A&&... a) {
    Module::backward(noisy(pass), std::forward<A>(a)...);
  }
  template <class... A>
  static double extra_loss(A&&...) {
    return 0.0;
  }
};
TEST(Jittered, AroundAMoeHasTrueGradientsThroughRouterAndExperts) {
  guild_test::gradient_check<JitteredMoeCase>({4, 3}, 5);
}

TEST(Noise, OfStepsAndBatchesIsItsOwn) {
  std::set<std::uint64_t> seeds;
  for (Index step = 0; step < 20; ++step)
    for (Index batch = 0; batch < 5; ++batch) seeds.insert(noise.of(step, batch).seed);
  EXPECT_EQ(seeds.size(), 100U);
  EXPECT_TRUE(noise.of(1, 1).on);
  EXPECT_FALSE(guild::Noise{}.of(1, 1).on);
}

TEST(Noise, FollowsFromUniformNumbersAsTheLibrarysFunctionsSay) {
  const guild::Draws draws = noise.draws(2, guild::NoisePurpose::router_logits);
  for (std::uint32_t c = 0; c < 4000; ++c) {
    const guild::Philox::Block words = guild::Philox::words({c, 7, draws.layer, draws.purpose}, draws.seed);
    const double u = (words[0] + 0.5) * 0x1p-32, v = (words[1] + 0.5) * 0x1p-32;
    ASSERT_NEAR(draws.normal(7, c), std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * 3.14159265358979324 * v), 1e-12);
    ASSERT_NEAR(draws.gumbel(7, c), -std::log(-std::log(u)), 1e-12);
    const double spread = 40.0 * (u - 0.5), deviation = guild::detail::noise_deviation(spread);
    ASSERT_NEAR(guild::detail::noise_deviation(static_cast<float>(spread)), deviation, 4e-6 * deviation);
  }
  for (const double edge : {0x1p-33, 1.0 - 0x1p-33}) {
    EXPECT_DOUBLE_EQ(guild::detail::logarithm(edge), std::log(edge));
    EXPECT_DOUBLE_EQ(guild::detail::logarithm(-std::log(edge)), std::log(-std::log(edge)));
  }
}

TEST(Noise, HasTheMomentsOfItsDistributions) {
  const guild::Draws draws = noise.draws(0, guild::NoisePurpose::router_choice);
  double uniform = 0, normal = 0, squares = 0, gumbel = 0;
  constexpr Index rows = 200, cols = 100;
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < cols; ++c) {
      const double z = draws.normal(r, c);
      uniform += draws.uniform(r, c) / (rows * cols), normal += z / (rows * cols), squares += z * z / (rows * cols);
      gumbel += draws.gumbel(r, c) / (rows * cols);
    }
  EXPECT_NEAR(uniform, 0.5, 0.01);
  EXPECT_NEAR(normal, 0.0, 0.03);
  EXPECT_NEAR(squares, 1.0, 0.04);
  EXPECT_NEAR(gumbel, 0.5772, 0.04);
}

}  // namespace noisy_top_k_router_test
