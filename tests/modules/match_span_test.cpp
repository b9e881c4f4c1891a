// Layers on matched tokens of whole sequences.
#include <guild/modules/match_span.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/modules/learned_slots.hpp>
#include <guild/modules/stack.hpp>

#include "../core/code_of.hpp"
#include "../support/far_device.hpp"
#include "../support/matching_fixture.hpp"
#include "../support/merged_layers.hpp"

namespace match_span_test {

using guild::Index;
using namespace guild;
using namespace guild_test;

constexpr Index width = SmallMla::config.hidden;
static_assert(SmallGqa::config.hidden == width);

template <class MatchType, class ProtectType = NoProtect>
struct Matching : DefaultMatching {
  using Match = MatchType;
  using Protect = ProtectType;
};
struct Inflate : MatchedInflation {
  static constexpr Index gate_rank = 8, detail_rank = 6;
};
using Masks = ProtectTokens<3, 5, 8, 13, 21, 34, 55, 89>;
using Half = Matching<BipartiteSoftMatch<1, 2>>;
using HalfOfOthers = Matching<BipartiteSoftMatch<1, 2>, Masks>;
using OddThird = Matching<BipartiteSoftMatch<1, 3, 1>, Masks>;
using Redundant = Matching<EnergyMatch<1, 4>, Masks>;
using Neighbours = Matching<SequenceTopR<1, 4>>;
using OddNeighbours = Matching<SequenceTopR<1, 3, 1>, Masks>;
using Nothing = Matching<BipartiteSoftMatch<0, 1>>;
struct Centroids : Matching<BipartiteSoftMatch<1, 4>> {
  using Position = CentroidPosition;
};

template <class S, class Layers, class Policy>
using SpanOfAll = MatchSpan<Layers, Policy, TokenInflation<S, Inflate>>;
using Grouping = TwoOf<SmallGqa, Weighted<Gqa<SmallGqa>>>;
using Latents = TwoOf<SmallMla, Weighted<Mla<SmallMla>>>;
/// A span of layers that say what they are given, and double it.
template <class Policy>
using Shown = Alone<SpanOfAll<SmallMla, Watched<Times<width, 2>>, Policy>>;

template <class A>
Running<A> running_both_ways() {
  Running<A> running{Cpu({.threads = 2, .isa = Isa::baseline})};
  running.mask = AttentionMask::bidirectional;
  return running;
}

// Where nothing is merged.

template <class S, class Layers, class Policy>
void expect_the_bits_of_its_layers(const Story& story) {
  auto span = running_both_ways<Alone<SpanOfAll<S, Layers, Policy>>>();
  auto plain = running_both_ways<Alone<Layers, width>>();
  EXPECT_TRUE(same_bits(span.whole(story), plain.whole(story)));
}
TEST(MatchSpan, WithoutMergedTokensHasTheBitsOfItsLayers) {
  Story story(60, width, 3);
  expect_the_bits_of_its_layers<SmallGqa, Grouping, Nothing>(story);
  expect_the_bits_of_its_layers<SmallMla, Latents, Nothing>(story);
  std::fill(story.tokens.begin(), story.tokens.end(), 5);  // all are protected
  expect_the_bits_of_its_layers<SmallGqa, Grouping, HalfOfOthers>(story);
}

// What layers are given.

/// The tokens of a sequence and the slots that they became.
struct Shared {
  Given slots;
  Matrix y;
};
template <class Policy>
Shared shared(const Story& story, Running<Shown<Policy>>& running) {
  Watched<Times<width, 2>>::given.clear();
  const Matrix y = running.whole(story);
  return {Watched<Times<width, 2>>::given.empty() ? Given{} : Watched<Times<width, 2>>::given[0], y};
}
template <class Policy>
void expect_counts_and_masses() {
  auto running = running_both_ways<Shown<Policy>>();
  for (const Index length : {0, 1, 2, 3, 4, 5, 16, 37, 60}) {
    const Story story(length, width, 7 + static_cast<std::uint64_t>(length));
    const Given slots = shared<Policy>(story, running).slots;
    Index free = 0, found = 0;
    for (const std::int32_t token : story.tokens) free += Policy::Protect::protects(token) ? 0 : 1;
    const auto count = static_cast<Index>(slots.masses.size());
    EXPECT_EQ(count, length - Policy::Match::merged(length, free)) << length;
    EXPECT_EQ(std::accumulate(slots.masses.begin(), slots.masses.end(), 0.0), static_cast<double>(length));
    for (Index c = 0; c < width; ++c) {
      double of_slots = 0.0, of_tokens = 0.0;
      for (Index j = 0; j < count; ++j)
        of_slots += double{slots.masses[static_cast<std::size_t>(j)]} * double{slots.rows.view()(j, c)};
      for (Index t = 0; t < length; ++t) of_tokens += double{story.at(t, c)};
      EXPECT_NEAR(of_slots, of_tokens, 1e-5 * static_cast<double>(1 + length));
    }
    EXPECT_TRUE(std::is_sorted(slots.positions.begin(), slots.positions.end(), std::less_equal<>())) << "first tokens";
    for (Index t = 0; t < length; ++t) {
      const std::int32_t token = story.tokens[static_cast<std::size_t>(t)];
      if (!Policy::Protect::protects(token)) continue;
      const auto at = static_cast<std::size_t>(std::find(slots.positions.begin(), slots.positions.end(), t) -
                                               slots.positions.begin());
      ASSERT_LT(at, slots.masses.size()) << "a protected token leads a slot";
      EXPECT_EQ(slots.masses[at], 1.0f);
      EXPECT_EQ(slots.tokens[at], token);
      EXPECT_TRUE(same_bits(slots.rows.middle_rows(static_cast<Index>(at), 1), story.x.middle_rows(t, 1)));
      ++found;
    }
    EXPECT_EQ(found, length - free);
  }
}
TEST(MatchSpan, LosesNoTokenAndBlendsNoProtectedOne) {
  expect_counts_and_masses<Half>();
  expect_counts_and_masses<OddThird>();
  expect_counts_and_masses<Redundant>();
  expect_counts_and_masses<Neighbours>();
  expect_counts_and_masses<OddNeighbours>();
}

/// The same tokens are alike again when they are the mean of their slot.
template <class Policy>
void expect_slots_of_slots_are_themselves() {
  auto running = running_both_ways<Shown<Policy>>();
  for (auto* one : {&running.weights.inflation.gate_up.weight, &running.weights.inflation.detail_up.weight})
    std::fill_n(one->data.data(), one->data.size(), std::byte{});
  Story story(40, width, 5);
  const auto [slots, y] = shared<Policy>(story, running);
  // What layers that double add to a token is its slot.
  for (std::size_t i = 0; i < story.x.values.size(); ++i) story.x.values[i] = y.values[i] - story.x.values[i];
  const Given again = shared<Policy>(story, running).slots;
  EXPECT_EQ(again.positions, slots.positions);
  EXPECT_EQ(again.masses, slots.masses);
  EXPECT_LE(relative_error(again.rows, slots.rows), 1e-6);
  EXPECT_LT(slots.rows.rows, 35);
}
TEST(MatchSpan, MergedAndInflatedTokensMergeIntoTheSameSlots) {
  expect_slots_of_slots_are_themselves<Half>();
  expect_slots_of_slots_are_themselves<Neighbours>();
}

/// Weights of layers that add nothing, and of no details.
struct ZeroOutputs : RandomWeights {
  void operator()(const Path& path, MatrixShape shape, StoredMatrix& matrix) const {
    RandomWeights::operator()(path, shape, matrix);
    const std::string_view owner = path.parent()->name();
    if (owner != "output" && owner != "down" && owner != "detail_up") return;
    std::fill_n(matrix.data.data(), matrix.data.size(), std::byte{});
  }
  using RandomWeights::operator();
};
TEST(MatchSpan, LosesNothingWhereItsLayersAddNothing) {
  using A = Alone<SpanOfAll<SmallGqa, Stack<Grouping, SpanOfAll<SmallGqa, Grouping, OddThird>>, Half>>;
  auto running = running_both_ways<A>();
  A::visit(ZeroOutputs(), Path{} / "module", running.weights);
  const Story story(60, width, 3);
  EXPECT_TRUE(same_bits(running.whole(story), story.x));
}

// Equal tokens, zeros, and what is no number.

TEST(MatchSpan, EqualTokensMergeInTheirOrder) {
  auto running = running_both_ways<Shown<Matching<BipartiteSoftMatch<1, 4>>>>();
  Story story(12, width, 1);
  std::fill(story.x.values.begin(), story.x.values.end(), 0.5f);
  const Given slots = shared(story, running).slots;
  EXPECT_EQ(slots.positions, (Tokens{0, 3, 5, 6, 7, 8, 9, 10, 11})) << "0, 2 and 4 go to 1";
  EXPECT_EQ(slots.masses[0], 4.0f);
  auto centroids = running_both_ways<Shown<Centroids>>();
  EXPECT_EQ(shared(story, centroids).slots.positions, (Tokens{1, 3, 5, 6, 7, 8, 9, 10, 11})) << "(0 + 1 + 2 + 4) / 4";
}
TEST(MatchSpan, RowsOfZerosAndOfNoNumbersAreLikeNoOther) {
  auto running = running_both_ways<Shown<Half>>();
  Story story(12, width, 1);
  for (const Index t : {0, 4, 5})
    for (Index c = 0; c < width; ++c) story.at(t, c) = 0.0f;
  const auto zeros = shared(story, running);
  EXPECT_EQ(zeros.slots.rows.rows, 6);
  for (const float value : zeros.y.values) ASSERT_TRUE(std::isfinite(value));
  // A row without numbers stays alone while there are others.
  auto some = running_both_ways<Shown<Matching<BipartiteSoftMatch<1, 3>>>>();
  for (Index c = 0; c < width; ++c) story.at(2, c) = std::numeric_limits<float>::quiet_NaN();
  const auto with = shared(story, some);
  EXPECT_EQ(with.slots.rows.rows, 8);
  for (Index t = 0; t < 12; ++t)
    for (Index c = 0; c < width; ++c) ASSERT_EQ(std::isfinite(with.y.view()(t, c)), t != 2);
}

// What a token may depend on.

/// Of 8 other endings, those that change what is made of the first tokens, although layers look at no other row.
template <class Policy>
int leaks() {
  auto running = running_both_ways<Shown<Policy>>();
  const Story story(40, width, 1);
  const Matrix whole = running.whole(story);
  int found = 0;
  for (std::uint64_t seed = 0; seed < 8; ++seed)
    found += same_bits(running.whole(story.after(20, Story(40, width, 50 + seed))).middle_rows(0, 20),
                       whole.middle_rows(0, 20))
                 ? 0
                 : 1;
  return found;
}
TEST(MatchSpan, LaterTokensDecideWhichEarlierOnesMerge) {
  EXPECT_GE(leaks<Neighbours>(), 4) << "of neighbours alone, but of those of the whole sequence";
  EXPECT_EQ(leaks<Half>(), 8);
  EXPECT_EQ(leaks<Redundant>(), 8);
  EXPECT_EQ(leaks<Nothing>(), 0) << "the layers themselves look at no other row";
}
TEST(MatchSpan, RefusesPassesThatSeeNoLaterTokens) {
  auto running = running_both_ways<Shown<Half>>();
  const Story story(5, width, 1);
  auto cache = running.cache_of(5);
  EXPECT_EQ(code_of([&] { (void)running.extend(cache, story, 5); }), ErrorCode::op_argument) << "caches";
  running.mask = AttentionMask::causal;
  try {
    (void)running.whole(story);
    FAIL() << "nothing was thrown";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::op_argument);
    EXPECT_NE(std::string(error.what()).find("a merging that is not causal in a causal model"), std::string::npos);
  }
}

// Sequences side by side.

TEST(MatchSpan, SequencesDoNotMixInABatch) {
  using A = Alone<SpanOfAll<SmallGqa, Stack<Grouping, SpanOfAll<SmallGqa, Grouping, Redundant>>, HalfOfOthers>>;
  auto running = running_both_ways<A>();
  const Story stories[] = {Story(60, width, 1), Story(60, width, 2), Story(60, width, 3)};
  const Matrix all = running({{&stories[2], 0, 60}, {&stories[0], 0, 1}, {&stories[0], 0, 0}, {&stories[1], 0, 33}});
  EXPECT_TRUE(same_bits(all.middle_rows(0, 60), running.whole(stories[2])));
  EXPECT_TRUE(same_bits(all.middle_rows(60, 1), running.whole(stories[0], 1)));
  EXPECT_TRUE(same_bits(all.middle_rows(61, 33), running.whole(stories[1], 33)));
}

// Devices whose memory is not the host's.

template <class A>
void expect_the_same_far_away() {
  auto running = running_both_ways<A>();
  Running<A, FarDevice> far{FarDevice({.threads = 2, .isa = Isa::baseline})};
  far.mask = AttentionMask::bidirectional;
  const Story stories[] = {Story(30, width, 1), Story(17, width, 2)};
  EXPECT_TRUE(same_bits(far({{&stories[0], 0, 30}, {&stories[1], 0, 17}}),
                        running({{&stories[0], 0, 30}, {&stories[1], 0, 17}})));
  EXPECT_GT(far.device.to_host, 0);
}
TEST(MatchSpan, RunsWhereTheHostCannotRead) {
  expect_the_same_far_away<Shown<Redundant>>();
  expect_the_same_far_away<Alone<LearnedSlots<Watched<Times<width, 2>>, SmallMla, 5>>>();
}

// What the papers say.

struct FrozenInflation : MatchedInflation {
  static constexpr Index gate_rank = 4, detail_rank = 3;
};
template <class Match, class Protect>
void expect_the_papers(const std::string& name) {
  using Inflation = TokenInflation<MatchedSpec, FrozenInflation>;
  FrozenSpan<MatchSpan<Twice, Matching<Match, Protect>, Inflation>> span(name);
  auto& inflation = span.weights.inflation;
  span.frozen.load("gate_down", inflation.gate_down.weight.data.view());
  span.frozen.load("gate_up", inflation.gate_up.weight.data.view());
  span.frozen.load("detail_down", inflation.detail_down.weight.data.view());
  span.frozen.load("detail_up", inflation.detail_up.weight.data.view());
  span.run();
  EXPECT_EQ(Tokens(span.saved.into.data, span.saved.into.data + span.count), span.frozen.integers(name + ".into"));
  span.expect(span.all(span.saved.merged.slots), "slots");
  span.expect(View<const double>(span.saved.merged.masses.data, span.saved.merged.masses.size), "mass");
  span.expect(span.y.view(), "y");
  span.expect(span.dx.view(), "dx");
  const auto& gradients = span.gradients.inflation;
  span.expect(gradients.gate_down.weight.data.view(), "dgate_down");
  span.expect(gradients.gate_up.weight.data.view(), "dgate_up");
  span.expect(gradients.detail_down.weight.data.view(), "ddetail_down");
  span.expect(gradients.detail_up.weight.data.view(), "ddetail_up");
}
TEST(MatchSpan, IsWhatThePapersSay) {
  using Some = ProtectTokens<3, 7>;
  expect_the_papers<BipartiteSoftMatch<1, 3>, Some>("tome_third");
  expect_the_papers<BipartiteSoftMatch<1, 2, 1>, NoProtect>("tome_half");
  expect_the_papers<EnergyMatch<1, 4>, Some>("energy_quarter");
  expect_the_papers<SequenceTopR<1, 4>, Some>("neighbours");
  expect_the_papers<SequenceTopR<1, 3, 1>, NoProtect>("odd_neighbours");
}

// The plan alone.

TEST(MatchPlan, SortsTokensByTheirSlots) {
  Cpu device({.threads = 1});
  const Tokens none(9);
  const Flat flat({{0, &none, 0, 6}, {1, &none, 0, 0}, {2, &none, 0, 3}});
  const Tokens into = {3, 1, 5, 3, 3, 5, 1, 1, 2};
  const MatchPlan<Cpu> plan(device, flat.batch(), {into.data(), 9});
  const auto list = [](auto of) { return Tokens(of.begin(), of.end()); };
  EXPECT_EQ(list(plan.order()), (Tokens{0, 3, 4, 1, 2, 5, 6, 7, 8}));
  EXPECT_EQ(list(plan.slot()), (Tokens{0, 0, 0, 1, 2, 2, 0, 0, 1}));
  EXPECT_EQ(list(plan.single()), (Tokens{0, 0, 0, 1, 0, 0, 0, 0, 1}));
  EXPECT_EQ(list(plan.first()), (Tokens{0, 3, 4, 0, 2}));
  EXPECT_EQ(list(plan.last()), (Tokens{2, 3, 5, 1, 2}));
  EXPECT_EQ(list(plan.leader()), (Tokens{0, 1, 2, 6, 8}));
  EXPECT_EQ(plan.size(), 5);
  for (std::size_t t = 0; t < 9; ++t)
    EXPECT_EQ(plan.order()[static_cast<std::size_t>(plan.place()[t])], static_cast<std::int32_t>(t));
  EXPECT_EQ(plan.chunks()[2].begin, 3);
  EXPECT_EQ(plan.chunks()[2].count, 2);
  const auto code = [&](Tokens bad) {
    return code_of([&] { MatchPlan<Cpu>(device, flat.batch(), {bad.data(), static_cast<Index>(bad.size())}); });
  };
  EXPECT_EQ(code({3, 1, 5, 3, 3, 5, 1, 2, 2}), ErrorCode::op_shape) << "a chain";
  EXPECT_EQ(code({3, 1, 6, 3, 3, 5, 1, 1, 2}), ErrorCode::op_shape) << "another sequence";
  EXPECT_EQ(code({0}), ErrorCode::op_shape);
}

}  // namespace match_span_test
