// From tokens to slots and back as one: the gradients of all operations, joined as a merge span joins them, are those
// of the formulas in double, in which a single token is no copy and a confidence stands where the forward has 1.
#include <gtest/gtest.h>

#include "merged_span.hpp"

namespace merge_backward_test {
using namespace guild_test;

TEST(MergeBackward, IsThatOfTheFormulasJoined) {
  guild::Cpu device({.threads = 2});
  for (const Groups& groups :
       {Groups({1, 3, 4, 1, 1, 2, 5, 1, 1}, 3), Groups({3, 1, 2}, 0), Groups({1, 1, 1}, 0), Groups({}, 3)}) {
    MergedSpan<double> span(groups);
    const ByOperations<double> of(device, span);
    const auto now = span.novelties();
    ASSERT_NEAR(dot(of.y, span.dy), span.value(now), 1e-12 * (1 + std::abs(span.value(now))));
    const auto value = [&] { return span.value(now); };
    expect_gradient(span.x, of.dx, value, "x");
    expect_gradient(span.q, of.dq, value, "q");
    expect_gradient(span.k, of.dk, value, "k");
    expect_gradient(span.s, of.ds, value, "s");
    expect_gradient(span.eta, of.deta, value, "eta");
  }
}

/// Where every token is a slot, a span is its inner layers, to the bit, and so is its gradient.
TEST(MergeBackward, OfSinglesIsThatOfTheInnerLayers) {
  guild::Cpu device({.threads = 1});
  MergedSpan<double> span(Groups(std::vector<Index>(9, 1), 0));
  const ByOperations<double> of(device, span);
  for (Index t = 0; t < 9; ++t)
    for (Index c = 0; c < span.width; ++c) {
      EXPECT_EQ(of.y(t, c), span.inside(span.x(t, c), c));
      EXPECT_EQ(of.dx(t, c), span.slope(span.x(t, c), c) * span.dy(t, c));
    }
}

}  // namespace merge_backward_test
