// Masked language modelling: the counts of BERT, in all places alike, and what must never be touched.
#include <guild/cpu.hpp>
#include <guild/training/masking.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "../io/io_fixture.hpp"

namespace masking_test {

using guild::ErrorCode;
using guild::Index;
using guild::mask_tokens;
using guild::MaskOptions;
using guild::TrainingBatch;
using guild_test::code_of;

constexpr std::int32_t vocab = 1000, mask = 999;

/// Sequences of these lengths; every tenth token is special (below 10).
TrainingBatch batch_of(const std::vector<Index>& lengths) {
  TrainingBatch batch;
  std::int32_t next = 0;
  for (const Index length : lengths) {
    std::vector<std::int32_t> tokens;
    for (Index i = 0; i < length; ++i, ++next) tokens.push_back(next % 10 == 0 ? next / 10 % 10 : 10 + next % 900);
    batch.append(tokens, tokens);
  }
  return batch;
}
MaskOptions options() {
  return {.mask_token = mask, .vocab = vocab, .special = [](std::int32_t token) { return token < 10; }};
}

TEST(MaskTokens, PicksFifteenInAHundredOfEachSequence) {
  const TrainingBatch before = batch_of({200, 1, 3, 57, 1000, 10});
  TrainingBatch batch = before;
  mask_tokens(batch, options(), 1, 0);
  for (const guild::Chunk& chunk : batch.chunks) {
    Index eligible = 0, picked = 0;
    for (Index i = chunk.begin; i < chunk.begin + chunk.count; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const bool special = before.tokens[at] < 10;
      eligible += special ? 0 : 1;
      if (batch.targets[at] == TrainingBatch::ignored) {
        EXPECT_EQ(batch.tokens[at], before.tokens[at]);
      } else {
        ++picked;
        EXPECT_FALSE(special);
        EXPECT_EQ(batch.targets[at], before.tokens[at]) << "the target is the token itself";
        EXPECT_GE(batch.tokens[at], 10) << "no special token is drawn";
      }
    }
    EXPECT_EQ(picked, eligible == 0 ? 0 : std::max<Index>(1, std::llround(0.15 * static_cast<double>(eligible))));
  }
  EXPECT_EQ(batch.positions, before.positions);
}

TEST(MaskTokens, HidesEightOfTenAndChangesOne) {
  Index picked = 0, masked = 0, kept = 0, changed = 0;
  std::vector<double> places(100), drawn(vocab);
  constexpr int draws = 20000;
  const TrainingBatch before = batch_of({100});
  for (std::uint64_t draw = 0; draw < draws; ++draw) {
    TrainingBatch batch = before;
    mask_tokens(batch, options(), 7, draw);
    for (std::size_t i = 0; i < 100; ++i) {
      if (batch.targets[i] < 0) continue;
      ++picked;
      ++places[i];
      const std::int32_t token = batch.tokens[i];
      (token == mask ? masked : token == before.tokens[i] ? kept : changed) += 1;
      if (token != mask && token != before.tokens[i]) ++drawn[static_cast<std::size_t>(token)];
    }
  }
  // Five standard deviations of a binomial count.
  const auto expect = [](double count, double n, double p) {
    EXPECT_LT(std::abs(count - n * p), 5 * std::sqrt(n * p * (1 - p))) << count << " of " << n << ", expected " << p;
  };
  const auto n = static_cast<double>(picked);
  EXPECT_EQ(picked, draws * 14);  // of 90 tokens that are not special: 13.5, rounded
  expect(static_cast<double>(masked), n, 0.8);
  expect(static_cast<double>(changed), n, 0.1 * 988 / 989);  // a random token may be the one that was there
  expect(static_cast<double>(kept), n, 0.1 + 0.1 / 989);
  for (std::size_t i = 0; i < 100; ++i)
    if (before.tokens[i] >= 10) {
      expect(places[i], draws, 14.0 / 90);
    } else {
      EXPECT_EQ(places[i], 0);
    }
  for (std::size_t token = 0; token < vocab; ++token)
    if (token >= 10 && token != mask) {
      expect(drawn[token], static_cast<double>(changed), 1.0 / 989);
    } else {
      EXPECT_EQ(drawn[token], 0);
    }
}

TEST(MaskTokens, IsDecidedBySeedAndDraw) {
  const TrainingBatch before = batch_of({50, 60});
  const auto tokens = [&](std::uint64_t seed, std::uint64_t draw) {
    TrainingBatch batch = before;
    mask_tokens(batch, options(), seed, draw);
    return batch.tokens;
  };
  EXPECT_EQ(tokens(1, 2), tokens(1, 2));
  EXPECT_NE(tokens(1, 2), tokens(1, 3));
  EXPECT_NE(tokens(1, 2), tokens(2, 2));
}

TEST(MaskTokens, TakesSharesFromNothingToEverything) {
  const TrainingBatch before = batch_of({50});
  MaskOptions all = options();
  all.special = {};
  all.picked = all.masked = 1;
  all.random = 0;
  TrainingBatch batch = before;
  mask_tokens(batch, all, 1, 1);
  EXPECT_EQ(batch.tokens, std::vector<std::int32_t>(50, mask));
  EXPECT_EQ(batch.targets, before.tokens);
  all.picked = 0;
  batch = before;
  mask_tokens(batch, all, 1, 1);
  EXPECT_EQ(batch.tokens, before.tokens);
  EXPECT_EQ(batch.supervised(), 0);
  mask_tokens(batch = {}, all, 1, 1);
  EXPECT_EQ(batch.size(), 0);
}

TEST(MaskTokens, RefusesSharesAndTokensThatCannotBe) {
  TrainingBatch batch = batch_of({5});
  const TrainingBatch before = batch;
  const auto code = [&](auto change) {
    MaskOptions bad = options();
    change(bad);
    return code_of([&] { mask_tokens(batch, bad, 1, 1); });
  };
  EXPECT_EQ(code([](MaskOptions& o) { o.mask_token = -1; }), ErrorCode::in_param);
  EXPECT_EQ(code([](MaskOptions& o) { o.mask_token = vocab; }), ErrorCode::in_param);
  EXPECT_EQ(code([](MaskOptions& o) { o.vocab = 0; }), ErrorCode::in_param);
  EXPECT_EQ(code([](MaskOptions& o) { o.picked = 1.5; }), ErrorCode::in_param);
  EXPECT_EQ(code([](MaskOptions& o) { o.picked = std::numeric_limits<double>::quiet_NaN(); }), ErrorCode::in_param);
  EXPECT_EQ(code([](MaskOptions& o) { o.random = 0.3; }), ErrorCode::in_param);
  EXPECT_EQ(batch.tokens, before.tokens);
  EXPECT_EQ(batch.targets, before.targets);
}

}  // namespace masking_test
