// Layers on a number of learned slots of whole sequences.
#include <guild/modules/learned_slots.hpp>

#include <gtest/gtest.h>

#include "../core/code_of.hpp"
#include "../support/matching_fixture.hpp"
#include "../support/merged_layers.hpp"

namespace learned_slots_test {

using guild::Index;
using namespace guild;
using namespace guild_test;

TEST(LearnedSlots, AreWhatThePapersSay) {
  FrozenSpan<LearnedSlots<Twice, MatchedSpec, 5>> span("soft");
  span.frozen.load("phi", span.weights.logits.weight.data.view());
  span.run();
  span.expect(span.all(span.saved.slots), "slots");
  span.expect(span.y.view(), "y");
  span.expect(span.dx.view(), "dx");
  span.expect(span.gradients.logits.weight.data.view(), "dphi");
}

constexpr Index width = SmallGqa::config.hidden;
using Grouping = TwoOf<SmallGqa, Gqa<SmallGqa>>;
using Span = LearnedSlots<Watched<Grouping>, SmallGqa, 7>;

template <class A>
Running<A> running_both_ways() {
  Running<A> running{Cpu({.threads = 2, .isa = Isa::baseline})};
  running.mask = AttentionMask::bidirectional;
  return running;
}

TEST(LearnedSlots, OfASequenceAreThoseItHasInABatch) {
  auto running = running_both_ways<Alone<Span>>();
  const Story stories[] = {Story(40, width, 1), Story(40, width, 2), Story(40, width, 3)};
  Watched<Grouping>::given.clear();
  const Matrix all = running({{&stories[2], 0, 40}, {&stories[0], 0, 1}, {&stories[0], 0, 0}, {&stories[1], 0, 33}});
  const auto given = Watched<Grouping>::given;
  ASSERT_EQ(given.size(), 4U);
  for (const std::size_t i : {0U, 1U, 3U}) EXPECT_EQ(given[i].positions, (Tokens{0, 1, 2, 3, 4, 5, 6}));
  EXPECT_TRUE(given[2].positions.empty());
  for (Index j = 0; j < 7; ++j)
    EXPECT_TRUE(same_bits(given[1].rows.middle_rows(j, 1), stories[0].x.middle_rows(0, 1))) << "a mean of one";
  EXPECT_TRUE(same_bits(all.middle_rows(0, 40), running.whole(stories[2])));
  EXPECT_TRUE(same_bits(all.middle_rows(40, 1), running.whole(stories[0], 1)));
  EXPECT_TRUE(same_bits(all.middle_rows(41, 33), running.whole(stories[1], 33)));
}
TEST(LearnedSlots, LoseNothingWhereTheirLayersAddNothing) {
  auto running = running_both_ways<Alone<LearnedSlots<Times<width>, SmallGqa, 3>>>();
  const Story story(30, width, 3);
  EXPECT_TRUE(same_bits(running.whole(story), story.x));
}
/// Each token takes from slots that are means of all tokens, so all of them change with the last one.
TEST(LearnedSlots, LookAhead) {
  auto running = running_both_ways<Alone<LearnedSlots<Times<width, 2>, SmallGqa, 3>>>();
  const Story story(30, width, 3);
  const Matrix one = running.whole(story), other = running.whole(story.after(29, Story(30, width, 4)));
  for (Index t = 0; t < 29; ++t) EXPECT_FALSE(same_bits(one.middle_rows(t, 1), other.middle_rows(t, 1)));
  running.mask = AttentionMask::causal;
  EXPECT_EQ(code_of([&] { (void)running.whole(story); }), ErrorCode::op_argument);
}

}  // namespace learned_slots_test
