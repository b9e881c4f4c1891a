// Noise of routers, dropout of experts and blocked experts in training: the same bits for layers that are computed
// again and for runs that are resumed.
#include <guild/modules/noise.hpp>

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/modules/expert_buffering.hpp>
#include <guild/modules/noisy_top_k_router.hpp>
#include <guild/training/save_training.hpp>

#include "../io/test_files.hpp"
#include "trainer_support.hpp"

namespace noise_test {

using guild_test::batch_of;
using guild_test::difference;
using guild_test::equal_bits;
using guild_test::Index;
using guild_test::Second;
using guild_test::state_of;

struct KeptSpec : guild_test::KeptSpec {
  static constexpr guild::TopKConfig routing = {
      .experts = 6, .top_k = 2, .scoring = guild::Scoring::softmax, .selection = guild::Selection::greedy};
  static constexpr guild::ExpertConfig experts = [] {
    auto config = guild_test::KeptSpec::experts;
    config.dropout = 0.3;
    return config;
  }();
  struct OftenBlocked : guild::DefaultBuffering {
    static constexpr double slack = 0.02, decay = 0.5;
    static constexpr int most_steps = 3;
  };
  template <class S>
  using Router = guild::ExpertBuffering<guild::NoisyTopKRouter<S>, OftenBlocked>;
};
struct RecomputedSpec : KeptSpec {
  template <class LayerStack>
  using Activations = guild::Recompute<LayerStack>;
};
using Kept = guild::Transformer<KeptSpec>;
using Recomputed = guild::Transformer<RecomputedSpec>;

template <class Model>
struct TrainingRun {
  guild::Trainer<Model> trainer;
  explicit TrainingRun(guild::Noise noise = {.on = true, .seed = 4}, int threads = 2, std::uint64_t seed = 3)
      : trainer(guild::Cpu({.threads = threads}), guild_test::first_weights<Model>(seed, Second::with),
                {.optimizer = guild::AdamW{.lr = 1e-2},
                 .average = 0.9,
                 .objective = guild_test::all_terms(),
                 .noise = noise}) {}
  void steps(int count, bool same_batches = false) {
    for (int i = 0; i < count; ++i) {
      const auto n = same_batches ? 0 : static_cast<std::uint64_t>(trainer.steps());
      const guild::TrainingBatch batches[] = {batch_of({9, 1, 14}, 2 * n), batch_of({5, 7}, 2 * n + 1)};
      ASSERT_EQ(trainer.step(std::span(batches)).outcome, guild::StepOutcome::applied);
    }
  }
};

TEST(Noise, GivesRecomputedLayersAndAnyThreadsTheBitsOfKeptOnes) {
  TrainingRun<Kept> kept, alone({.on = true, .seed = 4}, 1);
  TrainingRun<Recomputed> recomputed;
  for (int i = 0; i < 3; ++i) {
    kept.steps(1), alone.steps(1), recomputed.steps(1);
    ASSERT_EQ(difference(state_of(kept.trainer), state_of(recomputed.trainer)), "") << i;
    ASSERT_EQ(difference(state_of(kept.trainer), state_of(alone.trainer)), "") << i;
  }
}

/// How many experts of the layers are blocked.
template <class Model>
int blocked_experts(const typename Model::template Weights<guild::Dense<float>>& weights) {
  int count = 0;
  guild::for_each_tensor<Model>(
      [&](const guild::Path&, const guild::TensorShape& shape, guild::TensorRole, const guild::Buffer<float>& data) {
        if (shape.buffering == nullptr) return;
        for (Index e = data.size() / 2; e < data.size(); ++e) count += data[e] > 0.0f ? 1 : 0;
      },
      weights);
  return count;
}

TEST(Noise, OfAResumedRunIsThatOfAnUninterruptedOne) {
  const guild::test::TempFolder home;
  TrainingRun<Kept> straight, before, after({.on = true, .seed = 4}, 2, 99);
  straight.steps(6);
  before.steps(3);
  guild::save_training(home.path("run"), before.trainer);
  EXPECT_GT(blocked_experts<Kept>(before.trainer.weights()), 2) << "and blocks go on";
  after.steps(1);
  (void)guild::resume_training(home.path("run"), after.trainer);
  after.steps(3);
  EXPECT_EQ(difference(state_of(straight.trainer), state_of(after.trainer)), "");
  EXPECT_EQ(blocked_experts<Kept>(after.trainer.average()), blocked_experts<Kept>(after.trainer.weights()));
}

TEST(Noise, DependsOnTheSeedAndTheStepAndCanBeOff) {
  TrainingRun<Kept> one, other({.on = true, .seed = 5}), off({.on = false}), off_too({.on = false, .seed = 9});
  for (auto* run : {&one, &other, &off, &off_too}) run->steps(2);
  EXPECT_NE(difference(state_of(one.trainer), state_of(other.trainer)), "");
  EXPECT_NE(difference(state_of(one.trainer), state_of(off.trainer)), "");
  EXPECT_EQ(difference(state_of(off.trainer), state_of(off_too.trainer)), "");
  // The same weights and batches in another step.
  TrainingRun<Kept> early, late;
  late.trainer.set_steps(7, 0);
  early.steps(1, true), late.steps(1, true);
  EXPECT_FALSE(equal_bits(guild_test::values_of<Kept>(early.trainer.gradients()),
                          guild_test::values_of<Kept>(late.trainer.gradients())));
  const auto batch = batch_of({9, 5}, 1);
  EXPECT_EQ(early.trainer.evaluate(batch).next.loss, early.trainer.evaluate(batch).next.loss);
}

TEST(Noise, ARouterWithoutASelectionBiasRefusesARateForIt) {
  TrainingRun<Kept> run;
  for (const double rate : {1e-3, 0.0}) try {
      run.trainer.set_bias_rate(rate);
      EXPECT_EQ(rate, 0.0) << "nothing was thrown";
    } catch (const guild::Error& error) {
      EXPECT_NE(rate, 0.0);
      EXPECT_EQ(error.code(), guild::ErrorCode::op_argument);
      EXPECT_NE(std::string(error.what())
                    .find("\"TrainerOptions::bias_rate\": is 0.001, but there is no selection bias in ExpertBuffering"),
                std::string::npos)
          << error.what();
    }
  EXPECT_THROW(guild::Trainer<Kept>(guild::Cpu({.threads = 1}), guild_test::first_weights<Kept>(3, Second::without),
                                    {.bias_rate = 1e-3}),
               guild::Error);
}

}  // namespace noise_test
