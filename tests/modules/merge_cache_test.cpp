// Spans of layers on merged tokens over caches: in any split, back and forth, and on any device.
#include <guild/modules/merge_cache.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
#include <guild/modules/indexer.hpp>
#include <guild/modules/parameters.hpp>
#include <guild/modules/stack.hpp>
#include <guild/training/allocate.hpp>

#include "../core/code_of.hpp"
#include "../support/far_device.hpp"
#include "../support/merged_layers.hpp"

namespace merge_cache_test {

using guild::Index;
using namespace guild;
using namespace guild_test;

// Chunk is 4 everywhere, so that rings go round soon.
using Latents = TwoOf<SmallMla, Local<Mla<SmallMla>, 6, 0, 4>>;
using Grouping = TwoOf<SmallGqa, Gqa<SmallGqa>>;
using Near = TwoOf<SmallGqa, Local<Gqa<SmallGqa>, 5, 2, 4>>;
constexpr Index width = SmallMla::config.hidden;

using LatentSpan = Alone<SpanOf<SmallMla, Watched<Latents>, Half>>;
using GroupingSpan = Alone<SpanOf<SmallGqa, Grouping, ThreeQuarters>>;
using NearSpan = Alone<SpanOf<SmallGqa, Near, Third>>;
/// A span within a span, with layers before and behind it.
using Nested = Alone<SpanOf<SmallGqa, Stack<Near, SpanOf<SmallGqa, Watched<Grouping>, Third>, Near>, ThreeQuarters>>;
/// Its layers go back by two slots alone.
using Impatient = Alone<SpanOf<SmallGqa, TwoOf<SmallGqa, Local<Gqa<SmallGqa>, 3, 0, 2>>, ThreeQuarters>>;
/// Slots of slots that wait for the end of their window.
using Waiting = Alone<SpanOf<SmallGqa, WindowSpanOf<SmallGqa, Grouping>, ThreeQuarters>>;
struct Indexed : SmallMla {
  static constexpr IndexerConfig indexer = {.heads = 8, .dim = 8, .top_k = 6};
};
/// Weighted keys of a window, and chosen ones in a span within.
template <class Mixer>
using OneOf = Segment<Block<Indexed, Mixer, DenseFeedForward<Indexed>>, 1>;
using Mixed = Alone<SpanOf<Indexed,
                           Stack<OneOf<Weighted<Local<Mla<Indexed>, 6, 1, 4>>>,
                                 SpanOf<Indexed, OneOf<SparseTopK<Mla<Indexed>, Indexer<Indexed>>>, Third>>,
                           ThreeQuarters>>;
static_assert(SequenceCache<LatentSpan::Cache> && SequenceCache<Nested::Cache>);

TEST(MergeCache, ExtendingInAnySplitEqualsOneForward) {
  expect_any_split<LatentSpan>(3e-6);
  expect_any_split<GroupingSpan>(3e-6);
  expect_any_split<NearSpan>(3e-6);
  expect_any_split<Nested>(3e-6);
  expect_any_split<Waiting>(3e-6);
}

/// In two at every token, and with a stretch of decoding in between.
template <class A>
void expect_splits_everywhere() {
  Running<A> running;
  const Story story(50, width, 1);
  const Matrix whole = running.whole(story);
  for (Index split = 1; split < story.size(); ++split) {
    auto two = running.cache_of(50), three = running.cache_of(50);
    ASSERT_LE(relative_error(running.extend(two, story, {split, 50}), whole), 3e-6) << split;
    std::vector<Index> ends;
    for (Index end = split; end < std::min(split + 6, Index{50}); ++end) ends.push_back(end);
    ends.push_back(50);
    ASSERT_LE(relative_error(running.extend(three, story, ends), whole), 3e-6) << split;
  }
}
TEST(MergeCache, PrefillMayStopAnywhere) {
  expect_splits_everywhere<LatentSpan>();
  expect_splits_everywhere<Nested>();
}

TEST(MergeCache, InnerCachesHoldNoMoreThanTheBudgetAllows) {
  Running<Nested> running;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    const Story story(60, width, seed);
    auto cache = running.cache_of(60);
    EXPECT_EQ(cache.inner.reserved(), ThreeQuarters::Budget::max_slots(60));
    for (Index t = 1; t <= 60; ++t) {
      (void)running.extend(cache, story, t);
      const auto& inner = std::get<1>(cache.inner.parts);
      ASSERT_EQ(cache.length(), t);
      ASSERT_EQ(cache.slots.length(), cache.inner.length());
      ASSERT_EQ(cache.states.state().slots, cache.inner.length());
      ASSERT_LE(cache.inner.length(), ThreeQuarters::Budget::max_slots(t));
      ASSERT_LE(inner.inner.length(), Third::Budget::max_slots(cache.inner.length()));
      ASSERT_EQ(std::get<0>(cache.inner.parts).length(), inner.length());
    }
    EXPECT_LT(cache.inner.length(), 50);
    EXPECT_GT(cache.inner.length(), 20);
  }
}

// Back and forth.

/// What the next tokens become over two caches that should hold the same.
template <class A>
void expect_same_future(Running<A>& running, typename A::Cache one, typename A::Cache other, const Story& story) {
  const Index begin = other.length();
  ASSERT_EQ(one.length(), begin);
  ASSERT_TRUE(same_bits(running.extend(one, story, begin + 1), running.extend(other, story, begin + 1)));
  ASSERT_TRUE(same_bits(running.extend(one, story, begin + 8), running.extend(other, story, begin + 8)));
}
template <class A, Index chunk = 4>
void expect_to_go_back() {
  Running<A> running;
  const Story story(60, width, 1), wrong(60, width, 2);
  auto never = running.cache_of(60);
  for (Index length = 0; length < 40; ++length) {
    if (length > 0) (void)running.extend(never, story, length);
    ASSERT_LE(never.oldest(), std::max(length - chunk, Index{0}));
    for (const Index tokens : {Index{1}, (chunk + 1) / 2, chunk}) {  // at once, and one by one
      auto cache = never;
      (void)running.extend(cache, wrong, length + tokens);
      cache.rewind(cache.mark(length));
      expect_same_future(running, cache, never, story);
      for (Index t = length + 1; t <= length + tokens; ++t) (void)running.extend(cache, wrong, t);
      cache.rewind(cache.mark(length));
      expect_same_future(running, cache, never, story);
    }
    auto back = never;
    ASSERT_NO_THROW(back.rewind(back.mark(back.oldest()))) << length;
    auto cache = never;  // and many at once, to where they began
    const auto mark = cache.mark();
    (void)running.extend(cache, wrong, length + 19);
    cache.rewind(mark);
    expect_same_future(running, cache, never, story);
  }
  for (Index to = std::max(never.oldest(), Index{1}); to <= never.length(); ++to) {
    auto cache = never, fresh = running.cache_of(60);
    cache.rewind(cache.mark(to));
    for (Index t = 1; t <= to; ++t) (void)running.extend(fresh, story, t);
    expect_same_future(running, cache, fresh, story);
  }
  never.rewind(never.mark(0));
  EXPECT_EQ(never.oldest(), 0);
  expect_same_future(running, never, running.cache_of(60), story);
}
TEST(MergeCache, ForgetsWrongTokensAtEveryLength) {
  expect_to_go_back<LatentSpan>();
  expect_to_go_back<GroupingSpan>();
  expect_to_go_back<Nested>();
  expect_to_go_back<Impatient, 2>();
  expect_to_go_back<Waiting>();
  expect_to_go_back<Mixed>();
}

/// Where rings of tokens go back and those of the layers, which keep fewer slots, do not.
TEST(MergeCache, GoesBackAsAWholeOrNotAtAll) {
  Running<Impatient> running;
  const Story story(60, width, 1);
  int refused = 0;
  for (Index begin = 8; begin < 40; ++begin) {
    auto cache = running.cache_of(60);
    (void)running.extend(cache, story, begin);
    const auto mark = cache.mark();
    for (Index t = 1; t <= 4; ++t) (void)running.extend(cache, story, begin + t);
    if (cache.oldest() <= begin) continue;
    ++refused;
    const auto never = cache;
    EXPECT_EQ(code_of([&] { cache.rewind(mark); }), ErrorCode::op_argument);
    EXPECT_EQ(cache.length(), begin + 4);
    expect_same_future(running, cache, never, story);
  }
  EXPECT_GT(refused, 0);
}

/// A pass that stops in the middle, in layers of the innermost span, leaves no trace.
template <class A, class Layers>
void expect_no_trace_of_failure() {
  Running<A> running;
  const Story story(60, width, 1), wrong(60, width, 2);
  auto never = running.cache_of(60);
  int failed = 0;
  for (Index length = 0; length < 30; ++length) {
    if (length > 0) (void)running.extend(never, story, length);
    for (const Fails fails : {Fails::before, Fails::after})
      for (const Index tokens : {Index{1}, Index{4}, Index{5}, Index{19}}) {
        auto cache = never;
        const auto mark = cache.mark();
        Layers::fails = fails;
        failed += code_of([&] { (void)running.extend(cache, wrong, length + tokens); }) == ErrorCode::dev_memory;
        Layers::fails = Fails::never;
        cache.rewind(mark);
        expect_same_future(running, cache, never, story);
      }
  }
  EXPECT_GT(failed, 150);
}
TEST(MergeCache, APassThatFailsLeavesNoTrace) {
  expect_no_trace_of_failure<LatentSpan, Watched<Latents>>();
  expect_no_trace_of_failure<Nested, Watched<Grouping>>();
}

/// A copy of rows has no room behind them: it grows when it goes on, and says how far that reaches.
TEST(MergeCache, ACopyIsAnotherSequence) {
  Running<Nested> running;
  const Story one(60, width, 1), other(60, width, 2);
  for (const Index length : {Index{1}, Index{7}, Index{26}}) {
    auto original = running.cache_of(60);
    (void)running.extend(original, one, length);
    auto copy = original, untouched = original;
    EXPECT_EQ(copy.reserved(), length);
    copy.reserve(length + 3);
    EXPECT_GE(copy.reserved(), length + 3);
    EXPECT_LT(copy.reserved(), 60);
    (void)running.extend(copy, other, {length + 1, length + 9, length + 20});
    expect_same_future(running, original, untouched, one);
    copy = original;
    expect_same_future(running, copy, untouched, one);
  }
}

/// Sequences that grow in batches of any pieces, draft wrong tokens, go back, end and are copied, as it comes. Whatever
/// they lived through, their tokens are those of the whole sequence alone.
template <class A>
struct Lives {
  struct Life {
    std::size_t story;
    typename A::Cache cache;
  };
  Random random;
  Running<A> running = plain_running<A>();
  std::vector<Story> stories{};
  std::vector<Matrix> wholes{};
  std::vector<Life> lives{};
  Index compared = 0, gone_back = 0, copies = 0;

  explicit Lives(std::uint64_t seed) : random(seed, 0x6c69766573) {
    const bool weighed = random.uniform() < 0.5;
    for (std::size_t i = 0; i < 3; ++i) {
      stories.emplace_back(1 + below(70), width, 10 * seed + i);
      if (weighed) stories[i].weigh();
      wholes.push_back(running.whole(stories[i]));
      lives.push_back({i, running.cache_of(stories[i].size())});
    }
  }
  Index below(Index end) { return static_cast<Index>(random.uniform() * static_cast<double>(end)); }
  /// As many tokens as rings take at once, one more, a longest group, around a window, or any number.
  Index some() {
    const Index counts[] = {0, 1, 1, 4, 5, 8, 6, 7, below(30)};
    return counts[below(9)];
  }
  [[nodiscard]] Index left(const Life& life) const { return stories[life.story].size() - life.cache.length(); }

  /// Some lives go on at once, in any order. Of wrong tokens nobody knows what they become.
  void go_on(const std::vector<Story>& with, const std::vector<Index>& counts, bool right) {
    std::vector<typename Running<A>::Part> parts;
    for (std::size_t i = 0; i < lives.size(); ++i) {
      const Index begin = lives[i].cache.length();
      parts.push_back({&with[lives[i].story], begin, begin + counts[i], &lives[i].cache});
      grow(lives[i].cache, begin + counts[i], with[lives[i].story].size());
    }
    for (std::size_t i = parts.size(); i > 1; --i)
      std::swap(parts[i - 1], parts[static_cast<std::size_t>(below(static_cast<Index>(i)))]);
    const Matrix y = running(parts);
    Index row = 0;
    for (const auto& part : parts) {
      const Index count = part.end - part.begin;
      const Matrix found = y.middle_rows(std::exchange(row, row + count), count);
      if (!right || count == 0) continue;
      const auto& whole = wholes[static_cast<std::size_t>(part.story - with.data())];
      ASSERT_LE(relative_error(found, whole.middle_rows(part.begin, count)), 1e-5) << part.begin << " to " << part.end;
      compared += count;
    }
    for (const Life& life : lives) {
      ASSERT_LE(life.cache.inner.length(), ThreeQuarters::Budget::max_slots(life.cache.length()));
      ASSERT_EQ(life.cache.inner.length(), life.cache.states.state().slots);
    }
  }
  void grow_up() {
    std::vector<Index> counts;
    for (const Life& life : lives) counts.push_back(std::min(some(), left(life)));
    go_on(stories, counts, true);
  }
  void draft() {
    std::vector<Story> wrong;
    for (const Story& story : stories) {
      wrong.emplace_back(story.size(), width, static_cast<std::uint64_t>(below(1000000)));
      if (!story.masses.empty()) wrong.back().weigh();
    }
    std::vector<typename A::Cache::Mark> marks;
    std::vector<Index> lengths, counts;
    const bool at_once = random.uniform() < 0.5;
    for (const Life& life : lives) {
      marks.push_back(life.cache.mark());
      lengths.push_back(life.cache.length());
      counts.push_back(std::min(at_once ? some() : below(5), left(life)));
    }
    if (at_once) go_on(wrong, counts, false);
    for (Index t = 0; !at_once && t < 4; ++t) {
      std::vector<Index> ones;
      for (const Index count : counts) ones.push_back(t < count ? 1 : 0);
      go_on(wrong, ones, false);
    }
    for (std::size_t i = 0; i < lives.size(); ++i)
      lives[i].cache.rewind(at_once || below(2) == 0 ? marks[i] : lives[i].cache.mark(lengths[i]));
  }
  void go_back() {
    for (Life& life : lives) {
      const Index from = std::max(life.cache.oldest(), Index{1}), length = life.cache.length();
      const Index to = length == 0 || below(6) == 0 ? 0 : from + below(length + 1 - from);
      gone_back += to < length ? 1 : 0;
      life.cache.rewind(life.cache.mark(to));
    }
  }
  void copy() {
    const std::size_t from = static_cast<std::size_t>(below(3)), to = static_cast<std::size_t>(below(3));
    copies += from == to || lives[from].cache.length() == 0 ? 0 : 1;
    lives[to] = Life(lives[from]);
  }
  void run() {
    for (int step = 0; step < 30 && !testing::Test::HasFatalFailure(); ++step) {
      const double what = random.uniform();
      what < 0.55 ? grow_up() : what < 0.75 ? draft() : what < 0.9 ? go_back() : copy();
    }
    // No token sees a later one.
    for (std::size_t i = 0; i < 3; ++i) {
      const Index t = below(stories[i].size());
      Story other(stories[i].size(), width, 77);
      const Matrix changed = running.whole(stories[i].after(t, other));
      ASSERT_TRUE(same_bits(changed.middle_rows(0, t), wholes[i].middle_rows(0, t))) << t;
    }
  }
};
template <class A>
void expect_any_life() {
  Index compared = 0, gone_back = 0, copies = 0;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    SCOPED_TRACE(seed);
    Lives<A> lives(seed);
    lives.run();
    if (testing::Test::HasFatalFailure()) return;
    compared += lives.compared, gone_back += lives.gone_back, copies += lives.copies;
  }
  EXPECT_GT(compared, 800);
  EXPECT_GT(gone_back, 30);
  EXPECT_GT(copies, 8);
}
TEST(MergeCache, WhateverASequenceLivesThroughItIsTheWhole) {
  expect_any_life<Mixed>();
  expect_any_life<Nested>();
}

// Rows that rings need.

struct LongGroups : TokenBucket<1, 2, 4, 8> {};
struct LongerThanTheySay : LongGroups {
  static constexpr Index longest = 7;
};
/// No token is novel: all groups are as long as they may be.
template <class Budget>
struct Never : Merge<Budget> {
  static constexpr float threshold = 2.0f;
};
using Short = OneOf<Mla<Indexed>::WithKeys<ShortOfARow<6, 1, 4>>>;
using Enough = OneOf<Local<Mla<Indexed>, 6, 1, 4>>;
struct Pairs : Merge<FixedStride<2>> {};
/// The rows of an open group beside those of a chunk, and of a window of slots beside theirs, of which eight tokens
/// close four: with one less the same chunks go wrong.
TEST(MergeCache, OneRowLessIsTooFew) {
  const auto goes_wrong_in_chunks = []<class A>(Running<A> running, Index tokens) {
    const Story story(72, width, 5);
    return goes_wrong(running.whole(story), [&] {
      auto cache = running.cache_of(72);
      Matrix y = running.extend(cache, story, tokens);
      while (cache.length() < 72) y.append(running.extend(cache, story, cache.length() + tokens));
      return y;
    });
  };
  EXPECT_FALSE(goes_wrong_in_chunks(Running<Alone<SpanOf<SmallMla, Times<width, 2>, Never<LongGroups>>>>(), 4));
  EXPECT_TRUE(goes_wrong_in_chunks(Running<Alone<SpanOf<SmallMla, Times<width, 2>, Never<LongerThanTheySay>>>>(), 4));
  EXPECT_FALSE(goes_wrong_in_chunks(Running<Alone<SpanOf<Indexed, Enough, Pairs>>>(), 8));
  EXPECT_TRUE(goes_wrong_in_chunks(Running<Alone<SpanOf<Indexed, Short, Pairs>>>(), 8));
}

// Memory.

TEST(MergeCache, TakesNoMemoryThatGrowsButThatOfItsInnerCaches) {
  using Cache = LatentSpan::Cache;
  using Inner = Latents::Cache;
  constexpr Index state = sizeof(MergeState);
  constexpr Index beside = (8 - 1 + 4) * ((width + 8) + 2) * 4 + (2 - 1 + 4) * (2 * width * 4 + state);
  for (const Index tokens : {11, 50, 100000})
    EXPECT_EQ(Cache::bytes(tokens), beside + Inner::bytes(4 + (tokens - 1) / 2));
  EXPECT_EQ(Cache::bytes(0), 0);
  EXPECT_EQ(Cache::bytes(1), ((width + 8) + 2 + 2 * width) * 4 + state + Inner::bytes(1));
  const auto of_nested = [](Index tokens) {
    return Nested::Cache::bytes(tokens) -
           decltype(Nested::Cache::inner)::bytes(ThreeQuarters::Budget::max_slots(tokens));
  };
  EXPECT_EQ(of_nested(100), of_nested(100000));
}

// A device with memory of its own.

template <class A>
struct Learned {
  Matrix y{}, dx{};
  typename A::template Weights<Dense<float>> gradients;
};
template <class Device, class A>
void learn(Running<A, Device>& running, Learned<A>& to) {
  const Story story(40, width, 4);
  const Flat flat({{0, &story.tokens, 0, 25}, {1, &story.tokens, 0, 40}});
  Matrix x = story.x.middle_rows(0, 25);
  x.append(story.x);
  to.y = to.dx = Matrix(x.rows, width);
  std::copy_n(random_values(x.rows * width, 6).data(), x.rows * width, to.dx.values.begin());
  allocate<A>(to.gradients);
  Arena arena;
  Arena::Frame memory(arena);
  const Pass<Device> pass{.device = running.device, .batch = flat.batch(), .memory = &memory};
  typename A::template Saved<float> saved;
  A::Layers::forward(pass, running.weights, {}, DeviceView<float, 2>(x.view()), DeviceView<float, 2>(to.y.view()),
                     &saved);
  A::Layers::backward(pass, running.weights, saved, DeviceView<float, 2>(to.dx.view()), to.gradients);
}
template <class A>
void expect_the_same_on_a_far_device() {
  Running<A> near;
  Running<A, FarDevice> far;
  const Story story(50, width, 3);
  auto of_near = near.cache_of(50), of_far = far.cache_of(50);
  EXPECT_TRUE(
      same_bits(far.extend(of_far, story, {1, 2, 3, 20, 24, 50}), near.extend(of_near, story, {1, 2, 3, 20, 24, 50})));
  Learned<A> by_near, by_far;
  learn(near, by_near);
  learn(far, by_far);
  EXPECT_TRUE(same_bits(by_far.y, by_near.y));
  EXPECT_TRUE(same_bits(by_far.dx, by_near.dx));
  int tensors = 0;
  for_each_tensor<A>(
      [&](const Path& path, const TensorShape&, TensorRole role, const Buffer<float>& a, const Buffer<float>& b) {
        EXPECT_TRUE(std::equal(a.view().begin(), a.view().end(), b.view().begin(), b.view().end())) << path.str();
        if (role != TensorRole::parameter) return;
        EXPECT_TRUE(std::any_of(a.view().begin(), a.view().end(), [](float g) { return g != 0.0f; })) << path.str();
        ++tensors;
      },
      by_near.gradients, by_far.gradients);
  EXPECT_GT(tensors, 20);
}
TEST(MergeCache, RunsOnADeviceWithMemoryOfItsOwn) {
  expect_the_same_on_a_far_device<Alone<SpanOf<SmallMla, Latents, Half>>>();
  expect_the_same_on_a_far_device<
      Alone<SpanOf<SmallGqa, Stack<Near, SpanOf<SmallGqa, Grouping, Third>>, ThreeQuarters>>>();
}
/// The host waits for what it plans by, once for each span.
TEST(MergeCache, TheHostReadsNoveltyAndTheLabelsOfTokensAlone) {
  Running<NearSpan, FarDevice> running;
  const Story story(50, width, 3);
  auto cache = running.cache_of(50);
  for (const Index end : {20, 21, 22, 50}) {
    running.device.to_host = 0;
    (void)running.extend(cache, story, end);
    EXPECT_EQ(running.device.to_host, 3) << "novelty, ids and positions";
  }
}

}  // namespace merge_cache_test
