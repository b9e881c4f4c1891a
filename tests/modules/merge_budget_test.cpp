// Budgets keep their bounds for every input: how many groups any tokens in a row close, and how long a group is.
#include <guild/modules/merge_budget.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>
#include <vector>

#include <guild/core/random.hpp>

namespace merge_budget_test {

using namespace guild;
using Bits = std::vector<bool>;
using Wishes = std::vector<Wish>;

template <class Budget>
Bits closes_of(const auto& wanted) {
  MergeState state;
  Bits closes;
  for (const Wish wish : wanted) closes.push_back(Budget::step(state, wish));
  return closes;
}

/// What tokens want, of several kinds: some know the budget and play against it.
template <class Budget>
Wishes wishes(int kind, Index count, Random& random) {
  Wishes wanted;
  MergeState state;
  const double rate = random.uniform();
  const bool all_guarded = random.uniform() < 0.3, some_guarded = random.uniform() < 0.5;
  const Index period = 1 + static_cast<Index>(random.uniform() * 9.0),
              quiet = static_cast<Index>(random.uniform() * 60);
  Index full = 0;
  for (Index t = 0; t < count; ++t) {
    full = std::max(full, state.credit);
    bool wants = true;
    if (kind == 0) wants = true;
    if (kind == 1) wants = false;
    if (kind == 2) wants = random.uniform() < rate;
    if (kind == 3) wants = t % period == 0;
    if (kind == 4) wants = t >= quiet;                           // saves first
    if (kind == 5) wants = t / period % 2 == 0;                  // in bursts
    if (kind == 6) wants = state.credit < full;                  // as long as nothing is left, or little
    if (kind == 7) wants = state.credit == full;                 // only out of a full bucket
    if (kind == 8) wants = state.length + 2 == Budget::longest;  // just before it must
    if (kind == 9) wants = state.length > 0 && random.uniform() < rate;
    const bool guarded = wants && (all_guarded || (some_guarded && random.uniform() < 0.3));
    wanted.emplace_back(wants && !guarded, guarded);
    (void)Budget::step(state, wanted.back());
  }
  return wanted;
}
constexpr int kinds = 10;

/// The bounds hold for all runs of tokens within each of many inputs. Counts the inputs.
template <class Budget>
int keeps_its_bounds(std::uint64_t seed, const char* name) {
  static_assert(MergeBudget<Budget>);
  Random random(seed, 0x6d65726765);
  int runs = 0;
  for (int round = 0; round < 20; ++round)
    for (int kind = 0; kind < kinds; ++kind, ++runs) {
      const Wishes wanted = wishes<Budget>(kind, 1 + static_cast<Index>(random.uniform() * 150.0), random);
      const Bits closes = closes_of<Budget>(wanted);
      std::vector<Index> sums{0};
      for (const bool one : closes) sums.push_back(sums.back() + (one ? 1 : 0));
      const Index count = static_cast<Index>(closes.size());
      EXPECT_TRUE(closes[0]) << name << ": the first token";
      Index length = 0;
      for (Index t = 0; t < count; ++t) {
        ++length;
        if (Budget::longest > 0 && length > Budget::longest) {
          ADD_FAILURE() << name << ": a group of " << length << " tokens, kind " << kind;
          return runs;
        }
        if (closes[static_cast<std::size_t>(t)]) length = 0;
        for (Index end = t + 1; end <= count; ++end) {
          const Index found = sums[static_cast<std::size_t>(end)] - sums[static_cast<std::size_t>(t)];
          if (found > Budget::max_slots(end - t)) {
            ADD_FAILURE() << name << ": " << found << " slots of " << end - t << " tokens, kind " << kind;
            return runs;
          }
        }
      }
    }
  return runs;
}

/// All that can be closed is, where all tokens want it: of any number of tokens, also behind others that want nothing.
template <class Budget>
void reaches_its_bound(Index quiet) {
  for (Index count = 0; count <= 100; ++count) {
    const Bits all = closes_of<Budget>(Bits(static_cast<std::size_t>(count), true));
    EXPECT_EQ(std::count(all.begin(), all.end(), true), Budget::max_slots(count)) << count;
    // Behind tokens that want nothing the bucket is full again.
    Bits wanted(static_cast<std::size_t>(quiet), false);
    wanted.resize(static_cast<std::size_t>(quiet + count), true);
    const Bits later = closes_of<Budget>(wanted);
    EXPECT_EQ(std::count(later.begin() + quiet, later.end(), true), Budget::max_slots(count)) << quiet << ' ' << count;
  }
}

/// The same budget in other words: what was spent of a full bucket and has not come back.
Bits by_debt(const Wishes& wanted, Index num, Index den, Index burst, Index longest, Index reserve = 0) {
  Bits closes;
  Index debt = 0, last = -1;
  for (Index t = 0; t < static_cast<Index>(wanted.size()); ++t) {
    if (t > 0) debt = std::max(debt - num, Index{0});
    const Wish wish = wanted[static_cast<std::size_t>(t)];
    const Index most = wish.guarded || t - last == longest ? burst - 1 : burst - 1 - reserve;
    const bool closes_here = t == 0 || (debt <= most * den && (wish || t - last == longest));
    if (closes_here) debt += den, last = t;
    closes.push_back(closes_here);
  }
  return closes;
}

template <Index Num, Index Den, Index Burst, Index G>
int check_bucket(const char* name) {
  using Budget = TokenBucket<Num, Den, Burst, G>;
  for (const Index count : {1, 2, 3, 10, 77, 1000})
    EXPECT_EQ(Budget::max_slots(count), std::min(count, Burst + Num * (count - 1) / Den)) << name;
  EXPECT_EQ(Budget::max_slots(0), 0);
  Random random(5, 6);
  for (int kind = 0; kind < kinds; ++kind) {
    const Wishes wanted = wishes<Budget>(kind, 120, random);
    EXPECT_EQ(closes_of<Budget>(wanted), by_debt(wanted, Num, Den, Burst, G)) << name << " kind " << kind;
    if constexpr (Burst > 1) {
      EXPECT_EQ((closes_of<Reserve<Budget, Burst - 1>>(wanted)), by_debt(wanted, Num, Den, Burst, G, Burst - 1));
    }
  }
  return keeps_its_bounds<Budget>(Num * 1000 + Den * 100 + Burst * 10 + G, name);
}

TEST(TokenBucket, KeepsItsBoundsForEveryInput) {
  int runs = 0;
  runs += check_bucket<1, 2, 1, 2>("1/2, 1, 2");
  runs += check_bucket<1, 2, 4, 8>("1/2, 4, 8");
  runs += check_bucket<1, 3, 2, 3>("1/3, 2, 3");
  runs += check_bucket<2, 3, 1, 2>("2/3, 1, 2");
  runs += check_bucket<3, 7, 5, 4>("3/7, 5, 4");
  runs += check_bucket<1, 4, 3, 32>("1/4, 3, 32");
  runs += check_bucket<1, 8, 2, 8>("1/8, 2, 8");
  runs += check_bucket<5, 8, 6, 16>("5/8, 6, 16");
  runs += check_bucket<7, 9, 3, 5>("7/9, 3, 5");
  runs += check_bucket<1, 1, 1, 4>("1/1, 1, 4");
  EXPECT_GE(runs, 2000);
}

TEST(TokenBucket, ReachesItsBound) {
  reaches_its_bound<TokenBucket<1, 2, 1, 2>>(0);
  reaches_its_bound<TokenBucket<1, 2, 4, 64>>(40);
  reaches_its_bound<TokenBucket<1, 3, 2, 64>>(40);
  reaches_its_bound<TokenBucket<3, 7, 5, 64>>(40);
  reaches_its_bound<TokenBucket<7, 9, 3, 64>>(40);
  reaches_its_bound<TokenBucket<1, 1, 1, 64>>(40);
}

TEST(TokenBucket, GrantsEveryWishAtARatioOfOne) {
  Random random(1, 2);
  using Budget = TokenBucket<1, 1, 1, 8>;
  for (int kind = 0; kind < kinds; ++kind) {
    const Wishes wanted = wishes<Budget>(kind, 150, random);
    EXPECT_EQ(closes_of<Budget>(wanted), closes_of<Unbounded<8>>(wanted));
    EXPECT_EQ((closes_of<Reserve<TokenBucket<1, 1, 3, 8>, 2>>(wanted)), closes_of<Unbounded<8>>(wanted));
  }
}

/// Whether any tokens in a row up to the last hold few enough protected ones, one more included.
template <class Budget>
bool may_be_protected(const Wishes& before, Index num, Index den, Index reserve) {
  Index found = 1;
  for (Index n = 2; n <= static_cast<Index>(before.size()) + 1; ++n) {
    found += before[before.size() + 1 - static_cast<std::size_t>(n)].guarded ? 1 : 0;
    // found <= reserve + (num / den - 1 / longest) (n - 1)
    const Index gain = num * Budget::longest - den;
    if ((found - reserve) * den * Budget::longest > gain * (n - 1)) return false;
  }
  return true;
}
/// Others play against the protected ones, which come as early and as late as they may. Returns how many came.
template <Index Num, Index Den, Index Burst, Index G, Index R>
Index refuses_none(const char* name) {
  using Budget = Reserve<TokenBucket<Num, Den, Burst, G>, R>;
  EXPECT_EQ(keeps_its_bounds<Budget>(R, name), 200);
  static_assert(Budget::max_slots(9) == TokenBucket<Num, Den, Burst, G>::max_slots(9));
  Index came = 0, refused_by_the_bucket = 0;
  Random random(7, 8);
  for (int round = 0; round < 200; ++round) {
    Wishes wanted;
    MergeState state, other;
    const double eager = round % 3 == 0 ? 1.0 : random.uniform(), novel = round % 2 == 0 ? 1.0 : random.uniform();
    const Index quiet = round % 5 == 0 ? 20 : 0;
    for (Index t = 0; t < 80; ++t) {
      const bool guarded = t >= quiet && random.uniform() < eager && may_be_protected<Budget>(wanted, Num, Den, R);
      const bool avoids = round % 4 == 3 && state.length + 1 < G;  // groups become full
      wanted.emplace_back(!avoids && random.uniform() < novel, guarded);
      const bool closes = Budget::step(state, wanted.back());
      const bool without = TokenBucket<Num, Den, Burst, G>::step(other, wanted.back());
      if (!guarded) continue;
      ++came;
      refused_by_the_bucket += without ? 0 : 1;
      if (closes) continue;
      ADD_FAILURE() << name << ": a protected token is refused in round " << round << " at " << t;
      return came;
    }
  }
  EXPECT_GT(refused_by_the_bucket, 30) << name << ": nothing played against them";
  return came;
}
TEST(Reserve, RefusesNoProtectedTokenOfThoseThatItIsFor) {
  EXPECT_GT((refuses_none<1, 2, 4, 8, 1>("1/2, 4, 8, 1")), 1000);
  EXPECT_GT((refuses_none<1, 2, 4, 8, 3>("1/2, 4, 8, 3")), 1000);
  EXPECT_EQ((refuses_none<1, 3, 2, 3, 1>("1/3, 2, 3, 1")), 200) << "one each: full groups take all that comes back";
  EXPECT_GT((refuses_none<3, 7, 5, 4, 2>("3/7, 5, 4, 2")), 1000);
  EXPECT_GT((refuses_none<7, 9, 3, 5, 2>("7/9, 3, 5, 2")), 1000);
}
/// Novel tokens leave what is reserved, full groups do not.
TEST(Reserve, IsForProtectedTokensAlone) {
  using Budget = Reserve<TokenBucket<1, 4, 3, 4>, 2>;
  const Wish novel(true), guarded(false, true), none(false);
  // on arrival the bucket holds 12 9 10 11 8 5 2 of 12; a closing takes 4, and 8 are reserved
  EXPECT_EQ(closes_of<Budget>(Wishes{none, novel, novel, guarded, guarded, guarded, guarded}),
            (Bits{1, 0, 0, 1, 1, 1, 0}));
  EXPECT_EQ(closes_of<Budget>(Wishes{none, guarded, guarded, none, none, none, none, guarded}),
            (Bits{1, 1, 1, 0, 0, 0, 1, 0}));
}

TEST(MergeBudget, OthersKeepTheirBoundsToo) {
  EXPECT_EQ(keeps_its_bounds<Unbounded<>>(1, "unbounded"), 200);
  EXPECT_EQ(keeps_its_bounds<Unbounded<6>>(2, "unbounded, 6"), 200);
  EXPECT_EQ(keeps_its_bounds<FixedStride<5>>(3, "every fifth"), 200);
  EXPECT_EQ(keeps_its_bounds<Always>(4, "always"), 200);
  reaches_its_bound<Unbounded<64>>(40);
  reaches_its_bound<FixedStride<5>>(0);
  reaches_its_bound<FixedStride<5>>(5);  // any tokens in a row: the first of these closes too
  reaches_its_bound<Always>(3);
}

TEST(MergeBudget, OthersCloseWhatTheirNamesSay) {
  Random random(3, 4);
  const Wishes wanted = wishes<Unbounded<>>(2, 100, random);
  Bits expected(wanted.begin(), wanted.end());
  expected[0] = true;
  EXPECT_EQ(closes_of<Unbounded<>>(wanted), expected);
  for (std::size_t t = 0; t < expected.size(); ++t) expected[t] = t % 4 == 0;
  EXPECT_EQ(closes_of<FixedStride<4>>(wanted), expected);
  EXPECT_EQ(closes_of<Always>(wanted), Bits(100, true));
}

TEST(MergeBudget, OneMayFollowAnother) {
  // 30 tokens of one group, with all credit: more than the next budget holds
  MergeState before;
  for (int t = 0; t < 31; ++t) (void)TokenBucket<1, 2, 9, 64>::step(before, false);
  const auto slots_of_next = [&]<class Budget>(Budget, Index tokens, bool wanted) {
    MergeState state = before;
    EXPECT_TRUE(Budget::step(state, wanted)) << "the group is too long already";
    for (Index t = 1; t < tokens; ++t) (void)Budget::step(state, wanted);
    EXPECT_LE(state.slots - before.slots, Budget::max_slots(tokens));
  };
  for (Index tokens = 1; tokens < 40; ++tokens) {
    slots_of_next(TokenBucket<1, 4, 2, 8>{}, tokens, true);
    slots_of_next(TokenBucket<1, 4, 2, 8>{}, tokens, false);
    slots_of_next(Unbounded<8>{}, tokens, false);
    slots_of_next(FixedStride<3>{}, tokens, false);
  }
  MergeState poor{.credit = 1, .length = 30, .slots = 1, .tokens = 31};
  Index tokens = 1;
  while (!TokenBucket<1, 4, 2, 8>::step(poor, false)) ++tokens;
  EXPECT_EQ(tokens, 3) << "the first closing that it can pay";
  EXPECT_EQ(poor.credit, 0);
}

// Budgets are functions of integers: the compiler can run them.
constexpr Index slots_at_compile_time() {
  MergeState state;
  for (int t = 0; t < 9; ++t) (void)TokenBucket<1, 2, 2, 8>::step(state, true);
  return state.slots;
}
static_assert(slots_at_compile_time() == 6 && TokenBucket<1, 2, 2, 8>::max_slots(9) == 6);
static_assert(std::is_trivially_copyable_v<MergeState>);

template <class T>
struct Flags {
  std::vector<T> values{};
  void add(T one) { values.push_back(one); }
};

TEST(Protect, FlagsTheTokensOfItsIds) {
  const std::array<std::int32_t, 5> tokens = {7, 0, 9, 3, 7};
  Flags<std::int32_t> some, none;
  flag_protected<ProtectTokens<7, 3>>(tokens, some);
  EXPECT_EQ(some.values, (std::vector<std::int32_t>{1, 0, 0, 1, 1}));
  flag_protected<NoProtect>(tokens, none);
  EXPECT_TRUE(none.values.empty());
  static_assert(!NoProtect::protects(3) && ProtectTokens<3>::protects(3) && !ProtectTokens<3>::protects(4));
}

}  // namespace merge_budget_test
