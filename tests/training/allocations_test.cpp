// Data that are drawn again and again take no new memory. The one file of the program that counts allocations.
#include "../support/allocations.hpp"

#include <guild/training/data_loader.hpp>

#include <gtest/gtest.h>

#include <vector>

#include <guild/training/masking.hpp>
#include <guild/training/token_stream.hpp>

namespace {

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
#if GUILD_TEST_COUNTS_ALLOCATIONS
  EXPECT_EQ(guild_test::allocations.load(), before);
#else
  EXPECT_EQ(before, 0);
#endif
}

}  // namespace
