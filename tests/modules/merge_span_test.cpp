#include <guild/modules/merge_span.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "../support/exact_pass.hpp"
#include "../support/merged_layers.hpp"

namespace merge_span_test {

using guild::Index;
using namespace guild;
using namespace guild_test;

using Latents = TwoOf<SmallMla, Mla<SmallMla>>;
using Grouping = TwoOf<SmallGqa, Gqa<SmallGqa>>;
using Near = TwoOf<SmallGqa, Local<Gqa<SmallGqa>, 5, 2, 4>>;
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
}
/// Positions too are those of tokens.
TEST(MergeSpan, WithoutMergedSlotsHasTheBitsOfTheSpanAroundIt) {
  Attention<Alone<SpanOf<SmallGqa, SpanOf<SmallGqa, Near, Whole>, Half>>> nested;
  Attention<Alone<SpanOf<SmallGqa, Near, Half>>> one;
  EXPECT_TRUE(same_bits(nested.alone(150), one.alone(150)));
  for (const auto& ends : {std::vector<Index>{150}, std::vector<Index>{3, 4, 100, 150}})
    EXPECT_TRUE(same_bits(nested.run(ends), one.run(ends)));
}

// Over caches.

TEST(MergeSpan, ExtendingInAnySplitEqualsOneForward) {
  expect_any_split<Alone<SpanOf<SmallMla, Latents, Half>>>(3e-6);
  expect_any_split<Alone<SpanOf<SmallGqa, Near, Third>>>(3e-6);
}

}  // namespace merge_span_test
