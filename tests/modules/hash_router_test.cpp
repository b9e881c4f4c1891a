// Routers of DeepSeek-V4: by a table of token ids, and by the roots of softplus scores, against transformers' modules
// and their gradients by autograd (tests/oracle/make_deepseek_v4_fixture.py).
#include <guild/modules/hash_router.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/modules/router.hpp>
#include <guild/training/allocate.hpp>

#include "../core/code_of.hpp"
#include "../support/frozen_tensors.hpp"

namespace hash_router_test {

using guild::Buffer;
using guild::Choice;
using guild::ErrorCode;
using guild::Index;
using guild_test::code_of;
using guild_test::FrozenTensors;

struct Spec {
  static constexpr guild::TrunkConfig config = {.vocab = 11, .hidden = 6, .layers = 1};
  static constexpr guild::TopKConfig routing = {
      .experts = 8, .top_k = 3, .scoring = guild::Scoring::sqrt_softplus, .scale = 1.5};
};
constexpr Index tokens = 5, hidden = 6, top_k = 3, experts = 8;

/// One router with the frozen weights, forward and back.
template <class Router, class Real>
struct OneRouter {
  FrozenTensors frozen{"deepseek_v4"};
  guild::Cpu device{{.threads = 2}};
  guild::Arena arena;
  guild::Arena::Frame memory{arena};
  std::vector<std::int32_t> ids = frozen.integers("router.tokens");
  std::vector<std::int32_t> chosen = std::vector<std::int32_t>(tokens * top_k);
  guild::Pass<guild::Cpu> pass{.device = device, .batch = {{ids.data(), tokens}, {}, {}}, .memory = &memory};
  typename Router::template Weights<guild::Dense<Real>> weights, gradients;
  Buffer<Real> x{tokens * hidden}, weights_tk{tokens * top_k}, dweights{tokens * top_k}, dx{tokens * hidden};

  OneRouter() {
    guild::allocate<Router>(weights);
    guild::allocate_trained<Router>(gradients);
    frozen.load("router.x", x.view());
    frozen.load("router.weight", weights.weight.data.view());
    frozen.load("router.dweights", dweights.view());
    if constexpr (requires { weights.table; }) {
      const auto table = frozen.integers("router.tid2eid");
      std::copy(table.begin(), table.end(), weights.table.data.data());
    } else {
      frozen.load("router.selection_bias", weights.selection_bias.data.view());
    }
  }
  [[nodiscard]] guild::Routing<Real> routing(Choice choice = Choice::made) {
    return {{chosen.data(), tokens, top_k}, weights_tk.view(tokens, top_k), choice};
  }
  void forward(typename Router::template Saved<Real>* keep = nullptr, Choice choice = Choice::made) {
    Router::forward(pass, weights, guild::DeviceView<const Real, 2>(x.view(tokens, hidden)), routing(choice), keep);
  }
  /// Forward with the choice in ascending order, as the fixture has it, and back.
  void both() {
    typename Router::template Saved<Real> saved;
    forward();
    if constexpr (!requires { weights.table; })
      for (Index t = 0; t < tokens; ++t)
        std::sort(&chosen[std::size_t(t * top_k)], &chosen[std::size_t(t * top_k)] + top_k);
    forward(&saved, Choice::given);
    Buffer<Real> used(tokens * top_k);
    std::copy_n(dweights.data(), dweights.size(), used.data());
    Router::backward(pass, weights, x.view(tokens, hidden), saved, routing(), used.view(tokens, top_k),
                     dx.view(tokens, hidden), gradients);
  }
  void expect(const std::string& name, double tolerance) {
    both();
    EXPECT_EQ(chosen, frozen.integers(name + ".experts"));
    EXPECT_LE(frozen.error(guild::View<const Real>(weights_tk.view()), name + ".weights"), tolerance);
    EXPECT_LE(frozen.error(guild::View<const Real>(dx.view()), name + ".dx"), tolerance);
    EXPECT_LE(frozen.error(guild::View<const Real>(gradients.weight.data.view()), name + ".dweight"), tolerance);
  }
};
using Hash = guild::HashRouter<Spec>;
using TopK = guild::TopKRouter<Spec>;

TEST(HashRouter, WeighsTheExpertsOfTheTableAsTransformersDoesForDeepSeekV4) {
  OneRouter<Hash, double>().expect("hash", 1e-7);
  OneRouter<Hash, float>().expect("hash", 3e-6);
}

TEST(SqrtSoftplusRouter, ChoosesAndWeighsAsTransformersDoesForDeepSeekV4) {
  OneRouter<TopK, double>().expect("top", 1e-7);
  OneRouter<TopK, float>().expect("top", 3e-6);
}

TEST(HashRouter, TakesAChoiceThatIsGivenAndGivesItsBits) {
  OneRouter<Hash, float> once, again;
  once.forward();
  again.chosen = once.chosen;
  std::fill(again.weights.table.data.view().begin(), again.weights.table.data.view().end(), 7.0f);  // not looked at
  again.forward(nullptr, Choice::given);
  EXPECT_EQ(again.chosen, once.chosen);
  EXPECT_TRUE(std::equal(once.weights_tk.view().begin(), once.weights_tk.view().end(), again.weights_tk.data()));
}

TEST(HashRouter, GivesARowInABatchWhatItHasAlone) {
  OneRouter<Hash, float> all, one;
  all.forward();
  for (Index t = 0; t < tokens; ++t) {
    one.pass.batch.tokens = {one.ids.data() + t, 1};
    std::int32_t chosen[top_k];
    float weights[top_k];
    Hash::forward(one.pass, one.weights,
                  guild::DeviceView<const float, 2>(one.x.view(tokens, hidden).middle_rows(t, 1)),
                  guild::Routing<float>{{chosen, 1, top_k}, {weights, 1, top_k}});
    for (Index k = 0; k < top_k; ++k) {
      EXPECT_EQ(chosen[k], all.chosen[std::size_t(t * top_k + k)]);
      EXPECT_EQ(weights[k], all.weights_tk[t * top_k + k]);
    }
  }
}

TEST(HashRouter, RefusesTokensOutsideOfItsTableAndExpertsThatDoNotExist) {
  OneRouter<Hash, float> router;
  EXPECT_EQ(code_of([&] { router.forward(); }), ErrorCode::count_);
  router.ids[3] = 11;
  EXPECT_EQ(code_of([&] { router.forward(); }), ErrorCode::in_token);
  router.ids[3] = -1;
  EXPECT_EQ(code_of([&] { router.forward(); }), ErrorCode::in_token);
  router.ids[3] = 4;
  router.weights.table.data[4 * top_k + 1] = 8.0f;
  EXPECT_EQ(code_of([&] { router.forward(); }), ErrorCode::op_argument);
}

TEST(HashRouter, DealsEachExpertAsManyTokensAsTheOthers) {
  OneRouter<Hash, float> router;
  Hash::deal_experts(router.weights.table);
  int counts[experts] = {};
  for (Index token = 0; token < 11; ++token)
    for (Index k = 0; k < top_k; ++k) {
      const auto expert = static_cast<int>(router.weights.table.data[token * top_k + k]);
      ++counts[expert];
      for (Index other = 0; other < k; ++other)
        EXPECT_NE(expert, static_cast<int>(router.weights.table.data[token * top_k + other]));
    }
  EXPECT_LE(*std::max_element(counts, counts + experts) - *std::min_element(counts, counts + experts), 1);
  EXPECT_EQ(std::accumulate(counts, counts + experts, 0), 33);
}

}  // namespace hash_router_test
