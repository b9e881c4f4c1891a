// Experts that give their input: the operations by teams, and a mixture that chooses among them too.
#include <guild/ops/experts/identities.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/device/host_team.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/moe.hpp>
#include <guild/training/allocate.hpp>

#include "../../core/code_of.hpp"
#include "../../support/gradient_check.hpp"
#include "../ops_test_support.hpp"

namespace identities_test {

using guild::Index;
using guild::View;
using guild_test::Matrix;

/// Three tokens with three choices each among two experts and two identities, 2 and 3.
struct Case {
  Matrix<std::int32_t> chosen{3, 3};
  Matrix<double> weights{3, 3}, x{3, 5, 6}, dy{3, 5};
  Case() {
    std::mt19937 random(1);
    for (auto* matrix : {&weights, &x, &dy}) matrix->fill_normal(random);
    const std::int32_t choices[] = {0, 2, 3, 1, ~3, 0, 3, 1, guild::no_expert};
    std::copy_n(choices, 9, chosen.data.data());
  }
};

TEST(Identities, AddTheirInputsByTeamsAlike) {
  Case at;
  const double share[] = {at.weights(0, 1) + at.weights(0, 2), 0.0, at.weights(2, 0)};
  for (const int size : {1, 2, 4}) {
    guild::HostTeams teams(size);
    Matrix<double> y(3, 5, 7), dweights(3, 3);
    for (Index t = 0; t < 3; ++t) {
      for (Index i = 0; i < 5; ++i) y(t, i) = double(i);
      for (Index k = 0; k < 3; ++k) dweights(t, k) = 7.0;
    }
    guild::add_identities(teams, 2, at.chosen.view(), at.weights.view(), at.x.view(), y.view());
    guild::identity_weight_gradients(teams, 2, at.chosen.view(), at.x.view(), at.dy.view(), dweights.view());
    for (Index t = 0; t < 3; ++t) {
      double along = 0.0;
      for (Index i = 0; i < 5; ++i) {
        EXPECT_NEAR(y(t, i), double(i) + share[t] * at.x(t, i), 1e-12);
        along += at.x(t, i) * at.dy(t, i);
      }
      for (Index k = 0; k < 3; ++k) EXPECT_NEAR(dweights(t, k), at.chosen(t, k) >= 2 ? along : 7.0, 1e-12);
    }
  }
}

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 19, .hidden = 12, .layers = 2, .context = 64};
  static constexpr guild::TopKConfig routing = {
      .experts = 4, .top_k = 3, .scoring = guild::Scoring::softmax, .normalize = false, .scale = 6.0, .identities = 3};
  static constexpr guild::ExpertConfig experts = {.hidden = 5, .shared = 0};
};
using Moe = guild::Moe<Spec>;

struct MoeCase {
  using Module = Moe;
  static constexpr Index inputs = 12, outputs = 12;
  static constexpr std::int32_t vocab = 19;
  template <class Real>
  using Saved = Moe::Saved<Real>;
  template <class P, class W, class X, class Y, class Saved>
  static void forward(const P& pass, const W& weights, X x, Y y, Saved& saved) {
    Moe::forward(pass, weights, x, y, &saved);
  }
  template <class... A>
  static void backward(A&&... a) {
    Moe::backward(std::forward<A>(a)...);
  }
  template <class... A>
  static double extra_loss(A&&...) {
    return 0.0;
  }
};

TEST(Identities, BackwardOfAMixtureAgreesWithCentralDifferences) { guild_test::gradient_check<MoeCase>({9, 5}, 5); }

TEST(Identities, CostNoSlotAndAreCounted) {
  guild::Cpu device({.threads = 2});
  guild::Random random(5);
  guild_test::RaggedPass ragged(device, {14}, 5, 19);
  Moe::Weights<guild::Dense<double>> weights, gradients;
  guild::allocate<Moe>(weights);
  guild::allocate<Moe>(gradients);
  EXPECT_EQ(weights.router.weight.data.size(), 7 * 12);
  EXPECT_EQ(weights.router.selection_bias.data.size(), 7);
  EXPECT_EQ(weights.experts.gate.data.size(), 4 * 5 * 12);
  Moe::visit(guild_test::FillRandom{&random}, guild::Path{}, weights);
  for (double& value : weights.experts.down.data.view()) value = 0.0;  // what is left is the identities'
  guild::Buffer<double> x(14 * 12), y(14 * 12), dx(14 * 12);
  for (double& value : x.view()) value = guild_test::normal(random);
  std::vector<std::int32_t> chosen(14 * 3);
  guild::RoutingStatistics statistics(1, 7);
  guild::Arena arena;
  guild::Arena::Frame memory(arena);
  auto pass = ragged.pass.with(memory);
  pass.choice.experts = {chosen.data(), 14, 3};
  pass.counts = statistics.view();
  Moe::Saved<double> saved;
  Moe::forward(pass, weights, x.view(14, 12), y.view(14, 12), &saved);
  for (Index t = 0; t < 14; ++t) {
    double share = 0.0;
    for (Index k = 0; k < 3; ++k) share += saved.chosen.data[3 * t + k] >= 4 ? saved.weights_tk.data[3 * t + k] : 0.0;
    for (Index i = 0; i < 12; ++i) ASSERT_NEAR(y[12 * t + i], share * x[12 * t + i], 1e-12) << t;
  }
  Moe::backward(pass, weights, x.view(14, 12), saved, x.view(14, 12), dx.view(14, 12), gradients);
  for (std::int32_t e = 0; e < 7; ++e)
    EXPECT_EQ(statistics.load(0)[e], static_cast<double>(std::count(chosen.begin(), chosen.end(), e))) << e;
  const auto identities = std::count_if(chosen.begin(), chosen.end(), [](std::int32_t e) { return e >= 4; });
  EXPECT_GT(identities, 0);
  EXPECT_EQ(saved.assignment.offsets.data[4], 42 - identities);
}

TEST(Identities, AreRefusedWhereTheyAreNotOffered) {
  guild::Cpu device({.threads = 1});
  std::int32_t chosen[] = {0, 4}, offsets[5], token[2], slots[2];
  const guild::Assignment to{{offsets, 5}, {token, 2}, {slots, 2, 1}};
  EXPECT_EQ(guild_test::code_of([&] {
              guild::assign_experts(device, {chosen, 2, 1}, to);
            }),
            guild::ErrorCode::op_argument);
  guild::assign_experts(device, {chosen, 2, 1}, to, 1);
  EXPECT_EQ(slots[1], -1);
}

}  // namespace identities_test
