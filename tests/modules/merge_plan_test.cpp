// Plans of merging: what the groups are, and that they depend on nothing but the tokens of a sequence so far.
#include <guild/modules/merge_plan.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <type_traits>
#include <vector>

#include <guild/cpu.hpp>

#include "../core/code_of.hpp"
#include "../support/far_device.hpp"
#include "../support/ragged.hpp"

namespace merge_plan_test {

using namespace guild;
using namespace guild_test;
using Bucket = TokenBucket<3, 7, 3, 5>;
constexpr Index kept = 5;
using States = MergeStates<kept>;

/// A sequence's tokens, with what makes its plan.
struct Story {
  Tokens tokens{}, guarded{};
  std::vector<float> novelty{}, masses{};
  Tokens positions{};  ///< as those of slots may be

  Story(Index count, std::uint64_t seed) : tokens(random_tokens(count, 97, seed)) {
    Random random(seed, 0x73746f7279);
    for (Index i = 0; i < count; ++i) {
      novelty.push_back(static_cast<float>(random.uniform()));
      guarded.push_back(random.uniform() < 0.1 ? 1 : 0);
      masses.push_back(static_cast<float>(1 + static_cast<int>(random.uniform() * 4.0)));
      positions.push_back((i > 0 ? positions.back() + 1 : 0) + static_cast<std::int32_t>(random.uniform() * 5.0));
    }
    novelty[0] = 1.0f;
  }
  [[nodiscard]] Index size() const { return static_cast<Index>(tokens.size()); }
};

struct Slot {
  std::int32_t first, last, closing_only, token, position;
  friend bool operator==(const Slot&, const Slot&) = default;
};
/// The plan of a sequence, of one pass or several.
struct Told {
  Tokens closes{}, slots{}, singles{};
  std::vector<Slot> made{};
  friend bool operator==(const Told&, const Told&) = default;

  /// What is told of the first tokens.
  [[nodiscard]] Told first(Index count) const {
    Told some;
    const auto to = [&](const Tokens& all) { return Tokens(all.begin(), all.begin() + count); };
    some.closes = to(closes), some.slots = to(slots), some.singles = to(singles);
    for (const Slot& slot : made)
      if (slot.last < count) some.made.push_back(slot);
    return some;
  }
};

/// Of the group of tokens [first, last].
template <class Position>
std::int32_t position_of(const Story& story, std::size_t first, std::size_t last) {
  if (std::is_same_v<Position, LastPosition> || story.guarded[last] != 0) return story.positions[last];
  if (std::is_same_v<Position, FirstPosition>) return story.positions[first];
  std::int64_t sum = 0, mass = 0;
  for (std::size_t t = first; t <= last; ++t) {
    const auto of = static_cast<std::int64_t>(story.masses[t]);
    sum += of * story.positions[t], mass += of;
  }
  return static_cast<std::int32_t>(sum / mass);
}
/// From the closing tokens alone, each number on its own.
template <class Position = LastPosition>
Told by_definition(const Story& story, const std::vector<bool>& closes) {
  Told told;
  Index last = -1;
  for (Index t = 0; t < static_cast<Index>(closes.size()); ++t) {
    const auto row = static_cast<std::size_t>(t);
    told.closes.push_back(closes[row]);
    told.slots.push_back(std::accumulate(told.closes.begin(), told.closes.end(), -1));
    told.singles.push_back(closes[row] && t - last == 1);
    if (!closes[row]) continue;
    told.made.push_back({static_cast<std::int32_t>(last + 1), static_cast<std::int32_t>(t), story.guarded[row],
                         story.tokens[row], position_of<Position>(story, static_cast<std::size_t>(last + 1), row)});
    last = t;
  }
  return told;
}

struct Piece {
  int sequence = 0;
  Index begin = 0, end = 0;
};
/// Several sequences whose plans are made pass by pass.
struct Telling {
  std::vector<Story> stories;
  std::vector<Told> told{stories.size()};
  Cpu device{{.threads = 1}};

  /// One pass, which adds to what is told of each sequence.
  template <class Budget = Bucket, class Position = LastPosition, class Cache = MergeStates<1>>
  void tell(const std::vector<Piece>& pieces, std::vector<Cache>* caches = nullptr) {
    Tokens tokens, guarded, positions;
    std::vector<float> novelty, masses;
    std::vector<Chunk> chunks;
    for (const auto& [sequence, begin, end] : pieces) {
      const Story& story = stories[static_cast<std::size_t>(sequence)];
      chunks.push_back({sequence, static_cast<Index>(tokens.size()), end - begin, begin});
      const auto add = [first = begin, last = end](auto& to, const auto& from) {
        to.insert(to.end(), from.begin() + first, from.begin() + last);
      };
      add(tokens, story.tokens), add(guarded, story.guarded), add(positions, story.positions);
      add(novelty, story.novelty), add(masses, story.masses);
    }
    const auto size = static_cast<Index>(tokens.size());
    const Batch batch{{nullptr, size}, {nullptr, size}, chunks};
    const auto of = [&](int sequence) -> Cache& { return (*caches)[static_cast<std::size_t>(sequence)]; };
    const MergePlan plan(
        device, Budget{}, batch,
        {.novelty = novelty, .guarded = guarded, .tokens = tokens, .positions = positions, .masses = masses},
        caches != nullptr ? Caches<Cache>(of) : Caches<Cache>(), Position{});
    ASSERT_EQ(plan.chunks().size(), chunks.size());
    ASSERT_EQ(plan.closes().size(), tokens.size());
    ASSERT_EQ(plan.slots().size(), tokens.size());
    ASSERT_EQ(plan.singles().size(), tokens.size());
    Index slot = 0;
    for (std::size_t i = 0; i < chunks.size(); ++i) {
      const Chunk &chunk = chunks[i], &inner = plan.chunks()[i];
      Told& all = told[static_cast<std::size_t>(chunk.sequence)];
      EXPECT_EQ(inner.sequence, chunk.sequence);
      EXPECT_EQ(inner.begin, slot);
      EXPECT_EQ(inner.first_position, static_cast<Index>(all.made.size()));
      const auto add = [&](Tokens& to, std::span<const std::int32_t> from) {
        to.insert(to.end(), from.begin() + chunk.begin, from.begin() + chunk.begin + chunk.count);
      };
      add(all.closes, plan.closes()), add(all.slots, plan.slots()), add(all.singles, plan.singles());
      for (Index end = slot + inner.count; slot < end; ++slot) {
        const auto j = static_cast<std::size_t>(slot);
        all.made.push_back(
            {plan.first()[j], plan.last()[j], plan.closing_only()[j], plan.tokens()[j], plan.positions()[j]});
      }
    }
    EXPECT_EQ(slot, plan.size());
  }
  [[nodiscard]] static std::vector<Story> of(int count, Index size, std::uint64_t seed) {
    std::vector<Story> all;
    for (int i = 0; i < count; ++i) all.emplace_back(size + 3 * i, seed + static_cast<std::uint64_t>(i));
    return all;
  }
};

/// The plan of the first `count` tokens of a story as one whole sequence.
template <class Budget = Bucket, class Position = LastPosition>
Told whole(const Story& story, Index count) {
  Telling telling{{story}};
  telling.tell<Budget, Position>({{0, 0, count}});
  return telling.told[0];
}
template <class Budget = Bucket, class Position = LastPosition>
Told whole(const Story& story) {
  return whole<Budget, Position>(story, story.size());
}
std::vector<States> empty_states(std::size_t count, Index room = 400) {
  std::vector<States> all(count);
  for (States& states : all) states.reserve(room);
  return all;
}

TEST(MergePlan, SaysWhatTheGroupsOfASmallSequenceAre) {
  Story story(7, 1);
  story.novelty = {1.0f, 0.1f, 0.6f, 0.5f, 0.0f, 0.0f, 0.9f};
  story.guarded = {0, 0, 0, 0, 0, 1, 0};
  story.tokens = {10, 11, 12, 13, 14, 15, 16};
  story.positions = {0, 2, 3, 7, 8, 10, 11};
  story.masses = {1, 1, 2, 1, 1, 4, 1};
  // on arrival the bucket holds 4 3 4 3 2 3 2 of 4; a closing takes 2, and groups have up to 3 tokens
  const Told told = whole<TokenBucket<1, 2, 2, 3>>(story);
  EXPECT_EQ(told.closes, (Tokens{1, 0, 1, 1, 0, 1, 1}));
  EXPECT_EQ(told.slots, (Tokens{0, 0, 1, 2, 2, 3, 4}));
  EXPECT_EQ(told.singles, (Tokens{1, 0, 0, 1, 0, 0, 1}));
  EXPECT_EQ(
      told.made,
      (std::vector<Slot>{{0, 0, 0, 10, 0}, {1, 2, 0, 12, 3}, {3, 3, 0, 13, 7}, {4, 5, 1, 15, 10}, {6, 6, 0, 16, 11}}));
  const auto positions = [&]<class Position>(Position, std::int32_t second, std::int32_t fourth) {
    const Told other = whole<TokenBucket<1, 2, 2, 3>, Position>(story);
    EXPECT_EQ(other.made[1].position, second);
    EXPECT_EQ(other.made[3].position, fourth);
    EXPECT_EQ(other.made[4].position, 11);
  };
  positions(FirstPosition{}, 2, 10);     // the fourth is its last token alone
  positions(CentroidPosition{}, 2, 10);  // (2 + 2 * 3) / 3
  story.guarded[5] = 0, story.novelty[5] = 0.5f;
  positions(FirstPosition{}, 2, 8);
  positions(CentroidPosition{}, 2, 9);  // (8 + 4 * 10) / 5
}

TEST(MergePlan, GroupsAreAPartitionAsDefined) {
  const auto check = [&]<class Budget>(Budget, std::uint64_t seed) {
    const Story story(120, seed);
    const Told told = whole<Budget>(story);
    MergeState state;
    std::vector<bool> closes;
    for (std::size_t t = 0; t < story.novelty.size(); ++t)
      closes.push_back(Budget::step(state, story.novelty[t] >= 0.5f || story.guarded[t] != 0));
    EXPECT_EQ(told, by_definition(story, closes));
    std::int32_t next = 0;
    for (const Slot& slot : told.made) {
      EXPECT_EQ(slot.first, next) << "contiguous, from 0 on";
      EXPECT_LE(slot.first, slot.last);
      if (Budget::longest > 0) { EXPECT_LE(slot.last + 1 - slot.first, Budget::longest); }
      next = slot.last + 1;
    }
    EXPECT_EQ(next, told.closes.rend() - std::find(told.closes.rbegin(), told.closes.rend(), 1)) << "up to the last";
    EXPECT_TRUE(std::is_sorted(told.slots.begin(), told.slots.end()));
    EXPECT_EQ(told.slots.back() + 1, static_cast<std::int32_t>(told.made.size()));
    EXPECT_LE(static_cast<Index>(told.made.size()), Budget::max_slots(story.size()));
  };
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    check(Bucket{}, seed);
    check(TokenBucket<1, 2, 4, 8>{}, seed);
    check(Unbounded<>{}, seed);
    check(FixedStride<4>{}, seed);
    check(Always{}, seed);
  }
}

TEST(MergePlan, WithoutMergingEveryTokenIsItsSlot) {
  const Story story(40, 3);
  const Told told = whole<Always>(story);
  EXPECT_EQ(told.closes, Tokens(40, 1));
  EXPECT_EQ(told.singles, Tokens(40, 1));
  for (std::size_t t = 0; t < 40; ++t) {
    EXPECT_EQ(told.slots[t], static_cast<std::int32_t>(t));
    const auto position = static_cast<std::int32_t>(t);
    EXPECT_EQ(told.made[t], (Slot{position, position, story.guarded[t], story.tokens[t], story.positions[t]}));
  }
}

TEST(MergePlan, ThatOfAPrefixIsTheFirstOfTheWhole) {
  const auto check = []<class Budget>(Budget, std::uint64_t seed) {
    const Story story(60, seed);
    const Told all = whole<Budget>(story);
    for (Index count = 1; count <= story.size(); ++count)
      EXPECT_EQ(whole<Budget>(story, count), all.first(count)) << count;
  };
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    check(Bucket{}, seed);
    check(Reserve<TokenBucket<1, 2, 4, 8>, 2>{}, seed);
    check(Unbounded<>{}, seed);
    check(FixedStride<4>{}, seed);
  }
}

/// The R most novel of all tokens close a group: what no causal plan can be.
Told of_the_most_novel(const Story& story, Index count) {
  std::vector<std::size_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return story.novelty[a] != story.novelty[b] ? story.novelty[a] > story.novelty[b] : a < b;
  });
  std::vector<bool> closes(order.size());
  for (std::size_t i = 0; i < (order.size() + 1) / 2; ++i) closes[order[i]] = true;
  return by_definition(story, closes);
}

TEST(MergePlan, AChoiceAmongAllTokensWouldNotBeStable) {
  const Story story(60, 1);
  const Told all = of_the_most_novel(story, story.size());
  Index differ = 0;
  for (Index count = 1; count <= story.size(); ++count) differ += of_the_most_novel(story, count) != all.first(count);
  EXPECT_GT(differ, 30) << "the test of prefixes would not see one";
}

template <class Position>
void expect_the_same_in_any_split(std::uint64_t seeds) {
  Random random(9, 9);
  for (std::uint64_t seed = 0; seed < seeds; ++seed) {
    Telling telling{Telling::of(3, 70, 100 + seed)};
    std::vector<States> states = empty_states(3);
    const Index most = seed == 0 ? 1 : seed == 1 ? Bucket::longest : seed == 2 ? kept + 1 : 20;
    for (bool left = true; left;) {
      std::vector<Piece> pieces;
      for (int s = 0; s < 3; ++s) {
        const auto i = static_cast<std::size_t>(s);
        const Index begin = states[i].length(), size = telling.stories[i].size();
        const Index count = seed < 3 ? most : static_cast<Index>(random.uniform() * static_cast<double>(most));
        pieces.push_back({s, begin, std::min(begin + count, size)});  // some have no token
      }
      if (seed % 2 == 1) std::reverse(pieces.begin(), pieces.end());
      telling.tell<Bucket, Position>(pieces, &states);
      left = false;
      for (std::size_t i = 0; i < 3; ++i) left = left || states[i].length() < telling.stories[i].size();
    }
    for (std::size_t i = 0; i < 3; ++i) {
      const Told& told = telling.told[i];
      EXPECT_EQ(told, (whole<Bucket, Position>(telling.stories[i]))) << seed << ' ' << i;
      EXPECT_EQ(told, by_definition<Position>(telling.stories[i], {told.closes.begin(), told.closes.end()}));
      for (std::size_t j = 1; j < told.made.size(); ++j)
        ASSERT_LT(told.made[j - 1].position, told.made[j].position) << "slots stand as their tokens do";
    }
  }
}
TEST(MergePlan, IsTheSameInAnySplitAndBatch) {
  expect_the_same_in_any_split<LastPosition>(40);
  expect_the_same_in_any_split<FirstPosition>(10);
  expect_the_same_in_any_split<CentroidPosition>(10);
}

/// A sequence of which some tokens were other ones for a while.
struct Drafting {
  Telling telling;
  std::vector<States> states = empty_states(1);

  explicit Drafting(std::uint64_t seed) : telling{{Story(90, seed)}} {}
  void extend(Index count) { telling.tell({{0, states[0].length(), states[0].length() + count}}, &states); }
  /// Takes in wrong tokens, `at_once` of them each time, and goes back.
  void draft(Index count, Index at_once, std::uint64_t seed) {
    const Index length = states[0].length();
    Telling other{{Story(length + count, seed)}};
    other.told = telling.told;
    const States::Mark mark = states[0].mark();
    for (Index done = 0; done < count; done += at_once)
      other.tell({{0, length + done, length + std::min(done + at_once, count)}}, &states);
    ASSERT_EQ(states[0].length(), length + count);
    states[0].rewind(seed % 2 == 0 ? mark : states[0].mark(length));
    EXPECT_EQ(states[0].length(), length);
  }
  void expect_as_never_drafted() {
    extend(90 - states[0].length());
    EXPECT_EQ(telling.told[0], whole(telling.stories[0]));
  }
};

TEST(MergePlan, ForgetsWrongTokens) {
  for (std::uint64_t seed = 0; seed < 20; ++seed)
    for (Index wrong = 1; wrong <= kept; ++wrong) {
      Drafting drafting(seed);
      for (Index step = 0; step < 10; ++step) {
        drafting.extend(1 + (step + wrong) % 6);
        drafting.draft(wrong, 1 + step % 3, 1000 + seed + static_cast<std::uint64_t>(step));
      }
      drafting.expect_as_never_drafted();
    }
}

TEST(MergePlan, ForgetsMoreTokensThanItKeepsIfTheyCameAtOnce) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Drafting drafting(seed);
    for (const Index length : {1, 4, 13, 30}) {
      drafting.extend(length);
      drafting.draft(kept + 1 + static_cast<Index>(seed), 100, 2000 + seed);
      drafting.draft(1 + static_cast<Index>(seed) % kept, 2, 3000 + seed);  // as far as before
    }
    drafting.expect_as_never_drafted();
  }
}

TEST(MergePlan, APassWithoutTokensOfASequenceLeavesItAsItWas) {
  Drafting drafting(8);
  drafting.extend(20);
  const Told before = drafting.telling.told[0];
  drafting.extend(kept + 4);
  drafting.extend(0);
  drafting.states[0].rewind(drafting.states[0].mark(20));
  drafting.telling.told[0] = before;
  drafting.expect_as_never_drafted();
}

TEST(MergePlan, BeginsAgain) {
  Drafting drafting(5);
  drafting.draft(50, 7, 6);
  drafting.expect_as_never_drafted();
}

TEST(MergePlan, ACopyGoesItsOwnWay) {
  Telling telling{{Story(60, 1), Story(60, 2)}};
  std::copy_n(telling.stories[0].novelty.begin(), 30, telling.stories[1].novelty.begin());
  std::copy_n(telling.stories[0].guarded.begin(), 30, telling.stories[1].guarded.begin());
  std::copy_n(telling.stories[0].tokens.begin(), 30, telling.stories[1].tokens.begin());
  telling.stories[1].positions = telling.stories[0].positions;
  std::vector<States> states = empty_states(2);
  telling.tell({{0, 0, 27}}, &states);
  telling.tell({{0, 27, 30}}, &states);
  states[1] = states[0];
  telling.told[1] = telling.told[0];
  telling.tell({{0, 30, 60}}, &states);
  telling.tell({{1, 30, 31}}, &states);
  telling.tell({{1, 31, 60}}, &states);
  EXPECT_EQ(telling.told[0], whole(telling.stories[0]));
  EXPECT_EQ(telling.told[1], whole(telling.stories[1]));
}

TEST(MergePlan, TheThresholdDecidesWhatIsNovel) {
  const Chunk chunk{0, 0, 4, 0};
  const Batch batch{{nullptr, 4}, {nullptr, 4}, {&chunk, 1}};
  Cpu device({.threads = 1});
  const std::vector<float> novelty = {1.0f, 0.25f, 0.2499f, std::numeric_limits<float>::quiet_NaN()};
  const MergePlan plan(device, Unbounded<>{}, batch, {.novelty = novelty, .threshold = 0.25f});
  EXPECT_TRUE(std::ranges::equal(plan.closes(), Tokens{1, 1, 0, 0}));
  EXPECT_TRUE(plan.tokens().empty()) << "none were given";
  EXPECT_EQ(plan.novel(), 2);
  const Tokens guarded = {0, 0, 1, 1};
  const MergePlan other(device, Unbounded<>{}, batch, {.novelty = novelty, .guarded = guarded, .threshold = 2.0f});
  EXPECT_TRUE(std::ranges::equal(other.closes(), Tokens{1, 0, 1, 1}));
  EXPECT_TRUE(std::ranges::equal(other.closing_only(), Tokens{0, 1, 1}));
  EXPECT_EQ(other.novel(), 0) << "of none but its novelty";
  const MergePlan poor(device, TokenBucket<1, 4, 1, 8>{}, batch, {.novelty = novelty, .threshold = 0.1f});
  EXPECT_EQ(poor.size(), 1);
  EXPECT_EQ(poor.novel(), 3) << "granted or not";
}

TEST(MergePlan, GrantsWhatIsWantedWhereMergingIsNotInForce) {
  const Chunk chunk{0, 0, 9, 0};
  const Batch batch{{nullptr, 9}, {nullptr, 9}, {&chunk, 1}};
  Cpu device({.threads = 1});
  const std::vector<float> novelty = {1, 1, 1, 0, 0, 0, 0, 1, 1};
  const auto closed_by = [&](auto budget, bool in_force) {
    const MergePlan plan(device, budget, batch, {.novelty = novelty, .in_force = in_force});
    return Tokens(plan.closes().begin(), plan.closes().end());
  };
  EXPECT_EQ(closed_by(TokenBucket<1, 3, 1, 3>{}, true), (Tokens{1, 0, 0, 1, 0, 0, 1, 0, 0}));
  EXPECT_EQ(closed_by(TokenBucket<1, 3, 1, 3>{}, false), (Tokens{1, 1, 1, 0, 0, 1, 0, 1, 1})) << "groups of 3 at most";
  EXPECT_EQ(closed_by(Reserve<TokenBucket<1, 3, 2, 3>, 1>{}, false), (Tokens{1, 1, 1, 0, 0, 1, 0, 1, 1}));
  EXPECT_EQ(closed_by(FixedStride<4>{}, false), (Tokens{1, 0, 0, 0, 1, 0, 0, 0, 1})) << "asks nobody";
  std::vector<MergeStates<16>> memory(1);
  const auto of = [&](int) -> MergeStates<16>& { return memory[0]; };
  EXPECT_EQ(code_of([&] {
              MergePlan(device, TokenBucket<1, 3, 1, 3>{}, batch, {.novelty = novelty, .in_force = false},
                        Caches<MergeStates<16>>(of));
            }),
            ErrorCode::op_argument);
  EXPECT_EQ(memory[0].length(), 0) << "nothing was taken in";
}

TEST(MergePlan, GoesWhereTheSlotsAreComputed) {
  FarDevice device({.threads = 1});
  const std::vector<Chunk> chunks = {{0, 0, 3, 0}, {1, 3, 0, 0}, {2, 3, 4, 0}};
  const Batch batch{{nullptr, 7}, {nullptr, 7}, chunks};
  const std::vector<float> novelty = {1.0f, 0.0f, 0.7f, 1.0f, 0.1f, 0.1f, 0.8f};
  const Tokens tokens = {5, 6, 7, 8, 9, 7, 4};
  Staged<FarDevice, std::int32_t> guarded(device, 7);
  flag_protected<ProtectTokens<7>>(tokens, guarded);
  const MergePlan plan(device, TokenBucket<1, 2, 2, 4>{}, batch,
                       {.novelty = novelty, .guarded = guarded.ready(), .tokens = tokens});
  auto scratch = device.scratch();
  const Batch slots = plan.batch(device, scratch);
  EXPECT_EQ(device.to_device, 2);
  check(slots);
  const auto listed = [&](DeviceView<const std::int32_t> from) {
    const Download list(device, from);
    return Tokens(list.view().begin(), list.view().end());
  };
  EXPECT_EQ(listed(slots.tokens), (Tokens{5, 7, 8, 7, 4}));
  EXPECT_EQ(listed(slots.positions), (Tokens{0, 2, 0, 2, 3}));
  ASSERT_EQ(slots.chunk_count(), 3);
  EXPECT_EQ(slots.chunks[1].count, 0);
  EXPECT_EQ(slots.chunks[2].begin, 2);
}

TEST(MergePlan, TakesTheSameMemoryAgain) {
  Telling telling{Telling::of(2, 300, 5)};
  Index held = 0;
  for (int round = 0; round < 4; ++round) {
    std::vector<States> states = empty_states(2);
    for (Index t = 0; t < 300; t += 100) telling.tell({{0, t, t + 100}, {1, t, t + 100}}, &states);
    if (round == 1) held = telling.device.scratch_bytes();
    telling.told.assign(2, {});
  }
  EXPECT_EQ(telling.device.scratch_bytes(), held);
}

TEST(MergePlan, RefusesWhatDoesNotGoTogether) {
  Telling telling{{Story(20, 1)}};
  std::vector<States> states = empty_states(1);
  const auto code = [&](const std::vector<Piece>& pieces, auto* caches) {
    return code_of([&] { telling.tell(pieces, caches); });
  };
  EXPECT_EQ(code({{0, 3, 5}}, &states), ErrorCode::op_shape) << "not the next tokens";
  EXPECT_EQ(states[0].length(), 0);
  EXPECT_EQ(code({{0, 3, 5}}, static_cast<std::vector<States>*>(nullptr)), ErrorCode::op_shape) << "no whole sequence";
  Cpu& device = telling.device;
  const Chunk chunk{0, 0, 3, 0};
  const std::vector<float> three(3, 0.5f), four(4, 0.5f);
  const Tokens ids(3, 1), more(4, 1);
  const auto plan = [&](Index size, const MergeInput& input) {
    return code_of([&] {
      const MergePlan made(device, Bucket{}, Batch{{nullptr, size}, {nullptr, size}, {&chunk, 1}}, input);
    });
  };
  EXPECT_EQ(plan(3, {.novelty = three, .guarded = ids, .tokens = ids}), ErrorCode::count_);
  EXPECT_EQ(plan(4, {.novelty = four}), ErrorCode::op_shape) << "a token without a chunk";
  EXPECT_EQ(plan(3, {.novelty = four}), ErrorCode::op_shape);
  EXPECT_EQ(plan(3, {}), ErrorCode::op_shape);
  EXPECT_EQ(plan(3, {.novelty = three, .guarded = more}), ErrorCode::op_shape);
  EXPECT_EQ(plan(3, {.novelty = three, .tokens = more}), ErrorCode::op_shape);
  EXPECT_EQ(plan(3, {.novelty = three, .masses = four}), ErrorCode::op_shape);
}

}  // namespace merge_plan_test
