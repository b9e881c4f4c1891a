// The router of Sinkhorn's iteration against Megatron-LM's (tests/oracle/make_router_fixture.py).
#include <guild/modules/sinkhorn_router.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <guild/device/host_team.hpp>

#include "../support/frozen_tensors.hpp"
#include "../support/one_router.hpp"

namespace sinkhorn_router_test {

using guild::Choice;
using guild::Index;
using guild::View;
using guild_test::FrozenTensors;
using guild_test::OneRouter;

template <int K>
struct Spec {
  static constexpr guild::TrunkConfig config = {.hidden = 6};
  static constexpr guild::TopKConfig routing = {.experts = 8,
                                                .top_k = K,
                                                .scoring = K == 1 ? guild::Scoring::sigmoid : guild::Scoring::softmax,
                                                .selection = guild::Selection::greedy,
                                                .normalize = false};
};
constexpr Index tokens = 24;

template <int K, class Real>
struct FrozenRouter : OneRouter<guild::SinkhornRouter<Spec<K>>, Real> {
  FrozenTensors frozen{"routers"};
  const std::string name = "sinkhorn" + std::to_string(K) + ".";
  FrozenRouter() : OneRouter<guild::SinkhornRouter<Spec<K>>, Real>(tokens, 6) {
    frozen.load("sinkhorn.x", this->x.view());
    frozen.load("weight", this->weights.weight.data.view());
    frozen.load(name + "dweights", this->dweights.view());
  }
  void expect(double tolerance) {
    this->both();
    EXPECT_EQ(this->chosen, frozen.integers(name + "experts"));
    EXPECT_LE(frozen.error(View<const Real>(this->weights_tk.view()), name + "weights"), tolerance);
    EXPECT_LE(frozen.error(View<const Real>(this->dx.view()), name + "dx"), tolerance);
    EXPECT_LE(frozen.error(View<const Real>(this->gradients.weight.data.view()), name + "dweight"), tolerance);
  }
};

TEST(SinkhornRouter, IsThatOfMegatron) {
  FrozenRouter<1, double>().expect(1e-7);
  FrozenRouter<3, double>().expect(1e-7);
  FrozenRouter<3, float>().expect(3e-6);
}

TEST(SinkhornRouter, HasTheGradientsOfCentralDifferences) { FrozenRouter<1, double>().expect_true_gradients(); }

TEST(SinkhornRouter, BalancesInTrainingAloneAndTakesGivenChoices) {
  FrozenRouter<3, float> router;
  const auto busiest = [&] {
    int counts[8] = {};
    for (const std::int32_t e : router.chosen) ++counts[e];
    return *std::max_element(counts, counts + 8);
  };
  router.forward();
  const auto balanced = router.chosen;
  const int most = busiest();
  router.forward(false);
  const auto plain = router.chosen;
  EXPECT_GT(busiest(), most + 4);
  OneRouter<guild::TopKRouter<Spec<3>>, float> top(tokens, 6);
  std::copy_n(router.x.data(), router.x.size(), top.x.data());
  std::copy_n(router.weights.weight.data.data(), 48, top.weights.weight.data.data());
  top.forward();
  EXPECT_EQ(top.chosen, plain);
  router.chosen = balanced;
  router.forward(false, Choice::given);
  EXPECT_EQ(router.chosen, balanced);
}

TEST(SinkhornLogits, HaveEqualSharesOnAnyTeamAndWithLargeLogits) {
  const FrozenTensors frozen("routers");
  FrozenRouter<3, double> router;
  router.forward();
  const auto logits = router.saved.logits;
  std::vector<double> balanced(tokens * 8), of_teams = balanced;
  guild::sinkhorn_logits(router.device, {}, logits, guild::DeviceView<double, 2>(balanced.data(), tokens, 8));
  guild::HostTeams teams(3);
  guild::sinkhorn_logits(teams, {}, logits, guild::DeviceView<double, 2>(of_teams.data(), tokens, 8));
  // The matrix itself, whose rows sum to 1 / tokens.
  const auto expected = frozen.floats("sinkhorn3.matrix");
  for (std::size_t t = 0; t < tokens; ++t) {
    double sum = 0.0, of_row = 0.0;
    for (std::size_t e = 0; e < 8; ++e) sum += std::exp(balanced[8 * t + e]), of_row += double(expected[8 * t + e]);
    for (std::size_t e = 0; e < 8; ++e) {
      EXPECT_NEAR(std::exp(balanced[8 * t + e]) / sum * of_row, double(expected[8 * t + e]), 1e-7);
      EXPECT_NEAR(of_teams[8 * t + e], balanced[8 * t + e], 1e-12);
    }
  }
  // exp(400) is no float: all tokens would take expert 0 first, then 1, and so on.
  std::vector<float> large(tokens * 8), out = large;
  for (std::size_t i = 0; i < large.size(); ++i) large[i] = 400.0f - 30.0f * float(i % 8) + 0.1f * float(i * 7 % 11);
  guild::sinkhorn_logits(router.device, {}, guild::DeviceView<const float, 2>(large.data(), tokens, 8),
                         guild::DeviceView<float, 2>(out.data(), tokens, 8));
  for (const float value : out) EXPECT_TRUE(std::isfinite(value));
}

}  // namespace sinkhorn_router_test
