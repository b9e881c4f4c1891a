// Hyper-connections against transformers' DeepSeek-V4 modules and their gradients by autograd
// (tests/oracle/make_deepseek_v4_fixture.py).
#include <guild/modules/hyper_connections.hpp>

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/modules/block.hpp>
#include <guild/modules/linear.hpp>
#include <guild/training/allocate.hpp>

#include "../support/frozen_tensors.hpp"
#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"

namespace hyper_connections_test {

using guild::Buffer;
using guild::Index;
using guild::View;
using guild_test::FrozenTensors;

struct Spec {
  static constexpr guild::TrunkConfig config = {.vocab = 11, .hidden = 6, .layers = 1};
  static constexpr guild::HyperConfig hyper = {};
};
using Residual = guild::HyperConnections<Spec>;
using Head = guild::StreamMixing<6, Spec::hyper, guild::StreamEnd::mixed>;
constexpr Index tokens = 5, hidden = 6, width = 24;
static_assert(Residual::width == width && Residual::hidden == hidden && Residual::Mixing::count == 24);

/// One sub-layer, a matrix, and the head behind it: forward and back.
template <class Real>
struct OneSublayer {
  FrozenTensors frozen{"deepseek_v4"};
  guild::Cpu device{{.threads = 2}};
  guild::Arena arena;
  guild::Arena::Frame memory{arena};
  guild::Pass<guild::Cpu> pass{.device = device, .memory = &memory};
  typename Residual::template Weights<guild::Dense<Real>> weights, gradients;
  typename Head::template Weights<guild::Dense<Real>> head, head_gradients;
  typename guild::Linear<hidden, hidden>::template Weights<guild::Dense<Real>> inner, inner_gradients;
  Buffer<Real> x{tokens * width}, out{tokens * hidden}, y{tokens * width}, z{tokens * hidden}, dz{tokens * hidden},
      dx{tokens * width}, collapsed{tokens * hidden};
  guild::StreamMix<Real> saved{}, saved_head{};

  OneSublayer() {
    for (auto* one : {&weights, &gradients}) guild::allocate<typename Residual::Mixing>(*one);
    for (auto* one : {&head, &head_gradients}) guild::allocate<Head>(*one);
    for (auto* one : {&inner, &inner_gradients}) guild::allocate<guild::Linear<hidden, hidden>>(*one);
    frozen.load("stream.x", x.view());
    frozen.load("stream.inner", inner.weight.data.view());
    frozen.load("stream.fn", weights.weight.data.view());
    frozen.load("stream.base", weights.bias.data.view());
    frozen.load("stream.scale", weights.scale.data.view());
    frozen.load("stream.head_fn", head.weight.data.view());
    frozen.load("stream.head_base", head.bias.data.view());
    frozen.load("stream.head_scale", head.scale.data.view());
    frozen.load("stream.dz", dz.view());
  }
  static guild::DeviceView<Real, 2> rows(Buffer<Real>& of, Index cols) { return of.view(tokens, cols); }

  void forward() {
    auto room = pass.room(&saved);
    const guild::DeviceView<const Real, 2> in =
        Residual::enter(pass, weights, guild::DeviceView<const Real, 2>(rows(x, width)), room, saved);
    for (Index t = 0; t < tokens; ++t)
      for (Index i = 0; i < hidden; ++i) collapsed[t * hidden + i] = View<const Real, 2>(in)(t, i);
    guild::Linear<hidden, hidden>::forward(device, inner, in, rows(out, hidden));
    Residual::leave(pass, saved, rows(x, width), rows(out, hidden), rows(y, width));
    Head::forward(pass, head, Spec::config.norm.epsilon, guild::DeviceView<const Real, 2>(rows(y, width)), room,
                  saved_head);
    guild::collapse_streams<4>(device, saved_head.weights, rows(y, width), rows(z, hidden));
  }
  void backward() {
    auto scratch = device.scratch();
    const auto dy = scratch.template take<Real>(tokens, width);
    const auto of_head = scratch.template take<Real>(tokens, Index{4});
    guild::collapse_streams_backward<4>(device, saved_head.weights, rows(y, width), rows(dz, hidden), dy, of_head);
    Head::backward(pass, head, rows(y, width), saved_head, of_head, dy, head_gradients);
    const auto work = Residual::Workspace<Real>::take(scratch, tokens);
    typename Residual::template Back<guild::Cpu, guild::Dense<Real>, Real> back(pass, weights, saved, work,
                                                                                rows(x, width), rows(dx, width));
    const auto dout = back.leave(rows(out, hidden), dy);
    const auto din = scratch.template take<Real>(tokens, hidden);
    guild::Linear<hidden, hidden>::backward(device, inner, back.input(), dout, din, inner_gradients);
    for (Index t = 0; t < tokens; ++t)
      for (Index i = 0; i < hidden; ++i) View<Real, 2>(back.dinput())(t, i) = View<Real, 2>(din)(t, i);
    back.enter(gradients);
  }
  [[nodiscard]] double error(guild::DeviceView<Real> found, const std::string& name) const {
    return frozen.error(View<const Real>(found), "stream." + name);
  }
};

template <class Real>
class HyperConnections : public testing::Test {};
using Reals = testing::Types<float, double>;
TYPED_TEST_SUITE(HyperConnections, Reals);

TYPED_TEST(HyperConnections, MixStreamsAsTransformersDoesForDeepSeekV4) {
  OneSublayer<TypeParam> layer;
  layer.forward();
  const double tolerance = sizeof(TypeParam) == 4 ? 2e-6 : 1e-7;
  Buffer<TypeParam> post(tokens * 4), comb(tokens * 16);
  const View<TypeParam, 2> weights = layer.saved.weights;
  for (Index t = 0; t < tokens; ++t) {
    for (Index m = 0; m < 4; ++m) post[t * 4 + m] = weights(t, 4 + m);
    for (Index m = 0; m < 16; ++m) comb[t * 16 + m] = weights(t, 8 + m);
  }
  EXPECT_LE(layer.error(post.view(), "post"), tolerance);
  EXPECT_LE(layer.error(comb.view(), "comb"), tolerance);
  EXPECT_LE(layer.error(layer.collapsed.view(), "collapsed"), tolerance);
  EXPECT_LE(layer.error(layer.y.view(), "y"), tolerance);
  EXPECT_LE(layer.error(layer.z.view(), "z"), tolerance);
}

TYPED_TEST(HyperConnections, HaveTheGradientsOfAutograd) {
  OneSublayer<TypeParam> layer;
  layer.forward();
  layer.backward();
  const double tolerance = sizeof(TypeParam) == 4 ? 1e-5 : 1e-7;
  EXPECT_LE(layer.error(layer.dx.view(), "dx"), tolerance);
  EXPECT_LE(layer.error(layer.inner_gradients.weight.data.view(), "dinner"), tolerance);
  EXPECT_LE(layer.error(layer.gradients.weight.data.view(), "dfn"), tolerance);
  EXPECT_LE(layer.error(layer.gradients.bias.data.view(), "dbase"), tolerance);
  EXPECT_LE(layer.error(layer.gradients.scale.data.view(), "dscale"), tolerance);
  EXPECT_LE(layer.error(layer.head_gradients.weight.data.view(), "dhead_fn"), tolerance);
  EXPECT_LE(layer.error(layer.head_gradients.bias.data.view(), "dhead_base"), tolerance);
  EXPECT_LE(layer.error(layer.head_gradients.scale.data.view(), "dhead_scale"), tolerance);
}

}  // namespace hyper_connections_test
