#include <guild/modules/compressor.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/modules/joint_cache.hpp>
#include <guild/modules/sequence_cache.hpp>
#include <guild/training/allocate.hpp>

#include "../core/code_of.hpp"
#include "../support/far_device.hpp"
#include "../support/frozen_tensors.hpp"
#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"

namespace compressor_test {

using namespace guild;
using namespace guild_test;

constexpr PoolWindows apart = PoolWindows::apart, overlapping = PoolWindows::overlapping;
constexpr Index hidden = 16, width = 8;
using Csa = Compressor<hidden, width, 4, overlapping>;
using Hca = Compressor<hidden, width, 8, apart>;
constexpr RopeHeads rotary{1, width, width - 4};
constexpr double epsilon = 1e-6;

/// Both caches of a sequence, as an attention joins them.
template <class Module, Index ChunkTokens = 5, class Element = float>
struct BothCaches : JointCache<BothCaches<Module, ChunkTokens, Element>> {
  using Sources = typename Module::template Sources<ChunkTokens>;
  using Pooled = typename Module::template Pooled<Element>;
  struct Parts {
    Sources sources{};
    Pooled pooled{};
  };
  struct Mark {
    typename Sources::Mark sources{};
    typename Pooled::Mark pooled{};
  };
  Parts parts{};

  template <class F, class... C>
  static void for_each(F&& f, C&&... caches) {
    f(caches.sources...);
    f(caches.pooled...);
  }
  [[nodiscard]] static constexpr Index bytes(Index tokens) { return Sources::bytes(tokens) + Pooled::bytes(tokens); }
  [[nodiscard]] Matrix rows() const {
    const auto all = host_view(std::as_const(parts.pooled).rows());
    Matrix rows(all.rows, all.cols);
    for (Index r = 0; r < all.rows; ++r)
      for (Index c = 0; c < all.cols; ++c) rows.view()(r, c) = static_cast<float>(all(r, c));
    return rows;
  }
  static View<const Element, 2> host_view(DeviceView<const Element, 2> view) { return view; }
};
static_assert(SequenceCache<Csa::Sources<5>> && SequenceCache<Csa::Pooled<bf16>> && SequenceCache<BothCaches<Csa>>);

/// One compressor over sequences whose tokens are rows of random matrices. Kernels are the plain ones unless another
/// set is asked for: theirs alone sum products of few rows as those of many.
template <class Module, class Device = Cpu>
class Compressing {
 public:
  explicit Compressing(Isa isa = Isa::baseline, int threads = 2)
      : device({.threads = threads, .isa = isa}), table({.base = 160000.0}, 4) {
    Module::visit(RandomWeights(DType::f32), Path{}, weights);
    for (float& one : weights.position_bias.data.view()) one = 5.0f * (one - 1.0f);
  }

  [[nodiscard]] Matrix inputs(int sequence, Index begin, Index end) const {
    const Buffer<float> all = random_values(400 * hidden, 7 + static_cast<std::uint64_t>(sequence));
    Matrix x(end - begin, hidden);
    std::copy_n(all.data() + begin * hidden, x.values.size(), x.values.data());
    if (changed_token >= begin && changed_token < end) x.view()(changed_token - begin, 0) += 1.0f;
    return x;
  }
  /// The rows of whole sequences of some lengths, one behind the other.
  [[nodiscard]] Matrix forward(const std::vector<Index>& lengths) {
    const Tokens none(400);
    std::vector<Piece> pieces;
    Matrix x(0, hidden);
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      pieces.push_back({static_cast<int>(i), &none, 0, lengths[i]});
      x.append(inputs(static_cast<int>(i), 0, lengths[i]));
    }
    const Flat flat(pieces);
    const Pass<Device> pass{.device = device, .batch = flat.batch()};
    typename Module::template Saved<float> saved;
    auto room = pass.room(static_cast<decltype(saved)*>(nullptr));
    const DeviceView<float, 2> rows = Module::forward(pass, weights, epsilon, table, rotary, x.view(), room, saved);
    Matrix out(rows.rows, rows.cols);
    std::copy_n(rows.data, out.values.size(), out.values.data());
    return out;
  }
  template <class Cache>
  void extend(std::span<Cache* const> caches, const std::vector<std::pair<int, Index>>& pieces) {
    const Tokens none(400);
    std::vector<Piece> flat_pieces;
    Matrix x(0, hidden);
    for (const auto& [sequence, end] : pieces) {
      const Index begin = caches[static_cast<std::size_t>(sequence)]->parts.sources.length();
      flat_pieces.push_back({sequence, &none, begin, end});
      x.append(inputs(sequence, begin, end));
    }
    const Flat flat(flat_pieces);
    const Pass<Device> pass{.device = device, .batch = flat.batch()};
    const auto sources = [&](int s) -> auto& { return caches[static_cast<std::size_t>(s)]->parts.sources; };
    const auto pooled = [&](int s) -> auto& { return caches[static_cast<std::size_t>(s)]->parts.pooled; };
    auto memory = device.scratch();
    Module::append(pass, weights, epsilon, table, rotary, Caches<typename Cache::Sources>(sources),
                   Caches<typename Cache::Pooled>(pooled), x.view(), memory);
  }
  template <class Cache>
  void extend(Cache& cache, Index end) {
    Cache* const one = &cache;
    extend(std::span<Cache* const>(&one, 1), {{0, end}});
  }

  Device device;
  typename Module::template Weights<Published> weights;
  RopeTable table;
  Index changed_token = -1;
};

/// The compressors of tests/oracle/make_compressor_fixture.py.
template <class Module>
void expect_transformers(const std::string& kind) {
  SCOPED_TRACE(kind);
  const FrozenTensors frozen("compressor");
  for (const Isa isa : {Isa::baseline, best_float_isa()}) {
    Compressing<Module> at(isa);
    Module::visit(
        [&]<class Shape, class Tensor>(const Path& path, const Shape&, Tensor& tensor) {
          const std::vector<float> values = frozen.floats(kind + "." + path.str());
          ASSERT_EQ(static_cast<Index>(values.size() * sizeof(float)), tensor.bytes());
          std::memcpy(tensor.data.data(), values.data(), values.size() * sizeof(float));
        },
        Path{}, at.weights);
    Matrix x(61, hidden), expected(61 / Module::ratio, width);
    frozen.load("x", View<float>{x.values.data(), 61 * hidden});
    frozen.load(kind + ".rows", View<float>{expected.values.data(), expected.rows * width});
    const Tokens none(61);
    for (const std::vector<Index>& ends : {std::vector<Index>{}, {61}, {1, 7, 8, 9, 33, 61}}) {
      Matrix found(expected.rows, width);
      BothCaches<Module> cache;
      cache.reserve(61);
      Index begin = 0;
      for (const Index end : ends.empty() ? std::vector<Index>{61} : ends) {
        const Flat flat({{0, &none, begin, end}});
        const Pass<Cpu> pass{.device = at.device, .batch = flat.batch()};
        const Matrix part = x.middle_rows(begin, end - begin);
        typename Module::template Saved<float> saved;
        auto room = pass.room(static_cast<decltype(saved)*>(nullptr));
        if (ends.empty()) {
          const auto rows = Module::forward(pass, at.weights, epsilon, at.table, rotary, part.view(), room, saved);
          std::copy_n(rows.data, found.values.size(), found.values.data());
          continue;
        }
        const auto sources = [&](int) -> auto& { return cache.parts.sources; };
        const auto pooled = [&](int) -> auto& { return cache.parts.pooled; };
        auto memory = at.device.scratch();
        using Both = BothCaches<Module>;
        Module::append(pass, at.weights, epsilon, at.table, rotary, Caches<typename Both::Sources>(sources),
                       Caches<typename Both::Pooled>(pooled), part.view(), memory);
        begin = end;
      }
      if (!ends.empty()) found = cache.rows();
      ASSERT_EQ(found.values.size(), expected.values.size());
      for (std::size_t i = 0; i < found.values.size(); ++i)
        ASSERT_NEAR(found.values[i], expected.values[i], 1e-5) << i << " of " << ends.size() << " pieces";
    }
  }
}
TEST(Compressor, EqualsTransformers) {
  expect_transformers<Csa>("csa");
  expect_transformers<Hca>("hca");
}

/// Lengths at which pieces of a sequence end: one by one, even, odd, and longer than the ring of the sources.
const std::vector<std::vector<Index>>& splits() {
  static const std::vector<std::vector<Index>> all = [] {
    std::vector<std::vector<Index>> some{{70}, {1, 70}, {69, 70}, {3, 4, 70}, {4, 8, 16, 33, 34, 70}, {2, 30, 31, 70}};
    for (const Index step : {1, 3, 7}) {
      std::vector<Index> ends;
      for (Index end = 0; end < 70;) ends.push_back(end = std::min<Index>(70, end + step));
      some.push_back(ends);
    }
    return some;
  }();
  return all;
}

template <class Module, Index ChunkTokens>
void expect_any_split(Isa isa) {
  SCOPED_TRACE(ChunkTokens);
  Compressing<Module> at(isa);
  const Matrix whole = at.forward({70});
  ASSERT_EQ(whole.rows, 70 / Module::ratio);
  for (const std::vector<Index>& ends : splits()) {
    BothCaches<Module, ChunkTokens> cache;
    cache.reserve(70);
    for (const Index end : ends) {
      at.extend(cache, end);
      ASSERT_EQ(cache.rows().rows, end / Module::ratio);
    }
    if (isa == Isa::baseline) {
      ASSERT_TRUE(same_bits(cache.rows(), whole)) << ends.size() << " pieces, the first " << ends[0];
    } else {
      ASSERT_LE(relative_error(cache.rows(), whole), 1e-5) << ends.size() << " pieces, the first " << ends[0];
    }
  }
}
TEST(Compressor, HasTheSameBitsInAnySplitAndWithoutCaches) {
  for (const Isa isa : {Isa::baseline, best_float_isa()}) {
    expect_any_split<Csa, 1>(isa);
    expect_any_split<Csa, 5>(isa);
    expect_any_split<Csa, 64>(isa);
    expect_any_split<Hca, 1>(isa);
    expect_any_split<Hca, 6>(isa);
    expect_any_split<Compressor<hidden, width, 1, overlapping>, 3>(isa);
    expect_any_split<Compressor<hidden, width, 1, apart>, 1>(isa);
  }
}

TEST(Compressor, ARowIsMadeOfTheTokensOfItsWindows) {
  const auto expect = [&]<class Module>(Compressing<Module> at, Index token, const std::vector<Index>& expected) {
    const Matrix before = at.forward({40});
    at.changed_token = token;
    const Matrix after = at.forward({40});
    std::vector<Index> changed;
    for (Index w = 0; w < before.rows; ++w)
      if (!same_bits(before.middle_rows(w, 1), after.middle_rows(w, 1))) changed.push_back(w);
    EXPECT_EQ(changed, expected) << token;
  };
  expect(Compressing<Csa>(), 0, {0, 1});
  expect(Compressing<Csa>(), 15, {3, 4});
  expect(Compressing<Csa>(), 16, {4, 5});
  expect(Compressing<Csa>(), 39, {9});
  expect(Compressing<Hca>(), 0, {0});
  expect(Compressing<Hca>(), 16, {2});
  expect(Compressing<Hca>(), 39, {4});
  expect(Compressing<Compressor<hidden, width, 3, overlapping>>(), 38, {12});
  expect(Compressing<Compressor<hidden, width, 3, overlapping>>(), 39, {});
}

TEST(Compressor, ABatchIsItsSequencesAlone) {
  Compressing<Csa> at;
  Matrix alone(0, width);
  std::vector<BothCaches<Csa>> caches(4);
  const std::vector<Index> lengths{23, 3, 70, 41};
  for (std::size_t s = 0; s < caches.size(); ++s) {
    caches[s].reserve(100);
    BothCaches<Csa> own;
    own.reserve(100);
    // Inputs are those of the sequence.
    BothCaches<Csa>* all[4] = {&own, &own, &own, &own};
    at.extend(std::span<BothCaches<Csa>* const>(all), {{static_cast<int>(s), lengths[s]}});
    alone.append(own.rows());
  }
  EXPECT_TRUE(same_bits(at.forward(lengths), alone));
  EXPECT_EQ(at.forward({}).rows, 0);
  EXPECT_EQ(at.forward({2, 0, 3}).rows, 0);
  BothCaches<Csa>* all[4] = {&caches[0], &caches[1], &caches[2], &caches[3]};
  const std::span<BothCaches<Csa>* const> of(all);
  at.extend(of, {{2, 33}, {0, 1}, {3, 7}});
  at.extend(of, {{1, 0}, {0, 2}, {3, 8}, {2, 34}});
  at.extend(of, {{3, 41}, {1, 3}, {2, 70}, {0, 23}});
  Matrix together(0, width);
  for (const auto& cache : caches) together.append(cache.rows());
  EXPECT_TRUE(same_bits(together, alone));
}

template <class Module, Index ChunkTokens>
void expect_rewinds() {
  Compressing<Module> at(Isa::baseline, 1);
  const Matrix whole = at.forward({100});
  using Cache = BothCaches<Module, ChunkTokens>;
  for (Index length = 1; length <= 60; length += length < 16 ? 1 : 7) {
    Cache cache;
    cache.reserve(100);
    for (Index t = 0; t < length; ++t) at.extend(cache, t + 1);
    const Index oldest = cache.oldest();
    EXPECT_EQ(oldest, length <= Cache::Sources::ring ? 0 : length - ChunkTokens);
    for (Index to = oldest; to <= length; ++to) {
      Cache copy = cache;
      copy.reserve(100);
      copy.rewind(copy.mark(to));
      ASSERT_EQ(copy.length(), to);
      ASSERT_EQ(copy.rows().rows, to / Module::ratio);
      for (Index t = to; t < 70; t += 7) at.extend(copy, std::min<Index>(70, t + 7));
      ASSERT_TRUE(same_bits(copy.rows(), whole.middle_rows(0, 70 / Module::ratio))) << length << " to " << to;
      // And back again after less than was taken back.
      copy = cache;
      copy.reserve(100);
      copy.rewind(copy.mark(to));
      at.extend(copy, to + 1);
      for (const Index again : {copy.oldest(), to, to + 1}) {
        Cache second = copy;
        second.reserve(100);
        second.rewind(second.mark(again));
        at.extend(second, again + 1);
        at.extend(second, 70);
        ASSERT_TRUE(same_bits(second.rows(), whole.middle_rows(0, 70 / Module::ratio)))
            << length << " to " << to << " to " << again;
      }
    }
    if (oldest > 1) { EXPECT_THROW(cache.rewind(cache.mark(oldest - 1)), Error); }
    EXPECT_EQ(cache.length(), length);
    cache.rewind(cache.mark(0));
    at.extend(cache, 100);
    ASSERT_TRUE(same_bits(cache.rows(), whole));
  }
}
TEST(Compressor, GoesBackAsFarAsItSaysAndOnAgain) {
  expect_rewinds<Csa, 5>();
  expect_rewinds<Hca, 9>();
}

TEST(Compressor, APassThatFailsLeavesNoTrace) {
  Compressing<Csa> at;
  const Matrix whole = at.forward({100});
  for (const Index end : {Index{31}, Index{34}, Index{80}}) {  // up to Chunk tokens at once, and more
    BothCaches<Csa> cache;
    cache.parts.sources.reserve(100);
    cache.parts.pooled.reserve(30);
    at.extend(cache, 30);
    const auto mark = cache.mark();
    EXPECT_EQ(code_of([&] { at.extend(cache, end); }), ErrorCode::op_shape);  // no room for rows
    cache.rewind(mark);
    cache.reserve(100);
    at.extend(cache, 31);
    at.extend(cache, 100);
    EXPECT_TRUE(same_bits(cache.rows(), whole)) << end;
  }
  BothCaches<Csa> cache;
  cache.reserve(100);
  at.extend(cache, 30);
  const auto mark = cache.mark();
  at.extend(cache, 99);
  cache.rewind(mark);
  BothCaches<Csa> copy = cache;
  copy.reserve(100);
  at.extend(copy, 100);
  at.extend(cache, 100);
  EXPECT_TRUE(same_bits(cache.rows(), whole));
  EXPECT_TRUE(same_bits(copy.rows(), whole));
}

/// All gradients of a batch, one behind the other, those of x last: added to `begin`, or not asked for.
std::vector<float> gradients(int threads, const float* begin) {
  Compressing<Csa> at(best_float_isa(), threads);
  const std::vector<Index> lengths{150, 3, 201};
  const Tokens none(400);
  std::vector<Piece> pieces;
  Matrix x(0, hidden);
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    pieces.push_back({static_cast<int>(i), &none, 0, lengths[i]});
    x.append(at.inputs(static_cast<int>(i), 0, lengths[i]));
  }
  const Flat flat(pieces);
  Arena arena;
  Arena::Frame memory(arena);
  const Pass<Cpu> pass{.device = at.device, .batch = flat.batch(), .memory = &memory};
  Csa::Saved<float> saved;
  const DeviceView<float, 2> rows = [&] {
    auto room = pass.room(&saved);
    return Csa::forward(pass, at.weights, epsilon, at.table, rotary, x.view(), room, saved);
  }();
  Matrix drows(rows.rows, width), dx(x.rows, hidden);
  std::ranges::copy(random_values(drows.rows * width, 99).view(), drows.values.begin());
  if (begin != nullptr) std::ranges::fill(dx.values, *begin);
  Csa::Weights<Dense<float>> weights;
  allocate<Csa>(weights);
  Csa::backward(pass, at.weights, epsilon, at.table, rotary, x.view(), saved, drows.view(),
                begin != nullptr ? dx.view() : View<float, 2>(), weights);
  std::vector<float> all;
  Csa::visit([&](const Path&, const auto&,
                 const auto& tensor) { all.insert(all.end(), tensor.data.view().begin(), tensor.data.view().end()); },
             Path{}, weights);
  if (begin != nullptr) all.insert(all.end(), dx.values.begin(), dx.values.end());
  return all;
}
TEST(Compressor, GradientsDependNeitherOnThreadsNorOnWhetherTheyFlowOn) {
  const float zero = 0.0f, one = 1.0f;
  const std::vector<float> all = gradients(1, &zero), more = gradients(1, &one), weights = gradients(2, nullptr);
  EXPECT_EQ(gradients(4, &zero), all);
  ASSERT_EQ(weights.size() + 354 * hidden, all.size());
  EXPECT_TRUE(std::equal(weights.begin(), weights.end(), all.begin()));
  for (std::size_t i = 0; i < all.size(); ++i) ASSERT_NEAR(more[i], all[i] + (i < weights.size() ? 0.0f : 1.0f), 1e-5);
}

TEST(Compressor, RowsAreRoundedToTheirCache) {
  Compressing<Csa> at;
  const Matrix whole = at.forward({70});
  BothCaches<Csa, 5, bf16> cache;
  cache.reserve(70);
  for (const Index end : {7, 8, 50, 70}) at.extend(cache, end);
  const Matrix rows = cache.rows();
  ASSERT_EQ(rows.rows, whole.rows);
  for (std::size_t i = 0; i < rows.values.size(); ++i)
    ASSERT_EQ(rows.values[i], static_cast<float>(static_cast<bf16>(whole.values[i])));
}

TEST(Compressor, RunsOnADeviceWithMemoryOfItsOwn) {
  Compressing<Csa> at;
  Compressing<Csa, FarDevice> far;
  BothCaches<Csa> cache;
  cache.reserve(70);
  for (const Index end : {7, 8, 50, 70}) far.extend(cache, end);
  EXPECT_TRUE(same_bits(cache.rows(), at.forward({70})));
  EXPECT_TRUE(same_bits(far.forward({3, 70, 9}), at.forward({3, 70, 9})));
  EXPECT_EQ(far.device.to_host, 0);
}

TEST(Compressor, RefusesCachesOfOtherTokens) {
  Compressing<Csa> at;
  BothCaches<Csa> cache;
  cache.reserve(70);
  at.extend(cache, 10);
  cache.parts.pooled.rewind(cache.parts.pooled.mark(9));
  EXPECT_EQ(code_of([&] { at.extend(cache, 12); }), ErrorCode::op_shape);
  const Tokens none(20);
  const Flat later({{0, &none, 4, 20}});
  const Pass<Cpu> pass{.device = at.device, .batch = later.batch()};
  Csa::Saved<float> saved;
  auto room = pass.room(static_cast<decltype(saved)*>(nullptr));
  const Matrix x(16, hidden);
  EXPECT_EQ(code_of([&] { Csa::forward(pass, at.weights, epsilon, at.table, rotary, x.view(), room, saved); }),
            ErrorCode::op_shape);
}

TEST(PooledCache, CountsTokensAndKeepsARowForSoMany) {
  using Cache = PooledCache<float, 3, 4>;
  static_assert(Cache::bytes(3) == 0 && Cache::bytes(4) == 12 && Cache::bytes(43) == 120);
  Cache cache;
  EXPECT_EQ(cache.reserved(), 0);
  EXPECT_EQ(code_of([&] { (void)cache.append(1); }), ErrorCode::op_shape);
  cache.reserve(11);
  EXPECT_EQ(cache.append(3).rows, 0);
  const DeviceView<float, 2> two = cache.append(6);
  EXPECT_EQ(two.rows, 2);
  EXPECT_EQ(two.data, cache.rows().data);
  two.data[5] = 2.0f;
  EXPECT_EQ(cache.length(), 9);
  EXPECT_EQ(code_of([&] { (void)cache.append(3); }), ErrorCode::op_shape);
  EXPECT_EQ(cache.length(), 9);
  EXPECT_EQ(code_of([&] { cache.rewind({10}); }), ErrorCode::op_argument);
  Cache copy = cache;
  EXPECT_EQ(copy.reserved(), 9);
  cache.rewind(cache.mark(7));
  EXPECT_EQ(cache.rows().rows, 1);
  EXPECT_EQ(cache.append(1).rows, 1);
  EXPECT_EQ(copy.length(), 9);
  copy.reserve(400);
  EXPECT_EQ(copy.rows().data[5], 2.0f);
  EXPECT_EQ(copy.append(391).rows, 98);
}

}  // namespace compressor_test
