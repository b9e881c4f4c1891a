#include <guild/modules/compressor.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/modules/joint_cache.hpp>
#include <guild/modules/sequence_cache.hpp>

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

}  // namespace compressor_test
