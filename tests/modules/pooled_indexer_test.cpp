#include <guild/modules/pooled_indexer.hpp>

#include <guild/modules/compressed_keys.hpp>
#include <guild/modules/shared_kv.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "../support/exact_pass.hpp"
#include "../support/one_attention.hpp"

namespace pooled_indexer_test {

using guild::Index;
using namespace guild;
using namespace guild_test;

struct Tiny : SmallSpec {
  using CacheElement = float;
  static constexpr TrunkConfig config = {.vocab = 19, .hidden = 12, .layers = 1, .context = 512};
  static constexpr SharedKvConfig attention = {
      .heads = 4, .head_dim = 6, .rope_dim = 4, .query_rank = 5, .output_groups = 2, .output_rank = 3};
  static constexpr IndexerConfig indexer = {.heads = 8, .dim = 6, .top_k = 3, .pairs = RopePairs::interleaved};
};
struct TinyAll : Tiny {
  static constexpr IndexerConfig indexer = {.heads = 8, .dim = 6, .top_k = 75, .pairs = RopePairs::interleaved};
};
template <class S>
using Near = Local<SharedKv<S>, 3>;
using Two = Pooled<2, PoolWindows::overlapping>;
using Sparse = Compressed<Near<Tiny>, Two, PooledIndexer<Tiny>>;

TEST(PooledIndexer, OverNoMoreRowsThanItMayChooseHasTheBitsOfAllRows) {
  Attention<Compressed<Near<TinyAll>, Two, PooledIndexer<TinyAll>>> sparse;
  Attention<Compressed<Near<TinyAll>, Two>> all;
  EXPECT_TRUE(same_bits(sparse.alone(150), all.alone(150)));
  for (const auto& ends : {std::vector<Index>{150}, std::vector<Index>{3, 4, 100, 150}})
    EXPECT_TRUE(same_bits(sparse.run(ends), all.run(ends)));
  EXPECT_FALSE(same_bits(sparse.alone(152), all.alone(152)));
}

TEST(PooledIndexer, HasNoGradientOfTheModelsLossAndAttentionHasItOverTheChosenRows) {
  ExactPass<Sparse> one({4, 1, 9});
  EXPECT_EQ(one.backward(), 0.0);
  EXPECT_GT(one.saved.pooled.chosen.size, 0);
  for (const Differentiated& tensor : one.tensors(true))
    for (Index i = 0; i < tensor.count; ++i) ASSERT_EQ(tensor.gradient[i], 0.0) << tensor.name;
  auto list = one.tensors(false);
  list.push_back({"x", one.x.data(), one.dx.data(), one.x.size()});
  expect_gradients(list, [&] { return one.loss(); });
}

TEST(PooledIndexer, HasTheGradientOfItsObjectiveAlone) {
  for (const KeySight sight : {KeySight::chosen, KeySight::all}) {
    ExactPass<Sparse> one({4, 1, 9});
    one.ragged.pass.indexing = {.weight = 0.7, .sight = sight};
    one.ragged.pass.balance_scale = 0.5;
    std::fill(one.dy.view().begin(), one.dy.view().end(), 0.0);
    EXPECT_GT(one.backward(), 0.01);
    for (const Differentiated& tensor : one.tensors(false))
      for (Index i = 0; i < tensor.count; ++i) ASSERT_EQ(tensor.gradient[i], 0.0) << tensor.name;
    for (const double value : one.dx.view()) ASSERT_EQ(value, 0.0);
    EXPECT_EQ(one.saved.pooled.chosen.size == 0, sight == KeySight::all);
    auto list = one.tensors(true);
    ASSERT_EQ(list.size(), 6U);
    std::vector<Buffer<double>> kept;
    for (Differentiated& tensor : list) {  // further backwards add to the gradients
      Buffer<double> copy(tensor.count);
      std::copy_n(tensor.gradient, tensor.count, copy.data());
      kept.push_back(std::move(copy));
      tensor.gradient = kept.back().data();
    }
    expect_gradients(list, [&] { return 0.7 * one.backward(); });
  }
}

TEST(PooledIndexer, ItsObjectiveChangesNoBitOfOtherGradients) {
  ExactPass<Sparse> without({4, 1, 9}), with({4, 1, 9});
  without.backward();
  with.ragged.pass.indexing.weight = 0.7;
  with.backward();
  const auto a = without.tensors(false), b = with.tensors(false);
  for (std::size_t i = 0; i < a.size(); ++i)
    EXPECT_TRUE(std::equal(a[i].gradient, a[i].gradient + a[i].count, b[i].gradient)) << a[i].name;
  EXPECT_TRUE(std::equal(without.dx.data(), without.dx.data() + without.dx.size(), with.dx.data()));
}

TEST(PooledIndexer, ItsCacheGoesBackWithAllThatItKeeps) {
  Attention<Sparse> attention;
  Sparse::Cache cache;
  cache.reserve(150);
  (void)attention.extend(cache, 0, 61);
  for (const Index back : {Index{61}, Index{60}, Index{57}, Index{52}, Index{47}, Index{45}}) {
    ASSERT_GE(back, cache.oldest());
    Sparse::Cache copy = cache, straight;
    straight.reserve(150);
    copy.reserve(150);
    (void)attention.extend(straight, 0, back);
    copy.rewind(cache.mark(back));
    EXPECT_EQ(copy.length(), back);
    EXPECT_LE(relative_error(attention.extend(copy, back, 90), attention.extend(straight, back, 90)), 2e-6) << back;
  }
}

}  // namespace pooled_indexer_test
