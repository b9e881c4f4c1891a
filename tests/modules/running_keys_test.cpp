#include <guild/modules/running_keys.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/modules/mla.hpp>
#include <guild/modules/sequence_cache.hpp>
#include <guild/training/allocate.hpp>

#include "../core/code_of.hpp"
#include "../support/far_device.hpp"
#include "../support/frozen_tensors.hpp"
#include "../support/gradient_cases.hpp"
#include "../support/one_attention.hpp"

namespace running_keys_test {

using namespace guild;
using namespace guild_test;

struct LatentBf16 : Latent {
  using CacheElement = bf16;
};
struct Nothing : DefaultKeyMerging {
  using Novelty = NoNovelty;
  using Budget = Always;
};
struct Some : DefaultKeyMerging {
  using Budget = TokenBucket<1, 2, 3, 5>;
  static inline float threshold = 0.5f;
  static constexpr Index chunk = 4;
};
using Plain = Mla<Latent>;
using Merged = RunningMerge<Plain, Some>;
using MergedBf16 = RunningMerge<Mla<LatentBf16>, Some>;
static_assert(SequenceCache<Merged::Cache> && SequenceCache<RunningMerge<Plain, Nothing>::Cache>);

/// One layer with random weights over sequences of random rows, or of rows of a few kinds. The plain kernels alone sum
/// products of few rows as those of many.
template <class A, class Device = Cpu>
struct Layer {
  using Cache = typename A::Cache;
  static constexpr Index hidden = A::hidden;
  Device device{{.threads = 2, .isa = Isa::baseline}};
  typename A::template Weights<Published> weights = random_weights<A>(DType::f32);
  Index kinds = 1000;  ///< of rows
  double strength = 1.0;

  explicit Layer(LatentForm form = LatentForm::automatic) { device.tuning().latent_form = form; }

  [[nodiscard]] Matrix inputs(const Flat& flat) const {
    static const Buffer<float> values = random_values(1000 * hidden, 7);
    Matrix x(flat.batch().size(), hidden);
    for (const Chunk& chunk : flat.chunks)
      for (Index t = 0; t < chunk.count; ++t) {
        const Index row = ((chunk.first_position + t) * 5 + 6) / 7 * 29 + 113 * chunk.sequence;  // some are there twice
        std::copy_n(values.data() + row % kinds * hidden, hidden, x.values.data() + (chunk.begin + t) * hidden);
      }
    return x;
  }
  [[nodiscard]] Pass<Device> pass(const Flat& flat) {
    return {.device = device, .batch = flat.batch(), .merging = {.strength = strength}};
  }
  Matrix alone(Index length) {
    const Tokens none(static_cast<std::size_t>(length));
    const Flat flat({{0, &none, 0, length}});
    const Matrix x = inputs(flat);
    Matrix y(length, hidden);
    A::forward(pass(flat), weights, {}, DeviceView<const float, 2>(x.view()), DeviceView<float, 2>(y.view()));
    return y;
  }
  Matrix extend(const std::vector<Piece>& pieces, std::vector<Cache>& caches) {
    const Flat flat(pieces);
    const Matrix x = inputs(flat);
    Matrix y(x.rows, hidden);
    const auto of = [&](int sequence) -> Cache& { return caches[static_cast<std::size_t>(sequence)]; };
    A::forward(pass(flat), weights, Caches<Cache>(of), DeviceView<const float, 2>(x.view()),
               DeviceView<float, 2>(y.view()));
    return y;
  }
  Matrix extend(Cache& cache, Index end, int sequence = 0) {
    std::vector<Cache> caches(static_cast<std::size_t>(sequence) + 1);
    caches.back() = std::move(cache);
    const Tokens none(static_cast<std::size_t>(end));
    const Matrix y = extend({{sequence, &none, caches.back().length(), end}}, caches);
    cache = std::move(caches.back());
    return y;
  }
  [[nodiscard]] static Cache cache_of(Index tokens) {
    Cache cache;
    cache.reserve(tokens);
    return cache;
  }
  Matrix run(const std::vector<Index>& ends) {
    Cache cache = cache_of(ends.back());
    Matrix out;
    for (const Index end : ends) out.append(extend(cache, end));
    return out;
  }
};

TEST(RunningKeys, MergingNothingChangesNoBit) {
  for (const LatentForm form : {LatentForm::absorbed, LatentForm::expanded, LatentForm::automatic}) {
    Layer<Plain> plain(form);
    Layer<RunningMerge<Plain, Nothing>> merged(form);
    EXPECT_TRUE(same_bits(merged.alone(150), plain.alone(150)));
    for (const auto& ends : {std::vector<Index>{150}, {1, 2, 3, 40, 44, 150}})
      EXPECT_TRUE(same_bits(merged.run(ends), plain.run(ends))) << ends.size() << " pieces";
  }
}

TEST(RunningKeys, NothingIsMergedWhereMergingIsNotInForce) {
  Layer<Plain> plain;
  Layer<Merged> merged;
  EXPECT_FALSE(same_bits(merged.alone(60), plain.alone(60)));
  merged.strength = 0.0;
  EXPECT_TRUE(same_bits(merged.alone(60), plain.alone(60)));
  EXPECT_EQ(code_of([&] { merged.run({60}); }), ErrorCode::op_argument) << "over a cache it is";
  merged.strength = 2.0;
  EXPECT_EQ(code_of([&] { merged.alone(60); }), ErrorCode::op_argument);
}

/// Absorbed: all splits. Expanded, where a pass begins a sequence: as without a cache.
template <class A>
void expect_the_bits_of_the_whole() {
  Layer<A> absorbed(LatentForm::absorbed), expanded(LatentForm::expanded);
  const Matrix whole = absorbed.run({150}), alone = expanded.alone(150);
  for (const auto& ends : splits(150))
    ASSERT_TRUE(same_bits(absorbed.run(ends), whole)) << ends.size() << " pieces, the first " << ends[0];
  const bool rounds = A::Cache::type == DType::bf16;
  EXPECT_LE(relative_error(whole, alone), rounds ? 1e-2 : 2e-6);
  EXPECT_EQ(same_bits(expanded.run({150}), alone), !rounds);
  EXPECT_LE(relative_error(expanded.run({150}), whole), 2e-6);
  const Matrix later = expanded.run({60, 61, 64, 150});  // they run absorbed, whatever is asked for
  EXPECT_TRUE(same_bits(later.middle_rows(60, 90), whole.middle_rows(60, 90)));
  EXPECT_TRUE(same_bits(expanded.run({1, 150}), expanded.run({150}))) << "nothing was merged before the second";
  EXPECT_GT(relative_error(whole, Layer<Plain>().alone(150)), 0.05) << "nothing was merged";
}
TEST(RunningKeys, DecodingInAnySplitHasTheBitsOfTheWhole) { expect_the_bits_of_the_whole<Merged>(); }
TEST(RunningKeys, AndSoItHasOverACacheInBf16) { expect_the_bits_of_the_whole<MergedBf16>(); }

TEST(RunningKeys, OtherKernelsDifferByRoundingAlone) {
  expect_any_split<Merged>(3e-6, LatentForm::absorbed);
  expect_any_split<Merged>(3e-6);
}

/// Tokens of three kinds, those of one kind side by side, in a model that knows no positions: all that is merged is
/// equal, and one key with the logarithm of its number counts as much as they did.
struct NoPosition : Latent {
  static constexpr MlaConfig attention = without_position(Latent::attention);
};
struct Equals : DefaultKeyMerging {
  using Budget = Unbounded<>;
  static constexpr float threshold = 1e-3f;
};
TEST(RunningKeys, MergingEqualKeysChangesNothing) {
  Layer<Mla<NoPosition>> plain;
  Layer<RunningMerge<Mla<NoPosition>, Equals>> merged;
  plain.kinds = merged.kinds = 3;
  EXPECT_LE(relative_error(merged.alone(140), plain.alone(140)), 2e-6);
  auto cache = merged.cache_of(140);
  Matrix y;
  for (const Index end : {30, 31, 32, 33, 34, 140}) y.append(merged.extend(cache, end));
  EXPECT_LE(relative_error(y, plain.alone(140)), 2e-6);
  EXPECT_EQ(cache.groups(), 101) << "of five out of seven tokens, the others are as those before";
}

TEST(RunningKeys, TheirCacheHoldsARowForEachGroup) {
  constexpr Index width = Latent::attention.cache_dim(), latent = Latent::attention.latent_rank,
                  rotary = width - latent, state = sizeof(MergeState);
  using Budget = Some::Budget;
  static_assert(Merged::Cache::bytes(1000) ==
                Budget::max_slots(1000) * 4 * (width + 1) + 5 * (4 * (width + rotary + latent) + state));
  static_assert(MergedBf16::Cache::bytes(2) == 2 * (2 * width + 4) + 2 * (4 * (width + rotary + latent) + state));
  static_assert(RunningMerge<Plain, Nothing>::Cache::bytes(100) ==
                100 * 4 * (width + 1) + 17 * (4 * (width + rotary) + state));
  Layer<Merged> layer;
  auto cache = layer.cache_of(150);
  EXPECT_EQ(cache.rows.reserved(), Budget::max_slots(150));
  EXPECT_EQ(cache.reserved(), 150);
  for (Index end = 1; end <= 150; ++end) {
    (void)layer.extend(cache, end);
    ASSERT_EQ(cache.length(), end);
    ASSERT_LE(cache.groups(), Budget::max_slots(end));
    ASSERT_EQ(cache.groups(), cache.biases.length());
  }
  EXPECT_GT(cache.groups(), 50);
}

/// What the next tokens of a sequence become over two caches that should hold the same.
void expect_same_future(Layer<Merged>& layer, Merged::Cache one, Merged::Cache other) {
  const Index begin = other.length();
  ASSERT_EQ(one.length(), begin);
  for (auto* cache : {&one, &other}) cache->reserve(begin + 9);
  for (const Index end : {begin + 1, begin + 9})
    ASSERT_TRUE(same_bits(layer.extend(one, end), layer.extend(other, end))) << begin;
}
TEST(RunningKeys, TheirCacheGoesBackToGroupsThatHaveGrownSince) {
  Layer<Merged> layer(LatentForm::absorbed);
  constexpr int wrong = 1;  // another sequence
  auto never = layer.cache_of(60);
  for (Index length = 0; length < 40; ++length) {
    if (length > 0) (void)layer.extend(never, length);
    ASSERT_LE(never.oldest(), std::max(length - Some::chunk, Index{0}));
    for (const Index tokens : {1, 2, 4}) {  // at once, and one by one
      auto cache = never;
      cache.reserve(60);
      (void)layer.extend(cache, length + tokens, wrong);
      cache.rewind(cache.mark(length));
      expect_same_future(layer, cache, never);
      for (Index t = length + 1; t <= length + tokens; ++t) (void)layer.extend(cache, t, wrong);
      cache.rewind(cache.mark(length));
      expect_same_future(layer, cache, never);
    }
    auto cache = never;  // and many at once, to where they began
    cache.reserve(60);
    const auto mark = cache.mark();
    (void)layer.extend(cache, length + 19, wrong);
    cache.rewind(mark);
    expect_same_future(layer, cache, never);
  }
  const Index to = never.oldest();
  auto cache = never, fresh = layer.cache_of(60);
  cache.rewind(cache.mark(to));
  for (Index t = 1; t <= to; ++t) (void)layer.extend(fresh, t);
  expect_same_future(layer, cache, fresh);
  EXPECT_EQ(code_of([&] { never.rewind(never.mark(to - 1)); }), ErrorCode::op_argument);
  never.rewind(never.mark(0));
  EXPECT_EQ(never.groups(), 0);
  expect_same_future(layer, never, layer.cache_of(60));
}

/// A trainer keeps the same memory from step to step.
TEST(RunningKeys, APassThatMergesNothingReadsNothingOfOneThatDid) {
  Layer<Merged> layer;
  const Tokens none(40);
  Arena arena;
  Merged::Saved<float> saved;
  Matrix found(3, Plain::hidden);
  for (const Index length : {40, 3}) {
    Some::threshold = length == 40 ? 0.5f : -1.0f;  // the bucket lets three tokens begin a group
    Arena::Frame memory(arena);
    const Flat flat({{0, &none, 0, length}});
    const Matrix x = layer.inputs(flat);
    Matrix y(length, Plain::hidden);
    Merged::forward(layer.pass(flat).with(memory), layer.weights, {}, DeviceView<const float, 2>(x.view()),
                    DeviceView<float, 2>(y.view()), &saved);
    std::copy_n(y.values.data(), found.values.size(), found.values.data());
  }
  const Matrix fresh = layer.alone(3);
  Some::threshold = 0.5f;
  EXPECT_TRUE(same_bits(found, fresh));
  EXPECT_EQ(saved.chosen.size, 0);
}

/// The first of a sequence's tokens, `count` of them, beside parts of others.
void expect_the_same_beside_others(LatentForm form, Index count) {
  Layer<Merged> layer(form);
  const Tokens none(100);
  std::vector<Merged::Cache> alone(4), together(4);
  for (auto* all : {&alone, &together})
    for (auto& cache : *all) cache.reserve(100);
  for (auto* all : {&alone, &together}) (void)layer.extend({{1, &none, 0, 20}, {3, &none, 0, 1}}, *all);
  const std::vector<Piece> pieces = {{2, &none, 0, count}, {1, &none, 20, 100}, {0, &none, 0, 0}, {3, &none, 1, 2}};
  const Matrix joint = layer.extend(pieces, together);
  Matrix each;
  for (const Piece& piece : pieces)
    if (piece.end > piece.begin) each.append(layer.extend({piece}, alone));
  EXPECT_TRUE(same_bits(joint, each)) << count;
}
TEST(RunningKeys, ASequenceIsTheSameBesideOthers) {
  expect_the_same_beside_others(LatentForm::absorbed, 33);
  for (Index count = 5; count < 60; count += 9) expect_the_same_beside_others(LatentForm::automatic, count);
}

TEST(RunningKeys, WhatDoesNotFollowTheCacheIsRefused) {
  Layer<Merged> layer;
  const Tokens none(30);
  std::vector<Merged::Cache> caches(1);
  caches[0].reserve(30);
  (void)layer.extend({{0, &none, 0, 9}}, caches);
  for (const Index begin : {8, 10})
    EXPECT_EQ(code_of([&] { (void)layer.extend({{0, &none, begin, 12}}, caches); }), ErrorCode::op_shape);
  EXPECT_EQ(caches[0].length(), 9);
  const Flat flat({{0, &none, 0, 5}});
  const Matrix x = layer.inputs(flat);
  Matrix y(5, Merged::hidden);
  auto pass = layer.pass(flat);
  pass.mask = AttentionMask::bidirectional;
  EXPECT_EQ(code_of([&] { Merged::forward(pass, layer.weights, {}, x.view(), y.view()); }), ErrorCode::op_argument);
}

// Numbers of PyTorch in float64: tests/oracle/make_running_merge_fixture.py.

struct FrozenSpec : SpecDefaults {
  using CacheElement = float;
  static constexpr TrunkConfig config = {.vocab = 19, .hidden = 24, .layers = 1, .context = 64};
  static constexpr MlaConfig attention = {
      .heads = 3, .query_rank = 10, .latent_rank = 8, .nope_dim = 6, .rope_dim = 4, .value_dim = 5, .sinks = true};
};
struct FrozenPolicy : DefaultKeyMerging {
  using Budget = TokenBucket<1, 2, 3, 5>;
  static constexpr float threshold = 0.2f;
};
using FrozenMla = RunningMerge<Mla<FrozenSpec>, FrozenPolicy>;

template <class Real>
struct FrozenLayer {
  static constexpr Index tokens = 61, hidden = FrozenMla::hidden;
  FrozenTensors frozen{"running_merge"};
  FrozenMla::Weights<Dense<Real>> weights{}, gradients{};
  Buffer<Real> x{tokens * hidden}, y{tokens * hidden}, dy{tokens * hidden}, dx{tokens * hidden};

  FrozenLayer() {
    allocate<FrozenMla>(weights);
    allocate<FrozenMla>(gradients);
    FrozenMla::visit([&](const Path& path, const auto&, auto& tensor) { frozen.load(path.str(), tensor.data.view()); },
                     Path{}, weights);
    frozen.load("x", x.view());
    frozen.load("dy", dy.view());
  }
};

TEST(RunningKeys, AreThoseOfPyTorchWithTheirGradients) {
  FrozenLayer<double> of;
  constexpr Index tokens = of.tokens, hidden = of.hidden;
  Cpu device({.threads = 2});
  const Tokens none(tokens);
  const Flat flat({{0, &none, 0, tokens}});
  Arena arena;
  Arena::Frame memory(arena);
  const Pass pass{.device = device, .batch = flat.batch(), .memory = &memory};
  FrozenMla::Saved<double> saved;
  FrozenMla::forward(pass, of.weights, {}, of.x.view(tokens, hidden), of.y.view(tokens, hidden), &saved);
  EXPECT_LE(of.frozen.error<double>(of.y.view(), "y"), 1e-6);
  std::vector<std::int32_t> begins;
  for (std::int32_t t = 0; t < tokens; ++t)
    if (host_view(device, saved.rows.counts)[t] == 1) begins.push_back(t);
  EXPECT_EQ(begins, of.frozen.integers("begins"));
  FrozenMla::backward(pass, of.weights, of.x.view(tokens, hidden), saved, of.dy.view(tokens, hidden),
                      of.dx.view(tokens, hidden), of.gradients);
  EXPECT_LE(of.frozen.error<double>(of.dx.view(), "d.x"), 1e-6);
  FrozenMla::visit(
      [&](const Path& path, const auto&, auto& tensor) {
        EXPECT_LE(of.frozen.template error<double>(tensor.data.view(), "d." + path.str()), 1e-6) << path.str();
      },
      Path{}, of.gradients);
}

/// In float the backward runs in tiles; over a cache tokens come one by one.
TEST(RunningKeys, AreThoseOfPyTorchInFloatAndOneByOne) {
  FrozenLayer<float> of;
  constexpr Index tokens = of.tokens, hidden = of.hidden;
  Cpu device({.threads = 2});
  const Tokens none(tokens);
  FrozenMla::Cache cache;
  cache.reserve(tokens);
  const auto caches = [&](int) -> FrozenMla::Cache& { return cache; };
  for (Index t = 0; t < tokens; ++t) {
    const Flat one({{0, &none, t, t + 1}});
    FrozenMla::forward(Pass{.device = device, .batch = one.batch()}, of.weights, Caches<FrozenMla::Cache>(caches),
                       of.x.view(tokens, hidden).middle_rows(t, 1), of.y.view(tokens, hidden).middle_rows(t, 1));
  }
  EXPECT_LE(of.frozen.error<float>(of.y.view(), "y"), 1e-5);
  EXPECT_EQ(cache.groups(), static_cast<Index>(of.frozen.integers("begins").size()));
  const Flat flat({{0, &none, 0, tokens}});
  Arena arena;
  Arena::Frame memory(arena);
  const Pass pass{.device = device, .batch = flat.batch(), .memory = &memory};
  FrozenMla::Saved<float> saved;
  FrozenMla::forward(pass, of.weights, {}, of.x.view(tokens, hidden), of.y.view(tokens, hidden), &saved);
  FrozenMla::backward(pass, of.weights, of.x.view(tokens, hidden), saved, of.dy.view(tokens, hidden),
                      of.dx.view(tokens, hidden), of.gradients);
  EXPECT_LE(of.frozen.error<float>(of.dx.view(), "d.x"), 1e-5);
  FrozenMla::visit(
      [&](const Path& path, const auto&, auto& tensor) {
        EXPECT_LE(of.frozen.template error<float>(tensor.data.view(), "d." + path.str()), 1e-5) << path.str();
      },
      Path{}, of.gradients);
}

TEST(RunningKeys, TheirGradientsAreThoseOfCentralDifferences) {
  gradient_check<gradient_cases::UncachedCase<FrozenMla, FrozenSpec>>({9, 1, 14, 0}, 3, {.most = 60});
}

TEST(RunningKeys, RunOnADeviceWithMemoryOfItsOwn) {
  Layer<Merged> near;
  Layer<Merged, FarDevice> far;
  EXPECT_TRUE(same_bits(far.run({40, 41, 42, 46, 70}), near.run({40, 41, 42, 46, 70})));
  EXPECT_TRUE(same_bits(far.alone(70), near.alone(70)));
}

}  // namespace running_keys_test
