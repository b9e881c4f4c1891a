// The states of merging after the last tokens go back as far as they say, and not further.
#include <guild/modules/merge_states.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>
#include <vector>

#include <guild/core/random.hpp>
#include <guild/modules/joint_cache.hpp>
#include <guild/modules/merge_window.hpp>
#include <guild/modules/sequence_cache.hpp>

#include "../core/code_of.hpp"

namespace merge_states_test {

using namespace guild;
using guild_test::code_of;
using States = MergeStates<4>;
using Windows = MergeStates<4, WindowState<6>>;  // of five tokens that may be open, and Chunk more
using Ring = RingCache<float, 2, 2, 0, 4>;
static_assert(SequenceCache<States> && SequenceCache<CacheTuple<States, Ring>> &&
              SequenceCache<CacheTuple<Ring, Windows>>);
static_assert(States::ring == 5 && Windows::ring == 9);
// All that they take lies in buffers, a state and no window for each token.
static_assert(sizeof(MergeStates<512, WindowState<64>>) == sizeof(States) && sizeof(States) < 200);
static_assert(States::bytes(3) == 3 * Index{sizeof(MergeState)} && States::bytes(1000) == 5 * 6 * 8);
static_assert(MergeStates<512, WindowState<64>>::bytes(1000) == (64 - 1 + 512) * (48 + 20 + 4));

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

/// Tokens that come, go and come otherwise: what can be reached has the states that it had, and so have those before it
/// that the next tokens need.
template <class Of>
void expect_to_go_back() {
  using State = typename Of::Element;
  Random random(1, 2);
  Of states;
  states.reserve(2000);
  std::vector<Index> versions;               // of the tokens that are there
  Index written = 0, before = 0, many = -1;  // many: where more than a chunk began, until the next tokens come
  int refused = 0, gone = 0, undone = 0;
  for (int step = 0; step < 5000; ++step) {
    const Index length = states.length();
    if (length == 0 || (random.uniform() < 0.5 && length < 1900)) {
      const auto count = static_cast<Index>(random.uniform() * (step % 7 == 0 ? 14.0 : 5.0));
      states.append(count);
      for (Index t = length + 1; t <= length + count; ++t) states.write(t, State{some(t, step)});
      versions.resize(static_cast<std::size_t>(length + count), step);
      many = count > Of::chunk && length > 0 ? length : -1;
      before = std::exchange(written, std::max(written, length + count));
    } else {
      const bool all = many > 0 && random.uniform() < 0.3;
      const Index to = all ? many : std::max(Index{1}, length - static_cast<Index>(random.uniform() * 12.0));
      const bool undoes = to == many && to != length;
      const bool there = undoes || to >= states.oldest();
      ASSERT_EQ(code_of([&] { states.rewind(states.mark(to)); }), there ? ErrorCode::count_ : ErrorCode::op_argument);
      if (there) versions.resize(static_cast<std::size_t>(to)), many = -1;
      if (undoes) written = before;
      ++(undoes ? undone : there ? gone : refused);
    }
    ASSERT_EQ(states.length(), static_cast<Index>(versions.size()));
    ASSERT_EQ(states.oldest(), written <= Of::ring ? 0 : written - Of::chunk) << step;
    const auto expected = [&](Index t) { return State{some(t, versions[static_cast<std::size_t>(t - 1)])}; };
    const Of copy = states;
    const Index first = std::max(states.oldest(), Index{1});
    for (Index t = first; t <= states.length(); ++t) ASSERT_EQ(states.state(t), expected(t)) << step;
    for (Index t = std::max(first - State::kept + 1, Index{1}); t <= states.length(); ++t)
      ASSERT_EQ(copy.after(t), expected(t)) << step;
    if (many > 0) { ASSERT_EQ(states.state(many), expected(many)); }
  }
  EXPECT_GT(refused, 100);
  EXPECT_GT(gone, 500);
  EXPECT_GT(undone, 20);
}
TEST(MergeStates, GoBackAsFarAsTheySay) {
  expect_to_go_back<States>();
  expect_to_go_back<Windows>();
}

}  // namespace merge_states_test
