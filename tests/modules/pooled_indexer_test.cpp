#include <guild/modules/pooled_indexer.hpp>

#include <guild/modules/compressed_keys.hpp>
#include <guild/modules/shared_kv.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "../support/exact_pass.hpp"
#include "../support/index_objective.hpp"
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

struct OfRows : ExactPass<Sparse> {
  static constexpr Index most = 400;  ///< elements of a tensor that are looked at
  OfRows() : ExactPass({4, 1, 9}) {}
  Index chosen() const { return saved.pooled.chosen.size; }
};
TEST(PooledIndexer, HasNoGradientOfTheModelsLossAndAttentionHasItOverTheChosenRows) {
  expect_no_gradient_of_the_models_loss<OfRows>();
}
TEST(PooledIndexer, HasTheGradientOfItsObjectiveAlone) {
  for (const KeySight sight : {KeySight::chosen, KeySight::all})
    expect_the_gradient_of_its_objective_alone<OfRows>(sight, 6);
}
TEST(PooledIndexer, ItsObjectiveChangesNoBitOfOtherGradients) { expect_its_objective_changes_no_other_bit<OfRows>(); }

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
