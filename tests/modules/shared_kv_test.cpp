#include <guild/modules/shared_kv.hpp>

#include <guild/io/checkpoint.hpp>
#include <guild/modules/pooled_indexer.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <string>
#include <vector>

#include "../support/one_attention.hpp"

namespace shared_kv_test {

using namespace guild;
using namespace guild_test;

struct Shared : SmallSpec {
  using CacheElement = float;
  static constexpr TrunkConfig config = {.vocab = 97, .hidden = 48, .layers = 2, .context = 512};
  static constexpr SharedKvConfig attention = {
      .heads = 6, .head_dim = 12, .rope_dim = 8, .query_rank = 20, .output_groups = 3, .output_rank = 7};
};

struct Indexed : Shared {
  static constexpr IndexerConfig indexer = {.heads = 8, .dim = 10, .top_k = 4, .pairs = RopePairs::interleaved};
};

TEST(SharedKv, ExtendingInAnySplitEqualsOneForward) {
  expect_any_split<SharedKv<Shared>>(2e-6);
  expect_any_split<Local<SharedKv<Shared>, 70>>(2e-6);
  expect_any_split<Local<SharedKv<Shared>, 9>>(2e-6);
  expect_any_split<Compressed<Local<SharedKv<Shared>, 9>, Pooled<7>>>(2e-6);
  expect_any_split<Compressed<Local<SharedKv<Shared>, 9>, Pooled<4, PoolWindows::overlapping>>>(2e-6);
  expect_any_split<Compressed<Local<SharedKv<Shared>, 9>, Pooled<4, PoolWindows::overlapping>, PooledIndexer<Indexed>>>(
      2e-6);
  expect_any_split<Compressed<Local<SharedKv<Shared>, 9, 0, 1>, Pooled<160>>>(2e-6);
}

/// Rows that turn with their position are values too: only turning back what is attended to makes outputs depend on
/// distances alone.
TEST(SharedKv, DependsOnDistancesAlone) {
  Attention<Local<SharedKv<Shared>, 9>> attention;
  const Matrix late = attention.run({150}), early = attention.alone(50, 100);
  // Row 9 on of the later sequence sees a window of tokens it shares with the longer one.
  for (Index t = 9; t < 50; ++t)
    for (Index i = 0; i < Shared::config.hidden; ++i) ASSERT_NEAR(early.view()(t, i), late.view()(100 + t, i), 2e-5);
}

/// The layers of tests/oracle/make_shared_kv_fixture.py.
struct Published {
  struct Spec : Shared {
    static constexpr TrunkConfig config = {.vocab = 32, .hidden = 24, .layers = 1, .context = 64};
  };
  struct Far : Spec {
    static constexpr SharedKvConfig attention =
        with(Spec::attention, [](SharedKvConfig& c) { c.rope.base = 160000.0; });
    static constexpr IndexerConfig indexer = {.heads = 8, .dim = 10, .top_k = 4, .pairs = RopePairs::interleaved};
  };

  explicit Published(const std::string& folder)
      : file(Checkpoint::open(GUILD_SOURCE_DIR "/tests/fixtures/shared_kv/" + folder)) {}

  std::vector<float> read(const std::string& name) const {
    const TensorInfo* info = file.find(name);
    if (info == nullptr) {
      ADD_FAILURE() << "no tensor " << name;
      return {};
    }
    std::vector<float> values(info->bytes / sizeof(float));
    file.read(*info, 0, info->bytes, reinterpret_cast<std::byte*>(values.data()));
    return values;
  }
  void operator()(const Path& path, MatrixShape shape, StoredMatrix& matrix) const {
    const std::vector<float> values = read(path.str());
    ASSERT_EQ(static_cast<Index>(values.size()), shape.rows * shape.cols);
    matrix.format = DType::f32;
    matrix.rows = shape.rows, matrix.cols = shape.cols;
    matrix.data = Buffer<std::byte>(shape.rows * shape.cols * 4);
    std::memcpy(matrix.data.data(), values.data(), values.size() * sizeof(float));
  }
  void operator()(const Path& path, VectorShape shape, StoredVector& vector) const {
    const std::vector<float> values = read(path.str());
    ASSERT_EQ(static_cast<Index>(values.size()), shape.size);
    vector.data = Buffer<float>(shape.size);
    std::memcpy(vector.data.data(), values.data(), values.size() * sizeof(float));
  }

  Checkpoint file;
};

template <class Layer>
void expect_transformers(const std::string& folder) {
  const Published published(folder);
  typename Layer::template Weights<guild::Published> weights;
  Layer::visit(published, Path{}, weights);
  const std::vector<float> x = published.read("x"), y_of_transformers = published.read("y");
  const Index length = static_cast<Index>(x.size()) / Layer::hidden;
  Matrix expected(length, Layer::hidden);
  std::ranges::copy(y_of_transformers, expected.values.data());
  Cpu device({.threads = 2});
  for (const std::vector<Index>& ends :
       {std::vector<Index>{}, {length}, {1, 7, 8, 33, length}, {3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 38, length}}) {
    typename Layer::Cache cache;
    cache.reserve(length);
    const auto of = [&](int) -> auto& { return cache; };
    Matrix y(length, Layer::hidden);
    Index begin = 0;
    for (const Index end : ends.empty() ? std::vector<Index>{length} : ends) {
      const Tokens none(static_cast<std::size_t>(end));
      const Flat flat({{0, &none, begin, end}});
      const Caches<typename Layer::Cache> caches =
          ends.empty() ? Caches<typename Layer::Cache>() : Caches<typename Layer::Cache>(of);
      Layer::forward(Pass{.device = device, .batch = flat.batch()}, weights, caches,
                     DeviceView<const float, 2>{x.data() + begin * Layer::hidden, end - begin, Layer::hidden},
                     y.view().middle_rows(begin, end - begin));
      begin = end;
    }
    EXPECT_LE(relative_error(y, expected), 2e-6) << folder << ", " << ends.size() << " pieces";
  }
}

TEST(SharedKv, EqualsTransformers) {
  using Near = Local<SharedKv<Published::Spec>, 9>;
  using Far = Local<SharedKv<Published::Far>, 9>;
  expect_transformers<Near>("near");
  expect_transformers<Compressed<Far, Pooled<5>>>("pooled");
  expect_transformers<Compressed<Far, Pooled<4, PoolWindows::overlapping>, PooledIndexer<Published::Far>>>("chosen");
}

}  // namespace shared_kv_test
