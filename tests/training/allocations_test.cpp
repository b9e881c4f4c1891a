// Data that are drawn again and again take no new memory. The one file of the program that counts allocations.
#include "../support/allocations.hpp"

#include <guild/cpu.hpp>
#include <guild/training/data_loader.hpp>

#include <gtest/gtest.h>

#include <span>
#include <utility>
#include <vector>

#include <guild/training/masking.hpp>
#include <guild/training/token_stream.hpp>

#include "trainer_support.hpp"

namespace allocations_test {

void expect_none_since(long before) {
#if GUILD_TEST_COUNTS_ALLOCATIONS
  EXPECT_GT(before, 0);
  EXPECT_EQ(guild_test::allocations.load(), before);
#else
  EXPECT_EQ(before, 0);
#endif
}

TEST(Allocations, AStreamIsDrawnWithoutAny) {
  std::vector<std::int32_t> tokens(5000);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i % 300);
  const guild::TokenStream all(tokens, 32);
  guild::DataLoader loader(
      guild::Mixture{
          .sources = {{.data = all.train_part(0.5)}, {.data = all.validation_part(0.5), .weight = 3}},
          .curriculum = {.stages = {{.at = 0, .weights = {1, 1}}, {.at = 1, .weights = {0, 1}}}, .length = 50}},
      {.tokens_per_batch = 256, .length = 32});
  guild::TrainingBatch batch;
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(loader.next(batch));
  const guild::MaskOptions mask{.mask_token = 300, .vocab = 301};
  const long before = guild_test::allocations.load();
  for (std::uint64_t i = 0; i < 200; ++i) {
    ASSERT_TRUE(loader.next(batch));
    mask_tokens(batch, mask, 1, i);
  }
  expect_none_since(before);
}

/// Steps on two batches each; after the first nothing is allocated.
template <class Trainer>
void expect_no_allocation(const guild::OptimizerOptions& optimizer) {
  using Model = typename Trainer::ModelType;
  guild::TrainerOptions options;
  options.optimizer = optimizer;
  options.average = 0.9;
  options.schedule = guild::Schedule::warmup_cosine(2, 10);
  options.objective = guild_test::all_terms();
  Trainer trainer(guild::Cpu({.threads = 2}), guild_test::first_weights<Model>(1, guild_test::Second::with), options);
  const guild::TrainingBatch batches[] = {guild_test::batch_of({20, 30}, 1), guild_test::batch_of({25, 25}, 2)};
  trainer.step(std::span(batches));
  const long before = guild_test::allocations.load();
  for (int i = 0; i < 5; ++i) {
    // Choices of experts change with the weights, and so do the sizes of their products.
    const auto report = trainer.step(std::span(batches));
    EXPECT_EQ(report.outcome, guild::StepOutcome::applied);
  }
  trainer.evaluate(std::span(batches));
  expect_none_since(before);
}

TEST(Allocations, TheSecondStepOfATrainerMakesNone) {
  expect_no_allocation<guild::Trainer<guild_test::Kept>>(guild::AdamW{.lr = 1e-2});
}
TEST(Allocations, TheSecondStepWithMuonMakesNone) {
  expect_no_allocation<guild::Trainer<guild_test::Kept>>(guild::Muon{.lr = 1e-2});
}
TEST(Allocations, TheSecondStepOfMixedPrecisionMakesNone) {
  expect_no_allocation<guild::Trainer<guild_test::Kept, guild::Cpu, guild::bf16>>(guild::AdamW{.lr = 1e-2});
}
TEST(Allocations, TheSecondStepThatComputesActivationsAgainMakesNone) {
  expect_no_allocation<guild::Trainer<guild_test::Recomputed>>(guild::AdamW{.lr = 1e-2});
}

TEST(Allocations, TrainingOnAStreamMakesNone) {
  std::vector<std::int32_t> tokens(2001);
  for (std::size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<std::int32_t>(i * i % 17);
  guild::DataLoader loader(guild::TokenStream(tokens, 16), {.tokens_per_batch = 64, .length = 16});
  guild::Trainer<guild_test::Kept> trainer(guild::Cpu({.threads = 2}),
                                           guild_test::first_weights<guild_test::Kept>(1, guild_test::Second::with));
  std::vector<guild::TrainingBatch> batches(2);
  const auto step = [&] {
    for (guild::TrainingBatch& batch : batches) ASSERT_TRUE(loader.next(batch));
    trainer.step(std::span<const guild::TrainingBatch>(batches));
  };
  step();
  const long before = guild_test::allocations.load();
  for (int i = 0; i < 40; ++i) step();  // beyond the end of the data
  EXPECT_GT(loader.epochs(), 1.0);
  expect_none_since(before);
}

}  // namespace allocations_test
