// Models that merge tokens in training: what their spans count, what the ratio loss does, and what a run reports.
#include <guild/training/span_counts.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/models/deepseek_r1_extended.hpp>
#include <guild/modules/match_span.hpp>
#include <guild/training/masking.hpp>
#include <guild/training/training_log.hpp>

#include "../support/gradient_check.hpp"
#include "trainer_support.hpp"

namespace span_counts_test {

using guild::Index;
using guild::MergeTerms;
using guild::SpanCounts;
using guild_test::batch_of;

TEST(SpanCounts, AreSummedByLayer) {
  SpanCounts counts;
  EXPECT_EQ(counts.size(), 0u);
  counts.add(4, {1.0, 5.0, 10.0});
  counts.add(5, {});
  counts.add(9, {2.0, 1.0, 5.0});
  ASSERT_EQ(counts.size(), 2u);
  EXPECT_EQ(counts[0].share(), 0.5);
  SpanCounts more;
  more.add(9, {1.0, 4.0, 5.0, 2.0});
  counts += more;
  counts += SpanCounts();
  ASSERT_EQ(counts.size(), 2u);
  EXPECT_EQ(counts[1].layer, 9);
  EXPECT_EQ(counts[1].terms.loss, 3.0);
  EXPECT_EQ(counts[1].terms.novel, 2.0);
  EXPECT_EQ(counts[1].share(), 0.5);
  for (int layer = 10; layer < 20; ++layer) counts.add(layer, {0.0, 1.0, 1.0});
  EXPECT_EQ(counts.size(), SpanCounts::most);
  EXPECT_EQ(counts[3].layer, 11);
}

/// Aims at a quarter of the tokens of groups that nothing bounds, but their length.
struct Quarter : guild::DefaultMerging {
  using Novelty = guild::CosineNovelty<6>;
  using Budget = guild::Unbounded<8>;
  static constexpr double ratio = 0.25;
};
/// At nearly all.
struct NearlyAll : Quarter {
  static constexpr double ratio = 0.9;
};
/// At half of slots, as its bucket does, of tokens that all are novel at first.
struct Half : Quarter {
  using Budget = guild::TokenBucket<1, 2, 4, 8>;
  static constexpr float threshold = 0.0f;
  static constexpr double ratio = 0.5;
};
struct FewRanks : guild::DefaultInflation {
  static constexpr Index gate_rank = 4, detail_rank = 3;
};
struct CertainRanks : FewRanks {
  static constexpr bool confidence = false;
};
template <class Policy, class Inflate = FewRanks>
struct MergedSpec : guild_test::KeptSpec {
  template <class S>
  using Mixer = guild::Weighted<guild::Mla<S>>;
  template <class S>
  using Span = guild::MergeSpan<guild::Segment<typename S::template DenseLayer<S>, 1>,
                                guild::SoftTokenMerging<S, Policy>, guild::TokenInflation<S, Inflate>>;
  template <class S>
  using Layers = guild::Stack<guild::Segment<typename S::template DenseLayer<S>, 1>, Span<S>,
                              guild::Segment<typename S::template ExpertLayer<S>, 1>>;
};

/// In double, one batch over and over.
template <class Spec>
struct Learning {
  using Model = guild::Transformer<Spec>;
  using Weights = typename Model::template Weights<guild::Dense<double>>;
  guild::Cpu device{{.threads = 2}};
  Weights weights, gradients;
  guild::TrainingBatch batch = batch_of({40, 1, 30}, 4);
  guild::StepSize size;
  std::vector<guild_test::Differentiated> list;

  Learning() {
    guild::allocate<Model>(weights);
    guild::allocate_trained<Model>(gradients);
    guild::Random random(11);
    Model::visit(guild_test::FillRandom{&random, 0.7}, guild::Path{}, weights);
    size.add(batch);
    Model::visit(guild_test::CollectDifferentiated{&list}, guild::Path{}, weights, gradients);
  }
  guild::LossReport learn(const guild::ObjectiveOptions& options) {
    guild::for_each_parameter<Model>([](const guild::Path&, const guild::TensorShape&,
                                        guild::Buffer<double>& data) { std::fill_n(data.data(), data.size(), 0.0); },
                                     gradients);
    guild::Objective<Model, double> objective(options);
    return objective.learn(device, weights, batch, size, gradients);
  }
  /// The first report and the last one of so many steps against the gradient.
  std::pair<guild::LossReport, guild::LossReport> train(const guild::ObjectiveOptions& options, int steps,
                                                        double rate) {
    const guild::LossReport first = learn(options);
    for (int step = 0; step < steps; ++step) {
      for (const auto& one : list)
        for (Index i = 0; i < one.count; ++i) one.value[i] -= rate * one.gradient[i];
      (void)learn(options);
    }
    return {first, learn(options)};
  }
};
/// The mean novelty of a span's tokens, from its loss.
double novelty_of(const SpanCounts::Span& span, double ratio) {
  const double share = span.terms.novel / span.terms.tokens;
  return (span.terms.loss * (1 - ratio) - (1 - share)) / (share / ratio - 1);
}

TEST(SpanCounts, TheWholeObjectiveHasTheGradientsOfCentralDifferences) {
  Learning<MergedSpec<Quarter, CertainRanks>> c;
  const guild::ObjectiveOptions options{.merge_weight = 0.7};
  const auto report = c.learn(options);
  ASSERT_EQ(report.spans.size(), 1u);
  EXPECT_EQ(report.spans[0].layer, 1);
  EXPECT_EQ(report.spans[0].terms.tokens, 71.0);
  EXPECT_EQ(report.merging, report.spans[0].terms.loss);
  Learning<MergedSpec<Quarter, CertainRanks>> other;
  std::vector<guild_test::Differentiated> list;
  for (std::size_t i = 0; i < c.list.size(); ++i)
    list.push_back({c.list[i].name, other.list[i].value, c.list[i].gradient, c.list[i].count});
  guild_test::expect_gradients(list,
                               [&] {
                                 const auto now = other.learn(options);
                                 return now.loss() + 0.7 * now.merging;
                               },
                               {.most = 3});
}

/// How much nearer to the ratio the mean novelty is after some steps.
template <class Policy>
double approach(double weight) {
  Learning<MergedSpec<Policy>> c;
  const auto [first, last] = c.train({.merge_weight = weight}, 30, 0.3);
  EXPECT_LT(last.loss(), 0.8 * first.loss());
  const double before = novelty_of(first.spans[0], Policy::ratio), after = novelty_of(last.spans[0], Policy::ratio);
  EXPECT_NEAR(before, 0.5, 0.02);
  return std::fabs(before - Policy::ratio) - std::fabs(after - Policy::ratio);
}
TEST(SpanCounts, NoveltyComesNearerToTheRatioByTheLossAlone) {
  EXPECT_LT(approach<Quarter>(0.0), 0.0);
  EXPECT_GT(approach<Quarter>(0.3), 0.03);
  EXPECT_GT(approach<NearlyAll>(0.3), 2 * approach<NearlyAll>(0.0));
}

// Trainers. The straight-through estimator is on.

using Merged = guild::Transformer<MergedSpec<Half>>;
guild::Trainer<Merged> trainer_of(double weight) {
  return guild::Trainer<Merged>(guild::Cpu({.threads = 2}),
                                guild_test::first_weights<Merged>(3, guild_test::Second::without),
                                {.optimizer = guild::AdamW{.lr = 1e-2}, .objective = {.merge_weight = weight}});
}

TEST(SpanCounts, AModelWithASpanLearns) {
  auto trainer = trainer_of(0.03);
  const guild::TrainingBatch batch = batch_of({40, 1, 30}, 4);
  const auto first = trainer.step(batch);
  guild::StepReport last;
  for (int step = 1; step < 30; ++step) {
    last = trainer.step(batch);
    ASSERT_EQ(last.outcome, guild::StepOutcome::applied);
  }
  EXPECT_NEAR(first.losses.loss(), std::log(17.0), 0.2);
  EXPECT_LT(last.losses.loss(), 0.7 * first.losses.loss());
}
/// However full the bucket is.
TEST(SpanCounts, AStepLowersNoveltyThatABucketRefuses) {
  const auto falls = [](double weight) {
    auto trainer = trainer_of(weight);
    const guild::TrainingBatch batch = batch_of({40, 1, 30}, 4);
    const auto before = trainer.step(batch).losses.spans[0], after = trainer.step(batch).losses.spans[0];
    EXPECT_EQ(before.terms.novel, 71.0);
    EXPECT_LT(before.share(), 0.7);
    return novelty_of(before, Half::ratio) - novelty_of(after, Half::ratio);
  };
  const double without = falls(0.0), with = falls(1.0);
  EXPECT_GT(with, 1e-3);
  EXPECT_GT(with, without + 1e-3);
}
/// Novelty learns before anything is merged.
TEST(SpanCounts, StrengthBringsMergingInStepByStep) {
  auto trainer = trainer_of(0.03);
  const guild::TrainingBatch batch = batch_of({40, 1, 30}, 4);
  std::vector<double> shares;
  for (const double strength : {0.0, 0.5, 1.0}) {
    trainer.objective().merge_strength = strength;
    shares.push_back(trainer.step(batch).losses.spans[0].share());
  }
  EXPECT_EQ(shares[0], 1.0);
  EXPECT_GE(shares[1], shares[2]);
  EXPECT_LT(shares[2], 0.7);
  const double merged = trainer.evaluate(batch).loss();
  trainer.objective().merge_strength = 0.0;
  EXPECT_NE(trainer.evaluate(batch).loss(), merged);
  trainer.objective().merge_strength = 1.5;
  EXPECT_THROW(trainer.step(batch), guild::Error);
}
/// In double too.
TEST(SpanCounts, AModelWithASpanLearnsInDouble) {
  Learning<MergedSpec<Half>> c;
  const auto [first, last] = c.train({.merge_weight = 0.03}, 30, 0.3);
  EXPECT_LT(last.loss(), 0.7 * first.loss());
}

TEST(SpanCounts, ATrainerReportsThem) {
  const guild::TrainingBatch batches[] = {batch_of({40, 1, 30}, 4), batch_of({9}, 5)};
  const auto step_on = [](double weight, std::span<const guild::TrainingBatch> of) {
    auto trainer = trainer_of(weight);
    const guild::StepReport report = trainer.step(of);
    return std::pair(report, guild::json_line(report, trainer.routing()));
  };
  const auto [both, line] = step_on(0.03, batches);
  const auto one = step_on(0.03, std::span(batches, 1)).first, other = step_on(0.03, std::span(batches + 1, 1)).first;
  ASSERT_EQ(both.losses.spans.size(), 1u);
  const SpanCounts::Span& span = both.losses.spans[0];
  EXPECT_EQ(span.layer, 1);
  EXPECT_EQ(span.terms.tokens, 80.0);
  EXPECT_EQ(span.terms.slots, one.losses.spans[0].terms.slots + other.losses.spans[0].terms.slots);
  EXPECT_GT(span.share(), 0.2);
  EXPECT_LT(span.share(), 0.8);
  EXPECT_NEAR(both.losses.merging, (71 * one.losses.merging + 9 * other.losses.merging) / 80, 1e-12);
  EXPECT_GT(both.losses.merging, 0.5);
  const guild::Json json = guild::Json::parse(line, {});
  EXPECT_NEAR(json["merging_loss"].number(), both.losses.merging, 1e-12);
  double share = -1;
  json["slot_share"].for_each_element([&](const guild::Json& of) { share = of.number(); });
  EXPECT_NEAR(share, span.share(), 1e-5);

  // Counted without a weight as well, and not where nothing is merged.
  EXPECT_EQ(step_on(0.0, batches).first.losses.merging, both.losses.merging);
  guild::Trainer<guild_test::Kept> plain(guild::Cpu({.threads = 2}),
                                         guild_test::first_weights<guild_test::Kept>(3, guild_test::Second::without));
  const auto without = plain.step(batches[0]);
  EXPECT_EQ(without.losses.spans.size(), 0u);
  EXPECT_FALSE(guild::Json::parse(guild::json_line(without, plain.routing()), {}).find("slot_share"));
}

// Masked language models on matched tokens.

constexpr std::int32_t mask_token = 16;
struct MatchedSpec : guild_test::KeptSpec {
  static constexpr guild::AttentionMask mask = guild::AttentionMask::bidirectional;
  struct Matching : guild::DefaultMatching {
    using Protect = guild::ProtectTokens<mask_token>;
  };
  struct Inflate : guild::MatchedInflation {
    static constexpr Index gate_rank = 4, detail_rank = 3;
  };
  template <class S>
  using Mixer = guild::Weighted<guild::Mla<S>>;
  template <class S>
  using Span = guild::MatchSpan<guild::Segment<typename S::template DenseLayer<S>, 1>, Matching,
                                guild::TokenInflation<S, Inflate>>;
  template <class S>
  using Layers = guild::Stack<guild::Segment<typename S::template DenseLayer<S>, 1>, Span<S>,
                              guild::Segment<typename S::template ExpertLayer<S>, 1>>;
};
/// Sequences of one token each, repeated, some of them hidden.
guild::TrainingBatch hidden_tokens(std::uint64_t draw) {
  guild::Random random(draw, 77);
  guild::TrainingBatch batch;
  for (int s = 0; s < 24; ++s) {
    const std::vector<std::int32_t> tokens(static_cast<std::size_t>(7 + s % 3),
                                           static_cast<std::int32_t>(random.uniform() * 12.0));
    batch.append(tokens, tokens);
  }
  guild::mask_tokens(batch, {.mask_token = mask_token, .vocab = 17, .picked = 0.3}, 1, draw);
  return batch;
}
TEST(SpanCounts, AMaskedLanguageModelOnMatchedTokensLearns) {
  using Model = guild::Transformer<MatchedSpec>;
  guild::Trainer<Model> trainer(guild::Cpu({.threads = 2}),
                                guild_test::first_weights<Model>(8, guild_test::Second::without),
                                {.optimizer = guild::AdamW{.lr = 1e-2}});
  double first = 0.0, last = 0.0;
  constexpr std::uint64_t steps = 150;
  for (std::uint64_t step = 0; step < steps; ++step) {
    const guild::TrainingBatch batch = hidden_tokens(step);
    Index slots = 0;
    for (const guild::Chunk& chunk : batch.chunks) {
      const auto tokens =
          std::span(batch.tokens).subspan(static_cast<std::size_t>(chunk.begin), static_cast<std::size_t>(chunk.count));
      const Index free = chunk.count - std::count(tokens.begin(), tokens.end(), mask_token);
      slots += chunk.count - std::min(chunk.count / 2, free / 2);
    }
    const auto report = trainer.step(batch);
    ASSERT_EQ(report.outcome, guild::StepOutcome::applied);
    ASSERT_EQ(report.losses.spans.size(), 1u);
    ASSERT_EQ(report.losses.spans[0].terms.slots, static_cast<double>(slots)) << "[MASK] never merges";
    ASSERT_EQ(report.losses.spans[0].terms.tokens, static_cast<double>(batch.size()));
    ASSERT_EQ(report.losses.merging, 0.0);
    if (step == 0) first = report.losses.loss();
    if (step + 10 >= steps) last += report.losses.loss() / 10.0;
  }
  EXPECT_GT(first, 2.3);
  EXPECT_LT(last, 0.6);

  trainer.objective().mask = guild::AttentionMask::causal;
  try {
    (void)trainer.evaluate(hidden_tokens(0));
    FAIL() << "nothing was thrown";
  } catch (const guild::Error& error) {
    EXPECT_NE(std::string(error.what()).find("a merging that is not causal in a causal model"), std::string::npos);
  }
}

TEST(SpanCounts, AWeightIsFiniteAndNotNegative) {
  for (const double weight : {-0.03, std::numeric_limits<double>::quiet_NaN()}) try {
      trainer_of(weight);
      FAIL() << "nothing was thrown";
    } catch (const guild::Error& error) {
      EXPECT_EQ(error.code(), guild::ErrorCode::op_argument);
      EXPECT_NE(std::string(error.what()).find("merge_weight"), std::string::npos) << error.what();
    }
}

}  // namespace span_counts_test
