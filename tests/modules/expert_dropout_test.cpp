// Experts with dropout against torch (tests/oracle/make_router_fixture.py), their gradients against central
// differences. That layers which are computed again drop the same is seen in tests/training/noise_test.cpp.
#include <guild/cpu.hpp>
#include <guild/modules/expert_dropout.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <guild/modules/moe.hpp>
#include <guild/modules/ungated_expert_pool.hpp>

#include "../support/frozen_tensors.hpp"
#include "../support/gradient_check.hpp"

namespace expert_dropout_test {

using guild::Index;
using guild::View;
using guild_test::FrozenTensors;

constexpr guild::Noise noise{.on = true, .seed = 0x123456789ABCDEF};

struct Plain {
  static constexpr guild::TrunkConfig config = {.hidden = 6};
  static constexpr guild::TopKConfig routing = {
      .experts = 8, .top_k = 3, .scoring = guild::Scoring::softmax, .selection = guild::Selection::greedy};
  static constexpr guild::ExpertConfig experts = {.hidden = 5, .shared = 0};
  template <class S>
  using Router = guild::TopKRouter<S>;
  template <class S>
  using Experts = guild::ExpertPool<S>;
  template <class S>
  using Dispatch = guild::Here;
};
struct Dropping : Plain {
  static constexpr guild::ExpertConfig experts = {.hidden = 5, .shared = 0, .dropout = 0.4};
};
struct Ungated : Plain {
  static constexpr guild::ExpertConfig experts = {
      .hidden = 5,
      .shared = 0,
      .activation = {.kind = guild::Activation::relu_squared, .gated = false},
      .dropout = 0.4};
  template <class S>
  using Experts = guild::UngatedExpertPool<S>;
};
static_assert(Dropping::experts.canonical() == Plain::experts, "files say the same of both");

/// A mixture on its own, with the weights of the fixture.
template <class S>
struct OneMoe {
  using Moe = guild::Moe<S>;
  FrozenTensors frozen{"routers"};
  guild::Cpu device{{.threads = 2}};
  guild::Arena arena;
  guild::Arena::Frame memory{arena};
  guild::Pass<guild::Cpu> pass{.device = device, .memory = &memory, .layer = 3, .noise = noise};
  typename Moe::template Weights<guild::Dense<double>> weights, gradients;
  typename Moe::template Saved<double> saved;
  guild::Buffer<double> x{7 * 6}, y{7 * 6}, dy{7 * 6}, dx{7 * 6};

  OneMoe() {
    guild::allocate<Moe>(weights);
    guild::allocate<Moe>(gradients);
    frozen.load("x", x.view());
    frozen.load("dropout.dy", dy.view());
    frozen.load("weight", weights.router.weight.data.view());
    if constexpr (requires { weights.experts.gate; }) frozen.load("dropout.gate", weights.experts.gate.data.view());
    frozen.load("dropout.up", weights.experts.up.data.view());
    frozen.load("dropout.down", weights.experts.down.data.view());
  }
  const guild::Buffer<double>& forward(bool keep = true) {
    Moe::forward(pass, weights, x.view(7, 6), y.view(7, 6), keep ? &saved : nullptr);
    return y;
  }
  void expect(const std::string& name) {
    forward();
    Moe::backward(pass, weights, x.view(7, 6), saved, dy.view(7, 6), dx.view(7, 6), gradients);
    const auto same = [&](const guild::Buffer<double>& found, const char* tensor) {
      EXPECT_LE(frozen.error(View<const double>(found.view()), name + tensor), 1e-7) << tensor;
    };
    same(y, ".y"), same(dx, ".dx"), same(gradients.router.weight.data, ".drouter");
    same(gradients.experts.up.data, ".dup"), same(gradients.experts.down.data, ".ddown");
    if constexpr (requires { gradients.experts.gate; }) same(gradients.experts.gate.data, ".dgate");
  }
};

TEST(ExpertDropout, IsThatOfTorchWithTheSameDraws) {
  OneMoe<Dropping>().expect("dropout");
  OneMoe<Ungated>().expect("dropout_ungated");
}

TEST(ExpertDropout, LeavesPassesWithoutNoiseAsTheyAre) {
  static_assert(sizeof(OneMoe<Dropping>::saved) == sizeof(OneMoe<Plain>::saved), "no mask is kept");
  OneMoe<Dropping> dropping;
  OneMoe<Plain> plain;
  EXPECT_FALSE(std::ranges::equal(dropping.forward().view(), plain.forward().view()));
  dropping.pass.noise = {};
  for (const bool keep : {true, false})
    EXPECT_TRUE(std::ranges::equal(dropping.forward(keep).view(), plain.forward(keep).view()));
}

template <class S>
struct MoeCase {
  using Module = guild::Moe<S>;
  static constexpr Index inputs = 6, outputs = 6;
  static constexpr std::int32_t vocab = 5;
  template <class Real>
  using Saved = typename Module::template Saved<Real>;
  template <class P>
  static P noisy(P pass) {
    pass.noise = noise;
    return pass;
  }
  template <class P, class W, class X, class Y, class Kept>
  static void forward(const P& pass, const W& weights, X x, Y y, Kept& saved) {
    Module::forward(noisy(pass), weights, x, y, &saved);
  }
  template <class P, class... A>
  static void backward(const P& pass, A&&... a) {
    Module::backward(noisy(pass), std::forward<A>(a)...);
  }
  template <class... A>
  static double extra_loss(A&&...) {
    return 0.0;
  }
};
TEST(ExpertDropout, HasTheGradientsOfCentralDifferences) {
  guild_test::gradient_check<MoeCase<Dropping>>({4, 3}, 5);
  guild_test::gradient_check<MoeCase<Ungated>>({4, 3}, 5);
}

TEST(ExpertDropout, KeepsMeansAndDrawsByTokenAndExpert) {
  guild::Cpu device({.threads = 2});
  // Two tokens with the experts 0 and 2 of four, of which the others serve nobody.
  const std::vector<std::int32_t> offsets = {0, 2, 2, 4, 4}, token = {0, 1, 0, 1};
  const View<const std::int32_t> bounds(offsets.data(), 5);
  constexpr Index width = 64;
  constexpr int seeds = 400;
  constexpr double p = 0.3, count = 4.0 * width * seeds;
  std::vector<double> first, h(4 * width);
  double sum = 0.0, dropped = 0.0;
  for (int seed = 0; seed < seeds; ++seed) {
    std::fill(h.begin(), h.end(), 1.0);
    const auto draws = guild::Noise{true, std::uint64_t(seed)}.draws(1, guild::NoisePurpose::expert_hidden);
    guild::drop_slots(device, draws, p, bounds, View<const std::int32_t>(token.data(), 4),
                      View<double, 2>(h.data(), 4, width));
    for (const double value : h) {
      ASSERT_TRUE(value == 0.0 || std::abs(value - 1.0 / (1.0 - p)) < 1e-15);
      sum += value, dropped += value == 0.0 ? 1.0 : 0.0;
    }
    if (seed == 0) first = h;
  }
  EXPECT_NEAR(dropped / count, p, 4.0 * std::sqrt(p * (1.0 - p) / count));
  EXPECT_NEAR(sum / count, 1.0, 4.0 * std::sqrt(p / (1.0 - p) / count));
  EXPECT_NE(first, h) << "another seed drops others";
  const auto row = [&](Index s) { return std::vector(h.begin() + s * width, h.begin() + (s + 1) * width); };
  for (Index s = 1; s < 4; ++s) EXPECT_NE(row(0), row(s)) << s;

  // Where a slot lies changes nothing: token 1 alone, and expert 2's slot before all others of its.
  const std::vector<std::int32_t> alone = {0, 0, 0, 1, 1}, second = {1};
  std::vector<double> again(width, 1.0);
  guild::drop_slots(device, guild::Noise{true, seeds - 1}.draws(1, guild::NoisePurpose::expert_hidden), p,
                    View<const std::int32_t>(alone.data(), 5), View<const std::int32_t>(second.data(), 1),
                    View<double, 2>(again.data(), 1, width));
  EXPECT_EQ(again, row(3));
}

}  // namespace expert_dropout_test
