// Spans of layers on merged tokens over caches: in any split, back and forth, and on any device.
#include <guild/modules/merge_cache.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include <guild/core/error.hpp>
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

/// A copy of rows has no room behind them: it grows when it goes on.
TEST(MergeCache, ACopyIsAnotherSequence) {
  Running<Nested> running;
  const Story one(60, width, 1), other(60, width, 2);
  for (const Index length : {Index{1}, Index{7}, Index{26}}) {
    auto original = running.cache_of(60);
    (void)running.extend(original, one, length);
    auto copy = original, untouched = original;
    (void)running.extend(copy, other, {length + 1, length + 9, length + 20});
    expect_same_future(running, original, untouched, one);
    copy = original;
    expect_same_future(running, copy, untouched, one);
  }
}

// Memory.

TEST(MergeCache, TakesNoMemoryThatGrowsButThatOfItsInnerCaches) {
  using Cache = LatentSpan::Cache;
  using Inner = Latents::Cache;
  constexpr Index beside = ((width + 8) * (8 - 1 + 4) + 2 * (8 - 1 + 4) + 2 * width * (2 - 1 + 4)) * 4;
  for (const Index tokens : {11, 50, 100000})
    EXPECT_EQ(Cache::bytes(tokens), beside + Inner::bytes(4 + (tokens - 1) / 2));
  EXPECT_EQ(Cache::bytes(0), 0);
  EXPECT_EQ(Cache::bytes(1), ((width + 8) + 2 + 2 * width) * 4 + Inner::bytes(1));
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
