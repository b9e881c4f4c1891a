// Gated products that write both of their products, alone and in groups. What they compute is tested with `linear`.
#include <guild/cpu.hpp>
#include <guild/ops/linear/gated.hpp>
#include <guild/ops/linear/swiglu.hpp>

#include <gtest/gtest.h>

#include <cstring>
#include <span>
#include <string>
#include <vector>

#include <guild/ops/experts/grouped.hpp>

#include "../../support/random_weights.hpp"

namespace gated_linear_test {

using guild::Index;
using guild::View;
using guild_test::random_values;

constexpr Index rows = 11, in = 19, out = 23;

template <class Real>
struct Products {
  guild::Cpu device{{.threads = 2}};
  guild::Buffer<float> gate_w = random_values(out * in, 1), up_w = random_values(out * in, 2);
  guild::Buffer<Real> x{rows * in}, h{rows * out}, gate{rows * out}, up{rows * out}, expected_h{rows * out},
      expected_gate{rows * out}, expected_up{rows * out};

  Products() {
    const auto values = random_values(rows * in, 3);
    for (Index i = 0; i < x.size(); ++i) x[i] = static_cast<Real>(values[i]);
    guild::linear(device, weight(gate_w), View<const Real, 2>(x.view(rows, in)), expected_gate.view(rows, out));
    guild::linear(device, weight(up_w), View<const Real, 2>(x.view(rows, in)), expected_up.view(rows, out));
    guild::swiglu(device, expected_gate.view(rows, out), expected_up.view(rows, out), expected_h.view(rows, out));
  }
  static guild::WeightView weight(const guild::Buffer<float>& values) {
    guild::WeightView view;
    view.format = guild::DType::f32;
    view.data = reinterpret_cast<const std::byte*>(values.data());
    view.rows = out, view.cols = in;
    return view;
  }
  [[nodiscard]] guild::BasicGatedJob<Real> job(bool both) {
    guild::BasicGatedJob<Real> job{weight(gate_w), weight(up_w), x.view(rows, in), h.view(rows, out)};
    if (both) job.gate_out = gate.view(rows, out), job.up_out = up.view(rows, out);
    return job;
  }
  static bool same(const guild::Buffer<Real>& a, const guild::Buffer<Real>& b) {
    return std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(Real)) == 0;
  }
};

template <class Real>
class GatedLinear : public testing::Test {};
using Reals = testing::Types<float, double>;
TYPED_TEST_SUITE(GatedLinear, Reals);

TYPED_TEST(GatedLinear, WithBothProductsIsLinearAndSwigluToTheBit) {
  Products<TypeParam> p;
  const auto job = p.job(true);
  guild::gated_linear(p.device, std::span<const guild::BasicGatedJob<TypeParam>>(&job, 1));
  EXPECT_TRUE(p.same(p.gate, p.expected_gate));
  EXPECT_TRUE(p.same(p.up, p.expected_up));
  EXPECT_TRUE(p.same(p.h, p.expected_h));
}

TYPED_TEST(GatedLinear, WithoutThemComputesTheSameUpToRounding) {
  Products<TypeParam> p;
  const auto job = p.job(false);
  guild::gated_linear(p.device, std::span<const guild::BasicGatedJob<TypeParam>>(&job, 1));
  for (Index i = 0; i < p.h.size(); ++i) EXPECT_NEAR(p.h[i], p.expected_h[i], 1e-5) << i;
}

TYPED_TEST(GatedLinear, RunsEveryActivationAloneBesideAndInGroups) {
  const std::vector<std::int32_t> offsets = {0, 4, 4, 11};
  for (const guild::ActivationConfig& activation :
       {guild::ActivationConfig{.kind = guild::Activation::gelu_tanh},
        guild::ActivationConfig{.alpha = 1.702, .limit = 0.5, .up_offset = 1.0}}) {
    Products<TypeParam> alone, p, beside;
    guild::swiglu(p.device, p.expected_gate.view(rows, out), p.expected_up.view(rows, out),
                  p.expected_h.view(rows, out), activation);
    auto job = alone.job(false);
    job.activation = activation;
    guild::gated_linear(p.device, std::span<const guild::BasicGatedJob<TypeParam>>(&job, 1));
    EXPECT_TRUE(p.same(alone.h, p.expected_h));

    const auto for_all = [](const guild::WeightView& weight) { return guild::StackView{weight, 3, 0, 0, nullptr}; };
    const auto run = [&](const guild::ActivationConfig& of_group, const guild::ActivationConfig& of_job) {
      job = beside.job(false);
      job.activation = of_job;
      guild::grouped_gated<TypeParam>(
          p.device, std::span<const guild::BasicGatedJob<TypeParam>>(&job, 1),
          {for_all(p.weight(p.gate_w)), for_all(p.weight(p.up_w)), View<const std::int32_t>(offsets.data(), 4),
           p.x.view(rows, in), p.h.view(rows, out), nullptr, View<TypeParam, 2>(), View<TypeParam, 2>(), of_group});
    };
    run(activation, {});
    for (Index i = 0; i < p.h.size(); ++i) {
      ASSERT_NEAR(p.h[i], p.expected_h[i], 1e-5) << i;
      ASSERT_NEAR(beside.h[i], beside.expected_h[i], 1e-5) << i;
    }
    run({}, activation);
    for (Index i = 0; i < p.h.size(); ++i) {
      ASSERT_NEAR(p.h[i], beside.expected_h[i], 1e-5) << i;
      ASSERT_NEAR(beside.h[i], p.expected_h[i], 1e-5) << i;
    }
  }
}

TYPED_TEST(GatedLinear, GroupsWriteBothProductsOfEverySlotAndOfWhatRunsBeside) {
  Products<TypeParam> p, beside;
  const std::vector<std::int32_t> offsets = {0, 4, 4, 11};
  const auto for_all = [](const guild::WeightView& weight) { return guild::StackView{weight, 3, 0, 0, nullptr}; };
  const auto job = beside.job(true);
  const View<const TypeParam, 2> x = p.x.view(rows, in);
  const guild::GroupedGated<TypeParam> group{
      for_all(p.weight(p.gate_w)),
      for_all(p.weight(p.up_w)),
      View<const std::int32_t>(offsets.data(), 4),
      x,
      p.h.view(rows, out),
      nullptr,
      p.gate.view(rows, out),
      p.up.view(rows, out)};
  guild::grouped_gated(p.device, std::span<const guild::BasicGatedJob<TypeParam>>(&job, 1), group);
  for (auto* found : {&p, &beside}) {
    // Groups are smaller than the whole, and small products may sum in another order.
    for (Index i = 0; i < p.h.size(); ++i) {
      ASSERT_NEAR(found->gate[i], found->expected_gate[i], 1e-5) << i;
      ASSERT_NEAR(found->up[i], found->expected_up[i], 1e-5) << i;
      ASSERT_NEAR(found->h[i], found->expected_h[i], 1e-4) << i;
    }
  }
  EXPECT_TRUE(p.same(beside.h, beside.expected_h));
}

TEST(GatedJobs, AllOfACallWriteBothProductsOrNoneDoes) {
  Products<float> p;
  std::vector<guild::GatedJob> jobs = {p.job(true), p.job(false)};
  const auto message = [&]() -> std::string {
    try {
      guild::gated_linear(p.device, std::span<const guild::GatedJob>(jobs));
    } catch (const guild::Error& error) { return error.what(); }
    return "none";
  };
  EXPECT_NE(message().find("gated job 1: all jobs of a call have memory for both products, or none has"),
            std::string::npos);
  jobs = {p.job(true)};
  jobs[0].up_out = {};
  EXPECT_NE(message().find("gated job 0"), std::string::npos);
}

}  // namespace gated_linear_test
