// Layers between the beginning and the end of residual streams: cached, batched, computed again, predicting ahead.
#include <guild/modules/streams.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <guild/core/model_size.hpp>
#include <guild/cpu.hpp>
#include <guild/models/transformer.hpp>
#include <guild/modules/parameters.hpp>
#include <guild/training/allocate.hpp>
#include <guild/training/parameter_group.hpp>

#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"
#include "../support/whole_stack.hpp"

namespace streams_test {

using guild::Index;
using namespace guild_test;

struct HyperSpec : TinySpec {
  static constexpr guild::HyperConfig hyper = {.streams = 4, .sinkhorn_rounds = 20};
  template <class S>
  using DenseLayer = guild::Block<S, guild::Mla<S>, guild::DenseFeedForward<S>, guild::HyperConnections<S>>;
  template <class S>
  using ExpertLayer = guild::Block<S, guild::Mla<S>, guild::Moe<S>, guild::HyperConnections<S>>;
  template <class S>
  using Layers = guild::Streams<S, guild::DenseThenExperts<S>>;
  template <class S>
  static constexpr auto parts() {
    return std::tuple(S::config, S::attention, S::hyper, S::dense, S::routing, S::experts);
  }
};
struct RecomputedSpec : HyperSpec {
  template <class LayerStack>
  using Activations = guild::Recompute<LayerStack>;
};
using Model = guild::Transformer<HyperSpec>;
using Again = guild::Transformer<RecomputedSpec>;
constexpr Index hidden = HyperSpec::config.hidden;
static_assert(Model::Layers::width == hidden && Model::Layers::Layers::width == 4 * hidden);
static_assert(guild::config_problem(guild::config_of<HyperSpec>) == nullptr);

struct HyperRun {
  guild::Cpu device{{.threads = 2}};
  Model::Weights<guild::Published> weights = random_model<Model>(guild::DType::f32, 1, 1);
  Tokens tokens = random_tokens(40, HyperSpec::config.vocab, 3);

  Matrix states(const Flat& flat, std::span<Model::Cache* const> caches = {}) {
    Matrix out(flat.batch().size(), hidden);
    Model::forward(guild::Pass{.device = device, .batch = flat.batch()}, weights, caches, out.view());
    return out;
  }
};

TEST(Streams, VisitTheirLayersAndTheHeadBehindThem) {
  HyperRun run;
  std::vector<std::string> names;
  Model::visit([&](const guild::Path& path, const auto&, auto&) { names.push_back(path.str()); }, guild::Path{},
               run.weights);
  for (const char* name : {"layers.0.mixer_residual.weight", "layers.0.feed_forward_residual.bias",
                           "layers.2.mixer_residual.scale", "layers.stream_head.weight", "layers.stream_head.bias",
                           "layers.stream_head.scale", "layers.3.mixer_residual.weight", "layers.3.stream_head.weight"})
    EXPECT_EQ(std::count(names.begin(), names.end(), name), 1) << name;
}

TEST(Streams, AreCountedWithTheParametersOfAModelAndMuonLeavesThemAlone) {
  for (const int mtp : {0, 1}) {
    auto weights = random_model<Model>(guild::DType::f32, 1, mtp);
    Index count = 0;
    Model::visit(
        [&]<class Shape>(const guild::Path& path, const Shape& shape, auto&) {
          if constexpr (requires { shape.count* shape.rows; })
            count += shape.count * shape.rows * shape.cols;
          else if constexpr (requires { shape.size; })
            count += shape.size;
          else if (shape.role != guild::TensorRole::shared)
            count += shape.rows * shape.cols;
          if constexpr (std::is_same_v<Shape, guild::MatrixShape>)
            if (path.str().find("residual") != std::string::npos ||
                path.str().find("stream_head") != std::string::npos) {
              EXPECT_FALSE(guild::is_hidden_matrix(path, guild::shape_of(shape))) << path.str();
            }
        },
        guild::Path{}, weights);
    constexpr auto expected = guild::parameter_count(guild::config_of<HyperSpec>);
    EXPECT_EQ(count, expected.total + mtp * expected.mtp);
  }
}

TEST(Streams, DecodeInAnySplitAsTheWhole) {
  HyperRun run;
  const Matrix whole = run.states(Flat({{0, &run.tokens, 0, 40}}));
  for (const auto& ends : {std::vector<Index>{40}, {1, 40}, {17, 18, 19, 40}, {39, 40}}) {
    Model::Cache cache;
    Model::Cache* list[] = {&cache};
    Matrix pieces;
    Index begin = 0;
    for (const Index end : ends)
      pieces.append(run.states(Flat({{0, &run.tokens, std::exchange(begin, end), end}}), list));
    EXPECT_LE(relative_error(pieces, whole), 2e-5) << ends.size() << " pieces";
  }
}

TEST(Streams, GiveASequenceInABatchWhatItHasAlone) {
  HyperRun run;
  const Tokens other = random_tokens(23, HyperSpec::config.vocab, 4);
  const Matrix both = run.states(Flat({{0, &run.tokens, 0, 40}, {1, &other, 0, 23}}));
  EXPECT_LE(relative_error(both.middle_rows(0, 40), run.states(Flat({{0, &run.tokens, 0, 40}}))), 2e-6);
  EXPECT_LE(relative_error(both.middle_rows(40, 23), run.states(Flat({{1, &other, 0, 23}}))), 2e-6);

  // Without experts, of which some have less than 9 rows alone: to the last bit.
  using Layers = guild::Streams<HyperSpec, guild::Segment<HyperSpec::DenseLayer<HyperSpec>, 2>>;
  const auto weights = random_weights<WholeStack<Layers>>();
  const auto values = random_values(63 * hidden, 5);
  const auto rows_of = [&](const Flat& flat, Index begin) {
    Matrix y(flat.batch().size(), hidden);
    Layers::forward(guild::Pass{.device = run.device, .batch = flat.batch()}, weights, {},
                    values.view(63, hidden).middle_rows(begin, y.rows), y.view());
    return y;
  };
  const Matrix together = rows_of(Flat({{0, &run.tokens, 0, 40}, {1, &other, 0, 23}}), 0);
  EXPECT_TRUE(same_bits(together.middle_rows(0, 40), rows_of(Flat({{0, &run.tokens, 0, 40}}), 0)));
  EXPECT_TRUE(same_bits(together.middle_rows(40, 23), rows_of(Flat({{1, &other, 0, 23}}), 40)));
}

TEST(Streams, DifferFromOneAnotherAndFromAPlainResidual) {
  HyperRun run;
  struct Watch final : guild::Observer {
    std::vector<Matrix> seen;
    void on_layer(int, guild::View<const float, 2> y) override {
      Matrix copy(y.rows, y.cols);
      for (Index r = 0; r < y.rows; ++r) std::copy(y.row(r).begin(), y.row(r).end(), copy.values.begin() + r * y.cols);
      seen.push_back(std::move(copy));
    }
  } watch;
  const Flat flat({{0, &run.tokens, 0, 40}});
  Matrix out(40, hidden);
  Model::forward(guild::Pass{.device = run.device, .batch = flat.batch(), .observer = &watch}, run.weights, {},
                 out.view());
  ASSERT_EQ(watch.seen.size(), 3U);
  for (const Matrix& layer : watch.seen) {
    ASSERT_EQ(layer.cols, 4 * hidden) << "observers see all streams";
    for (Index s = 1; s < 4; ++s) {
      bool same = true;
      for (Index i = 0; i < hidden; ++i) same = same && layer.view()(5, i) == layer.view()(5, s * hidden + i);
      EXPECT_FALSE(same);
    }
  }
}

/// All gradients of one batch.
template <class M>
std::vector<float> learn(Matrix& states) {
  guild::Cpu device({.threads = 2});
  const auto weights = random_model<M>();
  typename M::template Weights<guild::Dense<float>> gradients;
  guild::allocate_trained<M>(gradients);
  const Tokens tokens = random_tokens(30, HyperSpec::config.vocab, 3);
  const Flat flat({{0, &tokens, 0, 20}, {1, &tokens, 0, 30}});
  guild::Arena arena;
  guild::Arena::Frame memory(arena);
  const guild::Pass pass{.device = device, .batch = flat.batch(), .memory = &memory};
  typename M::template Saved<float> saved;
  states = Matrix(50, hidden);
  M::forward(pass, weights, {}, states.view(), &saved);
  const auto slopes = random_values(50 * hidden, 6);
  Matrix dstates(50, hidden);
  std::copy(slopes.view().begin(), slopes.view().end(), dstates.values.begin());
  M::backward(pass, weights, saved, dstates.view(), gradients);
  std::vector<float> all;
  guild::for_each_parameter<M>(
      [&](const guild::Path&, const guild::TensorShape&, const guild::Buffer<float>& data) {
        all.insert(all.end(), data.view().begin(), data.view().end());
      },
      gradients);
  return all;
}
TEST(Streams, MayBeComputedAgainWithoutADifferentBit) {
  Matrix once, again;
  EXPECT_EQ(learn<Model>(once), learn<Again>(again));
  EXPECT_TRUE(same_bits(once, again));
}

TEST(Streams, MayStandBesideOtherLayersOfTheUsualWidth) {
  using Plain = guild::Block<HyperSpec, guild::Mla<HyperSpec>, guild::DenseFeedForward<HyperSpec>>;
  using Hyper = HyperSpec::DenseLayer<HyperSpec>;
  using Layers = guild::Stack<guild::Segment<Plain, 1>, guild::Streams<HyperSpec, guild::Segment<Hyper, 2>>>;
  static_assert(Layers::width == hidden && Layers::layers == 3);
  guild::Cpu device({.threads = 2});
  const auto weights = random_weights<WholeStack<Layers>>();
  Matrix x(7, hidden), y(7, hidden), in_place(7, hidden);
  const auto values = random_values(7 * hidden, 5);
  std::copy(values.view().begin(), values.view().end(), x.values.begin());
  in_place = x;
  const Tokens none(7);
  const Flat seven({{0, &none, 0, 7}});
  const guild::Pass pass{.device = device, .batch = seven.batch()};
  Layers::forward(pass, weights, {}, x.view(), y.view());
  Layers::forward(pass, weights, {}, in_place.view(), in_place.view());
  EXPECT_TRUE(same_bits(in_place, y));
}

TEST(Streams, PredictTheTokenAfterTheNext) {
  HyperRun run;
  const Flat flat({{0, &run.tokens, 0, 10}});
  Model::Cache cache;
  cache.mtp.resize(1);
  Model::Cache* list[] = {&cache};
  const Matrix states = run.states(flat, list);
  const Tokens next(run.tokens.begin() + 1, run.tokens.begin() + 11);
  const Flat following({{0, &next, 0, 10}});
  Matrix logits(10, HyperSpec::config.vocab);
  Model::predict_second(guild::Pass{.device = run.device, .batch = following.batch()}, run.weights, list, states.view(),
                        logits.view());
  float sum = 0.0f;
  for (const float value : logits.values) sum += value * value;
  EXPECT_TRUE(std::isfinite(sum) && sum > 0.0f);
}

}  // namespace streams_test
