// The trainer: batches of a step add up, poison stops it, threads do not matter, experts come to balance.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/training/masking.hpp>

#include "trainer_support.hpp"

namespace trainer_test {

using guild::ErrorCode;
using guild::StepOutcome;
using guild::TrainerOptions;
using guild::TrainingBatch;
using guild_test::batch_of;
using guild_test::difference;
using guild_test::equal_bits;
using guild_test::equal_numbers;
using guild_test::first_weights;
using guild_test::Index;
using guild_test::Kept;
using guild_test::numbers_of;
using guild_test::Second;
using guild_test::state_of;
using guild_test::values_of;
using Trainer = guild::Trainer<Kept>;
using MixedTrainer = guild::Trainer<Kept, guild::Cpu, guild::bf16>;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

guild::Cpu cpu(int threads = 2) { return guild::Cpu({.threads = threads}); }

/// The sequences of a batch, each as a batch of its own.
std::vector<TrainingBatch> parts_of(const TrainingBatch& batch) {
  std::vector<TrainingBatch> parts;
  for (const guild::Chunk& chunk : batch.chunks) {
    const auto begin = static_cast<std::size_t>(chunk.begin), count = static_cast<std::size_t>(chunk.count);
    parts.emplace_back().append(std::span(batch.tokens).subspan(begin, count),
                                std::span(batch.targets).subspan(begin, count));
  }
  return parts;
}

TEST(Trainer, AccumulatesBatchesAsIfTheyWereOne) {
  TrainerOptions options;
  options.optimizer = guild::AdamW{.lr = 1e-2, .epsilon = 1e-4};  // so that rounding of tiny gradients does not matter
  options.objective.z_loss = 0.01;
  options.clip = 0.5;
  Trainer whole(cpu(), first_weights<Kept>(3, Second::with), options);
  Trainer cut(cpu(), first_weights<Kept>(3, Second::with), options);
  for (std::uint64_t i = 0; i < 5; ++i) {
    const TrainingBatch batch = batch_of({12, 3, 20, 9}, i);
    const std::vector<TrainingBatch> parts = parts_of(batch);
    const auto a = whole.step(batch), b = cut.step(std::span(parts));
    ASSERT_EQ(a.outcome, StepOutcome::applied);
    EXPECT_GT(a.gradient_norm, options.clip) << "so that clipping sees the whole gradient";
    EXPECT_NEAR(a.losses.loss(), b.losses.loss(), 1e-5 * a.losses.loss());
    EXPECT_NEAR(a.losses.second_loss(), b.losses.second_loss(), 1e-5 * a.losses.second_loss());
    EXPECT_NEAR(a.gradient_norm, b.gradient_norm, 1e-5 * a.gradient_norm);
    EXPECT_EQ(a.tokens, b.tokens);
    EXPECT_EQ(a.busiest, b.busiest) << "choices are counted over the step";
    if (i == 0)
      guild::for_each_parameter<Kept>(
          [&](const guild::Path& path, const guild::TensorShape&, const guild::Buffer<float>& x,
              const guild::Buffer<float>& y) {
            float largest = 0.0f, worst = 0.0f;
            for (Index j = 0; j < x.size(); ++j) {
              largest = std::max(largest, std::fabs(x[j]));
              worst = std::max(worst, std::fabs(x[j] - y[j]));
            }
            EXPECT_GT(largest, 0.0f) << path.str();
            EXPECT_LE(worst, 1e-5f * largest) << path.str();
          },
          whole.gradients(), cut.gradients());
  }
  const auto a = values_of<Kept>(whole.weights()), b = values_of<Kept>(cut.weights());
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 2e-5) << i;
}

// ---- poison ----

/// A trainer whose next step would change everything.
template <class T = Trainer>
T busy_trainer() {
  TrainerOptions options;
  options.optimizer = guild::AdamW{.lr = 1e-2};
  options.average = 0.9;
  options.bias_rate = 0.01;
  T trainer(cpu(), first_weights<Kept>(4, Second::with), options);
  for (std::uint64_t i = 0; i < 2; ++i) trainer.step(batch_of({20, 20, 10}, i));
  return trainer;
}

template <class T>
void expect_poison_is_survived(float poison) {
  T trainer = busy_trainer<T>();
  const TrainingBatch batch = batch_of({20, 20, 10}, 9);
  std::vector<std::string> names;
  guild_test::for_each_named<Kept>(trainer.weights(),
                                   [&](const std::string& name, guild::TensorRole role, guild::Buffer<float>&) {
                                     if (role == guild::TensorRole::parameter) names.push_back(name);
                                   });
  ASSERT_GT(names.size(), 90U);  // an embedding row, norms, routers, experts of every layer, the prediction layer
  const auto at = [&](const std::string& wanted) -> float& {
    float* found = nullptr;
    guild_test::for_each_named<Kept>(
        trainer.weights(), [&](const std::string& name, guild::TensorRole, guild::Buffer<float>& data) {
          if (name == wanted) found = &data[name == "embedding.weight" ? batch.tokens[3] * Kept::config.hidden : 0];
        });
    return *found;
  };
  for (const std::string& name : names) {
    float& element = at(name);
    const float good = element;
    element = poison;
    trainer.refresh();
    const auto before = state_of(trainer);
    const auto report = trainer.step(batch);
    EXPECT_EQ(report.outcome, StepOutcome::skipped) << name;
    EXPECT_EQ(report.skipped_steps, before.skipped + 1) << name;
    EXPECT_EQ(difference(before, state_of(trainer)), " steps skipped") << name;
    EXPECT_FALSE(std::isfinite(report.gradient_norm)) << name;
    element = good;
    trainer.refresh();
    if (report.outcome != StepOutcome::skipped) break;
  }
  const auto before = state_of(trainer);
  const auto report = trainer.step(batch);
  EXPECT_EQ(report.outcome, StepOutcome::applied);
  EXPECT_TRUE(std::isfinite(report.losses.loss()));
  EXPECT_EQ(report.skipped_steps, static_cast<Index>(names.size()));
  EXPECT_EQ(difference(before, state_of(trainer)), " weights moments average steps optimizer_steps");
}
TEST(Trainer, SkipsAStepOfWeightsThatAreNotNumbers) { expect_poison_is_survived<Trainer>(not_a_number); }
TEST(Trainer, SkipsAStepOfInfiniteWeights) { expect_poison_is_survived<Trainer>(static_cast<float>(infinity)); }
TEST(Trainer, SkipsAStepOfPoisonedMixedPrecision) { expect_poison_is_survived<MixedTrainer>(not_a_number); }

TEST(Trainer, SkipsAStepOfAPoisonedSelectionBias) {
  Trainer trainer = busy_trainer();
  const TrainingBatch batch = batch_of({20, 20, 10}, 9);
  for (const float poison : {not_a_number, static_cast<float>(infinity)}) {
    const auto poison_first = [&](float value) {
      float old = 0.0f;
      guild_test::for_each_named<Kept>(trainer.weights(),
                                       [&](const std::string&, guild::TensorRole role, guild::Buffer<float>& data) {
                                         if (role == guild::TensorRole::state) old = std::exchange(data[1], value);
                                       });
      return old;
    };
    const float good = poison_first(poison);
    const auto before = state_of(trainer);
    EXPECT_EQ(trainer.step(batch).outcome, StepOutcome::skipped);
    EXPECT_EQ(difference(before, state_of(trainer)), " steps skipped");
    poison_first(good);
    EXPECT_EQ(trainer.step(batch).outcome, StepOutcome::applied);
  }
}

TEST(Trainer, SkipsAStepWhoseGradientsOverflow) {
  Trainer trainer = busy_trainer();
  const TrainingBatch batch = batch_of({20, 20, 10}, 9);
  for (float& value : trainer.weights().head.weight.data.view()) value *= 100.0f;  // large logits, a small loss
  const auto before = state_of(trainer);
  trainer.objective().z_loss = 1e37;
  const auto report = trainer.step(batch);
  EXPECT_EQ(report.outcome, StepOutcome::skipped);
  EXPECT_TRUE(std::isfinite(report.losses.loss())) << "the loss itself was fine";
  EXPECT_TRUE(std::isinf(report.gradient_norm) || std::isnan(report.gradient_norm));
  EXPECT_EQ(report.skipped_steps, 1);
  EXPECT_EQ(difference(before, state_of(trainer)), " steps skipped");
  trainer.objective().z_loss = 0.0;
  EXPECT_EQ(trainer.step(batch).outcome, StepOutcome::applied);
}

// ---- determinism ----

template <class Optimizer>
void expect_equal_bits_for_any_thread_count(const Optimizer& optimizer) {
  std::vector<guild_test::State> states;
  std::vector<std::vector<std::vector<double>>> reports;
  for (const int threads : {1, 2, 4, 2}) {
    TrainerOptions options;
    options.optimizer = optimizer;
    options.average = 0.9;
    options.objective = guild_test::all_terms();
    Trainer trainer(cpu(threads), first_weights<Kept>(5, Second::with), options);
    reports.emplace_back();
    for (std::uint64_t i = 0; i < 10; ++i) {
      const TrainingBatch batches[] = {batch_of({33, 40, 7}, 2 * i), batch_of({20, 21}, 2 * i + 1)};
      reports.back().push_back(numbers_of(trainer.step(std::span(batches))));
    }
    states.push_back(state_of(trainer));
  }
  for (std::size_t run = 1; run < states.size(); ++run) {
    EXPECT_EQ(difference(states[0], states[run]), "") << run;
    for (std::size_t i = 0; i < 10; ++i) EXPECT_TRUE(equal_numbers(reports[0][i], reports[run][i])) << run << " " << i;
  }
  EXPECT_EQ(states[0].skipped, 0);
}
TEST(Trainer, GivesEqualBitsOnAnyNumberOfThreadsWithAdamW) {
  expect_equal_bits_for_any_thread_count(guild::AdamW{.lr = 1e-2});
}
TEST(Trainer, GivesEqualBitsOnAnyNumberOfThreadsWithMuon) {
  expect_equal_bits_for_any_thread_count(guild::Muon{.lr = 1e-2});
}

// ---- mixed precision ----

std::vector<float> rounded(MixedTrainer& trainer) {
  std::vector<float> all = values_of<Kept>(trainer.weights());
  for (float& value : all) value = static_cast<float>(guild::bf16(value));
  return all;
}

TEST(MixedPrecision, CopiesFollowTheMasters) {
  TrainerOptions options;
  options.optimizer = guild::AdamW{.lr = 3e-2};
  MixedTrainer mixed(cpu(), first_weights<Kept>(6, Second::with), options);
  const TrainingBatch batch = batch_of({20, 20, 10}, 9);
  Kept::Weights<guild::ComputeStore<guild::bf16>> copies;
  std::vector<double> losses;
  for (int i = 0; i < 60; ++i) {
    losses.push_back(mixed.step(batch).losses.loss());
    guild::Cpu device = cpu();
    guild::round_to<Kept>(device, mixed.weights(), copies);
    const auto seen = mixed.evaluate(batch), expected = mixed.evaluate<>(copies, std::span(&batch, 1));
    ASSERT_EQ(seen.next.loss, expected.next.loss) << i;
    ASSERT_EQ(seen.second.loss, expected.second.loss) << i;
    ASSERT_NE(seen.next.loss, mixed.evaluate(mixed.weights(), std::span(&batch, 1)).next.loss) << "they are rounded";
  }
  EXPECT_LT(losses.back(), 0.8 * losses.front());
}

TEST(MixedPrecision, SmallChangesAddUpInTheMasters) {
  TrainerOptions options;
  options.optimizer = guild::AdamW{.lr = 2e-6, .weight_decay = 0.0};
  MixedTrainer trainer(cpu(), first_weights<Kept>(6, Second::without), options);
  const TrainingBatch batch = batch_of({20, 20, 10}, 9);
  const auto masters = values_of<Kept>(trainer.weights()), copies = rounded(trainer);
  const auto changed = [](const std::vector<float>& a, const std::vector<float>& b) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < a.size(); ++i) count += a[i] != b[i] ? 1 : 0;
    return static_cast<double>(count) / static_cast<double>(a.size());
  };
  trainer.step(batch);
  EXPECT_GT(changed(masters, values_of<Kept>(trainer.weights())), 0.8);
  const double copies_at_once = changed(copies, rounded(trainer));
  EXPECT_LT(copies_at_once, 0.05);
  for (int i = 1; i < 200; ++i) trainer.step(batch);
  EXPECT_GT(changed(copies, rounded(trainer)), 0.2);
}

// ---- balance ----

/// Weights whose routers send most tokens to the first expert: all tokens have a part in common, and it asks for it.
Kept::Weights<guild::Dense<float>> skewed_weights() {
  auto weights = first_weights<Kept>(7, Second::without);
  for (float& value : weights.embedding.weight.data.view()) value += 0.4f;
  guild_test::for_each_named<Kept>(weights, [](const std::string& name, guild::TensorRole, guild::Buffer<float>& data) {
    if (name.find("router.weight") != std::string::npos)
      for (Index i = 0; i < Kept::config.hidden; ++i) data[i] += 0.4f;
  });
  return weights;
}
std::vector<float> biases_of(Trainer& trainer) {
  std::vector<float> all;
  guild_test::for_each_named<Kept>(trainer.weights(),
                                   [&](const std::string&, guild::TensorRole role, guild::Buffer<float>& data) {
                                     if (role == guild::TensorRole::state)
                                       all.insert(all.end(), data.data(), data.data() + data.size());
                                   });
  return all;
}

TEST(Balance, SelectionBiasMovesAgainstTheLoad) {
  TrainerOptions options;
  options.bias_rate = 0.25;  // a power of two: exact
  Trainer trainer(cpu(), skewed_weights(), options);
  const TrainingBatch batches[] = {batch_of({30, 30}, 1), batch_of({25}, 2)};
  trainer.step(std::span(batches));
  const auto biases = biases_of(trainer);
  ASSERT_EQ(biases.size(), 12U);  // two layers of six experts
  for (int layer = 1; layer <= 2; ++layer) {
    const auto counts = std::as_const(trainer).routing().load(layer);
    const double mean = 85.0 * 2.0 / 6.0;
    double sum = 0.0;
    for (Index e = 0; e < 6; ++e) {
      sum += counts[e];
      const float expected = counts[e] > mean ? -0.25f : counts[e] < mean ? 0.25f : 0.0f;
      EXPECT_EQ(biases[static_cast<std::size_t>((layer - 1) * 6 + e)], expected) << layer << " " << e;
    }
    EXPECT_EQ(sum, 170.0);
  }
}

TEST(Balance, SelectionBiasBringsASkewedRouterToBalance) {
  for (const double rate : {0.01, 0.0}) {
    TrainerOptions options;
    options.optimizer = guild::AdamW{.lr = 1e-4};
    options.bias_rate = rate;
    Trainer trainer(cpu(), skewed_weights(), options);
    double first = 0.0, last = 0.0;
    for (std::uint64_t i = 0; i < 200; ++i) {
      const double busiest = trainer.step(batch_of({40, 40, 40}, i)).busiest;
      if (i < 5) first += busiest / 5.0;
      if (i >= 180) last += busiest / 20.0;
    }
    EXPECT_GT(first, 2.5) << rate;
    const auto biases = biases_of(trainer);
    if (rate > 0.0) {
      EXPECT_LT(last, 1.9);  // 17 kinds of tokens cannot be shared out evenly
      EXPECT_LT(biases[0], -0.05f);
    } else {
      EXPECT_GT(last, 2.5);
      EXPECT_TRUE(std::all_of(biases.begin(), biases.end(), [](float bias) { return bias == 0.0f; }));
    }
  }
}

TEST(Balance, ALossBringsASkewedRouterToBalanceToo) {
  TrainerOptions options;
  options.optimizer = guild::AdamW{.lr = 1e-2};
  options.bias_rate = 0.0;
  options.objective.balance.auxiliary = 0.1;
  Trainer trainer(cpu(), skewed_weights(), options);
  double first = 0.0, last = 0.0, first_term = 0.0, last_term = 0.0;
  for (std::uint64_t i = 0; i < 120; ++i) {
    const auto report = trainer.step(batch_of({40, 40, 40}, i));
    if (i == 0) first = report.busiest, first_term = report.balance.auxiliary;
    if (i >= 100) last += report.busiest / 20.0;
    last_term = report.balance.auxiliary;
  }
  EXPECT_LT(last, 0.8 * first);
  EXPECT_LT(last_term, first_term);
}

// ---- masked language models ----

/// Sequences of one token each, repeated; their targets are what mask_tokens makes.
TrainingBatch repeated_tokens(std::uint64_t seed) {
  guild::Random random(seed, 77);
  TrainingBatch batch;
  for (int s = 0; s < 24; ++s) {
    const std::vector<std::int32_t> tokens(8, static_cast<std::int32_t>(random.uniform() * 12.0));
    batch.append(tokens, tokens);
  }
  return batch;
}

TEST(MaskedLanguageModel, LearnsFromBothSides) {
  const guild::MaskOptions masking{.mask_token = 16, .vocab = 17, .picked = 0.3};
  TrainerOptions options;
  options.optimizer = guild::AdamW{.lr = 1e-2};
  options.objective.mask = guild::AttentionMask::bidirectional;
  Trainer trainer(cpu(), first_weights<Kept>(8, Second::without), options);
  double first = 0.0, last = 0.0;
  for (std::uint64_t i = 0; i < 200; ++i) {
    TrainingBatch batch = repeated_tokens(i);
    guild::mask_tokens(batch, masking, 1, i);
    const auto report = trainer.step(batch);
    EXPECT_EQ(report.losses.next.count, 24 * 2);
    if (i == 0) first = report.losses.loss();
    if (i >= 190) last += report.losses.loss() / 10.0;
  }
  EXPECT_GT(first, 2.3);
  EXPECT_LT(last, 0.6);

  // The first token of a text is known to who sees what follows, and to nobody else.
  TrainingBatch batch = repeated_tokens(1000);
  std::fill(batch.targets.begin(), batch.targets.end(), TrainingBatch::ignored);
  for (const guild::Chunk& chunk : batch.chunks) {
    const auto row = static_cast<std::size_t>(chunk.begin);
    batch.targets[row] = batch.tokens[row];
    batch.tokens[row] = 16;
  }
  EXPECT_LT(trainer.evaluate(batch).loss(), 0.6);
  trainer.objective().mask = guild::AttentionMask::causal;
  EXPECT_GT(trainer.evaluate(batch).loss(), 1.5);
}

// ---- reports ----

TEST(Trainer, ReportsTermsOfKnownSize) {
  TrainerOptions options;
  options.objective.z_loss = 0.5;
  options.objective.balance = {
      .importance = 2.0, .load = 3.0, .auxiliary = 5.0, .sequence = 7.0, .router_z = 11.0, .entropy = -13.0};
  auto weights = first_weights<Kept>(1, Second::with);
  // Routers and head of zero: every choice is a tie, which the first experts win, and every token is as likely.
  guild_test::for_each_named<Kept>(weights, [](const std::string& name, guild::TensorRole, guild::Buffer<float>& data) {
    if (name.find("router.weight") != std::string::npos || name == "head.weight")
      std::fill_n(data.data(), data.size(), 0.0f);
  });
  Trainer trainer(cpu(), std::move(weights), options);
  const TrainingBatch batches[] = {batch_of({10, 20}, 1), batch_of({6}, 2)};
  const auto report = trainer.step(std::span(batches));
  const double layers = 3.0;  // two, and the prediction layer's
  EXPECT_NEAR(report.balance.importance, 2.0 * layers * (6.0 / 2.0 - 1.0), 1e-5) << "two experts do all the work";
  EXPECT_NEAR(report.balance.load, 0.0, 1e-5) << "a coin decides who is next";
  EXPECT_NEAR(report.balance.auxiliary, 5.0 * layers, 1e-5) << "all are as probable: 1";
  EXPECT_NEAR(report.balance.sequence, 7.0 * layers, 1e-5);
  EXPECT_NEAR(report.balance.router_z, 11.0 * layers * std::pow(std::log(6.0), 2), 1e-4);
  EXPECT_NEAR(report.balance.entropy, -13.0 * layers * std::log(6.0), 1e-4);
  EXPECT_NEAR(report.losses.loss(), std::log(17.0), 1e-6);
  EXPECT_NEAR(report.losses.second_loss(), std::log(17.0), 1e-6);
  const auto& next = report.losses.next;
  EXPECT_NEAR(next.z / static_cast<double>(next.count), std::pow(std::log(17.0), 2), 1e-5);
  EXPECT_EQ(next.count, batches[0].supervised() + batches[1].supervised());
  EXPECT_EQ(report.tokens, 36);
  EXPECT_EQ(report.step, 1);
  EXPECT_EQ(report.busiest, 3.0);
  EXPECT_EQ(report.idle_experts, 3 * 4);
  EXPECT_EQ(report.skipped_steps, 0);
  EXPECT_GT(report.seconds, 0.0);
  EXPECT_GT(report.tokens_per_second(), 0.0);
  // Weights and gradients, two moments of each: at least four floats for each trained element.
  EXPECT_GT(report.memory_bytes, 16 * static_cast<Index>(values_of<Kept>(trainer.gradients()).size()));
}

TEST(Trainer, ReportsTheSumOfAllLayersTerms) {
  TrainerOptions options;
  options.objective = guild_test::all_terms();
  Trainer trainer(cpu(), first_weights<Kept>(1, Second::with), options);
  const auto report = trainer.step(batch_of({10, 20}, 1));
  guild::BalanceTerms sum;
  for (int layer = 0; layer < 4; ++layer) {
    const guild::BalanceTerms& terms = std::as_const(trainer).routing().terms(layer);
    sum.importance += terms.importance;
    sum.load += terms.load;
    sum.auxiliary += terms.auxiliary;
    sum.sequence += terms.sequence;
    sum.router_z += terms.router_z;
    sum.entropy += terms.entropy;
    EXPECT_EQ(terms.load > 0.0, layer > 0);
  }
  EXPECT_EQ(report.balance.importance, sum.importance);
  EXPECT_EQ(report.balance.load, sum.load);
  EXPECT_EQ(report.balance.auxiliary, sum.auxiliary);
  EXPECT_EQ(report.balance.sequence, sum.sequence);
  EXPECT_EQ(report.balance.router_z, sum.router_z);
  EXPECT_EQ(report.balance.entropy, sum.entropy);
}

TEST(Trainer, DampsOverconfidentRoutersByTheirZLoss) {
  // Routers whose logits are far too large, with the loss and all but without it: what is left of its value.
  const auto left_of = [](double coefficient) {
    auto weights = first_weights<Kept>(1, Second::without);
    guild_test::for_each_named<Kept>(weights,
                                     [](const std::string& name, guild::TensorRole, guild::Buffer<float>& data) {
                                       if (name.find("router.weight") != std::string::npos)
                                         for (float& value : data.view()) value *= 40.0f;
                                     });
    TrainerOptions options;
    options.optimizer = guild::AdamW{.lr = 0.2};
    options.objective.balance.router_z = coefficient;
    Trainer trainer(cpu(), std::move(weights), options);
    const TrainingBatch batch = batch_of({10, 20}, 1);
    const double first = trainer.step(batch).balance.router_z;
    for (int i = 0; i < 10; ++i) trainer.step(batch);
    return trainer.step(batch).balance.router_z / first;
  };
  const double damped = left_of(1.0), untouched = left_of(1e-9);
  EXPECT_LT(damped, 0.1);
  EXPECT_GT(untouched, 0.5) << "they do not come down of themselves";
  RecordProperty("z_loss_left", std::to_string(damped) + " and without " + std::to_string(untouched));
}

TEST(Trainer, FollowsItsSchedule) {
  TrainerOptions options;
  options.optimizer = guild::AdamW{.lr = 2e-3};
  options.schedule = guild::Schedule::warmup_stable_decay(2, 2, 2);
  Trainer trainer(cpu(), first_weights<Kept>(1, Second::without), options);
  std::vector<double> rates;
  for (int i = 0; i < 7; ++i) {
    const auto before = values_of<Kept>(trainer.weights());
    rates.push_back(trainer.step(batch_of({9}, 1)).rate);
    EXPECT_EQ(equal_bits(before, values_of<Kept>(trainer.weights())) && i < 6, false);
  }
  const std::vector<double> expected = {1e-3, 2e-3, 2e-3, 2e-3, 2e-3, 1e-3, 0.0};
  for (std::size_t i = 0; i < expected.size(); ++i) EXPECT_DOUBLE_EQ(rates[i], expected[i]) << i;
}

TEST(Trainer, EvaluationChangesNothing) {
  Trainer trainer = busy_trainer(), other = busy_trainer();
  const TrainingBatch batches[] = {batch_of({20, 20, 10}, 9), batch_of({5}, 10), TrainingBatch{}};
  const auto before = state_of(trainer);
  const auto gradients = values_of<Kept>(trainer.gradients());
  const auto counts = trainer.routing().load(1)[0];
  guild::RoutingStatistics routing;
  const auto all = trainer.evaluate(std::span(batches), &routing);
  EXPECT_EQ(routing.tokens(0), 0.0);
  for (int layer = 1; layer < routing.layers(); ++layer) EXPECT_EQ(routing.tokens(layer), 55.0) << layer;
  auto sum = trainer.evaluate(batches[0]);
  sum += trainer.evaluate(batches[1]);
  EXPECT_EQ(all.next.loss, sum.next.loss);
  EXPECT_EQ(all.next.count, batches[0].supervised() + batches[1].supervised());
  EXPECT_EQ(difference(before, state_of(trainer)), "");
  EXPECT_TRUE(equal_bits(gradients, values_of<Kept>(trainer.gradients())));
  EXPECT_EQ(trainer.routing().load(1)[0], counts);
  const auto a = trainer.step(batches[0]), b = other.step(batches[0]);
  EXPECT_TRUE(equal_numbers(numbers_of(a), numbers_of(b)));
  EXPECT_EQ(difference(state_of(trainer), state_of(other)), "");
}

TEST(Trainer, KeepsAMovingAverageOfTheWeights) {
  TrainerOptions options;
  options.optimizer = guild::AdamW{.lr = 1e-2};
  options.average = 0.1;
  Trainer trainer(cpu(), first_weights<Kept>(1, Second::with), options);
  const TrainingBatch batch = batch_of({20, 9}, 1);
  auto expected = values_of<Kept>(trainer.weights());
  for (int step = 1; step <= 4; ++step) {
    trainer.step(batch);
    const double keep = std::min(0.1, step / (step + 20.0));  // 1/21 and 2/22, then 0.1
    const auto weights = values_of<Kept>(trainer.weights()), average = values_of<Kept>(trainer.average());
    ASSERT_EQ(average.size(), expected.size());
    for (std::size_t i = 0; i < expected.size(); ++i) {
      expected[i] = static_cast<float>(keep * expected[i] + (1.0 - keep) * weights[i]);
      ASSERT_NEAR(average[i], expected[i], 1e-6) << step << " " << i;
    }
  }
  const auto of_average = trainer.evaluate(trainer.average(), std::span(&batch, 1));
  EXPECT_NE(of_average.next.loss, trainer.evaluate(batch).next.loss);
  EXPECT_EQ(of_average.next.count, batch.supervised());

  Trainer without(cpu(), first_weights<Kept>(1, Second::with));
  EXPECT_EQ(&without.average(), &without.weights());
}

struct DenseSpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {
      .vocab = 17, .hidden = 8, .layers = 2, .context = 64, .tied_embeddings = true};
  static constexpr guild::MlaConfig attention = {
      .heads = 2, .query_rank = 0, .latent_rank = 4, .nope_dim = 2, .rope_dim = 2, .value_dim = 3};
  static constexpr guild::DenseConfig dense = {.hidden = 12};
  static constexpr guild::TopKConfig routing = {.experts = 0};
};

TEST(Trainer, TrainsADenseModelWithTiedEmbeddings) {
  using Dense = guild::Transformer<DenseSpec>;
  TrainerOptions options;
  options.optimizer = guild::AdamW{.lr = 2e-2};
  options.average = 0.9;
  options.objective.balance.auxiliary = 0.1;  // of no use here
  guild::Trainer<Dense> trainer(cpu(), first_weights<Dense>(1, Second::without), options);
  const TrainingBatch batch = batch_of({20, 9}, 1);
  const double first = trainer.step(batch).losses.loss();
  guild::StepReport report;
  for (int i = 0; i < 60; ++i) report = trainer.step(batch);
  EXPECT_LT(report.losses.loss(), 0.5 * first);
  EXPECT_EQ(report.busiest, 0.0);
  EXPECT_EQ(report.idle_experts, 0);
  EXPECT_EQ(report.balance.sum(), 0.0);
  EXPECT_EQ(report.losses.second.count, 0);
}

// ---- bad input ----

template <class F>
void expect_error(ErrorCode code, const std::string& text, F&& f) {
  try {
    f();
    ADD_FAILURE() << "nothing was thrown: " << text;
  } catch (const guild::Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
}

TEST(Trainer, RefusesBadOptions) {
  const auto refuses = [](const std::string& name, const auto& change) {
    TrainerOptions options;
    change(options);
    expect_error(ErrorCode::op_argument, name,
                 [&] { Trainer(cpu(1), first_weights<Kept>(1, Second::without), options); });
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double bad : {0.0, -1.0, nan}) refuses("TrainerOptions::clip", [&](auto& o) { o.clip = bad; });
  for (const double bad : {-1.0, nan, infinity}) {
    refuses("TrainerOptions::bias_rate", [&](auto& o) { o.bias_rate = bad; });
    refuses("TrainerOptions::average", [&](auto& o) { o.average = bad; });
    refuses("AdamW::lr", [&](auto& o) { o.optimizer = guild::AdamW{.lr = bad}; });
    refuses("Muon::lr", [&](auto& o) { o.optimizer = guild::Muon{.lr = bad}; });
    refuses("z_loss", [&](auto& o) { o.objective.z_loss = bad; });
    refuses("mtp_weight", [&](auto& o) { o.objective.mtp_weight = bad; });
    refuses("BalanceOptions::importance", [&](auto& o) { o.objective.balance.importance = bad; });
    refuses("BalanceOptions::load", [&](auto& o) { o.objective.balance.load = bad; });
    refuses("BalanceOptions::auxiliary", [&](auto& o) { o.objective.balance.auxiliary = bad; });
    refuses("BalanceOptions::sequence", [&](auto& o) { o.objective.balance.sequence = bad; });
    refuses("BalanceOptions::router_z", [&](auto& o) { o.objective.balance.router_z = bad; });
    if (bad != -1.0) refuses("BalanceOptions::entropy", [&](auto& o) { o.objective.balance.entropy = bad; });
  }
  refuses("TrainerOptions::average", [](auto& o) { o.average = 1.0; });
  expect_error(ErrorCode::op_shape, "embedding.weight", [] { Trainer(cpu(1), Kept::Weights<guild::Dense<float>>{}); });
}

/// The values of all prediction layers, one after the other.
std::vector<float> prediction_layers_of(const Kept::Weights<guild::Dense<float>>& weights) {
  std::vector<float> all;
  guild::for_each_tensor<Kept>(
      [&](const guild::Path& path, const guild::TensorShape&, guild::TensorRole role,
          const guild::Buffer<float>& data) {
        if (role == guild::TensorRole::parameter &&
            path.str().find("layers." + std::to_string(Kept::config.layers)) == 0)
          all.insert(all.end(), data.data(), data.data() + data.size());
      },
      weights);
  return all;
}

TEST(Trainer, PredictionLayersWithoutALossRest) {
  for (const guild::OptimizerOptions& rule : {guild::OptimizerOptions(guild::AdamW{.lr = 1e-2, .weight_decay = 0.5}),
                                              guild::OptimizerOptions(guild::Muon{.lr = 1e-2, .weight_decay = 0.5})}) {
    TrainerOptions options;
    options.optimizer = rule;
    options.objective.mtp_weight = 0.3;
    Trainer trainer(cpu(1), first_weights<Kept>(1, Second::with), options);
    const TrainingBatch batch = batch_of({8, 9}, 1);
    trainer.step(batch);  // so that there are moments to move on
    const auto before = prediction_layers_of(trainer.weights());
    ASSERT_FALSE(before.empty());
    trainer.objective().mtp_weight = 0.0;
    trainer.step(batch);
    EXPECT_TRUE(guild_test::equal_bits(prediction_layers_of(trainer.weights()), before));
    trainer.objective().mtp_weight = 0.3;
    trainer.step(batch);
    EXPECT_FALSE(guild_test::equal_bits(prediction_layers_of(trainer.weights()), before));
  }
}

TEST(Trainer, TrainsSeveralPredictionLayers) {
  auto weights = first_weights<Kept>(1, Second::with);
  weights.mtp.resize(2);
  guild::initialize<Kept>(weights, {.seed = 1});
  TrainerOptions options;
  options.optimizer = guild::AdamW{.lr = 2e-2};
  Trainer trainer(cpu(1), std::move(weights), options);
  const TrainingBatch batch = batch_of({12, 9}, 1);
  const guild::LossReport first = trainer.step(batch).losses;
  guild::LossReport last;
  for (int i = 0; i < 40; ++i) last = trainer.step(batch).losses;
  ASSERT_GT(first.later[0].count, 0);
  EXPECT_LT(first.later[0].count, first.second.count);
  EXPECT_LT(last.second_loss(), 0.5 * first.second_loss());
  EXPECT_LT(last.later[0].mean_loss(), 0.5 * first.later[0].mean_loss());
}

TEST(Trainer, RefusesMorePredictionLayersThanItCounts) {
  auto weights = first_weights<Kept>(1, Second::with);
  weights.mtp.resize(5);
  expect_error(ErrorCode::op_argument, "5 prediction layers, expected at most 4",
               [&] { Trainer(cpu(1), std::move(weights)); });
}

TEST(Trainer, RefusesBadBatchesAndStaysAsItWas) {
  Trainer trainer = busy_trainer();
  const TrainingBatch good = batch_of({8, 9}, 1);
  const auto before = state_of(trainer);
  const auto refuses = [&](ErrorCode code, const std::string& text, const auto& change) {
    TrainingBatch batches[] = {good, good};  // the first is learned from before the second is found to be bad
    change(batches[1]);
    expect_error(code, text, [&] { trainer.step(std::span(batches)); });
    guild::StepSize size;  // looks at targets before anything else does
    if (code == ErrorCode::op_shape) expect_error(code, text, [&] { size.add(batches[1]); });
    EXPECT_EQ(difference(before, state_of(trainer)), "") << text;
  };
  refuses(ErrorCode::in_token, "17", [](TrainingBatch& b) { b.tokens[3] = 17; });
  refuses(ErrorCode::in_token, "-2", [](TrainingBatch& b) { b.tokens[3] = -2; });
  refuses(ErrorCode::in_token, "99", [](TrainingBatch& b) { b.targets[1] = 99; });
  refuses(ErrorCode::op_shape, "16 targets", [](TrainingBatch& b) { b.targets.pop_back(); });
  refuses(ErrorCode::op_shape, "0 targets", [](TrainingBatch& b) { b.targets.clear(); });
  refuses(ErrorCode::op_shape, "position", [](TrainingBatch& b) { b.positions.clear(); });
  refuses(ErrorCode::op_shape, "positions", [](TrainingBatch& b) { b.positions[2] = 5; });
  refuses(ErrorCode::op_shape, "chunks", [](TrainingBatch& b) { b.chunks.pop_back(); });
  refuses(ErrorCode::op_shape, "chunks", [](TrainingBatch& b) { b.chunks[1].count = 1000; });
  refuses(ErrorCode::op_shape, "chunks", [](TrainingBatch& b) { b.chunks[0].begin = -3; });
  refuses(ErrorCode::in_context, "65", [](TrainingBatch& b) { b = batch_of({65}, 1); });
  TrainingBatch nothing = good;
  std::fill(nothing.targets.begin(), nothing.targets.end(), -1);
  expect_error(ErrorCode::op_argument, "no token", [&] { trainer.step(nothing); });
  expect_error(ErrorCode::op_argument, "no token", [&] { trainer.step(std::span<const TrainingBatch>()); });
  expect_error(ErrorCode::op_argument, "no token", [&] { trainer.step(TrainingBatch{}); });
  trainer.objective().z_loss = -1.0;
  expect_error(ErrorCode::op_argument, "z_loss", [&] { trainer.step(good); });
  trainer.objective().z_loss = 0.0;
  EXPECT_EQ(difference(before, state_of(trainer)), "");

  // A batch beside which another has nothing to learn is fine; and after all of this the step is that of one who never
  // met a bad batch.
  const TrainingBatch batches[] = {good, nothing, TrainingBatch{}};
  Trainer other = busy_trainer();
  EXPECT_TRUE(equal_numbers(numbers_of(trainer.step(std::span(batches))), numbers_of(other.step(std::span(batches)))));
  EXPECT_EQ(difference(state_of(trainer), state_of(other)), "");
}

}  // namespace trainer_test
