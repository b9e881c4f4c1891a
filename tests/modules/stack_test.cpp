#include <guild/modules/stack.hpp>

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include <guild/training/allocate.hpp>

#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"

namespace stack_test {

using guild::Index;
using namespace guild_test;

using Dense = guild::Block<TinySpec, guild::Mla<TinySpec>, guild::DenseFeedForward<TinySpec>>;
using Sparse = guild::Block<TinySpec, guild::Mla<TinySpec>, guild::Moe<TinySpec>>;

/// The names of all tensors, and how many there are.
struct Names {
  std::vector<std::string>* names;
  template <class Shape, class... T>
  void operator()(const guild::Path& path, Shape, T&...) const {
    names->push_back(path.str());
  }
};
template <class Layers>
std::vector<std::string> names_of() {
  typename Layers::template Weights<guild::Published> weights;
  std::vector<std::string> names;
  const guild::Path root;
  Layers::visit(Names{&names}, root / "layers", weights);
  return names;
}
bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

TEST(Stack, NumbersLayersThroughItsSegments) {
  using Layers = guild::Stack<3, guild::Segment<Dense, 2>, guild::Segment<Sparse, 1>, guild::Segment<Dense, 0>,
                              guild::Segment<Dense, 1>>;
  static_assert(Layers::layers == 4 && Layers::segments == 4);
  const auto names = names_of<Layers>();
  EXPECT_TRUE(contains(names, "layers.3.feed_forward.gate.weight"));
  EXPECT_TRUE(contains(names, "layers.4.feed_forward.gate.weight"));
  EXPECT_TRUE(contains(names, "layers.5.feed_forward.experts.down.weight"));
  EXPECT_TRUE(contains(names, "layers.6.feed_forward.gate.weight"));
  EXPECT_TRUE(contains(names, "layers.6.mixer.query_up.weight"));
  for (const std::string& name : names) {
    EXPECT_FALSE(name.starts_with("layers.2") || name.starts_with("layers.7")) << name;
    EXPECT_EQ(std::count(names.begin(), names.end(), name), 1) << name;
  }
}

TEST(Stack, WalksSeveralWeightsSideBySide) {
  using Layers = guild::Stack<0, guild::Segment<Dense, 1>, guild::Segment<Sparse, 1>>;
  Layers::Weights<guild::Published> a, b;
  const guild::Path root;
  int tensors = 0;
  Layers::visit(
      [&](const guild::Path&, auto, auto& first, auto& second) {
        EXPECT_NE(static_cast<void*>(&first), static_cast<void*>(&second));
        ++tensors;
      },
      root, a, b);
  EXPECT_EQ(tensors, 2 * 9 + 3 + 2 + 3 + 3);
}

/// Notes which layers were seen, in order, with their residual stream.
struct Watch final : guild::Observer {
  std::vector<std::string>* events;
  std::vector<Matrix>* streams;
  Watch(std::vector<std::string>& to, std::vector<Matrix>& x) : events(&to), streams(&x) {}
  void on_layer(int layer, guild::View<const float, 2> x) override {
    events->push_back("layer " + std::to_string(layer));
    Matrix copy(x.rows, x.cols);
    for (Index r = 0; r < x.rows; ++r) std::copy(x.row(r).begin(), x.row(r).end(), copy.values.begin() + r * x.cols);
    streams->push_back(std::move(copy));
  }
  void on_routing(int layer, guild::View<const std::int32_t, 2> experts, guild::View<const float, 2> weights) override {
    events->push_back("routing " + std::to_string(layer));
    EXPECT_EQ(experts.rows, weights.rows);
    EXPECT_EQ(experts.cols, TinySpec::routing.top_k);
    for (Index t = 0; t < experts.rows; ++t) {
      float sum = 0.0f;
      for (Index k = 0; k < experts.cols; ++k) {
        EXPECT_TRUE(experts(t, k) >= 0 && experts(t, k) < TinySpec::routing.experts);
        sum += weights(t, k);
      }
      EXPECT_NEAR(sum, 2.5f, 1e-4f);  // normalised, then scaled
    }
  }
};

template <class Layers>
std::vector<std::string> events_of(Matrix& x, std::vector<Matrix>& streams) {
  guild::Cpu device({.threads = 2});
  const auto weights = random_weights<Layers>();
  typename Layers::Cache cache;
  cache.reserve(8);
  const Tokens none(5);
  const Flat flat({{0, &none, 0, 5}});
  std::vector<std::string> events;
  Watch watch(events, streams);
  const auto cache_of = [&](int) -> typename Layers::Cache& { return cache; };
  const guild::Pass pass{.device = device, .batch = flat.batch(), .observer = &watch};
  Layers::forward(pass, weights, cache_of, x.view(), x.view());
  return events;
}

TEST(Stack, ObserversSeeEachLayerAndEachRouting) {
  using Layers = guild::Stack<0, guild::Segment<Dense, 1>, guild::Segment<Sparse, 2>>;
  Matrix x(5, TinySpec::config.hidden);
  x.values.assign(x.values.size(), 0.5f);
  std::vector<Matrix> streams;
  EXPECT_EQ(events_of<Layers>(x, streams),
            (std::vector<std::string>{"layer 0", "routing 1", "layer 1", "routing 2", "layer 2"}));
  EXPECT_TRUE(same_bits(streams.back(), x));
  EXPECT_FALSE(same_bits(streams[0], streams[1]));
}
TEST(Stack, MayBeDenseOnly) {
  using Layers = guild::Stack<0, guild::Segment<Dense, 2>>;
  Matrix x(5, TinySpec::config.hidden);
  x.values.assign(x.values.size(), 0.5f);
  std::vector<Matrix> streams;
  EXPECT_EQ(events_of<Layers>(x, streams), (std::vector<std::string>{"layer 0", "layer 1"}));
}
TEST(Stack, MayHaveAnEmptySegment) {
  using Layers = guild::Stack<4, guild::Segment<Dense, 0>, guild::Segment<Sparse, 1>>;
  Matrix x(5, TinySpec::config.hidden);
  x.values.assign(x.values.size(), 0.5f);
  std::vector<Matrix> streams;
  EXPECT_EQ(events_of<Layers>(x, streams), (std::vector<std::string>{"routing 4", "layer 4"}));
}

TEST(Stack, ObserversSeeALayerThatIsComputedAgainOnce) {
  using Layers = guild::Stack<0, guild::Recompute<guild::Segment<Dense, 1>>, guild::Segment<Sparse, 1>>;
  guild::Cpu device({.threads = 1});
  const auto weights = random_weights<Layers>();
  Layers::Weights<guild::Dense<float>> gradients;
  guild::allocate<Layers>(gradients);
  const Tokens none(5);
  const Flat flat({{0, &none, 0, 5}});
  Matrix x(5, TinySpec::config.hidden), y = x;
  x.values.assign(x.values.size(), 0.5f);
  std::vector<std::string> events;
  std::vector<Matrix> streams;
  Watch watch(events, streams);
  guild::Arena arena;
  guild::Arena::Frame memory(arena);
  const guild::Pass pass{.device = device, .batch = flat.batch(), .memory = &memory, .observer = &watch};
  Layers::Saved<float> saved;
  Layers::forward(pass, weights, {}, x.view(), y.view(), &saved);
  EXPECT_EQ(events, (std::vector<std::string>{"layer 0", "routing 1", "layer 1"}));
  EXPECT_TRUE(same_bits(streams.back(), y));
  Layers::backward(pass, weights, saved, y.view(), gradients);
  EXPECT_EQ(events.size(), 3U);
}

TEST(Block, AddsTheMixerAndThenTheFeedForwardToTheResidualStream) {
  guild::Cpu device({.threads = 1});
  const auto weights = random_weights<Dense>();
  const Tokens none(5);
  const Flat flat({{0, &none, 0, 5}});
  constexpr Index hidden = TinySpec::config.hidden;
  Matrix x(5, hidden), normed(5, hidden), update(5, hidden);
  const auto values = random_values(5 * hidden, 9);
  std::copy(values.view().begin(), values.view().end(), x.values.begin());
  Matrix step = x;
  Dense::Cache cache, other;
  cache.reserve(5), other.reserve(5);
  const guild::Pass pass{.device = device, .batch = flat.batch()};
  const auto first = [&](int) -> Dense::Cache& { return cache; };
  const auto second = [&](int) -> Dense::Cache& { return other; };
  Dense::forward(pass, weights, first, x.view(), x.view());
  // The same by hand.
  const auto add = [&] {
    for (std::size_t i = 0; i < step.values.size(); ++i) step.values[i] += update.values[i];
  };
  Dense::Norm::forward(device, weights.mixer_norm, step.view(), normed.view(), TinySpec::config.norm.epsilon);
  Dense::Mixer::forward(pass, weights.mixer, second, normed.view(), update.view());
  add();
  Dense::Norm::forward(device, weights.feed_forward_norm, step.view(), normed.view(), TinySpec::config.norm.epsilon);
  Dense::FeedForward::forward(pass, weights.feed_forward, normed.view(), update.view());
  add();
  EXPECT_TRUE(same_bits(x, step));
}

static_assert(guild::Module<guild::Mla<TinySpec>>);
static_assert(guild::Module<guild::Moe<TinySpec>>);
static_assert(guild::Module<Dense>);
static_assert(guild::Module<Sparse>);

}  // namespace stack_test
