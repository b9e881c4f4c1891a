#include <guild/cpu.hpp>
#include <guild/modules/gqa.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/mla.hpp>
#include <guild/modules/sequence_cache.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include <guild/models/llama.hpp>

#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"

namespace keys_test {

using guild::Index;
using guild::LatentForm;
using guild::Local;
using namespace guild_test;

struct Grouped : guild::LlamaDefaults {
  using CacheElement = float;
  static constexpr guild::TrunkConfig config = {.vocab = 97, .hidden = 48, .layers = 2, .context = 512};
  static constexpr guild::GqaConfig attention = {.heads = 6, .key_heads = 2, .head_dim = 10, .sinks = true};
};
struct GroupedBf16 : Grouped {
  using CacheElement = guild::bf16;
};
struct Latent : SmallSpec {
  using CacheElement = float;
  static constexpr guild::MlaConfig attention = with(SmallSpec::attention, [](guild::MlaConfig& c) { c.sinks = true; });
};

/// One attention module with random weights: the same for every kind of keys. Inputs are the rows of a fixed random
/// matrix, by position from `offset` on.
template <class A>
class Attention {
 public:
  using Cache = typename A::Cache;
  static constexpr Index hidden = A::hidden;

  explicit Attention(LatentForm form = LatentForm::automatic, int threads = 2) : device_({.threads = threads}) {
    device_.tuning().latent_form = form;
  }

  Matrix alone(Index length, Index offset = 0) {
    const Tokens none(static_cast<std::size_t>(length));
    const Flat flat({{0, &none, 0, length}});
    const Matrix x = inputs(flat, offset);
    Matrix y(length, hidden);
    A::forward(guild::Pass{.device = device_, .batch = flat.batch()}, weights_, {}, x.view(), y.view());
    return y;
  }
  Matrix extend(Cache& cache, Index begin, Index end) {
    const Tokens none(static_cast<std::size_t>(end));
    const Flat flat({{0, &none, begin, end}});
    const Matrix x = inputs(flat, 0);
    Matrix y(end - begin, hidden);
    const auto of = [&](int) -> auto& { return cache; };
    A::forward(guild::Pass{.device = device_, .batch = flat.batch()}, weights_, guild::Caches<Cache>(of), x.view(),
               y.view());
    return y;
  }
  Matrix run(const std::vector<Index>& ends) {
    Cache cache;
    cache.reserve(ends.back());
    Matrix out;
    Index begin = 0;
    for (const Index end : ends) out.append(extend(cache, std::exchange(begin, end), end));
    return out;
  }

 private:
  Matrix inputs(const Flat& flat, Index offset) const {
    Matrix x(flat.batch().size(), hidden);
    for (const guild::Chunk& chunk : flat.chunks)
      std::copy_n(values_.data() + (chunk.first_position + offset) * hidden, chunk.count * hidden, x.values.data());
    return x;
  }

  guild::Cpu device_;
  typename A::template Weights<guild::Published> weights_ = random_weights<A>(guild::DType::f32);
  guild::Buffer<float> values_ = random_values(400 * hidden, 7);
};

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

std::vector<std::vector<Index>> splits(Index length) {
  std::vector<std::vector<Index>> all;
  for (const Index split : {Index{1}, Index{3}, Index{8}, Index{9}, Index{16}, Index{17}, Index{70}, length - 1})
    all.push_back({split, length});
  guild::Random random(11);
  for (int round = 0; round < 8; ++round) {
    std::vector<Index> ends;
    for (Index end = 0; end < length;)
      ends.push_back(end = std::min(length, end + 1 + static_cast<Index>(random.uniform() * (round + 1) * 6)));
    all.push_back(ends);
  }
  std::vector<Index> one_by_one;
  for (Index end = 1; end <= length; ++end) one_by_one.push_back(end);
  all.push_back(one_by_one);
  return all;
}

/// Decoding in any split equals the whole.
template <class A>
void expect_any_split(double tolerance, LatentForm form = LatentForm::automatic) {
  Attention<A> attention(form);
  constexpr Index length = 150;
  const Matrix whole = attention.run({length});
  if (A::Cache::type == guild::DType::f32) { EXPECT_LE(relative_error(whole, attention.alone(length)), 1e-5); }
  for (const auto& ends : splits(length))
    ASSERT_LE(relative_error(attention.run(ends), whole), tolerance) << ends.size() << " pieces, the first " << ends[0];
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
