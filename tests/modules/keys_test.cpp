#include <guild/cpu.hpp>
#include <guild/modules/gqa.hpp>
#include <guild/modules/joint_cache.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/mla.hpp>
#include <guild/modules/sequence_cache.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "../support/one_attention.hpp"

namespace keys_test {

using guild::Index;
using guild::LatentForm;
using guild::Local;
using namespace guild_test;

/// A token of a window sees what the last token of the window alone sees: rotary positions are relative.
template <class All, Index Window>
void expect_window() {
  Attention<All> all;
  Attention<Local<All, Window>> local;
  constexpr Index length = 150;
  const Matrix whole = local.alone(length), of_all = all.alone(length);
  EXPECT_TRUE(same_bits(whole.middle_rows(0, Window), of_all.middle_rows(0, Window)));
  for (Index t = Window; t < length; ++t) {
    const Matrix seen = all.alone(Window, t - Window + 1);
    ASSERT_LE(relative_error(whole.middle_rows(t, 1), seen.middle_rows(Window - 1, 1)), 1e-5) << "token " << t;
  }
  EXPECT_GT(relative_error(whole.middle_rows(length - 1, 1), of_all.middle_rows(length - 1, 1)), 1e-3);
}
TEST(LocalKeys, ATokenSeesItsWindow) {
  expect_window<guild::Gqa<Grouped>, 9>();
  expect_window<guild::Gqa<Grouped>, 64>();
  expect_window<guild::Mla<Latent>, 9>();
  expect_window<guild::Mla<Latent>, 70>();
}

TEST(LocalKeys, ExtendingInAnySplitEqualsOneForward) {
  expect_any_split<Local<guild::Gqa<Grouped>, 9>>(2e-6);
  expect_any_split<Local<guild::Gqa<Grouped>, 9, 3, 4>>(2e-6);
  expect_any_split<Local<guild::Gqa<Grouped>, 1, 0, 1>>(2e-6);
  expect_any_split<Local<guild::Gqa<Grouped>, 64, 5, 7>>(2e-6);
  expect_any_split<Local<guild::Gqa<GroupedBf16>, 20, 2>>(2e-6);
}
TEST(LocalKeys, ExtendingLatentAttentionInAnySplitEqualsOneForward) {
  for (const LatentForm form : {LatentForm::absorbed, LatentForm::expanded, LatentForm::automatic}) {
    expect_any_split<Local<guild::Mla<Latent>, 9>>(3e-6, form);
    expect_any_split<Local<guild::Mla<Latent>, 9, 3, 4>>(3e-6, form);
    expect_any_split<Local<guild::Mla<Latent>, 70, 66, 7>>(3e-6, form);
    expect_any_split<Local<guild::Mla<TinyBf16Spec>, 20, 2>>(1e-5, form);
  }
}

template <class Cache>
bool same_rows(const Cache& a, const Cache& b) {
  const auto one = a.rows(), other = b.rows();
  if (a.length() != b.length()) return false;
  for (Index p = 0; p < a.length(); ++p) {
    if (p >= Cache::pinned && p < a.length() - (Cache::window - 1)) continue;
    const auto* x = one.rows.data + one.ring.row_of(p) * Cache::width;
    const auto* y = other.rows.data + other.ring.row_of(p) * Cache::width;
    if (std::memcmp(x, y, Cache::width * sizeof(*x)) != 0) return false;
  }
  return true;
}

TEST(JointCache, ChangesNothingWhereOneOfItsPartsCannotGoBackSoFar) {
  using Rows = guild::RowCache<float, 2>;
  using Ring = guild::RingCache<float, 2, 3, 0, 2>;
  guild::CacheTuple<Rows, guild::CacheTuple<Rows, Ring>> cache;
  auto& inner = cache.part<1>();
  cache.reserve(10);
  for (int token = 0; token < 10; ++token) {
    (void)cache.part<0>().append(1);
    (void)inner.part<0>().append(1);
    inner.part<1>().append(1);
  }
  const auto lengths = [&] {
    return std::vector{cache.part<0>().length(), inner.part<0>().length(), inner.part<1>().length()};
  };
  EXPECT_EQ(cache.oldest(), 8);
  EXPECT_THROW(cache.rewind(cache.mark(5)), guild::Error);
  EXPECT_EQ(lengths(), std::vector<Index>(3, 10));
  cache.rewind(cache.mark(8));
  EXPECT_EQ(lengths(), std::vector<Index>(3, 8));
}

/// Going back and going on gives what one would have had at once.
TEST(RingCache, GoesBackAsFarAsItSays) {
  using A = Local<guild::Gqa<Grouped>, 9, 2, 4>;
  Attention<A> attention;
  for (const Index length : {Index{3}, Index{10}, Index{11}, Index{14}, Index{15}, Index{40}}) {
    A::Cache cache;
    cache.reserve(100);
    for (Index t = 0; t < length; ++t) (void)attention.extend(cache, t, t + 1);
    EXPECT_EQ(cache.oldest(), length <= 2 + 9 - 1 + 4 ? 0 : length - 4);
    for (Index to = std::max<Index>(cache.oldest(), 1); to <= length; ++to) {
      A::Cache copy = cache, fresh;
      fresh.reserve(100);
      copy.rewind(copy.mark(to));
      for (Index t = 0; t < to; ++t) (void)attention.extend(fresh, t, t + 1);
      ASSERT_TRUE(same_bits(attention.extend(copy, to, to + 3), attention.extend(fresh, to, to + 3)))
          << "from " << length << " to " << to;
      ASSERT_TRUE(same_rows(copy, fresh));
    }
    if (cache.oldest() > 1) { EXPECT_THROW(cache.rewind(cache.mark(cache.oldest() - 1)), guild::Error); }
    EXPECT_EQ(cache.length(), length);
    cache.rewind(cache.mark(0));
    EXPECT_EQ(cache.oldest(), 0);
    EXPECT_TRUE(same_bits(attention.extend(cache, 0, 20), attention.run({20})));
  }
}

/// Rows of tokens that were taken back have overwritten others, also once fewer new ones are there.
TEST(RingCache, GoesBackOnceMoreAsFarAsItSays) {
  using A = Local<guild::Gqa<Grouped>, 9, 2, 4>;
  Attention<A> attention;
  A::Cache cache, fresh;
  cache.reserve(100), fresh.reserve(100);
  (void)attention.extend(cache, 0, 40);
  cache.rewind(cache.mark(36));
  (void)attention.extend(cache, 36, 37);
  EXPECT_EQ(cache.oldest(), 36);
  EXPECT_THROW(cache.rewind(cache.mark(35)), guild::Error);
  cache.rewind(cache.mark(36));
  (void)attention.extend(cache, 36, 39);
  cache.rewind(cache.mark(36));
  (void)attention.extend(fresh, 0, 36);
  EXPECT_TRUE(same_bits(attention.extend(cache, 36, 50), attention.extend(fresh, 36, 50)));
  EXPECT_EQ(cache.oldest(), 46);
}

TEST(RingCache, ALongPassCanBeUndone) {
  using A = Local<guild::Mla<Latent>, 9, 2, 4>;
  Attention<A> attention;
  A::Cache cache;
  cache.reserve(200);
  (void)attention.extend(cache, 0, 30);
  const A::Cache before = cache;
  const auto mark = cache.mark();
  (void)attention.extend(cache, 30, 100);
  cache.rewind(mark);
  EXPECT_EQ(cache.length(), 30);
  EXPECT_TRUE(same_rows(cache, before));
  A::Cache other = before;
  EXPECT_TRUE(same_bits(attention.extend(cache, 30, 31), attention.extend(other, 30, 31)));
}

TEST(RingCache, ALongPassThatIsUndoneAfterRoomWasMadeLeavesTheRoom) {
  using A = Local<guild::Mla<Latent>, 128, 0, 16>;
  Attention<A> attention;
  A::Cache cache, straight;
  cache.reserve(50);
  straight.reserve(200);
  (void)attention.extend(cache, 0, 30);
  const auto mark = cache.mark();
  (void)attention.extend(cache, 30, 50);
  cache.reserve(200);
  cache.rewind(mark);
  (void)attention.extend(straight, 0, 30);
  EXPECT_TRUE(same_bits(attention.extend(cache, 30, 130), attention.extend(straight, 30, 130)));
}

/// Window - 1 + Chunk rows are as many as it takes: with one less the same chunks go wrong.
TEST(RingCache, OneRowLessIsTooFew) {
  const auto goes_wrong_in_chunks = []<class A>(Attention<A> attention) {
    return goes_wrong(attention.alone(40), [&] { return attention.run({4, 8, 12, 16, 20, 24, 28, 32, 36, 40}); });
  };
  EXPECT_FALSE(goes_wrong_in_chunks(Attention<Local<guild::Gqa<Grouped>, 9, 2, 4>>()));
  EXPECT_TRUE(goes_wrong_in_chunks(Attention<guild::Gqa<Grouped>::WithKeys<ShortOfARow<9, 2, 4>>>()));
}

TEST(RingCache, TakesTheBytesOfItsFormula) {
  using Cache = Local<guild::Gqa<GroupedBf16>, 128, 4, 16>::Cache;
  static_assert(guild::SequenceCache<Cache>);
  EXPECT_EQ(Cache::bytes(10), 10 * 40 * 2);
  EXPECT_EQ(Cache::bytes(100000), (4 + 128 - 1 + 16) * 40 * 2);
  Cache cache;
  cache.reserve(100000);
  EXPECT_EQ(cache.rows().rows.rows, 4 + 128 - 1 + 16);
  EXPECT_EQ(cache.reserved(), 100000);
  EXPECT_THROW(cache.append(100001), guild::Error);
}

}  // namespace keys_test
