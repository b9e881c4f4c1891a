#include <guild/modules/merge_span.hpp>

#include <guild/modules/block.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/segment.hpp>
#include <guild/modules/stack.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "../support/exact_pass.hpp"
#include "../support/one_attention.hpp"
#include "../support/whole_stack.hpp"

namespace merge_span_test {

using guild::Index;
using namespace guild;
using namespace guild_test;

struct Small : Latent {
  static constexpr DenseConfig dense = {.hidden = 40, .layers = 1};
};
template <class S>
using Inner = Segment<Block<S, Mla<S>, DenseFeedForward<S>>, 2>;
template <class S>
using LocalInner = Segment<Block<S, Local<Mla<S>, 9>, DenseFeedForward<S>>, 2>;

struct Half : DefaultMerging {
  using Novelty = CosineNovelty<8>;
  using Budget = TokenBucket<1, 2, 4, 8>;
};
struct Whole : Half {
  using Budget = TokenBucket<1, 1, 1, 8>;
  static constexpr float threshold = 0.0f;
};
struct Small8 : DefaultInflation {
  static constexpr Index gate_rank = 8, detail_rank = 6;
};

/// A stack as a module that does not overwrite its input.
template <class Layers, Index Width = Layers::width>
struct Alone : WholeStack<Layers> {
  static constexpr Index hidden = Width;
  template <class P, class W, class C, class Real, class... Keep>
  static void forward(const P& pass, const W& weights, C caches, DeviceView<const std::type_identity_t<Real>, 2> x,
                      DeviceView<Real, 2> y, Keep... keep) {
    const auto copy = copy_of(x, y);
    copy_rows(pass.device, std::span<const CopyRowsJob<Real, Real>>(&copy, 1));
    Layers::forward(pass, weights, caches, y, y, keep...);
  }
  template <class P, class W, class Real>
  static void forward(const P& pass, const W& weights, std::initializer_list<int>,
                      DeviceView<const std::type_identity_t<Real>, 2> x, DeviceView<Real, 2> y) {
    forward(pass, weights, Caches<typename Layers::Cache>(), x, y);
  }
};
template <class S>
using Plain = Alone<Inner<S>, S::config.hidden>;
template <class S, class Merge = Half, class Inflate = Small8, template <class> class Layers = Inner>
using Span = Alone<MergeSpan<Layers<S>, SoftTokenMerging<S, Merge>, TokenInflation<S, Inflate>>>;

TEST(MergeSpan, WithoutMergedTokensHasTheBitsOfItsLayers) {
  Attention<Span<Small, Whole>> span;
  Attention<Plain<Small>> plain;
  EXPECT_TRUE(same_bits(span.alone(150), plain.alone(150)));
  for (const auto& ends : {std::vector<Index>{150}, std::vector<Index>{3, 4, 100, 150}})
    EXPECT_TRUE(same_bits(span.run(ends), plain.run(ends)));
}

TEST(MergeSpan, ExtendingInAnySplitEqualsOneForward) {
  expect_any_split<Span<Small>>(3e-6);
  expect_any_split<Span<Small, Half, Small8, LocalInner>>(3e-6);
}

}  // namespace merge_span_test
