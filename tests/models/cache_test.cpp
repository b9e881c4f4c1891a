// Caches own their length: growing, marks, copies, and the memory that they say they take.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <guild/core/model_size.hpp>
#include <guild/cpu.hpp>
#include <guild/models/presets.hpp>

#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"

namespace cache_test {

using guild::Index;
using namespace guild_test;

TEST(Cache, GrowsByDoublingUpToTheContextAndReservesExactly) {
  guild::MiniR1::Cache cache;
  const Index context = guild::MiniR1::config.context;
  for (const auto& [tokens, expected] : {std::pair{1, 1}, {2, 2}, {3, 4}, {4, 4}, {5, 8}, {100, 100}, {101, 200}}) {
    guild::grow(cache, tokens, context);
    EXPECT_EQ(cache.reserved(), expected) << tokens;
  }
  cache.layers.for_each(
      [](const auto& segment) {
        for (const auto& layer : segment.parts) EXPECT_EQ(layer.reserved(), 200);
      },
      cache.layers.parts);
  cache.reserve(1500);
  guild::grow(cache, 1501, context);
  EXPECT_EQ(cache.reserved(), context);
  EXPECT_EQ(cache.length(), 0);
}

using Rows = guild::RowCache<guild::bf16, 3>;

void append(Rows& cache, Index rows, float first) {
  const guild::View to = cache.append(rows);
  for (Index r = 0; r < rows; ++r)
    for (Index i = 0; i < 3; ++i) to(r, i) = guild::bf16(first + static_cast<float>(r));
}
std::vector<float> column(const Rows& cache) {
  std::vector<float> out;
  const guild::View rows = cache.rows();
  for (Index r = 0; r < cache.length(); ++r) out.push_back(static_cast<float>(rows(r, 2)));
  return out;
}

TEST(RowCache, KeepsItsRowsWhereverItGrowsAndGoesBackToAnyLength) {
  Rows cache;
  cache.reserve(2);
  append(cache, 2, 1.0f);
  cache.reserve(1);  // never shrinks
  EXPECT_EQ(cache.reserved(), 2);
  EXPECT_THROW((void)cache.append(1), guild::Error) << "there is no room";
  EXPECT_EQ(cache.length(), 2);
  cache.reserve(50);
  EXPECT_EQ(cache.reserved(), 50);
  const Rows::Mark mark = cache.mark();
  append(cache, 3, 10.0f);
  EXPECT_EQ(column(cache), (std::vector<float>{1, 2, 10, 11, 12}));
  cache.rewind(mark);
  append(cache, 1, 20.0f);
  EXPECT_EQ(column(cache), (std::vector<float>{1, 2, 20}));
  cache.rewind(cache.mark(1));
  EXPECT_EQ(column(cache), (std::vector<float>{1}));
  EXPECT_THROW(cache.rewind(mark), guild::Error) << "those rows are gone";
  EXPECT_EQ(cache.length(), 1);
}

TEST(RowCache, ACopyIsAnotherSequenceWithTheSameBeginning) {
  Rows cache;
  cache.reserve(40);
  append(cache, 2, 1.0f);
  Rows copy = cache;
  EXPECT_EQ(copy.reserved(), 2) << "no more than it holds";
  copy.reserve(3);
  append(copy, 1, 5.0f);
  append(cache, 1, 7.0f);
  EXPECT_EQ(column(copy), (std::vector<float>{1, 2, 5}));
  EXPECT_EQ(column(cache), (std::vector<float>{1, 2, 7}));
  Rows moved = std::move(copy);
  EXPECT_EQ(column(moved), (std::vector<float>{1, 2, 5}));
  cache = moved;
  EXPECT_EQ(column(cache), (std::vector<float>{1, 2, 5}));
}

using Model = guild::Transformer<TinySpec>;
static_assert(guild::SequenceCache<Rows> && guild::SequenceCache<Model::Layers::Cache> &&
              guild::SequenceCache<Model::Cache>);

TEST(Cache, TakesTheBytesItSays) {
  EXPECT_EQ(Rows::bytes(10), 10 * 3 * 2);
  EXPECT_EQ(Model::Cache::bytes(100), TinySpec::config.layers * guild::Mla<TinySpec>::Cache::bytes(100));
  EXPECT_EQ(guild::DeepSeekR1::Cache::bytes(4096),
            guild::estimate_memory(guild::config_of<guild::DeepSeekR1Spec>, guild::DType::f8_e4m3, 4096).cache);
}

struct NearSpec : TinySpec {
  template <class S>
  using Mixer = guild::Local<guild::Mla<S>, 6, 0, 4>;
};
/// A prediction layer forgets one token more than the others.
TEST(ModelCachesOverRings, GoBackAsFarAsTheySay) {
  guild::Transformer<NearSpec>::Cache cache;
  cache.mtp.resize(1);
  cache.reserve(40);
  const auto append = [&cache] {
    cache.layers.for_each(
        [](auto& segment) {
          for (auto& layer : segment.parts) layer.append(1);
        },
        cache.layers.parts);
    cache.mtp[0].append(1);
  };
  while (cache.length() < 40) append();
  const Index oldest = cache.oldest();
  EXPECT_EQ(oldest, 37);
  cache.rewind(cache.mark(oldest));
  EXPECT_EQ(cache.length(), oldest);
  EXPECT_EQ(cache.mtp[0].length(), oldest - 1);
}

/// A model, its states for a chunk of one sequence, and its prediction layer.
struct ModelCaches : testing::Test {
  guild::Cpu device{{.threads = 2}};
  Model::Weights<guild::Published> weights = random_model<Model>(guild::DType::f32, 1, 1);
  const Tokens tokens = random_tokens(40, 97, 3);

  static Model::Cache empty() {
    Model::Cache cache;
    cache.mtp.resize(1);
    return cache;
  }
  Matrix run(Model::Cache& cache, Index begin, Index end, const Tokens& of, bool second = true) {
    const Flat flat({{0, &of, begin, end}});
    Model::Cache* list[] = {&cache};
    Matrix states(end - begin, TinySpec::config.hidden), logits(end - begin, 97);
    guild::Pass pass{.device = device, .batch = flat.batch()};
    Model::forward(pass, weights, list, states.view());
    if (!second) return states;
    pass.batch.tokens.data = of.data() + begin + 1;
    Model::predict_second(pass, weights, list, states.view(), logits.view());
    Matrix out = states;  // and the logits behind them
    out.values.insert(out.values.end(), logits.values.begin(), logits.values.end());
    return out;
  }
};

TEST_F(ModelCaches, MarkAndRewindForgetADraftAndItsGuesses) {
  Model::Cache straight = empty(), drafted = empty();
  for (Model::Cache* cache : {&straight, &drafted}) (void)run(*cache, 0, 12, tokens);
  const Model::Cache::Mark mark = drafted.mark();
  const Tokens other = random_tokens(40, 97, 4);
  (void)run(drafted, 12, 17, other);
  drafted.rewind(mark);
  EXPECT_EQ(drafted.length(), 12);
  EXPECT_EQ(drafted.mtp[0].length(), 12);
  EXPECT_EQ(run(drafted, 12, 20, tokens).values, run(straight, 12, 20, tokens).values);
}

TEST_F(ModelCaches, GoingBackInTheMiddleForgetsTheGuessThatKnewTheNextToken) {
  Model::Cache cache = empty(), fresh = empty();
  (void)run(cache, 0, 12, tokens);
  cache.rewind(cache.mark(7));
  EXPECT_EQ(cache.length(), 7);
  EXPECT_EQ(cache.mtp[0].length(), 6) << "row 6 was made with token 7";
  cache.rewind(cache.mark(0));
  EXPECT_EQ(cache.length(), 0);
  EXPECT_EQ(cache.mtp[0].length(), 0);
  EXPECT_EQ(run(cache, 0, 5, tokens).values, run(fresh, 0, 5, tokens).values);
}

TEST_F(ModelCaches, ACopySharesThePrefixAndNothingElse) {
  Model::Cache first = empty(), fresh = empty();
  (void)run(first, 0, 9, tokens);
  Model::Cache second = first;
  const Tokens other = random_tokens(40, 97, 4);
  Tokens joined(tokens.begin(), tokens.begin() + 9);
  joined.insert(joined.end(), other.begin() + 9, other.end());
  const Matrix one = run(first, 9, 15, tokens), two = run(second, 9, 15, joined);
  (void)run(fresh, 0, 9, tokens);
  EXPECT_EQ(run(fresh, 9, 15, tokens).values, one.values);
  EXPECT_NE(one.values, two.values);
}

TEST_F(ModelCaches, APredictionLayerTakesPositionsInOrder) {
  Model::Cache cache = empty();
  const Matrix states = run(cache, 0, 9, tokens, false);
  const Flat later({{0, &tokens, 4, 9}});
  Model::Cache* list[] = {&cache};
  Matrix logits(5, 97);
  const guild::Pass pass{.device = device, .batch = later.batch()};
  try {
    Model::predict_second(pass, weights, list, states.middle_rows(4, 5).view(), logits.view());
    FAIL() << "no error";
  } catch (const guild::Error& error) {
    EXPECT_EQ(error.code(), guild::ErrorCode::op_shape);
    EXPECT_NE(std::string(error.what()).find("prediction layer 0 holds 0 tokens"), std::string::npos) << error.what();
  }
}

TEST_F(ModelCaches, APredictionLayerThatThrowsLeavesItsCacheAsItWas) {
  Model::Cache cache = empty(), fresh = empty();
  for (Model::Cache* to : {&cache, &fresh}) (void)run(*to, 0, 9, tokens);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  auto& router = weights.mtp[0].block.feed_forward.router.weight;
  float saved = 0.0f;
  std::memcpy(&saved, router.data.data(), 4);
  std::memcpy(router.data.data(), &nan, 4);
  EXPECT_THROW((void)run(cache, 9, 12, tokens), guild::Error);
  std::memcpy(router.data.data(), &saved, 4);
  EXPECT_EQ(cache.length(), 12);
  EXPECT_EQ(cache.mtp[0].length(), 9);
  cache.rewind(cache.mark(9));
  EXPECT_EQ(cache.mtp[0].length(), 8);
}

}  // namespace cache_test
