// A model on a device whose memory the host cannot read: by type, for these tests compile.
#include <guild/cpu.hpp>
#include <guild/models/transformer.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include <guild/modules/parameters.hpp>
#include <guild/modules/routing_counter.hpp>
#include <guild/training/allocate.hpp>
#include <guild/training/objective.hpp>

#include "../support/far_device.hpp"
#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"

namespace far_device_test {

using guild::Index;
using namespace guild_test;

using Model = guild::Transformer<TinySpec>;

struct Seen final : guild::Observer {
  std::vector<std::int32_t> experts;
  std::vector<float> weights, states;
  void on_routing(int, guild::View<const std::int32_t, 2> e, guild::View<const float, 2> w) override {
    for (Index t = 0; t < e.rows; ++t) {
      experts.insert(experts.end(), e.row(t).begin(), e.row(t).end());
      weights.insert(weights.end(), w.row(t).begin(), w.row(t).end());
    }
  }
  void on_layer(int, guild::View<const float, 2> x) override {
    for (Index t = 0; t < x.rows; ++t) states.insert(states.end(), x.row(t).begin(), x.row(t).end());
  }
};

/// What one device makes of a batch of two sequences.
template <class Device>
struct OnOne {
  Device device{guild::CpuOptions{.threads = 2}};
  const Model::Weights<guild::Published> weights = random_model<Model>();
  const Tokens tokens = random_tokens(30, 97, 3);
  const Flat flat{{{0, &tokens, 0, 20}, {1, &tokens, 0, 30}}};
  Matrix states{50, TinySpec::config.hidden}, dstates{50, TinySpec::config.hidden};
};

void expect_same(const Model::Weights<guild::Dense<float>>& x, const Model::Weights<guild::Dense<float>>& y) {
  guild::for_each_tensor<Model>(
      [](const guild::Path& path, const guild::TensorShape&, guild::TensorRole, const guild::Buffer<float>& a,
         const guild::Buffer<float>& b) {
        EXPECT_TRUE(std::equal(a.view().begin(), a.view().end(), b.view().begin(), b.view().end())) << path.str();
      },
      x, y);
}

TEST(FarDevice, DecodesAsTheCpuAndTheHostReadsFlagsAlone) {
  OnOne<guild::Cpu> near;
  OnOne<FarDevice> far;
  const auto decode = [](auto& run) {
    Model::Cache caches[2];
    Model::Cache* list[2] = {&caches[0], &caches[1]};
    Model::forward(guild::Pass{.device = run.device, .batch = run.flat.batch()}, run.weights, list, run.states.view());
    const Flat next({{0, &run.tokens, 20, 21}});
    Matrix row(1, TinySpec::config.hidden);
    Model::forward(guild::Pass{.device = run.device, .batch = next.batch()}, run.weights, list, row.view());
    return row;
  };
  EXPECT_TRUE(same_bits(decode(far), decode(near)));
  EXPECT_TRUE(same_bits(far.states, near.states));
  EXPECT_EQ(far.device.to_host, 2) << "the flags of each step";
}

TEST(FarDevice, AnObserverIsShownCopies) {
  OnOne<guild::Cpu> near;
  OnOne<FarDevice> far;
  Seen by_near, by_far;
  Model::forward(guild::Pass{.device = near.device, .batch = near.flat.batch(), .observer = &by_near}, near.weights, {},
                 near.states.view());
  Model::forward(guild::Pass{.device = far.device, .batch = far.flat.batch(), .observer = &by_far}, far.weights, {},
                 far.states.view());
  EXPECT_FALSE(by_far.experts.empty());
  EXPECT_EQ(by_far.experts, by_near.experts);
  EXPECT_EQ(by_far.weights, by_near.weights);
  EXPECT_EQ(by_far.states, by_near.states);
  EXPECT_GT(far.device.to_host, 1);
}

TEST(FarDevice, CountsRoutingAsTheCpuUntilItIsAsked) {
  OnOne<guild::Cpu> near;
  OnOne<FarDevice> far;
  constexpr int layers = TinySpec::config.layers, last = layers - 1;
  guild::RoutingStatistics by_near(layers, Model::routed_experts);
  guild::RoutingCounter<FarDevice> by_far(far.device, layers, Model::routed_experts);
  Model::forward(guild::Pass{.device = near.device, .batch = near.flat.batch(), .counts = by_near.view()}, near.weights,
                 {}, near.states.view());
  Model::forward(guild::Pass{.device = far.device, .batch = far.flat.batch(), .counts = by_far.view()}, far.weights, {},
                 far.states.view());
  EXPECT_EQ(far.device.to_host, 1) << "the flags";
  const guild::RoutingStatistics read = by_far.read(far.device);
  EXPECT_EQ(far.device.to_host, 3);
  EXPECT_EQ(read.tokens(last), 50.0);
  EXPECT_EQ(read.entropy(last), by_near.entropy(last));
  for (Index e = 0; e < read.experts(); ++e) EXPECT_EQ(read.importance(last)[e], by_near.importance(last)[e]);
}

TEST(FarDevice, LearnsAsTheCpuAndTheHostReadsFlagsAlone) {
  OnOne<guild::Cpu> near;
  OnOne<FarDevice> far;
  struct Learned {
    Model::Weights<guild::Dense<float>> gradients;
    guild::RoutingStatistics statistics{TinySpec::config.layers, TinySpec::routing.experts};
  };
  const auto learn = [](auto& run, Learned& to) {
    guild::allocate_trained<Model>(to.gradients);
    guild::Arena arena;
    guild::Arena::Frame memory(arena);
    const std::vector<Index> offsets = {0, 20, 50};
    const guild::Pass pass{
        .device = run.device,
        .batch = run.flat.batch(),
        .memory = &memory,
        .balance = {.importance = 0.1, .load = 0.1, .auxiliary = 0.1, .sequence = 0.1, .router_z = 0.1},
        .balance_scale = 0.5,
        .sequence_offsets = offsets,
        .counts = to.statistics.view()};
    Model::Saved<float> saved;
    Model::forward(pass, run.weights, {}, run.states.view(), &saved);
    const auto slopes = random_values(50 * TinySpec::config.hidden, 6);
    std::copy(slopes.view().begin(), slopes.view().end(), run.dstates.values.begin());
    Model::backward(pass, run.weights, saved, run.dstates.view(), to.gradients);
  };
  Learned by_near, by_far;
  learn(near, by_near);
  learn(far, by_far);
  EXPECT_EQ(far.device.to_host, 1) << "the flags of the forward pass";
  expect_same(by_near.gradients, by_far.gradients);
  const auto& counted = std::as_const(by_far.statistics);
  double chosen = 0, losses = 0;
  for (int layer = 0; layer < counted.layers(); ++layer) {
    for (Index e = 0; e < counted.experts(); ++e) {
      EXPECT_EQ(counted.load(layer)[e], std::as_const(by_near.statistics).load(layer)[e]);
      chosen += counted.load(layer)[e];
    }
    EXPECT_EQ(counted.terms(layer).sum(), std::as_const(by_near.statistics).terms(layer).sum());
    losses += counted.terms(layer).sum();
  }
  EXPECT_EQ(chosen, 50.0 * TinySpec::routing.top_k * (TinySpec::config.layers - TinySpec::dense.layers));
  EXPECT_GT(losses, 0.0);
}

TEST(FarDevice, AnObjectiveReadsTargetsAndLossesAndNothingElse) {
  OnOne<guild::Cpu> near;
  OnOne<FarDevice> far;
  guild::TrainingBatch batch;
  const Tokens targets = random_tokens(12, 97, 5);
  batch.append(std::span(near.tokens).first(12), targets);
  batch.append(std::span(near.tokens).first(5), std::span(targets).first(5));
  batch.targets[3] = guild::TrainingBatch::ignored;
  guild::StepSize size;
  size.add(batch);
  guild::Objective<Model> of_near;
  guild::Objective<Model, float, FarMemory> of_far;
  Model::Weights<guild::Dense<float>> by_near, by_far;
  guild::allocate_trained<Model>(by_near);
  guild::allocate_trained<Model>(by_far);
  const auto expected = of_near.learn(near.device, near.weights, batch, size, by_near);
  const auto found = of_far.learn(far.device, far.weights, batch, size, by_far);
  EXPECT_EQ(found.loss(), expected.loss());
  EXPECT_EQ(found.next.count, 16);
  // Flags after forward and at the end, targets, and the three sums of the one tile of rows.
  EXPECT_EQ(far.device.to_host, 2 + 1 + 3);
  expect_same(by_near, by_far);
}

}  // namespace far_device_test
