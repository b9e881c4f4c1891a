// Groups that close when their window is complete: which pairs merge, and plans that know no more than tokens so far.
#include <guild/modules/merge_window.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/modules/merge_plan.hpp>

#include "../support/ragged.hpp"

namespace merge_window_test {

using namespace guild;
using namespace guild_test;
using Budget = WindowQuota<6, 2>;
static_assert(WindowBudget<Budget> && !WindowBudget<TokenBucket<1, 2, 4, 8>>);
static_assert(Budget::max_slots(0) == 0 && Budget::max_slots(1) == 4 && Budget::max_slots(6) == 4 &&
              Budget::max_slots(7) == 8);

std::array<bool, 6> ends_of(std::array<float, 6> novelty, Index guarded = -1) {
  std::array<OpenToken, 6> window;
  for (std::size_t i = 0; i < 6; ++i) window[i] = {.novelty = novelty[i], .guarded = static_cast<Index>(i) == guarded};
  return Budget::ends(window);
}
TEST(WindowQuota, MergesThePairsThatAreMostAlike) {
  const float none = std::numeric_limits<float>::quiet_NaN();
  using Ends = std::array<bool, 6>;
  EXPECT_EQ(ends_of({0, 0.3f, 0, 0.2f, 0, 0.1f}), (Ends{true, true, false, true, false, true}));
  EXPECT_EQ(ends_of({0, 0.1f, 0, 0.2f, 0, 0.3f}), (Ends{false, true, false, true, true, true}));
  EXPECT_EQ(ends_of({0, 0.2f, 0, 0.2f, 0, 0.2f}), (Ends{false, true, false, true, true, true}))
      << "equal ones in order";
  EXPECT_EQ(ends_of({0, 0.1f, 0, 0.2f, 0, 0.3f}, 0), (Ends{true, true, false, true, false, true})) << "protected";
  EXPECT_EQ(ends_of({0, 0.1f, 0, 0.2f, 0, 0.3f}, 3), (Ends{false, true, true, true, false, true}));
  EXPECT_EQ(ends_of({0, none, 0, 0.2f, 0, 1}), (Ends{true, true, false, true, false, true}));
  EXPECT_EQ(ends_of({0, none, 0, none, 0, none}), (Ends{false, true, false, true, true, true})) << "always as many";
}

/// What a plan says of a sequence, of one pass or several.
struct Told {
  Tokens closes, slots, singles, first, last, closed, positions, ids, guarded;
  friend bool operator==(const Told&, const Told&) = default;
};
struct Story {
  Tokens ids, positions, guarded;
  std::vector<float> novelty, masses;
  explicit Story(Index count, std::uint64_t seed) : ids(random_tokens(count, 97, seed)) {
    Random random(seed, 7);
    for (Index t = 0; t < count; ++t) {
      positions.push_back(static_cast<std::int32_t>(3 * t + t % 2));
      guarded.push_back(random.uniform() < 0.1 ? 1 : 0);
      novelty.push_back(static_cast<float>(random.uniform()));
      masses.push_back(static_cast<float>(1 + t % 3));
    }
  }
  [[nodiscard]] Index size() const { return static_cast<Index>(ids.size()); }
};
using States = MergeStates<4, MergeStateOf<Budget>>;

template <class Position = LastPosition>
void tell(Told& told, const Story& story, Index begin, Index end, States* states = nullptr) {
  Cpu device({.threads = 1});
  const Chunk chunk{0, 0, end - begin, begin};
  const Batch batch{{nullptr, end - begin}, {nullptr, end - begin}, std::span(&chunk, 1)};
  const auto part = [&](const auto& all) {
    return std::span(all).subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin));
  };
  const auto of = [&](int) -> States& { return *states; };
  const MergePlan plan(device, Budget{}, batch,
                       {.novelty = part(story.novelty),
                        .guarded = part(story.guarded),
                        .tokens = part(story.ids),
                        .positions = part(story.positions),
                        .masses = part(story.masses)},
                       states != nullptr ? Caches<States>(of) : Caches<States>(), Position{});
  const auto add = [](Tokens& to, std::span<const std::int32_t> from) {
    to.insert(to.end(), from.begin(), from.end());
  };
  add(told.closes, plan.closes()), add(told.slots, plan.slots()), add(told.singles, plan.singles());
  add(told.first, plan.first()), add(told.last, plan.last()), add(told.closed, plan.closed());
  add(told.positions, plan.positions()), add(told.ids, plan.tokens()), add(told.guarded, plan.closing_only());
}
template <class Position = LastPosition>
Told whole(const Story& story, Index count) {
  Told told;
  tell<Position>(told, story, 0, count);
  return told;
}

TEST(WindowQuota, PlansCloseAllGroupsOfAWindowWithItsLastToken) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Story story(40, seed);
    const Told told = whole(story, 40);
    ASSERT_EQ(told.first.size(), 24U) << "four slots of each of six windows";
    for (std::size_t t = 0; t < 40; ++t) {
      EXPECT_EQ(told.closes[t], t % 6 == 5 ? 1 : 0);
      EXPECT_EQ(told.slots[t], static_cast<std::int32_t>((t + 1) / 6 * 4) - 1);
    }
    std::int32_t next = 0;
    for (std::size_t j = 0; j < told.first.size(); ++j) {
      const auto last = static_cast<std::size_t>(told.last[j]);
      EXPECT_EQ(told.first[j], next);
      EXPECT_EQ(told.closed[j], static_cast<std::int32_t>(j / 4 * 6 + 5));
      EXPECT_LE(told.last[j] - told.first[j], 1);
      EXPECT_EQ(told.positions[j], story.positions[last]);
      EXPECT_EQ(told.ids[j], story.ids[last]);
      next = told.last[j] + 1;
    }
    for (std::int32_t t = 0; t < 40; ++t) {
      const bool begins = std::count(told.first.begin(), told.first.end(), t) > 0;
      EXPECT_EQ(told.singles[static_cast<std::size_t>(t)], t % 6 == 5 && begins ? 1 : 0);
    }
  }
}
TEST(WindowQuota, GroupsStandWhereTheirPositionSays) {
  const Story story(12, 3);
  const Told last = whole(story, 12), first = whole<FirstPosition>(story, 12),
             mean = whole<CentroidPosition>(story, 12);
  for (std::size_t j = 0; j < last.first.size(); ++j) {
    if (last.guarded[j] != 0) continue;
    EXPECT_EQ(first.positions[j], story.positions[static_cast<std::size_t>(last.first[j])]);
    double place = 0, mass = 0;
    for (auto t = static_cast<std::size_t>(last.first[j]); t <= static_cast<std::size_t>(last.last[j]); ++t)
      place += double{story.masses[t]} * story.positions[t], mass += double{story.masses[t]};
    EXPECT_EQ(mean.positions[j], static_cast<std::int32_t>(std::floor(place / mass)));
  }
}
TEST(WindowQuota, PlansAreTheSameInAnySplitAndAfterWrongTokens) {
  const Story story(31, 5), wrong(31, 6);
  const Told expected = whole(story, 31);
  for (Index piece = 1; piece <= 13; ++piece) {
    States states;
    states.reserve(40);
    Told told, forgotten;
    for (Index begin = 0; begin < 31; begin += piece) {
      const Index end = std::min(begin + piece, Index{31});
      tell(forgotten, wrong, begin, std::min(begin + 1 + begin % 7, Index{31}), &states);
      states.rewind(states.mark(begin));  // more than a chunk too, to where they began
      States copy = states;
      tell(forgotten, wrong, begin, end, &states);
      tell(told, story, begin, end, &copy);
      states = copy;
      if (begin == 0) { EXPECT_EQ(told, whole(story, end)) << "a prefix is what the whole begins with"; }
    }
    EXPECT_EQ(told, expected) << piece;
  }
}
/// From anywhere that can be reached the plan goes on as that of the whole.
TEST(WindowQuota, PlansGoOnAfterGoingBackAsFarAsMayBe) {
  const Story story(31, 5), wrong(31, 6);
  const Told expected = whole(story, 31);
  for (Index length = 1; length <= 24; ++length)
    for (Index to = std::max(length - 4, Index{1}); to <= length; ++to) {
      States states;
      states.reserve(31);
      Told told, forgotten;
      tell(told, story, 0, to, &states);
      tell(forgotten, wrong, to, length, &states);
      ASSERT_LE(states.oldest(), to);
      states.rewind(states.mark(to));
      tell(told, story, to, 31, &states);
      ASSERT_EQ(told, expected) << length << " to " << to;
    }
}

}  // namespace merge_window_test
