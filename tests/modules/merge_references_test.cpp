// Published methods against their formulas in float64 with gradients by autograd
// (tests/oracle/make_merge_references_fixture.py), and against themselves when they decode.
#include <guild/modules/merge_references.hpp>

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include <guild/training/allocate.hpp>

#include "../support/frozen_tensors.hpp"
#include "../support/gradient_check.hpp"
#include "../support/merged_layers.hpp"

namespace merge_references_test {

using namespace guild;
using namespace guild_test;

constexpr Index tokens = 26, width = 6;
struct Spec {
  static constexpr TrunkConfig config = {.vocab = 97, .hidden = width, .layers = 1};
};

/// y = z + z^2 / 2 of each number, and a cache of z.
struct Known : Times<width> {
  using LastLayer = Known;
  template <class Real>
  struct Saved {
    DeviceView<Real, 2> z;
  };
  template <class W, class Real>
  static void forward(const Pass<Cpu>& pass, const W& weights, Caches<Cache> caches, DeviceView<Real, 2> x,
                      DeviceView<Real, 2> y, Saved<std::type_identity_t<Real>>* keep = nullptr) {
    Times<width>::Saved<Real> none;
    Times<width>::forward(pass, weights, caches, x, y, &none);
    for (Real& value : View<Real>({y.data, y.rows * y.cols})) value += value * value / 2;
    if (keep != nullptr) keep->z = x;
  }
  template <class W, class Real>
  static void backward(const Pass<Cpu>&, const W&, const Saved<Real>& saved, DeviceView<Real, 2> dx, W&) {
    const View<Real, 2> z(saved.z), to(dx);
    for (Index j = 0; j < z.rows; ++j)
      for (Index c = 0; c < z.cols; ++c) to(j, c) *= 1 + z(j, c);
  }
};
template <class Merging, class Inflation>
using Arm = MergeSpan<Known, SoftTokenMerging<Spec, Merging>, TokenInflation<Spec, Inflation>>;
using HNet = Arm<HNetMerging<width>, HNetInflation>;
using DynamicPooling = Arm<DynamicPoolingMerging<width>, DynamicPoolingInflation>;
using Hourglass = Arm<HourglassMerging<3>, HourglassInflation>;
using ToMeSd = Arm<HourglassMerging<3>, CopyUnmerge>;

/// An arm in double, forward and back.
template <class Span>
struct Frozen {
  using Module = WholeStack<Span>;
  FrozenTensors frozen{"merge_references"};
  Cpu device{{.threads = 2}};
  typename Span::template Weights<Dense<double>> weights, gradients;
  Buffer<double> y{tokens * width}, dx{tokens * width};

  Frozen() {
    for (auto* one : {&weights, &gradients}) allocate<Module>(*one);
    const RaggedPass whole(device, {tokens}, 1, 97);
    Arena arena;
    Arena::Frame memory(arena);
    const auto pass = whole.pass.with(memory);
    Buffer<double> x(tokens * width);
    frozen.load("x", x.view());
    frozen.load("dy", dx.view());
    if constexpr (Span::Policy::Novelty::rank > 0) {
      frozen.load("project", weights.merging.project.weight.data.view());
      frozen.load("shift", weights.merging.shift.weight.data.view());
    }
    if constexpr (Span::Slots::Policy::maps_residual)
      frozen.load("residual", weights.inflation.residual.weight.data.view());
    typename Span::template Saved<double> saved;
    Span::forward(pass, weights, {}, x.view(tokens, width), y.view(tokens, width), &saved);
    Span::backward(pass, weights, saved, dx.view(tokens, width), gradients);
  }
  void expect(const Buffer<double>& found, const std::string& name) const {
    EXPECT_LE(frozen.error(std::as_const(found).view(), name), 2e-7) << name;
  }
};
TEST(MergeReferences, OfHNetAreItsFormulasWithAllGradients) {
  const Frozen<HNet> arm;
  arm.expect(arm.y, "hnet.y");
  arm.expect(arm.dx, "hnet.dx");
  arm.expect(arm.gradients.inflation.residual.weight.data, "hnet.dresidual");
  arm.expect(arm.gradients.merging.project.weight.data, "hnet.dproject");
  arm.expect(arm.gradients.merging.shift.weight.data, "hnet.dshift");
}
template <class Span>
void expect_frozen(const std::string& name) {
  const Frozen<Span> arm;
  arm.expect(arm.y, name + ".y");
  arm.expect(arm.dx, name + ".dx");
}
TEST(MergeReferences, AreTheirFormulas) {
  expect_frozen<DynamicPooling>("dynamic");
  expect_frozen<Hourglass>("hourglass");
  expect_frozen<ToMeSd>("copy");
}

template <class Span>
void expect_the_whole_in_pieces() {
  Running<Alone<Span>> running;
  const Story story(90, width, 3);
  const Matrix whole = running.whole(story);
  for (const auto& ends : splits(story.size())) {
    auto cache = running.cache_of(story.size());
    ASSERT_LE(relative_error(running.extend(cache, story, ends), whole), 1e-6) << ends.size() << " pieces";
  }
}
TEST(MergeReferences, DecodeWhatTheyAreAsAWhole) {
  expect_the_whole_in_pieces<HNet>();
  expect_the_whole_in_pieces<DynamicPooling>();
  expect_the_whole_in_pieces<Hourglass>();
  expect_the_whole_in_pieces<ToMeSd>();
}

}  // namespace merge_references_test
