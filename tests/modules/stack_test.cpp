// Stacks of layers: numbered, watched, cached, computed again; and however they are nested, the flat one to the last
// bit. This file counts the allocations of its program.
#include "../support/allocations.hpp"

#include <guild/cpu.hpp>
#include <guild/modules/stack.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <guild/modules/merge_plan.hpp>
#include <guild/modules/recompute.hpp>
#include <guild/modules/repeat.hpp>
#include <guild/modules/segment.hpp>
#include <guild/training/allocate.hpp>

#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"
#include "../support/whole_stack.hpp"

namespace stack_test {

using guild::Index;
using namespace guild_test;

using Dense = guild::Block<TinySpec, guild::Mla<TinySpec>, guild::DenseFeedForward<TinySpec>>;
using Sparse = guild::Block<TinySpec, guild::Mla<TinySpec>, guild::Moe<TinySpec>>;

using guild::Recompute;
using guild::Repeat;
using guild::Segment;
using guild::Stack;

/// The names of all tensors, and how many there are.
struct Names {
  std::vector<std::string>* names;
  template <class Shape, class... T>
  void operator()(const guild::Path& path, Shape, T&...) const {
    names->push_back(path.str());
  }
};
template <class Layers>
std::vector<std::string> names_of(Index first_layer) {
  typename Layers::template Weights<guild::Published> weights;
  std::vector<std::string> names;
  const guild::Path root;
  Layers::visit(Names{&names}, root / "layers", first_layer, weights);
  return names;
}
bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

TEST(Stack, NumbersLayersThroughItsSegments) {
  using Layers = Stack<Segment<Dense, 2>, Segment<Sparse, 1>, Segment<Dense, 0>, Segment<Dense, 1>>;
  static_assert(Layers::layers == 4);
  const auto names = names_of<Layers>(3);
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
  using Layers = Stack<Segment<Dense, 1>, Segment<Sparse, 1>>;
  Layers::Weights<guild::Published> a, b;
  const guild::Path root;
  int tensors = 0;
  Layers::visit(
      [&](const guild::Path&, auto, auto& first, auto& second) {
        EXPECT_NE(static_cast<void*>(&first), static_cast<void*>(&second));
        ++tensors;
      },
      root, 0, a, b);
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
std::vector<std::string> events_of(Matrix& x, std::vector<Matrix>& streams, int first_layer = 0) {
  guild::Cpu device({.threads = 2});
  const auto weights = random_weights<WholeStack<Layers>>();
  typename Layers::Cache cache;
  cache.reserve(8);
  const Tokens none(5);
  const Flat flat({{0, &none, 0, 5}});
  std::vector<std::string> events;
  Watch watch(events, streams);
  const auto cache_of = [&](int) -> typename Layers::Cache& { return cache; };
  const guild::Pass pass{.device = device, .batch = flat.batch(), .layer = first_layer, .observer = &watch};
  Layers::forward(pass, weights, cache_of, x.view(), x.view());
  return events;
}

TEST(Stack, ObserversSeeEachLayerAndEachRouting) {
  using Layers = Stack<Segment<Dense, 1>, Segment<Sparse, 2>>;
  Matrix x(5, TinySpec::config.hidden);
  x.values.assign(x.values.size(), 0.5f);
  std::vector<Matrix> streams;
  EXPECT_EQ(events_of<Layers>(x, streams),
            (std::vector<std::string>{"layer 0", "routing 1", "layer 1", "routing 2", "layer 2"}));
  EXPECT_TRUE(same_bits(streams.back(), x));
  EXPECT_FALSE(same_bits(streams[0], streams[1]));
}
TEST(Stack, MayBeDenseOnly) {
  using Layers = Stack<Segment<Dense, 2>>;
  Matrix x(5, TinySpec::config.hidden);
  x.values.assign(x.values.size(), 0.5f);
  std::vector<Matrix> streams;
  EXPECT_EQ(events_of<Layers>(x, streams), (std::vector<std::string>{"layer 0", "layer 1"}));
}
TEST(Stack, MayHaveAnEmptySegment) {
  using Layers = Stack<Segment<Dense, 0>, Segment<Sparse, 1>>;
  Matrix x(5, TinySpec::config.hidden);
  x.values.assign(x.values.size(), 0.5f);
  std::vector<Matrix> streams;
  EXPECT_EQ(events_of<Layers>(x, streams, 4), (std::vector<std::string>{"routing 4", "layer 4"}));
}

TEST(Stack, ObserversSeeALayerThatIsComputedAgainOnce) {
  using Layers = Stack<Recompute<Segment<Dense, 1>>, Segment<Sparse, 1>>;
  guild::Cpu device({.threads = 1});
  const auto weights = random_weights<WholeStack<Layers>>();
  Layers::Weights<guild::Dense<float>> gradients;
  guild::allocate<WholeStack<Layers>>(gradients);
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

// Nested stacks. All stand for the layers dense, dense, sparse, dense, dense, sparse, numbered from 3.

using FlatStack = Stack<Segment<Dense, 2>, Segment<Sparse, 1>, Segment<Dense, 2>, Segment<Sparse, 1>>;
using Pattern = Stack<Segment<Dense, 2>, Segment<Sparse, 1>>;
using Repeated = Repeat<Pattern, 2>;
using Deep = Stack<Segment<Sparse, 0>, Stack<Segment<Dense, 1>, Repeat<Segment<Dense, 1>, 1>>, Segment<Sparse, 1>,
                   Stack<Stack<Repeat<Segment<Dense, 1>, 2>>, Repeat<Segment<Dense, 0>, 3>>,
                   Repeat<Stack<Segment<Sparse, 1>>, 1>, Segment<Dense, 0>>;
using AllAgain = Recompute<Repeated>;
using SomeAgain =
    Stack<Repeat<Stack<Recompute<Segment<Dense, 2>>, Segment<Sparse, 1>>, 1>,
          Recompute<Stack<Segment<Dense, 1>, Recompute<Segment<Dense, 1>>, Repeat<Segment<Sparse, 1>, 1>>>>;
using SomeAgainFlat = Stack<Recompute<Segment<Dense, 2>>, Segment<Sparse, 1>, Recompute<Segment<Dense, 2>>,
                            Recompute<Segment<Sparse, 1>>>;

static_assert(guild::LayerStack<Repeated> && guild::LayerStack<Deep> && guild::LayerStack<AllAgain>);
static_assert(!guild::LayerStack<Dense> && !guild::LayerStack<int> && !guild::TransformerLayer<Deep>);
static_assert(Repeated::layers == 6 && Deep::layers == 6 && SomeAgain::layers == 6);
static_assert(std::is_same_v<Repeated::LastLayer, Sparse> && std::is_same_v<Deep::LastLayer, Sparse> &&
              std::is_same_v<AllAgain::LastLayer, Sparse> && std::is_same_v<SomeAgain::LastLayer, Sparse>);
static_assert(
    std::is_same_v<Recompute<Segment<Dense, 2>>::Weights<guild::Published>::OfLayer, Dense::Weights<guild::Published>>);

constexpr int first_layer = 3;
constexpr Index hidden = TinySpec::config.hidden;

/// Names, numbers and shapes of all tensors, with what stands in them.
struct Tensors {
  std::vector<std::pair<std::string, std::vector<float>>>* list;
  template <class Shape, class Tensor>
  void operator()(const guild::Path& path, Shape, const Tensor& tensor) const {
    list->emplace_back(path.str(), std::vector<float>(tensor.data.view().begin(), tensor.data.view().end()));
  }
};

/// What a pass over three sequences gave, there and back.
struct Result {
  Matrix y, dx;
  std::vector<std::pair<std::string, std::vector<float>>> gradients{};
  std::vector<std::string> events{};
  std::vector<Matrix> streams{};
  std::vector<std::vector<double>> counts{};
  Index kept = 0;
};
/// `choices`: the experts of all layers that have any, or none.
template <class Layers>
Result learn(std::vector<std::int32_t> experts = {}) {
  using Whole = WholeStack<Layers, first_layer>;
  guild::Cpu device({.threads = 2});
  const auto weights = random_weights<Whole>();
  typename Layers::template Weights<guild::Dense<float>> gradients;
  guild::allocate<Whole>(gradients);
  const Tokens none(16);
  const Flat flat({{0, &none, 0, 7}, {1, &none, 0, 1}, {2, &none, 0, 8}});
  const auto values = random_values(16 * hidden, 5), slopes = random_values(16 * hidden, 6);
  Matrix x(16, hidden);
  Result out{Matrix(16, hidden), Matrix(16, hidden)};
  std::copy(values.view().begin(), values.view().end(), x.values.begin());
  std::copy(slopes.view().begin(), slopes.view().end(), out.dx.values.begin());
  std::array<guild::DeviceView<std::int32_t, 2>, 9> choices;
  if (!experts.empty()) choices[5] = choices[8] = {experts.data(), 16, 3};

  Watch watch(out.events, out.streams);
  guild::RoutingStatistics statistics(9, 8);
  guild::Arena arena;
  guild::Arena::Frame memory(arena);
  const guild::Pass pass{.device = device,
                         .batch = flat.batch(),
                         .memory = &memory,
                         .layer = first_layer,
                         .observer = &watch,
                         .choices = choices,
                         .counts = statistics.view()};
  typename Layers::template Saved<float> saved;
  Layers::forward(pass, weights, {}, x.view(), out.y.view(), &saved);
  out.kept = arena.taken();
  Layers::backward(pass, weights, saved, out.dx.view(), gradients);
  EXPECT_EQ(arena.taken(), out.kept) << "what backward takes is given back";
  Whole::visit(Tensors{&out.gradients}, guild::Path{}, gradients);
  for (int layer = 0; layer < 9; ++layer)
    out.counts.emplace_back(statistics.load(layer).begin(), statistics.load(layer).end());
  return out;
}
void expect_same(const Result& found, const Result& expected) {
  EXPECT_TRUE(same_bits(found.y, expected.y));
  EXPECT_TRUE(same_bits(found.dx, expected.dx));
  EXPECT_EQ(found.gradients, expected.gradients);
  EXPECT_EQ(found.events, expected.events);
  ASSERT_EQ(found.streams.size(), expected.streams.size());
  for (std::size_t i = 0; i < found.streams.size(); ++i)
    EXPECT_TRUE(same_bits(found.streams[i], expected.streams[i])) << i;
  EXPECT_EQ(found.counts, expected.counts);
}

template <class Layers>
struct Nested : testing::Test {};
using Nestings = testing::Types<Repeated, Deep, AllAgain, SomeAgain>;
TYPED_TEST_SUITE(Nested, Nestings);

TYPED_TEST(Nested, WalksTheFlatOnesTensorsInTheirOrder) {
  const auto names = names_of<TypeParam>(first_layer);
  EXPECT_EQ(names, names_of<FlatStack>(first_layer));
  EXPECT_TRUE(names.front().starts_with("layers.3.mixer_norm")) << names.front();
  EXPECT_TRUE(names.back().starts_with("layers.8.feed_forward")) << names.back();
}

TYPED_TEST(Nested, LearnsTheFlatOnesBits) {
  const Result flat = learn<FlatStack>(), nested = learn<TypeParam>();
  EXPECT_EQ(flat.events, (std::vector<std::string>{"layer 3", "layer 4", "routing 5", "layer 5", "layer 6", "layer 7",
                                                   "routing 8", "layer 8"}));
  EXPECT_GT(flat.counts[5][0] + flat.counts[5][1] + flat.counts[5][2] + flat.counts[5][3], 0.0);
  expect_same(nested, flat);
}

TYPED_TEST(Nested, TakesTheExpertsGivenForALayersNumber) {
  std::vector<std::int32_t> experts(16 * 3);
  for (std::size_t i = 0; i < experts.size(); ++i) experts[i] = static_cast<std::int32_t>((i / 3 + i % 3) % 8);
  const Result flat = learn<FlatStack>(experts), nested = learn<TypeParam>(experts);
  EXPECT_EQ(flat.counts[8], std::vector<double>(8, 6.0));
  expect_same(nested, flat);
  EXPECT_FALSE(same_bits(nested.y, learn<TypeParam>().y)) << "otherwise this test shows nothing";
}

/// Some rows of x through the layers, appended to two sequences' caches.
template <class Layers>
Matrix extend(guild::Cpu& device, const typename Layers::template Weights<guild::Published>& weights,
              std::array<typename Layers::Cache, 2>& caches, const std::vector<Piece>& pieces, const Matrix& x) {
  const Flat flat(pieces);
  Matrix rows(0, hidden);
  for (const Piece& piece : pieces) rows.append(x.middle_rows(piece.begin, piece.end - piece.begin));
  const auto cache_of = [&](int sequence) -> auto& { return caches[static_cast<std::size_t>(sequence)]; };
  const guild::Pass pass{.device = device, .batch = flat.batch(), .layer = first_layer};
  Layers::forward(pass, weights, cache_of, rows.view(), rows.view());
  return rows;
}
/// All that came out while two sequences grew, forgot a draft, went back, and one was replaced by the other's copy.
template <class Layers>
Matrix decode() {
  guild::Cpu device({.threads = 2});
  const auto weights = random_weights<WholeStack<Layers, first_layer>>();
  std::array<typename Layers::Cache, 2> caches;
  for (auto& cache : caches) cache.reserve(20);
  const Tokens none(20);
  const auto values = random_values(20 * hidden, 5);
  Matrix x(20, hidden), out(0, hidden);
  std::copy(values.view().begin(), values.view().end(), x.values.begin());
  const auto run = [&](const std::vector<Piece>& pieces) {
    out.append(extend<Layers>(device, weights, caches, pieces, x));
  };
  run({{0, &none, 0, 7}, {1, &none, 0, 3}});
  const typename Layers::Cache::Mark mark = caches[0].mark();
  run({{0, &none, 7, 11}});
  EXPECT_EQ(caches[0].length(), 11);
  caches[0].rewind(mark);
  EXPECT_EQ(caches[0].length(), 7);
  run({{1, &none, 3, 4}, {0, &none, 7, 8}});
  EXPECT_EQ(caches[0].oldest(), 0);
  caches[0].rewind(caches[0].mark(5));
  caches[1] = caches[0];
  caches[1].reserve(20);
  run({{0, &none, 5, 9}, {1, &none, 5, 6}});
  EXPECT_EQ(caches[0].length(), 9);
  EXPECT_EQ(caches[1].length(), 6);
  EXPECT_EQ(caches[1].reserved(), 20);
  return out;
}
TYPED_TEST(Nested, DecodesTheFlatOnesBitsFromItsCaches) {
  static const Matrix flat = decode<FlatStack>();
  EXPECT_TRUE(same_bits(decode<TypeParam>(), flat));
}

TYPED_TEST(Nested, CachesTakeTheBytesTheySayAndMarksNone) {
  using Cache = typename TypeParam::Cache;
  EXPECT_EQ(Cache::bytes(64), FlatStack::Cache::bytes(64));
  if (GUILD_TEST_COUNTS_ALLOCATIONS == 0) GTEST_SKIP() << "allocations are the sanitizer's";
  Cache cache;
  const long before = buffer_bytes;
  cache.reserve(64);
  EXPECT_EQ(buffer_bytes - before, Cache::bytes(64));
  const long calls = allocations;
  cache.rewind(cache.mark());
  cache.rewind(cache.mark(0));
  EXPECT_EQ(allocations - calls, 0);
}

TEST(NestedStack, KeepsWhatTheFlatOneKeepsAndRecomputedLayersTheirInputs) {
  const Index all = learn<FlatStack>().kept;
  EXPECT_EQ(learn<Repeated>().kept, all);
  EXPECT_EQ(learn<Deep>().kept, all);
  constexpr Index stream = 16 * hidden * Index{sizeof(float)}, choice = 16 * 3 * Index{sizeof(std::int32_t)};
  EXPECT_EQ(learn<AllAgain>().kept, 5 * stream + 2 * choice) << "outputs of all layers but the last, and choices";
  EXPECT_EQ(learn<SomeAgain>().kept, learn<SomeAgainFlat>().kept);
}

TEST(NestedStack, RefusesExpertsThatDoNotFitTheirLayer) {
  std::vector<std::int32_t> one(16 * 2);
  guild::Cpu device({.threads = 1});
  const auto weights = random_weights<WholeStack<Repeated, first_layer>>();
  const Tokens none(16);
  const Flat flat({{0, &none, 0, 16}});
  std::array<guild::DeviceView<std::int32_t, 2>, 9> choices;
  choices[8] = {one.data(), 16, 2};
  Matrix x(16, hidden);
  const guild::Pass pass{.device = device, .batch = flat.batch(), .layer = first_layer, .choices = choices};
  try {
    Repeated::forward(pass, weights, {}, x.view(), x.view());
    FAIL() << "no error";
  } catch (const guild::Error& error) {
    EXPECT_NE(std::string(error.what()).find("the experts given for layer 8 are [16, 2], expected [16, 3]"),
              std::string::npos)
        << error.what();
  }
}

/// A layer of one's own: no weights, y = 2x + the layer's number, and a cache that can go back by two tokens alone.
struct Doubling {
  static constexpr Index chosen_experts = 0;
  template <class Store>
  struct Weights {};
  template <class Visitor, class... W>
  static void visit(Visitor&&, const guild::Path&, W&...) {}
  template <class Real>
  struct Saved {};
  struct Cache {
    struct Mark {
      Index length;
    };
    Index held = 0, room = 0;
    [[nodiscard]] Index length() const { return held; }
    [[nodiscard]] Index reserved() const { return room; }
    void reserve(Index tokens) { room = std::max(room, tokens); }
    [[nodiscard]] Mark mark() const { return {held}; }
    [[nodiscard]] Mark mark(Index tokens) const { return {tokens}; }
    [[nodiscard]] Index oldest() const { return std::max<Index>(held - 2, 0); }
    void rewind(const Mark& mark) { held = mark.length; }
    [[nodiscard]] static constexpr Index bytes(Index) { return 0; }
  };
  template <class Device, class Store, class Real>
  static void forward(const guild::Pass<Device>& pass, const Weights<Store>&, guild::Caches<Cache> caches,
                      guild::DeviceView<Real, 2> input, guild::DeviceView<Real, 2> output, Saved<Real>* = nullptr) {
    const auto x = host_view(pass.device, input), y = host_view(pass.device, output);
    for (Index r = 0; r < x.rows; ++r)
      for (Index c = 0; c < x.cols; ++c) y(r, c) = 2 * x(r, c) + static_cast<Real>(pass.layer);
    if (!caches) return;
    for (const guild::Chunk& chunk : pass.batch.chunks) caches[chunk.sequence].held += chunk.count;
  }
};

TEST(NestedStack, JoinsCachesThatDiffer) {
  using Layers = Stack<Repeat<Stack<Segment<Doubling, 1>, Segment<Dense, 1>>, 2>, Segment<Doubling, 1>>;
  static_assert(std::is_same_v<Layers::LastLayer, Doubling>);
  EXPECT_EQ(Layers::Cache::bytes(10), 2 * Dense::Cache::bytes(10));
  Layers::Cache cache;
  cache.reserve(12);
  EXPECT_EQ(cache.reserved(), 12);
  auto& patterns = std::get<0>(cache.parts).parts;
  auto& last = std::get<1>(cache.parts).parts[0];
  for (auto& pattern : patterns) (void)std::get<1>(pattern.parts).parts[0].append(6);
  last.held = 1;
  EXPECT_EQ(cache.length(), 0) << "as many as all layers hold";
  for (auto& pattern : patterns) std::get<0>(pattern.parts).parts[0].held = 6;
  EXPECT_EQ(cache.length(), 1);
  EXPECT_EQ(cache.oldest(), 4) << "as far back as all layers can";
  last.held = 6;
  EXPECT_EQ(cache.length(), 6);
  cache.rewind(cache.mark(4));
  EXPECT_EQ(std::get<0>(patterns[0].parts).parts[0].held, 4);
  EXPECT_EQ(std::get<1>(patterns[1].parts).parts[0].length(), 4);
  EXPECT_EQ(last.held, 4);
  EXPECT_EQ(cache.oldest(), 2);
}

TEST(NestedStack, NumbersLayersAtRunTime) {
  using Layers = Repeat<Stack<Segment<Doubling, 2>, Repeat<Segment<Doubling, 1>, 2>>, 2>;
  guild::Cpu device({.threads = 1});
  float number = 1.0f, expected = 1.0f;
  const guild::View<float, 2> x(&number, 1, 1);
  const guild::Pass pass{.device = device, .layer = 5};
  Layers::forward(pass, Layers::Weights<guild::Published>{}, {}, x, x);
  for (int layer = 5; layer < 13; ++layer) expected = 2 * expected + static_cast<float>(layer);
  EXPECT_EQ(number, expected);
}

TEST(MergePlan, AllocatesNothingOnceWarmedUp) {
  if (GUILD_TEST_COUNTS_ALLOCATIONS == 0) GTEST_SKIP() << "allocations are the sanitizer's";
  using States = guild::MergeStates<4>;
  constexpr Index count = 5000;
  guild::Cpu device({.threads = 1});
  const std::vector<float> novelty(count, 0.7f);
  const guild::Chunk chunk{0, 0, count, 0};
  const guild::Batch batch{{nullptr, count}, {nullptr, count}, {&chunk, 1}};
  States states;
  const auto of = [&](int) -> States& { return states; };
  states.reserve(count);
  long before = 0;
  for (int round = 0; round < 6; ++round) {
    if (round == 3) before = allocations;
    states.rewind(states.mark(0));
    const guild::MergePlan plan(device, guild::TokenBucket<1, 2, 4, 8>{}, batch, {.novelty = novelty},
                                guild::Caches<States>(of));
    EXPECT_EQ(plan.size(), 2503);
    states.rewind(states.mark(count - 4));
    EXPECT_EQ(states.length(), count - 4);
  }
  EXPECT_EQ(allocations - before, 0);
}

static_assert(guild::Module<guild::Mla<TinySpec>>);
static_assert(guild::Module<guild::Moe<TinySpec>>);
static_assert(guild::Module<Dense>);
static_assert(guild::Module<Sparse>);

}  // namespace stack_test
