// The ratio loss of spans of merged tokens: where its gradient goes, and what is counted of it.
#include <guild/modules/merging_options.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/models/transformer.hpp>
#include <guild/modules/merge_span.hpp>
#include <guild/modules/parameters.hpp>

#include "../support/gradient_check.hpp"
#include "../support/whole_stack.hpp"

namespace merging_options_test {

using guild::Index;
using guild::MergeTerms;

struct Thirds : guild::DefaultMerging {
  using Novelty = guild::CosineNovelty<5>;
  using Budget = guild::TokenBucket<2, 3, 3, 4>;
  static constexpr bool proportional = false;
};
/// Another aim than the bucket's.
struct Fewer : Thirds {
  static constexpr double ratio = 0.25;
};
struct Unlimited : Thirds {
  using Budget = guild::Unbounded<6>;
};
struct UnlimitedFewer : Unlimited {
  static constexpr double ratio = 0.25;
};
/// All tokens want what half of them get.
struct AllNovel : Thirds {
  using Budget = guild::TokenBucket<1, 2, 4, 8>;
  static constexpr float threshold = 0.0f;
};
struct NotMeasured : Thirds {
  using Novelty = guild::NoNovelty;
};
static_assert(guild::detail::ratio_of<Thirds>() == 2.0 / 3);
static_assert(guild::detail::ratio_of<Fewer>() == 0.25);
static_assert(guild::detail::ratio_of<Unlimited>() == 1.0);
static_assert(guild::detail::ratio_of<UnlimitedFewer>() == 0.25);

struct Inflate : guild::DefaultInflation {
  static constexpr Index gate_rank = 4, detail_rank = 3;
};

struct PlainSpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 13, .hidden = 12, .layers = 3, .context = 64};
  static constexpr guild::MlaConfig attention = {
      .heads = 2, .query_rank = 4, .latent_rank = 4, .nope_dim = 2, .rope_dim = 2, .value_dim = 3};
  static constexpr guild::DenseConfig dense = {.hidden = 6, .layers = 3};
  template <class S>
  using Mixer = guild::Weighted<guild::Mla<S>>;
};
template <class S>
using One = guild::Segment<typename S::template DenseLayer<S>, 1>;
template <class S, class Layers, class Policy>
using SpanOf = guild::MergeSpan<Layers, guild::SoftTokenMerging<S, Policy>, guild::TokenInflation<S, Inflate>>;
template <class Policy>
using Single = SpanOf<PlainSpec, One<PlainSpec>, Policy>;
using Again = SpanOf<PlainSpec, guild::Recompute<One<PlainSpec>>, Thirds>;
/// Layer 0 at full length, 1 on slots, 2 on slots of slots.
using Nested = guild::Stack<
    One<PlainSpec>,
    SpanOf<PlainSpec, guild::Stack<One<PlainSpec>, SpanOf<PlainSpec, One<PlainSpec>, UnlimitedFewer>>, Thirds>>;

/// A pass over some sequences and the way back.
template <class Layers>
struct Case {
  using Module = guild_test::WholeStack<Layers>;
  using Weights = typename Module::template Weights<guild::Dense<double>>;
  static constexpr Index width = 12;
  guild::Cpu device{{.threads = 2}};
  guild_test::RaggedPass batch{device, {9, 1, 14}, 3, 13};
  Weights weights, gradients;
  guild::Buffer<double> x, dx;
  std::array<MergeTerms, 3> terms{};
  guild::Random random{11};
  std::vector<double> novelty{};  ///< of the first span's tokens
  Index slots = 0;                ///< that it closed
  double strength = 1.0;

  Case() : x(24 * width), dx(24 * width) {
    guild::allocate<Module>(weights);
    guild::allocate_trained<Module>(gradients);
    Module::visit(guild_test::FillRandom{&random}, guild::Path{}, weights);
    for (double& value : x.view()) value = 2 * random.uniform() - 1;
  }
  /// All gradients, one behind the other. A negative weight: the pass says nothing of merging.
  std::vector<double> learn(double weight, double scale = 1.0, double dy = 1.0) {
    guild::for_each_parameter<Module>([](const guild::Path&, const guild::TensorShape&,
                                         guild::Buffer<double>& data) { std::fill_n(data.data(), data.size(), 0.0); },
                                      gradients);
    terms = {};
    guild::Arena arena;
    guild::Arena::Frame memory(arena);
    auto pass = batch.pass.with(memory);
    pass.balance_scale = scale;
    pass.merging.strength = strength;
    if (weight >= 0.0) pass.merging = {weight, {terms.data(), 3}, strength};
    const auto y = memory.template take<double>(24, width);
    typename Module::template Saved<double> saved;
    Module::forward(pass, weights, {}, x.view(24, width), y, &saved);
    if constexpr (requires { saved.merging; }) {
      novelty.assign(saved.merging.novelty.data, saved.merging.novelty.data + 24);
      slots = saved.merged.slots.rows;
    }
    guild::Random direction(5);
    for (double& value : dx.view()) value = dy * (2 * direction.uniform() - 1);
    Module::backward(pass, weights, saved, dx.view(24, width), gradients);
    std::vector<double> all(dx.data(), dx.data() + dx.size());
    for (const auto& one : parts()) all.insert(all.end(), one.gradient, one.gradient + one.count);
    return all;
  }
  std::vector<guild_test::Differentiated> parts() {
    std::vector<guild_test::Differentiated> list;
    Module::visit(guild_test::CollectDifferentiated{&list}, guild::Path{}, weights, gradients);
    return list;
  }
  double loss() const { return terms[0].loss + terms[1].loss + terms[2].loss; }
};

/// The budget has no say in it.
double formula(const std::vector<double>& p, double every, double threshold = 0.5) {
  const auto novel = std::count_if(p.begin(), p.end(), [&](double one) { return one >= threshold; });
  const double tokens = static_cast<double>(p.size()), share = static_cast<double>(novel) / tokens;
  const double mean = std::accumulate(p.begin(), p.end(), 0.0) / tokens;
  return every / (every - 1) * ((every - 1) * share * mean + (1 - share) * (1 - mean));
}

template <class Policy>
void expect_the_formula(double every) {
  Case<Single<Policy>> c;
  c.learn(0.03, 0.5);
  EXPECT_GT(c.slots, 3);
  EXPECT_LT(c.slots, 24);
  EXPECT_EQ(c.terms[0].tokens, 24.0);
  EXPECT_EQ(c.terms[0].slots, static_cast<double>(c.slots));
  EXPECT_NEAR(c.terms[0].loss, every > 1 ? 0.5 * formula(c.novelty, every, Policy::threshold) : 0.0, 1e-13);
  EXPECT_EQ(c.terms[1].tokens + c.terms[2].tokens, 0.0);
}
TEST(MergingOptions, ALossIsThatOfTheBudgetOrOfThePolicy) {
  expect_the_formula<Thirds>(1.5);
  expect_the_formula<Fewer>(4.0);
  expect_the_formula<UnlimitedFewer>(4.0);
  expect_the_formula<Unlimited>(1.0);
  expect_the_formula<AllNovel>(2.0);
}

/// A bucket that closes as many as it is meant to says nothing of how many want it.
TEST(MergingOptions, ALossLowersNoveltyThatABucketRefuses) {
  Case<Single<AllNovel>> c;
  const auto mean = [&] { return std::accumulate(c.novelty.begin(), c.novelty.end(), 0.0) / 24.0; };
  c.learn(1.0, 1.0, 0.0);
  EXPECT_EQ(c.terms[0].novel, 24.0);
  EXPECT_EQ(c.slots, (4 + 8 / 2) + 1 + (4 + 13 / 2)) << "what a bucket gives sequences of 9, 1 and 14 tokens";
  const double before = mean();
  EXPECT_NEAR(c.terms[0].loss, 2 * before, 1e-13);
  for (const auto& one : c.parts())
    for (Index i = 0; i < one.count; ++i) one.value[i] -= 0.1 * one.gradient[i];
  c.learn(1.0, 1.0, 0.0);
  EXPECT_LT(mean(), before - 1e-3);
}

TEST(MergingOptions, LittleStrengthLowersThresholdsAndGrantsWhatIsWanted) {
  Case<Single<Thirds>> c;
  c.learn(1.0);
  const Index in_force = c.slots;
  c.strength = 0.9;
  c.learn(1.0);
  const auto wanting = [&](double threshold) {
    return static_cast<double>(
        std::count_if(c.novelty.begin(), c.novelty.end(), [&](double p) { return p >= threshold; }));
  };
  EXPECT_EQ(c.terms[0].novel, wanting(0.45));
  EXPECT_GT(c.terms[0].novel, wanting(0.5)) << "this case tells nothing";
  EXPECT_NEAR(c.terms[0].loss, formula(c.novelty, 1.5, 0.45), 1e-13);
  EXPECT_GE(static_cast<double>(c.slots), c.terms[0].novel) << "all that is wanted, and full groups";
  EXPECT_GT(c.slots, in_force);
  c.strength = 0.0;
  c.learn(1.0);
  EXPECT_EQ(c.slots, 24) << "nothing is merged";
  for (const double none : {-0.1, 1.5, std::nan("")}) {
    c.strength = none;
    EXPECT_THROW(c.learn(1.0), guild::Error) << none;
  }
}

/// The straight-through estimator is on: with a dy of 0 it gives nothing.
template <class Layers>
void expect_true_gradients(std::size_t expected) {
  Case<Layers> c, moved;
  c.learn(0.7, 0.5, 0.0);
  const MergeTerms first = c.terms[0], second = c.terms[1];
  const auto of = c.parts(), at = moved.parts();
  std::vector<guild_test::Differentiated> list = {{"x", moved.x.data(), c.dx.data(), c.dx.size()}};
  const auto loss = [&] {
    moved.learn(0.0, 0.5, 0.0);
    EXPECT_EQ(moved.terms[0].slots, first.slots);
    EXPECT_EQ(moved.terms[1].slots, second.slots);
    return 0.7 * moved.loss();
  };
  const double as_it_is = loss();
  for (std::size_t i = 0; i < of.size(); ++i) {
    if (std::any_of(of[i].gradient, of[i].gradient + of[i].count, [](double one) { return one != 0.0; })) {
      list.push_back({of[i].name, at[i].value, of[i].gradient, of[i].count});
      continue;
    }
    at[i].value[0] += 0.01;
    EXPECT_EQ(loss(), as_it_is) << of[i].name;
    at[i].value[0] -= 0.01;
  }
  EXPECT_EQ(list.size(), expected);
  guild_test::expect_gradients(list, loss, {.most = 15});
}
TEST(MergingOptions, ALossHasTheGradientsOfCentralDifferences) {
  expect_true_gradients<Single<Thirds>>(3);
  expect_true_gradients<Single<UnlimitedFewer>>(3);
  expect_true_gradients<Nested>(31);
}

TEST(MergingOptions, AtWeightZeroNoBitOfAGradientIsAnother) {
  Case<Single<Thirds>> c;
  const auto without = c.learn(-1.0), with_none = c.learn(0.0);
  EXPECT_EQ(without, with_none);
  EXPECT_GT(c.terms[0].loss, 0.0) << "but it is counted";
  EXPECT_NE(c.learn(0.03), without);
}
/// Of the span's own weights what measures learns, and no other.
TEST(MergingOptions, TheLossIsOfWhatMeasuresAlone) {
  Case<Single<Thirds>> c;
  const auto values = [&](double weight) {
    c.learn(weight);
    std::vector<std::pair<std::string, std::vector<double>>> all;
    for (const auto& one : c.parts()) all.emplace_back(one.name, std::vector(one.gradient, one.gradient + one.count));
    return all;
  };
  const auto without = values(0.0), with = values(0.03);
  int changed = 0;
  for (std::size_t i = 0; i < with.size(); ++i) {
    const bool measures = with[i].first.find(".merging.project") != std::string::npos ||
                          with[i].first.find(".merging.shift") != std::string::npos;
    EXPECT_EQ(with[i].second != without[i].second, measures) << with[i].first;
    changed += measures ? 1 : 0;
  }
  EXPECT_EQ(changed, 2);
}
TEST(MergingOptions, WhatIsNotMeasuredOrHasNoAimHasNoLoss) {
  Case<Single<NotMeasured>> none;
  EXPECT_EQ(none.learn(1.0), none.learn(-1.0));
  none.learn(1.0);
  EXPECT_EQ(none.terms[0].loss, 0.0);
  EXPECT_GT(none.terms[0].slots, 0.0);
  Case<Single<Unlimited>> any;
  EXPECT_EQ(any.learn(1.0), any.learn(-1.0));
}

TEST(MergingOptions, LayersThatAreComputedAgainAreCountedOnce) {
  Case<Single<Thirds>> kept;
  Case<Again> again;
  EXPECT_EQ(kept.learn(0.03, 0.5), again.learn(0.03, 0.5));
  EXPECT_EQ(kept.terms[0].loss, again.terms[0].loss);
  EXPECT_EQ(kept.terms[0].slots, again.terms[0].slots);
  EXPECT_EQ(again.terms[0].tokens, 24.0);
}
TEST(MergingOptions, SpansThatNestAreCountedOnceEach) {
  Case<Nested> c;
  c.learn(0.03);
  EXPECT_EQ(c.terms[0].tokens, 0.0) << "no span begins there";
  EXPECT_EQ(c.terms[1].tokens, 24.0);
  EXPECT_EQ(c.terms[2].tokens, c.terms[1].slots);
  EXPECT_LT(c.terms[2].slots, c.terms[1].slots);
  EXPECT_GT(c.terms[1].loss, 0.0);
  EXPECT_GT(c.terms[2].loss, 0.0);
  const MergeTerms outer = c.terms[1];

  // Where both begin at a layer, they are counted together.
  Case<SpanOf<PlainSpec, Single<UnlimitedFewer>, Thirds>> both;
  both.learn(0.03);
  Case<Single<Thirds>> one;
  one.learn(0.03);
  EXPECT_EQ(both.terms[0].tokens, 24.0 + static_cast<double>(both.slots));
  EXPECT_GT(both.terms[0].loss, formula(both.novelty, 1.5));
  EXPECT_EQ(outer.tokens, one.terms[0].tokens);
}

}  // namespace merging_options_test
