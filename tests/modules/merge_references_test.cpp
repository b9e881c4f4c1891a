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

/// y = z + z^2 / 2 of each number, and a quarter of the sum of the slots before.
struct Known : Times<width> {
  using LastLayer = Known;
  template <class Real>
  struct Saved {
    DeviceView<Real, 2> z;
  };
  template <class W, class Real>
  static void forward(const Pass<Cpu>& pass, const W&, Caches<Cache> caches, DeviceView<Real, 2> x,
                      DeviceView<Real, 2> y, Saved<std::type_identity_t<Real>>* keep = nullptr) {
    auto scratch = pass.device.scratch();
    Staged<Cpu, CachedRows<const float>> held(pass.device, pass.batch.chunk_count());
    if constexpr (std::is_same_v<Real, float>)
      if (caches) append_rows(pass, caches, std::array<DeviceView<const float, 2>, 1>{x}, scratch, held);
    const View<Real, 2> z(x), to(y);
    for (std::size_t i = 0; i < pass.batch.chunks.size(); ++i) {
      const Chunk& chunk = pass.batch.chunks[i];
      for (Index c = 0; c < width; ++c) {
        Real before = 0;
        for (Index j = 0; j < chunk.first_position; ++j)
          before += static_cast<Real>(View<const float, 2>(held.ready()[i].rows)(j, c));
        for (Index row = chunk.begin; row < chunk.begin + chunk.count; ++row) {
          to(row, c) = z(row, c) + z(row, c) * z(row, c) / 2 + before / 4;
          before += z(row, c);
        }
      }
    }
    if (keep != nullptr) keep->z = x;
  }
  /// Of one whole sequence.
  template <class W, class Real>
  static void backward(const Pass<Cpu>&, const W&, const Saved<Real>& saved, DeviceView<Real, 2> dx, W&) {
    const View<Real, 2> z(saved.z), to(dx);
    for (Index c = 0; c < width; ++c) {
      Real behind = 0;
      for (Index j = z.rows - 1; j >= 0; --j) {
        const Real along = to(j, c);
        to(j, c) = along * (1 + z(j, c)) + behind / 4;
        behind += along;
      }
    }
  }
};
template <class Merging, class Inflation>
using Arm = MergeSpan<Known, SoftTokenMerging<Spec, Merging>, TokenInflation<Spec, Inflation>>;
using HNet = Arm<HNetMerging<>, HNetInflation>;
using DynamicPooling = Arm<DynamicPoolingMerging<>, DynamicPoolingInflation>;
using Hourglass = Arm<HourglassMerging<3>, HourglassInflation>;
using ToMeSd = Arm<HourglassMerging<3>, CopyUnmerge>;
using ToMe = Arm<ToMeMerging<8, 3, FullRankCosine>, CopyUnmerge>;

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
    if constexpr (Span::Policy::Novelty::measures) {
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
  expect_frozen<ToMe>("tome");
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
  expect_the_whole_in_pieces<ToMe>();
}

}  // namespace merge_references_test
