// The states of merging after the last tokens go back as far as they say, and not further.
#include <guild/modules/merge_states.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <type_traits>
#include <vector>

#include <guild/core/random.hpp>
#include <guild/modules/joint_cache.hpp>
#include <guild/modules/ring_cache.hpp>
#include <guild/modules/sequence_cache.hpp>

#include "../core/code_of.hpp"

namespace merge_states_test {

using namespace guild;
using guild_test::code_of;
using States = MergeStates<4>;
using Ring = RingCache<float, 2, 2, 0, 4>;  // as far back: the row of the last token is needed, and Chunk more
static_assert(SequenceCache<States> && SequenceCache<CacheTuple<States, Ring>> &&
              SequenceCache<CacheTuple<Ring, States>>);
static_assert(std::is_trivially_copyable_v<States> && States::bytes(1000) == 0);
static_assert(Ring::ring == States::ring);

/// Some state after so many tokens; another one for each `version` of the tokens.
MergeState some(Index tokens, Index version) {
  return {.credit = version, .length = tokens % 3, .slots = tokens / 3 + 1, .tokens = tokens};
}
void extend(States& states, Index tokens, Index version) {
  const Index begin = states.length();
  states.append(tokens);
  for (Index t = begin + 1; t <= begin + tokens; ++t) states.write(t, some(t, version));
}
States filled(std::vector<Index> counts) {
  States states;
  states.reserve(100);
  for (const Index count : counts) extend(states, count, 0);
  return states;
}

TEST(MergeStates, BeginWithNothing) {
  States states;
  EXPECT_EQ(states.length(), 0);
  EXPECT_EQ(states.reserved(), 0);
  EXPECT_EQ(states.state(), MergeState{});
  EXPECT_EQ(code_of([&] { states.append(1); }), ErrorCode::op_shape) << "there is no room";
  states.reserve(5);
  states.reserve(3);  // never shrinks
  EXPECT_EQ(states.reserved(), 5);
  EXPECT_EQ(code_of([&] { states.append(6); }), ErrorCode::op_shape);
  EXPECT_EQ(code_of([&] { states.append(-1); }), ErrorCode::op_shape);
  extend(states, 5, 1);
  EXPECT_EQ(states.state(), some(5, 1));
  EXPECT_EQ(states.state(0), MergeState{});
}

TEST(MergeStates, KeepThoseOfTheLastTokens) {
  States states = filled({});
  for (Index length = 1; length <= 20; ++length) {
    extend(states, 1, 0);
    EXPECT_EQ(states.oldest(), length <= 5 ? 0 : length - 4);
    for (Index t = states.oldest(); t <= length; ++t) EXPECT_EQ(states.state(t), t == 0 ? MergeState{} : some(t, 0));
    EXPECT_EQ(states.state(0), MergeState{});
    for (Index t = 1; t < states.oldest(); ++t)
      EXPECT_EQ(code_of([&] { (void)states.state(t); }), ErrorCode::op_argument) << t << " of " << length;
    EXPECT_EQ(code_of([&] { (void)states.state(length + 1); }), ErrorCode::op_argument);
    EXPECT_EQ(code_of([&] { (void)states.state(-1); }), ErrorCode::op_argument);
  }
}

TEST(MergeStates, GoBackToWhereMoreThanAChunkBegan) {
  States states = filled({3, 3, 1});
  extend(states, 9, 1);
  EXPECT_EQ(states.oldest(), 12);
  EXPECT_EQ(states.state(7), some(7, 0)) << "which is kept beside";
  EXPECT_EQ(code_of([&] { (void)states.state(6); }), ErrorCode::op_argument) << "though the states are there";
  EXPECT_EQ(code_of([&] { states.rewind(states.mark(8)); }), ErrorCode::op_argument);
  EXPECT_EQ(states.length(), 16);
  States other = states;
  states.rewind(states.mark(7));
  EXPECT_EQ(states.length(), 7);
  EXPECT_EQ(states.oldest(), 3);
  states.rewind(states.mark(3));
  EXPECT_EQ(states.state(), some(3, 0));
  extend(other, 1, 2);
  EXPECT_EQ(code_of([&] { other.rewind(other.mark(7)); }), ErrorCode::op_argument) << "the next tokens have come";
  other.rewind(other.mark(0));
  EXPECT_EQ(other.state(), MergeState{});
  EXPECT_EQ(other.oldest(), 0);
}

TEST(MergeStates, KnowTheFewestTokensOfSomeSlots) {
  const States states = filled({4, 4, 4});  // kept are those of 8 to 12 tokens, with 3 4 4 4 5 slots
  for (const auto& [slots, tokens] : std::vector<std::pair<Index, Index>>{{0, 8}, {3, 8}, {4, 9}, {5, 12}, {6, 12}})
    EXPECT_EQ(states.fewest_tokens(slots), tokens) << slots;
  EXPECT_EQ(States().fewest_tokens(2), 0);
}

TEST(MergeStates, GoBackWhereRingsDo) {
  Random random(1, 2);
  States states;
  Ring ring;
  states.reserve(2000), ring.reserve(2000);
  std::vector<Index> versions;  // of the tokens that are there
  int refused = 0, gone = 0;
  for (int step = 0; step < 5000; ++step) {
    const bool forward = states.length() == 0 || (random.uniform() < 0.5 && states.length() < 1900);
    if (forward) {
      const auto count = static_cast<Index>(random.uniform() * (step % 7 == 0 ? 14.0 : 5.0));
      extend(states, count, step);
      ring.append(count);
      versions.resize(static_cast<std::size_t>(states.length()), step);
    } else {
      const Index to = std::max(Index{1}, states.length() - static_cast<Index>(random.uniform() * 9.0));
      const ErrorCode found = code_of([&] { states.rewind(states.mark(to)); });
      ASSERT_EQ(found, code_of([&] { ring.rewind(ring.mark(to)); })) << step;
      if (found == ErrorCode::count_) versions.resize(static_cast<std::size_t>(to));
      ++(found == ErrorCode::count_ ? gone : refused);
    }
    ASSERT_EQ(states.length(), ring.length());
    ASSERT_EQ(states.oldest(), ring.oldest()) << step;
    for (Index t = std::max(states.oldest(), Index{1}); t <= states.length(); ++t)
      ASSERT_EQ(states.state(t), some(t, versions[static_cast<std::size_t>(t - 1)])) << step;
  }
  EXPECT_GT(refused, 100);
  EXPECT_GT(gone, 500);
}

}  // namespace merge_states_test
