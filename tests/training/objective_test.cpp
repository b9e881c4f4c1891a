// The whole loss and all of its gradients, in double against central differences; and what a step adds up to.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/models/transformer.hpp>
#include <guild/modules/indexer.hpp>
#include <guild/modules/parameters.hpp>
#include <guild/training/objective.hpp>

#include "../support/gradient_check.hpp"

namespace objective_test {

using guild::Dense;
using guild::Index;

struct TinySpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 13, .hidden = 8, .layers = 2, .mtp_layers = 1, .context = 64};
  static constexpr guild::MlaConfig attention = {
      .heads = 2, .query_rank = 4, .latent_rank = 4, .nope_dim = 2, .rope_dim = 2, .value_dim = 3};
  static constexpr guild::DenseConfig dense = {.hidden = 6, .layers = 1};
  static constexpr guild::TopKConfig routing = {.experts = 6, .top_k = 2, .groups = 3, .top_groups = 2, .scale = 2.5};
  static constexpr guild::ExpertConfig experts = {.hidden = 4, .shared = 1};
};
struct TiedSpec : TinySpec {
  static constexpr guild::TrunkConfig config = [] {
    auto c = TinySpec::config;
    c.tied_embeddings = true;
    return c;
  }();
};

/// Sequences of these lengths with a target for about three of four tokens.
guild::TrainingBatch batch_of(const std::vector<Index>& lengths, std::int32_t vocab, std::uint64_t seed) {
  guild::Random random(seed, 5);
  guild::TrainingBatch batch;
  for (const Index length : lengths) {
    std::vector<std::int32_t> tokens, targets;
    for (Index i = 0; i < length; ++i) {
      tokens.push_back(static_cast<std::int32_t>(random.uniform() * vocab));
      targets.push_back(random.uniform() < 0.75 ? static_cast<std::int32_t>(random.uniform() * vocab) : -1);
    }
    batch.append(tokens, targets);
  }
  return batch;
}

guild::ObjectiveOptions all_terms() {
  guild::ObjectiveOptions options;
  options.z_loss = 0.01;
  options.mtp_weight = 0.3;
  options.balance = {.importance = 0.1, .load = 0.1, .auxiliary = 0.1, .sequence = 0.1, .router_z = 0.01};
  return options;
}

template <class S>
struct Case {
  using Model = guild::Transformer<S>;
  using Weights = typename Model::template Weights<Dense<double>>;
  guild::Cpu device{{.threads = 2}};
  Weights weights, gradients;
  guild::Random random{11};

  explicit Case(std::size_t prediction_layers = 1) {
    weights.mtp.resize(prediction_layers);
    gradients.mtp.resize(prediction_layers);
    guild::allocate<Model>(weights);
    guild::allocate_trained<Model>(gradients);
    Model::visit(guild_test::FillRandom{&random}, guild::Path{}, weights);
  }
  static double total(const guild::LossReport& report, const guild::RoutingStatistics& statistics,
                      const guild::ObjectiveOptions& options) {
    const auto mean = [&](const guild::LossSums& sums) {
      return sums.count == 0 ? 0.0 : (sums.loss + options.z_loss * sums.z) / static_cast<double>(sums.count);
    };
    double sum = mean(report.next) + options.mtp_weight * mean(report.second);
    if (report.later[0].count > 0) {  // two prediction layers: each has half of the weight
      sum += options.mtp_weight / 2 * (mean(report.later[0]) - mean(report.second));
    }
    for (int layer = 0; layer < statistics.layers(); ++layer) sum += statistics.terms(layer).sum();
    return sum;
  }
};

template <class S>
void expect_true_gradients(guild::AttentionMask mask, std::size_t prediction_layers = 1) {
  using Model = typename Case<S>::Model;
  Case<S> c(prediction_layers);
  const guild::TrainingBatch batch = batch_of({5, 1, 7}, S::config.vocab, 2);
  guild::ObjectiveOptions options = all_terms();
  options.mask = mask;
  guild::Objective<Model, double> objective(options);
  guild::StepSize size;
  size.add(batch);
  guild::RoutingStatistics statistics(2 + static_cast<int>(prediction_layers), S::routing.experts);
  objective.learn(c.device, c.weights, batch, size, c.gradients, statistics.view());

  typename Case<S>::Weights unused;
  unused.mtp.resize(prediction_layers);
  guild::allocate_trained<Model>(unused);
  std::vector<guild_test::Differentiated> list;
  Model::visit(guild_test::CollectDifferentiated{&list}, guild::Path{}, c.weights, c.gradients);
  guild_test::expect_gradients(list,
                               [&] {
                                 statistics.clear();
                                 const auto report =
                                     objective.learn(c.device, c.weights, batch, size, unused, statistics.view());
                                 return c.total(report, statistics, options);
                               },
                               {.most = 20});
}

TEST(Objective, AllTermsTogetherHaveTheGradientsOfCentralDifferences) {
  expect_true_gradients<TinySpec>(guild::AttentionMask::causal);
}
TEST(Objective, TiedEmbeddingsCollectTheGradientsOfEmbeddingHeadAndPredictionLayer) {
  expect_true_gradients<TiedSpec>(guild::AttentionMask::causal);
}
TEST(Objective, TwoPredictionLayersHaveTrueGradients) {
  expect_true_gradients<TinySpec>(guild::AttentionMask::causal, 2);
}
TEST(Objective, BidirectionalAttentionHasTrueGradients) {
  expect_true_gradients<TinySpec>(guild::AttentionMask::bidirectional);
}

/// Attention to four keys that an index chooses.
struct SparseSpec : TinySpec {
  static constexpr guild::IndexerConfig indexer = {.heads = 8, .dim = 4, .top_k = 4};
  template <class S>
  using Mixer = guild::SparseTopK<guild::Mla<S>, guild::Indexer<S>>;
};

struct IndexedCase : Case<SparseSpec> {
  guild::TrainingBatch batch = batch_of({9, 2, 12}, 13, 4);
  guild::StepSize size;
  std::vector<guild_test::Differentiated> indices{}, others{};

  IndexedCase() {
    size.add(batch);
    std::vector<guild_test::Differentiated> all;
    Model::visit(guild_test::CollectDifferentiated{&all}, guild::Path{}, weights, gradients);
    for (auto& one : all) (one.name.find(".indexer.") != std::string::npos ? indices : others).push_back(one);
  }
  guild::LossReport learn(const guild::ObjectiveOptions& options) {
    guild::for_each_parameter<Model>([](const guild::Path&, const guild::TensorShape&,
                                        guild::Buffer<double>& data) { std::fill_n(data.data(), data.size(), 0.0); },
                                     gradients);
    guild::Objective<Model, double> objective(options);
    return objective.learn(device, weights, batch, size, gradients);
  }
};

TEST(Objective, IndicesHaveTheGradientsOfTheirOwnObjectiveAlone) {
  for (const guild::KeySight sight : {guild::KeySight::all, guild::KeySight::chosen}) {
    IndexedCase c;
    const guild::ObjectiveOptions options{.index_weight = 0.7, .index_sight = sight};
    EXPECT_GT(c.learn(options).index, 0.0);
    // Differences would change what is chosen, and with it what attention looks at.
    if (sight == guild::KeySight::all)
      guild_test::expect_gradients(c.indices, [&] { return 0.7 * c.learn(options).index; }, {.most = 20});
    std::vector<double> with;
    for (const auto& one : c.others) with.insert(with.end(), one.gradient, one.gradient + one.count);
    const guild::LossReport report = c.learn({.index_sight = sight});
    EXPECT_EQ(report.index, 0.0);
    auto expected = with.begin();
    for (const auto& one : c.others)
      for (Index i = 0; i < one.count; ++i) EXPECT_EQ(one.gradient[i], *expected++) << one.name;
    for (const auto& one : c.indices)
      for (Index i = 0; i < one.count; ++i) EXPECT_EQ(one.gradient[i], 0.0) << one.name;
  }
}

TEST(Objective, IndicesLearnWhatAttentionLooksAtWarmedUpAndThenOnWhatTheyChoose) {
  IndexedCase c;
  ASSERT_EQ(c.indices.size(), 5u * 3);  // two layers and a prediction layer
  for (const guild::KeySight sight : {guild::KeySight::all, guild::KeySight::chosen}) {
    const guild::ObjectiveOptions options{.index_weight = 1.0, .index_sight = sight};
    const double before = c.learn(options).index;
    for (int step = 0; step < 60; ++step) {
      for (const auto& one : c.indices)
        for (Index i = 0; i < one.count; ++i) one.value[i] -= 0.5 * one.gradient[i];
      (void)c.learn(options);
    }
    EXPECT_LT(c.learn(options).index, 0.9 * before) << static_cast<int>(sight);
  }
}

TEST(Objective, TheObjectiveOfIndicesIsAMeanOverTheTokensOfAStep) {
  IndexedCase c;
  const guild::ObjectiveOptions options{.index_weight = 1.0};
  const double whole = c.learn(options).index;
  guild::Objective<IndexedCase::Model, double> objective(options);
  guild::LossReport sum;
  for (const guild::Chunk& chunk : c.batch.chunks) {
    guild::TrainingBatch part;
    const auto begin = static_cast<std::size_t>(chunk.begin), count = static_cast<std::size_t>(chunk.count);
    part.append(std::span(c.batch.tokens).subspan(begin, count), std::span(c.batch.targets).subspan(begin, count));
    sum += objective.learn(c.device, c.weights, part, c.size, c.gradients);
  }
  EXPECT_NEAR(sum.index, whole, 1e-12 * whole);
}

TEST(Objective, BatchesOfAStepAddUpToTheBatchOfAllTheirSequences) {
  using C = Case<TinySpec>;
  C c;
  guild::ObjectiveOptions options;  // balancing losses are defined by batch: they do not add up
  guild::Objective<C::Model, double> objective(options);
  const guild::TrainingBatch all = batch_of({5, 3, 7, 2}, 13, 8);
  std::vector<guild::TrainingBatch> parts(4);
  for (std::size_t i = 0; i < 4; ++i) {
    const auto begin = static_cast<std::size_t>(all.chunks[i].begin),
               count = static_cast<std::size_t>(all.chunks[i].count);
    parts[i].append(std::span(all.tokens).subspan(begin, count), std::span(all.targets).subspan(begin, count));
  }
  guild::StepSize size, sum_of_parts;
  size.add(all);
  for (const auto& part : parts) sum_of_parts.add(part);
  ASSERT_EQ(size.next, sum_of_parts.next);
  ASSERT_EQ(size.second, sum_of_parts.second);

  const auto whole = objective.learn(c.device, c.weights, all, size, c.gradients, {});
  C::Weights added;
  added.mtp.resize(1);
  guild::allocate_trained<C::Model>(added);
  guild::LossReport report;
  for (const auto& part : parts) report += objective.learn(c.device, c.weights, part, size, added, {});
  EXPECT_NEAR(report.loss(), whole.loss(), 1e-13);
  EXPECT_NEAR(report.second_loss(), whole.second_loss(), 1e-13);
  std::vector<guild_test::Differentiated> list;
  C::Model::visit(guild_test::CollectDifferentiated{&list}, guild::Path{}, c.gradients, added);
  for (const auto& one : list)
    for (Index i = 0; i < one.count; ++i) ASSERT_NEAR(one.value[i], one.gradient[i], 1e-13) << one.name << i;
}

TEST(Objective, EvaluationSeesTheSameLossesAsLearning) {
  using C = Case<TinySpec>;
  C c;
  guild::Objective<C::Model, double> objective;
  const guild::TrainingBatch batch = batch_of({5, 3, 7, 2}, 13, 8);
  guild::StepSize size;
  size.add(batch);
  const auto learned = objective.learn(c.device, c.weights, batch, size, c.gradients, {});
  const auto seen = objective.evaluate(c.device, c.weights, batch);
  EXPECT_EQ(seen.next.loss, learned.next.loss);
  EXPECT_EQ(seen.second.loss, learned.second.loss);
  EXPECT_EQ(seen.next.count, batch.supervised());
}

template <class F>
void expect_error(guild::ErrorCode code, const std::string& text, F&& f) {
  try {
    f();
    FAIL() << "nothing was thrown";
  } catch (const guild::Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
}

TEST(Objective, RefusesBatchesThatDoNotFitTheModel) {
  using C = Case<TinySpec>;
  C c;
  guild::Objective<C::Model, double> objective;
  const auto learn = [&](const guild::TrainingBatch& batch) {
    guild::StepSize size;
    size.add(batch);
    objective.learn(c.device, c.weights, batch, size, c.gradients, {});
  };
  guild::TrainingBatch batch = batch_of({4}, 13, 1);
  batch.tokens[2] = 13;
  expect_error(guild::ErrorCode::in_token, "13", [&] { learn(batch); });
  batch = batch_of({4}, 13, 1);
  batch.targets[1] = 99;
  expect_error(guild::ErrorCode::in_token, "99", [&] { learn(batch); });
  batch = batch_of({4}, 13, 1);
  batch.targets.pop_back();
  batch.positions[0] = 0;
  expect_error(guild::ErrorCode::op_shape, "3 targets", [&] { objective.evaluate(c.device, c.weights, batch); });
  batch = batch_of({65}, 13, 1);
  expect_error(guild::ErrorCode::in_context, "65", [&] { learn(batch); });
  batch = batch_of({4}, 13, 1);
  batch.chunks[0].first_position = 2;
  for (auto& position : batch.positions) position += 2;
  expect_error(guild::ErrorCode::op_shape, "position 2", [&] { learn(batch); });
}

/// Layer d guesses the token d + 2 places ahead from the layer before and the token d + 1 places ahead: without the
/// objective, by hand, one sequence.
TEST(Objective, PredictionLayersStandOneOnTheOther) {
  using C = Case<TinySpec>;
  using Mtp = C::Model::Mtp;
  C c(3);
  const Index count = 6, hidden = TinySpec::config.hidden;
  guild::TrainingBatch batch = batch_of({count}, 13, 4);
  for (std::size_t i = 0; i < batch.targets.size(); ++i) batch.targets[i] = static_cast<std::int32_t>(2 * i);
  guild::Objective<C::Model, double> objective({.mtp_weight = 0.3});
  const guild::LossReport report = objective.evaluate(c.device, c.weights, batch);
  EXPECT_EQ(report.next.count, 6);
  EXPECT_EQ(report.second.count, 5);
  EXPECT_EQ(report.later[0].count, 4);
  EXPECT_EQ(report.later[1].count, 3);
  EXPECT_EQ(report.later[2].count, 0);
  guild::StepSize size;
  size.add(batch);
  for (std::size_t depth = 0; depth < 4; ++depth) EXPECT_EQ(size.ahead(depth), 5 - static_cast<Index>(depth));

  guild::Pass<guild::Cpu> pass{.device = c.device, .batch = batch.batch()};
  guild::Buffer<double> states(count * hidden), next(count * hidden), logits(count * 13);
  C::Model::forward(pass, c.weights, {}, states.view(count, hidden));
  for (std::size_t depth = 0; depth < 3; ++depth) {
    const Index places = static_cast<Index>(depth) + 1;
    std::vector<std::int32_t> tokens(std::size_t{count}, 0);
    std::copy(batch.tokens.begin() + places, batch.tokens.end(), tokens.begin());
    pass.batch.tokens = {tokens.data(), count};
    Mtp::forward(pass, c.weights.mtp[depth], c.weights.embedding.weight.view(), {}, states.view(count, hidden),
                 next.view(count, hidden));
    guild::linear(c.device, c.weights.head.weight.view(), next.view(count, hidden), logits.view(count, 13));
    double loss = 0.0;
    for (Index t = 0; t + places < count; ++t) {
      double sum = 0.0;
      for (Index v = 0; v < 13; ++v) sum += std::exp(logits.view(count, 13)(t, v));
      loss += std::log(sum) - logits.view(count, 13)(t, 2 * (t + places));
    }
    EXPECT_NEAR(depth == 0 ? report.second.loss : report.later[depth - 1].loss, loss, 1e-9) << depth;
    std::swap(states, next);
  }
}

TEST(Objective, RefusesMorePredictionLayersThanItCountsBeforeAnythingChanges) {
  using C = Case<TinySpec>;
  C c(5);
  const guild::TrainingBatch batch = batch_of({5, 3}, 13, 1);
  guild::StepSize size;
  size.add(batch);
  for (const double weight : {0.0, 0.3}) {
    guild::Objective<C::Model, double> objective({.mtp_weight = weight});
    guild::RoutingStatistics statistics(7, TinySpec::routing.experts);
    expect_error(guild::ErrorCode::op_argument, "5 prediction layers, expected at most 4",
                 [&] { objective.learn(c.device, c.weights, batch, size, c.gradients, statistics.view()); });
    expect_error(guild::ErrorCode::op_argument, "5 prediction layers",
                 [&] { objective.evaluate(c.device, c.weights, batch); });
    std::vector<guild_test::Differentiated> list;
    C::Model::visit(guild_test::CollectDifferentiated{&list}, guild::Path{}, c.weights, c.gradients);
    ASSERT_FALSE(list.empty());
    for (const auto& one : list)
      for (Index i = 0; i < one.count; ++i) ASSERT_EQ(one.gradient[i], 0.0) << one.name << i;
  }
}

}  // namespace objective_test
