#include <guild/modules/merge_span.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <guild/modules/indexer.hpp>
#include <guild/modules/parameters.hpp>
#include <guild/modules/shared_indexer.hpp>
#include <guild/modules/stack.hpp>
#include <guild/training/allocate.hpp>

#include "../core/code_of.hpp"
#include "../support/exact_pass.hpp"
#include "../support/merged_layers.hpp"

namespace merge_span_test {

using guild::Index;
using namespace guild;
using namespace guild_test;

using Latents = TwoOf<SmallMla, Mla<SmallMla>>;
using Grouping = TwoOf<SmallGqa, Gqa<SmallGqa>>;
using Near = TwoOf<SmallGqa, Local<Gqa<SmallGqa>, 5, 2, 4>>;
struct Indexed : SmallMla {
  static constexpr IndexerConfig indexer = {.heads = 2, .dim = 8, .top_k = 6};
};
using Chosen = TwoOf<Indexed, SparseTopK<Mla<Indexed>, Indexer<Indexed>>>;
constexpr Index width = SmallMla::config.hidden;
static_assert(SmallGqa::config.hidden == width);

/// A span of layers that say what they are given.
template <class Policy, class Layers = Times<width>>
using Shown = Alone<SpanOf<SmallMla, Watched<Layers>, Policy>>;

// Where nothing is merged.

template <class S, class Layers>
void expect_the_bits_of_its_layers() {
  Attention<Alone<SpanOf<S, Layers, Whole>>> span;
  Attention<Alone<Layers, width>> plain;
  EXPECT_TRUE(same_bits(span.alone(150), plain.alone(150)));
  for (const auto& ends : {std::vector<Index>{150}, std::vector<Index>{3, 4, 100, 150}})
    EXPECT_TRUE(same_bits(span.run(ends), plain.run(ends)));
}
TEST(MergeSpan, WithoutMergedTokensHasTheBitsOfItsLayers) {
  expect_the_bits_of_its_layers<SmallMla, Latents>();
  expect_the_bits_of_its_layers<SmallGqa, Near>();
  expect_the_bits_of_its_layers<Indexed, Chosen>();
}
/// Positions too are those of tokens.
TEST(MergeSpan, WithoutMergedSlotsHasTheBitsOfTheSpanAroundIt) {
  using Within = SpanOf<SmallGqa, Near, Whole>;
  Attention<Alone<SpanOf<SmallGqa, Stack<Near, Within>, Half>>> nested;
  Attention<Alone<SpanOf<SmallGqa, Stack<Near, Near>, Half>>> one;
  EXPECT_TRUE(same_bits(nested.alone(150), one.alone(150)));
  for (const auto& ends : {std::vector<Index>{150}, std::vector<Index>{3, 4, 100, 150}})
    EXPECT_TRUE(same_bits(nested.run(ends), one.run(ends)));
}

TEST(MergeSpan, TensorsOfSpansWithinSpansHaveNamesOfTheirOwn) {
  using Two = SpanOf<SmallGqa, Stack<Segment<Near::Layer, 0>, SpanOf<SmallGqa, Near, Third>>, Half>;
  using Module = WholeStack<SpanOf<SmallGqa, Stack<Two, Near>, Half>>;
  static_assert(Module::spans_at_front == 3);
  typename Module::Weights<Dense<float>> weights;
  allocate<Module>(weights);
  std::set<std::string> names;
  std::size_t tensors = 0;
  for_each_tensor<Module>(
      [&](const Path& path, const TensorShape&, TensorRole, const Buffer<float>&) {
        names.insert(path.str());
        ++tensors;
      },
      weights);
  EXPECT_EQ(names.size(), tensors);
  EXPECT_EQ(names.count("0.merging.project.weight") + names.count("0.span.2.merging.project.weight") +
                names.count("0.span.3.inflation.gate_up.weight"),
            3U);
}

// What layers are given, and what becomes of it, by definition in double.

std::vector<double> product(const StoredMatrix& matrix, const std::vector<double>& x) {
  std::vector<double> y(static_cast<std::size_t>(matrix.rows), 0.0);
  const float* const values = reinterpret_cast<const float*>(matrix.data.data());
  for (Index r = 0; r < matrix.rows; ++r)
    for (Index c = 0; c < matrix.cols; ++c)
      y[static_cast<std::size_t>(r)] += double{values[r * matrix.cols + c]} * x[static_cast<std::size_t>(c)];
  return y;
}
std::vector<double> row_of(const Matrix& x, Index t) {
  return {x.values.begin() + t * x.cols, x.values.begin() + (t + 1) * x.cols};
}
double dot(const std::vector<double>& a, const std::vector<double>& b) {
  return std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
}
/// The most that two rows differ.
double apart(const std::vector<double>& a, const std::vector<double>& b) {
  double most = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) most = std::max(most, std::fabs(a[i] - b[i]));
  return most;
}

/// The tokens of a sequence as merging sees them.
struct Measured {
  std::vector<double> novelty{}, scores{};
  template <class Weights>
  Measured(const Story& story, const Weights& weights, bool learned) {
    std::vector<double> key;
    for (Index t = 0; t < story.size(); ++t) {
      std::vector<double> normed = row_of(story.x, t);
      const double scale = 1.0 / std::sqrt(dot(normed, normed) / double{width} + SmallMla::config.norm.epsilon);
      for (double& value : normed) value *= scale;
      if constexpr (requires { weights.level; }) {
        const double level = product(weights.level.weight, normed)[0] + double{weights.level_offset.data[0]};
        novelty.push_back(t == 0 ? 1.0 : 1.0 / (1.0 + std::exp(-level)));
      } else {
        const std::vector<double> both = product(weights.project.weight, normed), before = key;
        const std::vector<double> shift = product(weights.shift.weight, normed);
        const bool full_rank = weights.project.weight.rows == width;
        std::vector<double> query = both;
        key = shift;
        for (std::size_t i = 0; i < query.size(); ++i) {
          query[i] += full_rank ? normed[i] : -shift[i];
          key[i] += full_rank ? normed[i] : both[i];
        }
        novelty.push_back(t == 0 ? 1.0
                                 : 0.5 - 0.5 * dot(query, before) / std::sqrt(dot(query, query) * dot(before, before)));
      }
      scores.push_back(learned ? product(weights.score.weight, normed)[0] +
                                     double{weights.novelty_score.data[0]} * novelty.back()
                               : 0.0);
    }
  }
};

/// Whether token t is protected.
template <class Protect>
bool guards(const Story& story, Index t) {
  if constexpr (requires { Protect::window; }) {
    double energy = 0.0;
    const Index begin = std::max(t - Protect::window, Index{0});
    const auto own = row_of(story.x, t);
    for (Index s = begin; s < t; ++s) {
      const auto other = row_of(story.x, s);
      const double cosine = dot(own, other) / std::sqrt(dot(own, own) * dot(other, other));
      energy += cosine >= 0.5 ? cosine : std::exp(cosine - 0.5) - 1.0;
    }
    energy /= static_cast<double>(std::max(t - begin, Index{1}));
    EXPECT_GT(std::fabs(energy + 0.25), 1e-5) << "too near to tell";
    return energy < -0.25;
  } else {
    return Protect::protects(story.tokens[static_cast<std::size_t>(t)]);
  }
}
/// One sequence through a span whose layers double their rows.
template <class Policy>
struct Defined {
  using Span = Shown<Policy, Times<width, 2>>;
  using Inner = Watched<Times<width, 2>>;
  using Budget = typename Policy::Budget;
  Running<Span> running{};
  Index merged = 0, open = 0, left_open = 0, blended = 0;

  /// The sequence's slots, after passes that end at `ends`, or one without caches.
  Matrix run(const Story& story, const std::vector<Index>& ends, Given& given) {
    Inner::given.clear();
    auto cache = running.cache_of(story.size());
    const Matrix y = ends.empty() ? running.whole(story) : running.extend(cache, story, ends);
    given = Inner::given[0];
    EXPECT_TRUE(ends.empty() || cache.inner.length() == given.rows.rows);
    return y;
  }
  void expect(const Story& story, const Matrix& y, const Given& given) {
    const Measured measured(story, running.weights.merging, Policy::Pool::learned);
    const Index tokens = story.size(), slots = given.rows.rows;
    ASSERT_LE(slots, Budget::max_slots(tokens));
    ASSERT_EQ(static_cast<Index>(given.positions.size()), slots);
    std::vector<double> before(width, 0.0), sum(width, 0.0), of_closed(width, 0.0);
    double mass = 0.0;
    MergeState state{};
    Index slot = -1;
    std::vector<double> z(width), added(width, 0.0);
    for (Index t = 0, first = 0; t < tokens; ++t) {
      const bool guarded = guards<typename Policy::Protect>(story, t);
      const double novelty = measured.novelty[static_cast<std::size_t>(t)];
      const bool closes = slot + 1 < slots && given.positions[static_cast<std::size_t>(slot + 1)] == t;
      // What lies at the threshold may go either way.
      const bool wanted =
          std::fabs(novelty - double{Policy::threshold}) < 1e-5 ? closes : novelty >= double{Policy::threshold};
      ASSERT_EQ(Budget::step(state, Wish(wanted, guarded)), closes) << "token " << t;
      const bool single = closes && first == t;
      if (closes) {
        ++slot;
        ASSERT_EQ(given.tokens[static_cast<std::size_t>(slot)], story.tokens[static_cast<std::size_t>(t)]);
        ASSERT_LE(t + 1 - first, Budget::longest);
        float weighs = 0.0f;
        for (Index i = first; i <= t; ++i) weighs += story.mass(i);
        EXPECT_EQ(given.masses[static_cast<std::size_t>(slot)], weighs);
        const bool last_alone = guarded || Policy::Pool::closing_only;
        double weights = 0.0;
        std::vector<double> mean(width, 0.0);
        for (Index i = last_alone ? t : first; i <= t; ++i) {
          const double weight = double{story.mass(i)} * std::exp(measured.scores[static_cast<std::size_t>(i)]);
          weights += weight;
          for (Index c = 0; c < width; ++c) mean[static_cast<std::size_t>(c)] += weight * double{story.at(i, c)};
        }
        for (double& value : mean) value /= weights;
        z = row_of(given.rows, slot);
        EXPECT_LE(apart(z, mean), 1e-6) << "slot " << slot;
        if (last_alone || single) { EXPECT_EQ(z, row_of(story.x, t)); }
        // Layers that double add the slot once more.
        const double share = single ? 1.0 : std::clamp(novelty, 1e-4, 1.0);
        for (std::size_t c = 0; c < added.size(); ++c) {
          added[c] = share * z[c] + (1.0 - share) * added[c];
          sum[c] += double{given.masses[static_cast<std::size_t>(slot)]} * z[c];
        }
        mass += double{given.masses[static_cast<std::size_t>(slot)]};
        for (Index i = first; i <= t; ++i)
          for (Index c = 0; c < width; ++c)
            of_closed[static_cast<std::size_t>(c)] += double{story.mass(i)} * double{story.at(i, c)};
        merged += single ? 0 : 1;
        blended += single || last_alone ? 0 : 1;
        first = t + 1;
      }
      std::vector<double> made = row_of(story.x, t);
      if (single) {
        for (double& value : made) value *= 2.0;
      } else {
        std::vector<double> lost = made;
        for (std::size_t c = 0; c < lost.size(); ++c) lost[c] -= z[c];
        const auto& inflation = running.weights.inflation;
        const auto gate = product(inflation.gate_up.weight, product(inflation.gate_down.weight, lost));
        auto detail = product(inflation.detail_down.weight, lost);
        for (double& value : detail) value /= 1.0 + std::exp(-value);
        detail = product(inflation.detail_up.weight, detail);
        for (std::size_t c = 0; c < lost.size(); ++c) made[c] += (1.0 + std::tanh(gate[c])) * added[c] + detail[c];
      }
      ASSERT_LE(apart(row_of(y, t), made), 3e-5) << "token " << t;
      open += closes ? 0 : 1;
    }
    EXPECT_EQ(slot + 1, slots) << "slots of no token";
    double of_all = 0.0, of_tail = 0.0;
    for (Index t = 0; t < tokens; ++t) {
      of_all += double{story.mass(t)};
      if (t >= tokens - state.length) of_tail += double{story.mass(t)};
    }
    EXPECT_EQ(mass + of_tail, of_all);
    left_open += state.length;
    if (!Policy::Pool::learned && !Policy::Pool::closing_only && blended == merged) {
      EXPECT_LE(apart(sum, of_closed), 1e-5 * static_cast<double>(tokens));
    }
  }
  void expect_all() {
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
      Story story(1 + static_cast<Index>(seed) * 11, width, seed);
      if (seed % 2 == 1) story.weigh();
      Given given, in_pieces;
      const Matrix y = run(story, {}, given);
      expect(story, y, given);
      std::vector<Index> ends;
      for (Index end = 0; end < story.size();) {
        const Index piece = end % 3 == 0 ? 1 : (end % 3 == 1 ? 4 : 9);
        ends.push_back(end = std::min(end + piece, story.size()));
      }
      expect(story, run(story, ends, in_pieces), in_pieces);
      EXPECT_EQ(in_pieces.positions, given.positions);
      EXPECT_EQ(in_pieces.masses, given.masses);
    }
    EXPECT_GT(merged, 10) << "nothing was merged";
    EXPECT_GT(open, 10);
    EXPECT_GT(left_open, 2);
  }
};
struct ByFullRank : Merge<TokenBucket<1, 2, 4, 8>, MassMean> {
  using Novelty = FullRankCosine;
};
struct BySigmoid : Merge<Unbounded<3>, MassMean> {
  using Novelty = LearnedSigmoid<>;
};
TEST(MergeSpan, IsItsDefinition) {
  Defined<Half>().expect_all();
  Defined<ThreeQuartersByEnergy>().expect_all();
  Defined<Third>().expect_all();
  Defined<ByFullRank>().expect_all();
  Defined<BySigmoid>().expect_all();
  Defined<Merge<Reserve<TokenBucket<3, 7, 3, 5>, 2>, SelectClosing, ProtectTokens<1, 2, 30, 40>>>().expect_all();
}

/// Where a slot stands, by definition, of slots [first, last] of these.
std::int32_t centre_of(const Given& outer, std::size_t first, std::size_t last) {
  if (Third::Protect::protects(outer.tokens[last])) return outer.positions[last];
  double sum = 0.0, mass = 0.0;
  for (std::size_t i = first; i <= last; ++i) {
    sum += double{outer.masses[i]} * outer.positions[i];
    mass += double{outer.masses[i]};
  }
  return static_cast<std::int32_t>(std::floor(sum / mass));
}
/// No token is lost on the way through two spans, and slots stand where their tokens do.
TEST(MergeSpan, SlotsOfSlotsHaveTheMassOfTheirTokens) {
  using Innermost = Watched<Times<width>, 1>;
  using Between = Watched<SpanOf<SmallMla, Innermost, ThirdAtCentre>>;
  Running<Alone<SpanOf<SmallMla, Between, Half>>> running;
  const auto sum = [](const std::vector<float>& masses, std::size_t from) {
    return std::accumulate(masses.begin() + static_cast<std::ptrdiff_t>(from), masses.end(), 0.0);
  };
  int moved = 0;
  for (std::uint64_t seed = 0; seed < 6; ++seed) {
    const Story story(30 + 7 * static_cast<Index>(seed), width, seed);
    for (const bool cached : {false, true}) {
      Innermost::given.clear(), Between::given.clear();
      auto cache = running.cache_of(story.size());
      (void)(cached ? running.extend(cache, story, {2, 3, 4, 20, story.size()}) : running.whole(story));
      const Given &outer = Between::given[0], &inner = Innermost::given[0];
      const double tail = static_cast<double>(story.size()) - 1.0 - outer.positions.back();
      ASSERT_EQ(sum(outer.masses, 0) + tail, static_cast<double>(story.size()));
      std::size_t next = 0;
      for (std::size_t j = 0; j < inner.masses.size(); ++j) {
        const std::size_t first = next;
        float mass = 0.0f;
        while (mass < inner.masses[j] && next < outer.masses.size()) mass += outer.masses[next++];
        ASSERT_EQ(mass, inner.masses[j]);
        ASSERT_EQ(inner.positions[j], centre_of(outer, first, next - 1));
        moved += inner.positions[j] < outer.positions[next - 1] ? 1 : 0;
      }
      EXPECT_LT(inner.masses.size(), outer.masses.size());
    }
  }
  EXPECT_GT(moved, 20);
}

// What a token may depend on.

using LatentSpan = Alone<SpanOf<SmallMla, Latents, Half>>;
using NearSpan = Alone<SpanOf<SmallGqa, Near, ThreeQuartersByEnergy>>;
using GroupingSpan = Alone<SpanOf<SmallGqa, Grouping, ThreeQuartersBySigmoid>>;
/// A span within a span, with layers before and behind it.
using Nested =
    Alone<SpanOf<SmallGqa, Stack<Near, SpanOf<SmallGqa, Grouping, ThirdAtCentre>, Near>, ThreeQuartersAtFirst>>;

/// The tokens of which the results differ.
template <class A>
std::vector<Index> changed(Running<A>& running, const Story& one, const Story& other, Index tokens) {
  const Matrix a = running.whole(one), b = running.whole(other);
  std::vector<Index> differing;
  for (Index t = 0; t < tokens; ++t)
    if (!same_bits(a.middle_rows(t, 1), b.middle_rows(t, 1))) differing.push_back(t);
  return differing;
}
template <class A>
void expect_causal() {
  auto running = plain_running<A>();
  const Story story(36, width, 1);
  const Matrix whole = running.whole(story);
  for (Index t = 1; t < story.size(); t += t < 12 ? 1 : 5) {
    EXPECT_EQ(
        changed(running, story, story.after(t, Story(story.size(), width, 100 + static_cast<std::uint64_t>(t))), t),
        std::vector<Index>{});
    EXPECT_TRUE(same_bits(running.whole(story, t), whole.middle_rows(0, t))) << "the first " << t;
  }
}
TEST(MergeSpan, TokensDependOnNoneAfterThem) {
  expect_causal<LatentSpan>();
  expect_causal<GroupingSpan>();
  expect_causal<NearSpan>();
  expect_causal<Nested>();
  expect_causal<Alone<WindowSpanOf<SmallGqa, Grouping>>>();
}

/// Closes the most novel of all tokens of a sequence, and says that it does not.
struct TopOfAll {
  static inline std::vector<bool> top{};
  static constexpr Index longest = 8;
  static constexpr bool causal = true, prefix_stable = true;
  static constexpr Index max_slots(Index tokens) { return std::max(tokens, Index{0}); }
  static bool step(MergeState& state, bool) { return state.take(top[static_cast<std::size_t>(state.tokens)]); }
  static void choose(const Story& story) {
    std::vector<std::pair<double, Index>> all = {{-10.0, 0}};
    for (Index t = 1; t < story.size(); ++t) {
      const auto x = row_of(story.x, t), before = row_of(story.x, t - 1);
      all.emplace_back(dot(x, before) / std::sqrt(dot(x, x) * dot(before, before)), t);
    }
    std::sort(all.begin(), all.end());
    top.assign(all.size(), false);
    for (std::size_t i = 0; i < all.size() / 2; ++i) top[static_cast<std::size_t>(all[i].second)] = true;
  }
};
TEST(MergeSpan, ABudgetThatLooksAheadLeaks) {
  auto running = plain_running<Shown<Merge<TopOfAll>, Times<width, 2>>>();
  const Story story(40, width, 1);
  int leaks = 0;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    const Story other = story.after(20, Story(40, width, 50 + seed));
    TopOfAll::choose(story);
    const Matrix a = running.whole(story);
    TopOfAll::choose(other);
    leaks += same_bits(a.middle_rows(0, 20), running.whole(other).middle_rows(0, 20)) ? 0 : 1;
  }
  EXPECT_GE(leaks, 4) << "of 8: the test above could not see a leak";
}

/// Of merged tokens nothing is lost if the layers add nothing and no details are made.
struct ZeroOutputs : RandomWeights {
  void operator()(const Path& path, MatrixShape shape, StoredMatrix& matrix) const {
    RandomWeights::operator()(path, shape, matrix);
    const std::string_view owner = path.parent()->name();
    if (owner != "output" && owner != "down" && owner != "detail_up") return;
    std::fill_n(matrix.data.data(), matrix.data.size(), std::byte{});
  }
  using RandomWeights::operator();
};
template <class A>
void expect_lossless() {
  Running<A> running;
  A::visit(ZeroOutputs(), Path{} / "module", running.weights);
  const Story story(60, width, 3);
  auto cache = running.cache_of(60);
  EXPECT_TRUE(same_bits(running.whole(story), story.x));
  EXPECT_TRUE(same_bits(running.extend(cache, story, {1, 2, 3, 30, 60}), story.x));
  EXPECT_LT(cache.inner.length(), 50);
}
TEST(MergeSpan, LosesNothingWhereItsLayersAddNothing) {
  expect_lossless<LatentSpan>();
  expect_lossless<Nested>();
}

/// What an index chooses of slots is not for layers of tokens behind them.
TEST(MergeSpan, LeavesTheChoiceOfKeysBeforeItToTheLayersBehindIt) {
  using Choosing = Segment<Block<Indexed, SparseTopK<Mla<Indexed>, Indexer<Indexed>>, DenseFeedForward<Indexed>>, 1>;
  using Sharing =
      Segment<Block<Indexed, SparseTopK<Mla<Indexed>, SharedIndexer<Indexed>>, DenseFeedForward<Indexed>>, 1>;
  using Between = SpanOf<Indexed, Stack<Choosing, Sharing>, Half>;
  Running<Alone<Stack<Choosing, Between, Sharing>>> with_span;
  Running<Alone<Stack<Choosing, Sharing>>> without;
  with_span.top_k = without.top_k = Indexed::indexer.top_k;
  Between::visit(ZeroOutputs(), Path{} / "module", 1, std::get<1>(with_span.weights.parts));
  Sharing::visit(RandomWeights(), Path{} / "module", 1, std::get<2>(with_span.weights.parts));
  const Story story(60, width, 3);
  const Matrix whole = without.whole(story);
  EXPECT_TRUE(same_bits(with_span.whole(story), whole));
  auto cache = with_span.cache_of(60);
  auto plain = without.cache_of(60);
  EXPECT_TRUE(same_bits(with_span.extend(cache, story, {3, 4, 40, 60}), without.extend(plain, story, {3, 4, 40, 60})));
}

/// Not by the kinds of attention alone that heed them: by a mean of nothing all else would be no number.
TEST(MergeSpan, MassesThatAreNoneAreRefusedBeforeAnythingIsAppended) {
  Running<NearSpan> running;
  Story story(20, width, 1);
  story.weigh();
  const auto code = [&](Index count, float mass) {
    Story changed = story;
    changed.masses[7] = mass;
    Flat flat({{0, &changed.tokens, 0, 20}});
    auto cache = running.cache_of(20);
    Pass<Cpu> pass{.device = running.device, .batch = flat.batch(), .masses = {changed.masses.data(), count}};
    const auto of = [&](int) -> NearSpan::Cache& { return cache; };
    const auto over = [&](Caches<NearSpan::Cache> caches) {
      return code_of(
          [&] { NearSpan::forward(pass, running.weights, caches, std::as_const(changed.x).view(), changed.x.view()); });
    };
    const ErrorCode whole = over({});
    EXPECT_EQ(over(of), whole);
    EXPECT_EQ(cache.length(), whole == ErrorCode::count_ ? 20 : 0);
    return whole;
  };
  EXPECT_EQ(code(20, 2.5f), ErrorCode::count_);
  EXPECT_EQ(code(19, 1.0f), ErrorCode::op_shape);
  for (const float bad : {0.0f, -1.0f, INFINITY, NAN}) EXPECT_EQ(code(20, bad), ErrorCode::op_argument) << bad;
}

// Sequences side by side.

template <class A>
void expect_independent_sequences() {
  auto running = plain_running<A>();
  const Story stories[] = {Story(60, width, 1), Story(60, width, 2), Story(60, width, 3), Story(60, width, 4)};
  const std::vector<std::array<Index, 4>> passes = {{1, 30, 0, 7},    {2, 30, 12, 8},   {3, 31, 13, 8},
                                                    {40, 32, 14, 60}, {41, 60, 14, 60}, {60, 60, 60, 60}};
  Matrix alone[4], together[4];
  auto caches = std::vector<typename A::Cache>(4, running.cache_of(0));
  for (auto& cache : caches) cache.reserve(60);
  for (std::size_t i = 0; i < 4; ++i) {
    auto cache = running.cache_of(60);
    for (const auto& ends : passes)
      if (ends[i] > cache.length()) alone[i].append(running.extend(cache, stories[i], ends[i]));
    together[i] = Matrix(0, width);
  }
  for (const auto& ends : passes) {
    std::vector<typename Running<A>::Part> parts;
    for (std::size_t i = 0; i < 4; ++i) parts.push_back({&stories[i], caches[i].length(), ends[i], &caches[i]});
    const Matrix y = running(parts);
    Index row = 0;
    for (std::size_t i = 0; i < 4; ++i) {
      const Index count = parts[i].end - parts[i].begin;
      together[i].append(y.middle_rows(std::exchange(row, row + count), count));
    }
  }
  for (std::size_t i = 0; i < 4; ++i) EXPECT_TRUE(same_bits(together[i], alone[i])) << "sequence " << i;
  const Matrix all = running({{&stories[2], 0, 60}, {&stories[0], 0, 1}, {&stories[1], 0, 33}});
  EXPECT_TRUE(same_bits(all.middle_rows(0, 60), running.whole(stories[2])));
  EXPECT_TRUE(same_bits(all.middle_rows(60, 1), running.whole(stories[0], 1)));
  EXPECT_TRUE(same_bits(all.middle_rows(61, 33), running.whole(stories[1], 33)));
}
TEST(MergeSpan, SequencesDoNotMixInABatch) {
  expect_independent_sequences<LatentSpan>();
  expect_independent_sequences<Nested>();
}

}  // namespace merge_span_test
