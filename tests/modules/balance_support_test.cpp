// Losses of balance are asked of the routers that have them, and refused where none does.
#include <guild/modules/balance_support.hpp>

#include <gtest/gtest.h>

#include <string>

#include <guild/models/transformer.hpp>
#include <guild/modules/expert_buffering.hpp>
#include <guild/modules/gshard_router.hpp>
#include <guild/modules/hash_router.hpp>
#include <guild/modules/sinkhorn_router.hpp>
#include <guild/training/objective.hpp>

#include "../support/one_router.hpp"

namespace balance_support_test {

using guild::BalanceOptions;
using guild::BalanceSupport;
using guild::Index;
using guild_test::OneRouter;

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 11, .hidden = 6, .layers = 1, .context = 16};
  static constexpr guild::MlaConfig attention = {
      .heads = 1, .query_rank = 4, .latent_rank = 4, .nope_dim = 2, .rope_dim = 2, .value_dim = 2};
  static constexpr guild::DenseConfig dense = {.hidden = 4, .layers = 0};
  static constexpr guild::TopKConfig routing = {.experts = 8,
                                                .top_k = 3,
                                                .scoring = guild::Scoring::softmax,
                                                .selection = guild::Selection::greedy,
                                                .normalize = false};
  static constexpr guild::ExpertConfig experts = {.hidden = 3, .shared = 0};
  template <class S>
  using Router = guild::SinkhornRouter<S>;
};
template <class Router>
using Layer = guild::Block<Spec, guild::Mla<Spec>, guild::Moe<Spec, Router>>;
using Dense = guild::Segment<Spec::DenseLayer<Spec>, 1>;
using Hashed = guild::Segment<Layer<guild::HashRouter<Spec>>, 2>;
using Chosen = guild::Segment<Layer<guild::ExpertBuffering<guild::TopKRouter<Spec>>>, 1>;

/// Says nothing of losses, and computes none.
struct Own {};
struct Two : Spec {
  static constexpr guild::TopKConfig routing = {
      .experts = 8, .top_k = 2, .scoring = guild::Scoring::softmax, .selection = guild::Selection::greedy};
};
template <class RouterType>
struct LayerOf {
  struct FeedForward {
    using Router = RouterType;
  };
};
using Silent = guild::Segment<LayerOf<Own>, 1>;
using Second = guild::Segment<LayerOf<guild::GShardRouter<Two>>, 1>;

constexpr BalanceOptions all{
    .importance = 0.1, .load = 0.2, .auxiliary = 0.3, .sequence = 0.4, .router_z = 0.5, .entropy = -0.6};

template <class Layers>
std::string refused(const BalanceOptions& options) {
  try {
    guild::detail::require_balance<Layers>(options);
  } catch (const guild::Error& error) { return error.what(); }
  return "";
}

TEST(BalanceSupport, OfAModelIsThatOfAnyOfItsRouters) {
  using guild::detail::balance_support;
  EXPECT_EQ(balance_support<Dense>, BalanceSupport::none());
  EXPECT_EQ((balance_support<guild::Stack<Dense, Hashed>>), BalanceSupport::of_logits());
  EXPECT_EQ((balance_support<guild::Recompute<guild::Repeat<guild::Stack<Hashed, Chosen>, 2>>>), BalanceSupport{});
  EXPECT_EQ((balance_support<guild::Stack<Hashed, guild::Segment<Spec::ExpertLayer<Spec>, 0>>>),
            BalanceSupport::of_logits());
  EXPECT_EQ(refused<Dense>(all), "");
  EXPECT_EQ((refused<guild::Stack<Hashed, Chosen>>(all)), "");
  EXPECT_EQ(refused<Hashed>({.router_z = 0.5, .entropy = 0.1}), "");
  EXPECT_EQ((refused<guild::Stack<Silent, Chosen>>(all)), "");
}

TEST(BalanceSupport, ARefusalNamesTheLossAndTheRouters) {
  const auto says = [](const std::string& refusal, const std::string& sentence) {
    EXPECT_NE(refusal.find(sentence), std::string::npos) << refusal;
  };
  const auto sentence = [](const std::string& key, const std::string& routers) {
    std::string text = "\"BalanceOptions::";
    text.append(key).append("\": is 1e-04, but this loss is not defined for ").append(routers);
    return text.append("; the coefficient must be 0");
  };
  using Kinds = guild::Stack<Dense, Hashed, guild::Segment<Layer<guild::SinkhornRouter<Spec>>, 1>, Hashed>;
  const BalanceOptions of_choices[] = {{.importance = 1e-4}, {.load = 1e-4}, {.auxiliary = 1e-4}, {.sequence = 1e-4}};
  const BalanceOptions of_logits[] = {{.router_z = 1e-4}, {.entropy = 1e-4}};
  const char* const keys[] = {"importance", "load", "auxiliary", "sequence", "router_z", "entropy"};
  for (std::size_t i = 0; i < 4; ++i) {
    says(refused<Kinds>(of_choices[i]), sentence(keys[i], "HashRouter, SinkhornRouter"));
    says(refused<Silent>(of_choices[i]), sentence(keys[i], "Own"));
    EXPECT_EQ(refused<Second>(of_choices[i]) == "", i == 2) << keys[i];
  }
  says(refused<Second>(of_choices[0]), sentence("importance", "GShardRouter"));
  for (std::size_t i = 0; i < 2; ++i) says(refused<Silent>(of_logits[i]), sentence(keys[4 + i], "Own"));
  EXPECT_EQ(refused<Silent>({}), "");
}

TEST(BalanceSupport, IsWhatAnObjectiveAsksBeforeItLearns) {
  using Model = guild::Transformer<Spec>;
  guild::Objective<Model, double> objective({.balance = {.auxiliary = 0.01}});
  guild::Cpu device({.threads = 1});
  Model::Weights<guild::Dense<double>> weights;
  std::string text;
  try {
    (void)objective.learn(device, weights, {}, {}, weights);
  } catch (const guild::Error& error) { text = error.what(); }
  EXPECT_NE(text.find("BalanceOptions::auxiliary"), std::string::npos) << text;
}

TEST(HashRouter, HasTheLossesThatShapeLogitsAndNoOthers) {
  OneRouter<guild::HashRouter<Spec>, double> router(5, 6);
  router.pass.balance = all;
  router.expect_true_gradients();
  EXPECT_NE(router.terms.router_z, 0.0);
  EXPECT_LT(router.terms.entropy, 0.0);
  EXPECT_EQ(router.terms.sum(), router.terms.router_z + router.terms.entropy);
}

TEST(SinkhornRouter, HasTheLossesThatShapeLogitsAndNoOthers) {
  OneRouter<guild::SinkhornRouter<Spec>, double> router(5, 6);
  router.pass.balance = all;
  router.expect_true_gradients();
  EXPECT_NE(router.terms.router_z, 0.0);
  EXPECT_EQ(router.terms.sum(), router.terms.router_z + router.terms.entropy);
}

}  // namespace balance_support_test
