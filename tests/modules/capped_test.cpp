// Routers with capacity, alone and in a mixture of experts; numbers frozen by tests/oracle/make_capacity_fixture.py.
#include <guild/modules/capped.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/moe.hpp>
#include <guild/training/allocate.hpp>

#include "../core/code_of.hpp"
#include "../support/gradient_cases.hpp"

namespace capped_test {

using guild::Capacity;
using guild::CapacityRounding;
using guild::DropOrder;
using guild::ErrorCode;
using guild::Index;
using guild::View;
using guild_test::code_of;

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 19, .hidden = 12, .layers = 2, .context = 64};
  static constexpr guild::TopKConfig routing = {.experts = 4, .top_k = 2, .scale = 2.5};
  static constexpr guild::ExpertConfig experts = {.hidden = 5, .shared = 1};
  static constexpr Capacity capacity = {.factor = 0.7, .order = DropOrder::probability};
  template <class S>
  using Router = guild::Capped<guild::TopKRouter<S>, S::capacity>;
};
struct Free : Spec {
  template <class S>
  using Router = guild::TopKRouter<S>;
};
/// So little room that of equal tokens the first alone is served.
struct Narrow : Spec {
  static constexpr Capacity capacity = {.factor = 0.01};
};
struct AtInference : Spec {
  static constexpr Capacity capacity = {.factor = 0.7, .inference_factor = 0.25, .order = DropOrder::choice};
};

/// A mixture in double over 14 tokens, forward and back.
template <class S>
struct OneMoe {
  using Moe = guild::Moe<S>;
  static constexpr Index hidden = S::config.hidden, choices = Moe::chosen_experts;
  guild::Cpu device{{.threads = 2}};
  guild::Random random{5};
  guild_test::RaggedPass ragged;
  Index tokens = ragged.tokens();
  typename Moe::template Weights<guild::Dense<double>> weights, gradients;
  guild::Buffer<double> x{tokens * hidden}, y{tokens * hidden}, dy{tokens * hidden}, dx{tokens * hidden};
  std::vector<std::int32_t> chosen = std::vector<std::int32_t>(static_cast<std::size_t>(tokens * choices));
  guild::RoutingStatistics statistics{1, S::routing.experts};
  guild::Arena arena;
  typename Moe::template Saved<double> saved{};

  explicit OneMoe(std::vector<Index> lengths = {9, 5}) : ragged(device, std::move(lengths), 5, 19) {
    guild::allocate<Moe>(weights);
    guild::allocate<Moe>(gradients);
    Moe::visit(guild_test::FillRandom{&random}, guild::Path{}, weights);
    for (double& value : x.view()) value = guild_test::normal(random);
    for (double& value : dy.view()) value = guild_test::normal(random);
    ragged.pass.choice.experts = {chosen.data(), tokens, choices};
  }
  void infer() { Moe::forward(ragged.pass, weights, x.view(tokens, hidden), y.view(tokens, hidden)); }
  void train() {
    guild::Arena::Frame memory(arena);
    auto pass = ragged.pass.with(memory);
    pass.counts = statistics.view();
    Moe::forward(pass, weights, x.view(tokens, hidden), y.view(tokens, hidden), &saved);
    Moe::backward(pass, weights, x.view(tokens, hidden), saved, dy.view(tokens, hidden), dx.view(tokens, hidden),
                  gradients);
  }
  [[nodiscard]] Index dropped() const {
    return std::count_if(chosen.begin(), chosen.end(), [](std::int32_t e) { return e < 0; });
  }
  [[nodiscard]] std::vector<double> row(const guild::Buffer<double>& of, Index t) const {
    return {of.data() + t * hidden, of.data() + (t + 1) * hidden};
  }
};

template <class M>
using MoeCase = gradient_cases::LayerCase<M, gradient_cases::TinySpec>;

TEST(Capped, BackwardAgreesWithCentralDifferences) {
  OneMoe<Spec> moe;
  moe.train();
  EXPECT_GT(moe.dropped(), 6);
  guild_test::gradient_check<MoeCase<guild::Moe<Spec>>>({9, 5}, 5);
}

TEST(Capped, ServesNoExpertMoreThanItsCapacityAndCountsWhatItDrops) {
  OneMoe<Spec> moe;
  moe.train();
  double served = 0.0;
  for (const double count : moe.statistics.load(0)) {
    EXPECT_LE(count, 5.0);  // ceil(28 / 4 * 0.7)
    served += count;
  }
  EXPECT_EQ(served + moe.statistics.dropped(0), 28.0);
  EXPECT_EQ(moe.statistics.dropped(0), static_cast<double>(moe.dropped()));
  for (std::int32_t e = 0; e < 4; ++e)
    EXPECT_EQ(moe.statistics.drops(0)[e], static_cast<double>(std::count(moe.chosen.begin(), moe.chosen.end(), ~e)));
  EXPECT_EQ(moe.saved.assignment.slots(), 20);
  moe.statistics.clear();
  EXPECT_EQ(moe.statistics.dropped(0), 0.0);
}

TEST(Capped, ADroppedTokenGetsTheSharedExpertsAlone) {
  OneMoe<Narrow> moe;
  for (Index t = 1; t < moe.tokens; ++t) std::copy_n(moe.x.data(), moe.hidden, moe.x.data() + t * moe.hidden);
  moe.train();
  const std::vector<double> served = moe.row(moe.y, 0), alone = moe.row(moe.y, 1);
  EXPECT_NE(served, alone);
  for (Index t = 2; t < moe.tokens; ++t) EXPECT_EQ(moe.row(moe.y, t), alone) << t;
  for (double& value : moe.weights.experts.down.data.view()) value = 0.0;
  moe.train();
  for (Index t = 0; t < moe.tokens; ++t) EXPECT_EQ(moe.row(moe.y, t), alone) << t;
}

TEST(Capped, DropsNobodyAtInferenceUnlessAsked) {
  OneMoe<Spec> moe;
  OneMoe<Free> free;
  moe.infer();
  free.infer();
  EXPECT_EQ(moe.dropped(), 0);
  EXPECT_TRUE(std::equal(moe.y.data(), moe.y.data() + moe.y.size(), free.y.data()));
  OneMoe<AtInference> asked;
  asked.infer();
  EXPECT_GE(asked.dropped(), 20);  // two of 14 for each of four experts
  OneMoe<AtInference> alone({1});
  alone.infer();
  EXPECT_EQ(alone.dropped(), 0) << "a token alone finds room";
}

TEST(Capped, AChoiceThatIsGivenDropsTheSame) {
  OneMoe<Spec> once, again;
  once.train();
  again.chosen = once.chosen;
  again.ragged.pass.choice.choice = guild::Choice::given;
  again.train();
  EXPECT_EQ(again.chosen, once.chosen);
  EXPECT_TRUE(std::equal(once.y.data(), once.y.data() + once.y.size(), again.y.data()));
  EXPECT_TRUE(std::equal(once.dx.data(), once.dx.data() + once.dx.size(), again.dx.data()));
  const auto weight = [](auto& moe) { return moe.gradients.router.weight.data.view(); };
  EXPECT_TRUE(std::equal(weight(once).begin(), weight(once).end(), weight(again).begin()));
  for (std::int32_t& e : again.chosen) e = e < 0 ? ~e : e;
  EXPECT_EQ(code_of([&] { again.train(); }), ErrorCode::op_argument) << "there are not so many slots";
}

template <class S>
Index bytes_of_a_step() {
  OneMoe<S> moe({256, 256});
  moe.train();
  return moe.arena.capacity() + moe.device.scratch_bytes();
}
struct Wide : Spec {
  static constexpr guild::TrunkConfig config = {.vocab = 19, .hidden = 16, .layers = 2, .context = 512};
  static constexpr guild::TopKConfig routing = {.experts = 8, .top_k = 2, .scale = 2.5};
  static constexpr guild::ExpertConfig experts = {.hidden = 64, .shared = 0};
};
struct WideFree : Wide {
  template <class S>
  using Router = guild::TopKRouter<S>;
};
struct WideUp : Wide {
  static constexpr Capacity capacity = {.factor = 1.25};
};
struct WideDown : Wide {
  static constexpr Capacity capacity = {.factor = 1.25, .rounding = CapacityRounding::down, .order = DropOrder::choice};
};

/// Slots are packed, so a capacity saves memory where all experts together serve fewer than T K choices: with mesh's
/// rule, which does not count K, and not with Megatron's and 1.25.
TEST(Capped, BoundsTheMemoryOfAStep) {
  const Index free = bytes_of_a_step<WideFree>(), up = bytes_of_a_step<WideUp>(), down = bytes_of_a_step<WideDown>();
  std::printf("bytes of a step: drop-free %lld, factor 1.25 of T K / E %lld, of T / E %lld\n",
              static_cast<long long>(free), static_cast<long long>(up), static_cast<long long>(down));
  EXPECT_LE(static_cast<double>(down), 0.75 * static_cast<double>(free));
  EXPECT_LE(static_cast<double>(up), 1.02 * static_cast<double>(free));
}

}  // namespace capped_test
