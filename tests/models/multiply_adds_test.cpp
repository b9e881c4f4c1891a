// Multiply-adds of the extended model, counted as it runs, against a formula of its numbers.
#include <guild/cpu.hpp>
#include <guild/models/deepseek_r1_extended.hpp>
#include <guild/models/transformer.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <ostream>
#include <tuple>
#include <vector>

#include "../support/counting_device.hpp"
#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"

namespace multiply_adds_test {

using guild::Index;
using guild::LatentForm;
using guild::LayerType;
using namespace guild_test;

/// Of the layers at full length and the head, of those on slots, of merging and inflation, and of all attention.
struct Work {
  Index outer = 0, inner = 0, merging = 0, attention = 0;
  [[nodiscard]] constexpr Index all() const { return outer + inner + merging + attention; }
  friend constexpr Work operator-(const Work& a, const Work& b) {
    return {a.outer - b.outer, a.inner - b.inner, a.merging - b.merging, a.attention - b.attention};
  }
  friend constexpr bool operator==(const Work&, const Work&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Work& work) {
    return out << work.outer << " outside, " << work.inner << " inside, " << work.merging << " to merge, "
               << work.attention << " to attend";
  }
};

/// The sum of min(i, most) over i = 1 ... count.
constexpr Index sum_up_to(Index count, Index most) {
  const Index rising = std::min(count, most);
  return rising * (rising + 1) / 2 + (count - rising) * most;
}

/// The formula: layers of latent attention (DeepSeek-V2 report, section 2.1) and experts of a Spec, those of `span` on
/// slots, with Rank values of novelty, Gate and Detail of inflation.
template <class S, Index Rank = 128, Index Gate = 128, Index Detail = 0>
struct Formula {
  static constexpr Index hidden = S::config.hidden, heads = S::attention.heads, query = S::attention.query_rank,
                         latent = S::attention.latent_rank, nope = S::attention.nope_dim, rope = S::attention.rope_dim,
                         value = S::attention.value_dim;
  static constexpr guild::LayerTypes types = S::windows.types.size() > 0
                                                 ? S::windows.types
                                                 : guild::hybrid_layers(S::config.layers, S::span, S::period);

  static constexpr bool has_far_bias = requires { S::near; };

  /// Products of a row in layer i.
  static constexpr Index row(int i) {
    const Index attention = hidden * query + query * heads * (nope + rope) + hidden * (latent + rope) +
                            latent * heads * (nope + value) + heads * value * hidden;
    const bool gated = has_far_bias && types[i] == LayerType::full_attention;
    const Index experts =
        hidden * S::routing.experts + 3 * hidden * S::experts.hidden * (S::routing.top_k + S::experts.shared);
    return attention + (gated ? heads * hidden : 0) + (i < S::dense.layers ? 3 * hidden * S::dense.hidden : experts);
  }
  /// Of a token: q and k of novelty, u; gate and details of inflation, down and up.
  static constexpr Index token = 2 * Rank * hidden + hidden + 2 * (Gate + Detail) * hidden;

  /// Pairs of a query and a key that it sees, of layer i over n rows.
  static constexpr Index pairs(int i, Index n) {
    if (types[i] == LayerType::full_attention) return sum_up_to(n, n);
    const Index window = S::windows.window;
    return sum_up_to(n, window) + sum_up_to(std::max(n - window, Index{0}), S::pinned);
  }
  /// A key as wide as the latents and a value of them, or those of each head.
  static constexpr Index pair(LatentForm form) {
    return form == LatentForm::absorbed ? heads * (latent + rope + latent) : heads * (nope + rope + value);
  }

  /// Of a sequence of n tokens that closes m slots.
  static constexpr Work of(Index n, Index m, LatentForm form) {
    Work work{.outer = n * S::config.vocab * hidden};
    for (int i = 0; i < S::config.layers; ++i) {
      const bool inside = S::span.has(i);
      (inside ? work.inner : work.outer) += (inside ? m : n) * row(i);
      work.attention += pairs(i, inside ? m : n) * pair(form);
    }
    work.merging = S::span.begin == S::span.end ? 0 : n * token;
    return work;
  }
};

/// Four layers, the first dense: a window, then on slots one that sees all with a far bias and one of a window, and a
/// window again.
struct Few : guild::DefaultMerging {
  using Budget = guild::TokenBucket<1, 2, 4, 8>;  // a burst of which 40 tokens leave enough to be merged
  using Novelty = guild::CosineNovelty<10>;
};
struct FewInflation : guild::DefaultInflation {
  static constexpr Index gate_rank = 7, detail_rank = 5;
};
struct Spec : guild::DeepSeekR1ExtendedDefaults<TinySpec> {
  static constexpr guild::TrunkConfig config = with(TinySpec::config, [](guild::TrunkConfig& c) { c.layers = 4; });
  static constexpr guild::LayerSpan span = {1, 3};
  static constexpr guild::WindowConfig windows = {.window = 6};
  static constexpr Index pinned = 2, near = 3;
  template <class S>
  using Merging = guild::SoftTokenMerging<S, Few>;
  template <class S>
  using Inflation = guild::TokenInflation<S, FewInflation>;
};
static_assert(guild::hybrid_layers(4, {1, 3}, Spec::period) == guild::LayerTypes("sfss"));
using OfSpec = Formula<Spec, 10, 7, 5>;

struct Counted {
  using Model = guild::Transformer<Spec>;
  static constexpr Index length = 40;
  CountingDevice device{guild::CpuOptions{.threads = 2, .isa = guild::Isa::baseline}};
  Model::Weights<guild::Published> weights = random_model<Model>();
  Tokens tokens = random_tokens(length, Spec::config.vocab, 3);
  Model::Cache cache{};

  explicit Counted(LatentForm form) { device.tuning().latent_form = form; }

  /// Of tokens [begin, end), over the cache or alone.
  Work run(Index begin, Index end, bool cached) {
    device.count<Model>(weights);
    const Flat flat({{0, &tokens, begin, end}});
    Matrix states(end - begin, Spec::config.hidden), logits(end - begin, Spec::config.vocab);
    Model::Cache* const caches[] = {&cache};
    Model::forward(guild::Pass<CountingDevice>{.device = device, .batch = flat.batch()}, weights,
                   std::span<Model::Cache* const>(caches, cached ? 1 : 0), states.view());
    Model::logits(device, weights, states.view(), logits.view());
    const auto of = [&](const char* path) { return device.products(path); };
    const Index merging = of("layers.1.merging") + of("layers.1.inflation");
    return {of("layers.0") + of("layers.3") + of("head"), of("layers.1") + of("layers.2") - merging, merging,
            device.attention};
  }
  [[nodiscard]] Index slots() const { return std::get<1>(cache.layers.parts).inner.length(); }
};

/// A token that closes no group costs the outer layers, merging and inflation alone.
TEST(MultiplyAdds, DecodingOneByOneIsTheFormula) {
  Counted counted(LatentForm::absorbed);
  Index open = 0;
  for (Index t = 0; t < Counted::length; ++t) {
    const Index before = counted.slots();
    const Work work = counted.run(t, t + 1, true);
    const bool closes = counted.slots() > before;
    ASSERT_EQ(work,
              OfSpec::of(t + 1, counted.slots(), LatentForm::absorbed) - OfSpec::of(t, before, LatentForm::absorbed))
        << "token " << t;
    ASSERT_EQ(work.inner, closes ? OfSpec::row(1) + OfSpec::row(2) : 0);
    open += closes ? 0 : 1;
  }
  EXPECT_GT(open, 15);
  EXPECT_GT(counted.slots(), 15);
}

TEST(MultiplyAdds, WholePassesAreTheFormula) {
  for (const Index tokens : {1, 2, 7, 13, 40}) {
    Counted absorbed(LatentForm::absorbed), expanded(LatentForm::expanded);
    const Work over_cache = absorbed.run(0, tokens, true);
    const Index slots = absorbed.slots();
    EXPECT_EQ(over_cache, OfSpec::of(tokens, slots, LatentForm::absorbed)) << tokens;
    EXPECT_EQ(expanded.run(0, tokens, true), OfSpec::of(tokens, slots, LatentForm::expanded)) << tokens;
    EXPECT_EQ(expanded.run(0, tokens, false), OfSpec::of(tokens, slots, LatentForm::expanded)) << tokens;
    EXPECT_LE(slots, Few::Budget::max_slots(tokens));
  }
}

/// DeepSeek-R1 with and without what extends it.
struct Plain : guild::DeepSeekR1Spec {
  static constexpr guild::LayerSpan span = {};
  static constexpr guild::WindowConfig windows = {.types = guild::LayerTypes::every(1, 61)};
  static constexpr Index pinned = 0;
  static constexpr int period = 1;
};
struct WindowsAlone : guild::DeepSeekR1ExtendedSpec {
  static constexpr guild::LayerSpan span = {};
  static constexpr guild::WindowConfig windows = {.window = 1024, .types = guild::hybrid_layers(61, {0, 61}, 6)};
};
struct MergingAlone : guild::DeepSeekR1ExtendedSpec {
  static constexpr guild::WindowConfig windows = Plain::windows;
};
using Both = Formula<guild::DeepSeekR1ExtendedSpec>;
static_assert(100 * Both::token < Both::row(60), "merging and inflation are less than a hundredth of one layer");

TEST(MultiplyAdds, OfDeepSeekR1AreThoseOfTheDocs) {
  struct Line {
    Index tokens;
    double plain, windows, merging, both;  ///< 10^12, and shares of them
  };
  for (const Line& line : {Line{4096, 171.0, 0.944, 0.552, 0.537}, Line{32768, 2541.6, 0.594, 0.457, 0.308},
                           Line{131072, 26263.1, 0.341, 0.390, 0.142}}) {
    const auto all = [&]<class S>(Formula<S>) {
      return 1e-12 *
             static_cast<double>(Formula<S>::of(line.tokens, 16 + (line.tokens - 1) / 2, LatentForm::expanded).all());
    };
    const double plain = all(Formula<Plain>());
    EXPECT_NEAR(plain, line.plain, 0.05);
    EXPECT_NEAR(all(Formula<WindowsAlone>()) / plain, line.windows, 5e-4);
    EXPECT_NEAR(all(Formula<MergingAlone>()) / plain, line.merging, 5e-4);
    EXPECT_NEAR(all(Both()) / plain, line.both, 5e-4);
  }
}

}  // namespace multiply_adds_test
