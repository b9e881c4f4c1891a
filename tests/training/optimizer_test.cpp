// The optimizer of a whole model: groups, state, errors, and the same bits whatever the number of threads.
#include <guild/cpu.hpp>
#include <guild/training/optimizer.hpp>

#include <gtest/gtest.h>

#include <map>
#include <set>

#include <guild/models/transformer.hpp>
#include <guild/training/initialize.hpp>

#include "../support/random_weights.hpp"
#include "optimizer_support.hpp"

namespace optimizer_test {

using guild::AdamW;
using guild::ErrorCode;
using guild::Muon;
using guild::Optimizer;
using guild::ParameterGroup;
using guild::UpdateRule;
using namespace guild_test;

struct TinySpec : SmallSpec {};
struct Tied : SmallSpec {
  static constexpr guild::TrunkConfig config =
      with(SmallSpec::config, [](guild::TrunkConfig& c) { c.tied_embeddings = true; });
};
using Model = guild::Transformer<TinySpec>;
using ModelWeights = Model::Weights<guild::Dense<float>>;

ModelWeights model_with_mtp() {
  ModelWeights weights;
  weights.mtp.resize(1);
  guild::initialize<Model>(weights, {.seed = 4});
  return weights;
}
ModelWeights gradients_with_mtp(std::uint64_t seed) {
  ModelWeights gradients;
  gradients.mtp.resize(1);
  guild::allocate_trained<Model>(gradients);
  fill_random<Model>(gradients, seed);
  return gradients;
}

/// All weights after some steps on `threads` threads; with `pause`, half of them by a second optimizer that was given
/// the state of the first.
std::vector<float> after_steps(const Optimizer<Model>::Options& options, int threads, Index pause = -1) {
  guild::Cpu device({.threads = threads});
  ModelWeights weights = model_with_mtp();
  Optimizer<Model> optimizer(weights, options);
  for (Index step = 0; step < 4; ++step) {
    if (step == pause) {
      std::map<std::string, std::vector<float>> saved;
      optimizer.visit_state([&](const std::string& key, const TensorShape& shape, guild::View<float> values) {
        EXPECT_EQ(shape.size(), values.size) << key;
        EXPECT_TRUE(saved.emplace(key, std::vector<float>(values.begin(), values.end())).second) << key << " twice";
      });
      Optimizer<Model> next(weights, options);
      next.set_steps(optimizer.steps());
      next.visit_state([&](const std::string& key, const TensorShape&, guild::View<float> values) {
        std::copy(saved.at(key).begin(), saved.at(key).end(), values.begin());
      });
      optimizer = std::move(next);
    }
    optimizer.step(device, weights, gradients_with_mtp(static_cast<std::uint64_t>(step)), 0.5, 0.1);
  }
  return elements<Model>(weights);
}

TEST(ForEachTensor, AStackGoesMatrixByMatrix) {
  Model::Weights<guild::Dense<float>> weights;
  guild::allocate<Model>(weights);
  auto& down = std::get<1>(weights.layers.parts).layers[0].feed_forward.experts.down;
  guild::View(down.matrices())[7](2, 3) = 5.0f;
  int matrices = 0;
  const auto walk = [&] {
    guild::for_each_parameter<Model>(
        [&](const Path& path, const TensorShape& shape, Buffer& data) {
          if (!path.str().starts_with("layers.1.feed_forward.experts.")) return;
          guild::detail::require_allocated(path, shape, data, "the weight");
          ++matrices;
          if (path.str() != "layers.1.feed_forward.experts.7.down.weight") return;
          EXPECT_EQ(shape, (TensorShape{2, 48, 28}));
          EXPECT_EQ(data[2 * 28 + 3], 5.0f);
          data[0] = 6.0f;
        },
        weights);
  };
  walk();
  EXPECT_EQ(matrices, 3 * 8);
  EXPECT_EQ(guild::View(down.matrices())[7](0, 0), 6.0f) << "it is the stack's own memory";
  for (const Index size : {0, 7 * 48 * 28, 8 * 48 * 28 + 1}) {
    down.data = Buffer(size);
    EXPECT_EQ(code_of(walk), ErrorCode::op_shape) << size;
  }
}

TEST(Optimizer, HasTheSameBitsForAnyNumberOfThreads) {
  for (const Optimizer<Model>::Options& options :
       {Optimizer<Model>::Options(AdamW{}), Optimizer<Model>::Options(Muon{})}) {
    const std::vector<float> expected = after_steps(options, 1);
    EXPECT_FALSE(same_bits(expected, elements<Model>(model_with_mtp())));
    for (const int threads : {2, 3}) EXPECT_TRUE(same_bits(after_steps(options, threads), expected)) << threads;
  }
}

TEST(Optimizer, GoesOnFromSavedStateBitByBit) {
  for (const Optimizer<Model>::Options& options :
       {Optimizer<Model>::Options(AdamW{}), Optimizer<Model>::Options(Muon{})})
    EXPECT_TRUE(same_bits(after_steps(options, 2, 2), after_steps(options, 2)));
}

TEST(Optimizer, ChangesTrainedTensorsAndNoOthers) {
  guild::Cpu device({.threads = 2});
  for (const Optimizer<Model>::Options& options :
       {Optimizer<Model>::Options(AdamW{}), Optimizer<Model>::Options(Muon{})}) {
    ModelWeights weights = model_with_mtp();
    const ModelWeights before = model_with_mtp(), gradients = gradients_with_mtp(1);
    Optimizer<Model> optimizer(weights, options);
    optimizer.step(device, weights, gradients);
    std::set<TensorRole> seen;
    guild::for_each_tensor<Model>(
        [&](const Path& path, const TensorShape&, TensorRole role, const Buffer& now, const Buffer& then) {
          seen.insert(role);
          bool changed = false;
          for (Index i = 0; i < now.size(); ++i) changed = changed || now[i] != then[i];
          EXPECT_EQ(changed, role == TensorRole::parameter) << path.str();
        },
        weights, before);
    EXPECT_EQ(seen.size(), 3U) << "the model has tensors of every role";
  }
}

TEST(Optimizer, NamesItsStateAfterTheTensors) {
  const ModelWeights weights = model_with_mtp();
  Optimizer<Model> optimizer(weights, Muon{});
  std::map<std::string, TensorShape> state;
  optimizer.visit_state(
      [&](const std::string& key, const TensorShape& shape, guild::View<float>) { state[key] = shape; });
  EXPECT_EQ(state.at("muon.momentum.layers.1.feed_forward.experts.7.gate.weight"), (TensorShape{2, 28, 48}));
  EXPECT_EQ(state.at("muon.momentum.layers.3.mtp_projection.weight"), (TensorShape{2, 48, 96}));
  EXPECT_EQ(state.at("adamw.first.layers.1.feed_forward.router.weight"), (TensorShape{2, 8, 48}));
  EXPECT_EQ(state.at("adamw.second.final_norm.weight"), (TensorShape{1, 48, 1}));
  EXPECT_EQ(state.at("adamw.first.embedding.weight"), (TensorShape{2, 97, 48}));
  EXPECT_EQ(state.at("adamw.first.head.weight"), (TensorShape{2, 97, 48}));
  for (const char* absent :
       {"adamw.first.layers.1.feed_forward.router.selection_bias", "adamw.first.layers.3.mtp_head.weight",
        "muon.momentum.layers.3.mtp_embedding.weight", "muon.momentum.embedding.weight", "muon.momentum.head.weight"})
    EXPECT_FALSE(state.contains(absent)) << absent;
}

TEST(Optimizer, TakesRatesDecayAndRulesFromGroups) {
  guild::Cpu device({.threads = 1});
  NetWeights weights = filled_net(1.0f), gradients = filled_net(0.0f);
  const auto groups = [](const Path& path, const TensorShape& shape) {
    ParameterGroup group = guild::default_group(path, shape);
    if (guild::passes_through(path, "wide")) group.lr_scale = 0.5;
    if (guild::passes_through(path, "tall")) group.decay_scale = 0.0;
    if (guild::passes_through(path, "square")) group.lr_scale = 0.0;
    if (guild::passes_through(path, "large")) group.rule = UpdateRule::adamw;
    if (guild::passes_through(path, "norm")) group.decay_scale = 2.0;
    if (guild::passes_through(path, "head")) group.rule = UpdateRule::muon;
    return group;
  };
  Optimizer<Net> optimizer(weights, Muon{.lr = 0.5, .weight_decay = 0.2, .rest = {.lr = 0.25, .weight_decay = 0.1}},
                           groups);
  std::set<std::string> state;
  optimizer.visit_state([&](const std::string& key, const TensorShape&, guild::View<float>) { state.insert(key); });
  EXPECT_TRUE(state.contains("muon.momentum.head.weight"));
  EXPECT_TRUE(state.contains("adamw.second.large.weight"));
  for (const std::string& key : state) EXPECT_EQ(key.find("square"), std::string::npos) << "no moments for what stays";
  gradients.square.weight.data[0] = 1.0f;
  optimizer.step(device, weights, gradients);
  EXPECT_FLOAT_EQ(weights.wide.weight.data[0], 1.0f - 0.5f * 0.5f * 0.2f);
  EXPECT_FLOAT_EQ(weights.tall.weight.data[0], 1.0f);
  EXPECT_FLOAT_EQ(weights.square.weight.data[0], 1.0f);
  EXPECT_FLOAT_EQ(weights.large.weight.data[0], 1.0f - 0.25f * 0.1f);
  EXPECT_FLOAT_EQ(weights.norm.weight.data[0], 1.0f - 0.25f * 0.1f * 2.0f);
  EXPECT_FLOAT_EQ(weights.head.weight.data[0], 1.0f - 0.5f * 0.2f);
}

TEST(Optimizer, TrainsATiedModelWithoutAHead) {
  using TiedModel = guild::Transformer<Tied>;
  guild::Cpu device({.threads = 1});
  TiedModel::Weights<guild::Dense<float>> weights, gradients;
  guild::initialize<TiedModel>(device, weights);
  guild::allocate_trained<TiedModel>(gradients);
  Optimizer<TiedModel> optimizer(weights, Muon{});
  optimizer.step(device, weights, gradients);
  EXPECT_TRUE(weights.head.weight.data.empty());
}

TEST(Optimizer, RefusesBeforeAnythingChanged) {
  guild::Cpu device({.threads = 1});
  NetWeights weights = filled_net(1.0f), gradients = filled_net(1.0f);
  Optimizer<Net> optimizer(weights, Muon{});
  const auto refused = [&](auto&& call, ErrorCode code) {
    EXPECT_EQ(code_of(call), code);
    for (const float value : elements<Net>(weights)) EXPECT_EQ(value, 1.0f);
    EXPECT_EQ(optimizer.steps(), 0);
    optimizer.visit_state([](const std::string& key, const TensorShape&, guild::View<float> values) {
      for (const float value : values) EXPECT_EQ(value, 0.0f) << key;
    });
  };
  refused([&] { optimizer.step(device, weights, gradients, NAN); }, ErrorCode::op_argument);
  refused([&] { optimizer.step(device, weights, gradients, -1.0); }, ErrorCode::op_argument);
  refused([&] { optimizer.step(device, weights, gradients, 1.0, INFINITY); }, ErrorCode::op_argument);
  refused([&] { optimizer.set_steps(-1); }, ErrorCode::op_argument);
  gradients.head.weight.data = Buffer(7);  // the last tensor of all
  refused([&] { optimizer.step(device, weights, gradients); }, ErrorCode::op_shape);
  gradients.head.weight.data = Buffer();
  refused([&] { optimizer.step(device, weights, gradients); }, ErrorCode::op_shape);
}

TEST(Optimizer, RefusesOtherLayersAndBadGroups) {
  guild::Cpu device({.threads = 1});
  ModelWeights weights = model_with_mtp();
  const ModelWeights gradients = gradients_with_mtp(1);
  ModelWeights without;
  guild::initialize<Model>(device, without);
  Optimizer<Model> for_without(without, AdamW{}), for_all(weights, AdamW{});
  EXPECT_EQ(code_of([&] { for_without.step(device, weights, gradients); }), ErrorCode::op_shape);
  EXPECT_EQ(code_of([&] { for_all.step(device, without, gradients); }), ErrorCode::op_shape);
  ModelWeights without_gradients;
  guild::allocate_trained<Model>(without_gradients);
  try {
    for_all.step(device, without, without_gradients);
    ADD_FAILURE() << "layers are missing";
  } catch (const guild::Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::op_shape);
    EXPECT_NE(error.message().find("the optimizer was made for"), std::string::npos) << error.what();
  }
  for (const ParameterGroup& bad : {ParameterGroup{.lr_scale = -1.0}, ParameterGroup{.decay_scale = NAN},
                                    ParameterGroup{.rule = UpdateRule::muon}})  // a vector is among them
    EXPECT_EQ(
        code_of([&] { Optimizer<Net>(NetWeights{}, Muon{}, [&](const Path&, const TensorShape&) { return bad; }); }),
        ErrorCode::op_argument);
}

TEST(Optimizer, TakesNoMoreScratchAfterTheFirstStep) {
  guild::Cpu device({.threads = 2});
  ModelWeights weights = model_with_mtp();
  const ModelWeights gradients = gradients_with_mtp(1);
  Optimizer<Model> optimizer(weights, Muon{});
  optimizer.step(device, weights, gradients);
  const Index bytes = device.scratch_bytes();
  optimizer.step(device, weights, gradients);
  EXPECT_EQ(device.scratch_bytes(), bytes);
}

/// Two matrices that do not fit Muon's scratch together.
struct Pair {
  using Long = guild::Linear<8, 360000>;
  template <class Store>
  struct Weights {
    typename Long::template Weights<Store> first, second;
  };
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const Path& path, W&... weights) {
    Long::visit(visitor, path / "first", weights.first...);
    Long::visit(visitor, path / "second", weights.second...);
  }
};

TEST(Optimizer, StepsMatricesThatDoNotFitTheScratchTogether) {
  guild::Cpu device({.threads = 2});
  Pair::Weights<guild::Dense<float>> weights, gradients;
  guild::allocate<Pair>(weights);
  guild::allocate<Pair>(gradients);
  Buffer& first = gradients.first.weight.data;
  for (Index i = 0; i < first.size(); ++i) first[i] = static_cast<float>((i * 7919) % 1009) - 504.0f;
  std::copy_n(first.data(), first.size(), gradients.second.weight.data.data());
  Optimizer<Pair> optimizer(weights, Muon{});
  optimizer.step(device, weights, gradients);
  const Buffer &a = weights.first.weight.data, &b = weights.second.weight.data;
  EXPECT_NE(a[1], 0.0f);
  EXPECT_EQ(std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(float)), 0);
}

TEST(Optimizer, GoesDownhill) {
  // f = sum of (w - target)^2 / 2 over all elements
  guild::Cpu device({.threads = 1});
  for (const Optimizer<Net>::Options& options :
       {Optimizer<Net>::Options(AdamW{.lr = 0.05, .weight_decay = 0.0}),
        Optimizer<Net>::Options(Muon{.lr = 0.1, .weight_decay = 0.0, .rest = {.lr = 0.05, .weight_decay = 0.0}})}) {
    NetWeights weights = filled_net(0.0f), target = filled_net(0.0f), gradients = filled_net(0.0f);
    fill_random<Net>(target, 11);
    Optimizer<Net> optimizer(weights, options);
    double loss = 0.0, first = 0.0;
    for (int step = 0; step < 100; ++step) {
      loss = 0.0;
      guild::for_each_parameter<Net>(
          [&](const Path&, const TensorShape&, const Buffer& w, const Buffer& t, Buffer& g) {
            for (Index i = 0; i < w.size(); ++i) {
              g[i] = w[i] - t[i];
              loss += 0.5 * double(g[i]) * double(g[i]);
            }
          },
          weights, target, gradients);
      if (step == 0) first = loss;
      optimizer.step(device, weights, gradients, 1.0 - step / 100.0);
    }
    EXPECT_LT(loss, 0.01 * first);
  }
}

}  // namespace optimizer_test
