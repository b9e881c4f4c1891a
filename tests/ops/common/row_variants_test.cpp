// Row kernels compiled for the best instruction set against those for the least.
#include <gtest/gtest.h>

#include <cstring>
#include <guild/device/cpu.hpp>
#include <guild/ops/experts/combine.hpp>
#include <guild/ops/head/cross_entropy.hpp>
#include <guild/ops/linear/swiglu.hpp>
#include <limits>

#include "../gradient_check.hpp"

namespace row_variants_test {
using namespace guild_test;

/// Calls compute(device) -> Matrix with the least and the best instruction set, and compares.
template <class Compute>
void expect_same(Compute&& compute, double tolerance) {
  guild::Cpu plain({.threads = 1, .isa = guild::Isa::baseline}), best({.threads = 2});
  const auto expected = compute(plain), got = compute(best);
  EXPECT_TRUE(got.padding_is_untouched());
  for (Index r = 0; r < got.rows; ++r)
    for (Index c = 0; c < got.cols; ++c) {
      if (got(r, c) == expected(r, c)) continue;  // infinities too
      if (std::isnan(expected(r, c))) {
        ASSERT_TRUE(std::isnan(got(r, c))) << r << ", " << c;
      } else {
        ASSERT_NEAR(got(r, c), expected(r, c), tolerance * (1 + std::abs(double(expected(r, c))))) << r << ", " << c;
      }
    }
}

Matrix<float> gates(Index cols) {
  std::mt19937 random(static_cast<unsigned>(cols));
  Matrix<float> gate(3, cols, cols + 1);
  gate.fill_normal(random, 4.0);
  const float special[] = {0.0f, -0.0f, 88.0f, -88.0f, 1e30f, -1e30f, std::numeric_limits<float>::quiet_NaN()};
  for (Index i = 0; i < cols; ++i) gate(2, i) = special[i % 7];
  return gate;
}

TEST(RowVariants, SwigluAgrees) {
  for (Index cols : {1, 7, 8, 9, 16, 75})
    for (int part = 0; part < 4; ++part)
      expect_same(
          [&](auto& device) {
            std::mt19937 random(2);
            auto gate = gates(cols), up = gate, dh = gate, h = gate;
            up.fill_normal(random);
            dh.fill_normal(random);
            if (part == 3) {
              guild::swiglu(device, gate.view(), up.view(), gate.view());
              return gate;
            }
            if (cols % 2 == 0)
              guild::swiglu_backward(device, gate.view(), up.view(), dh.view(), dh.view());
            else
              guild::swiglu_backward(device, gate.view(), up.view(), dh.view(), {});
            return part == 0 ? gate : part == 1 ? up : dh;
          },
          1e-6);
}

TEST(RowVariants, ExpertsAgree) {
  const std::vector<float> weights = {0.5f, -2.0f, 1.0f};
  const guild::ActivationConfig activations[] = {
      {}, {.kind = guild::Activation::gelu_tanh}, {.alpha = 1.702, .limit = 7.0, .up_offset = 1.0}};
  for (Index cols : {1, 7, 8, 9, 16, 75})
    for (int part = 0; part < 12; ++part)
      expect_same(
          [&](auto& device) {
            std::mt19937 random(3);
            auto gate = gates(cols), up = gate, dh = gate;
            Matrix<float> dweights(1, 3);
            up.fill_normal(random);
            dh.fill_normal(random);
            guild::expert_swiglu_backward(device, view_of(weights), gate.view(), up.view(), dh.view(),
                                          dweights.view().row(0), activations[part / 4]);
            return part % 4 == 0 ? gate : part % 4 == 1 ? up : part % 4 == 2 ? dh : dweights;
          },
          part % 4 == 3 ? 5e-6 : 1e-6);
}

TEST(RowVariants, CrossEntropyAgrees) {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  for (Index vocab : {1, 7, 8, 9, 33, 1000})
    for (int part = 0; part < 2; ++part)
      expect_same(
          [&](auto& device) {
            std::mt19937 random(4);
            Matrix<float> logits(7, vocab, vocab + 3), told(7, 3);
            logits.fill_normal(random, 5.0);
            for (Index i = 0; i < vocab; ++i) {
              logits(3, i) = 2.0f;                           // all equal
              logits(4, i) = i % 2 == 0 ? 200.0f : -200.0f;  // far apart
              if (i == vocab / 2) logits(5, i) = nan;
              logits(6, i) = nan;
            }
            const auto before = logits;
            const auto last = static_cast<std::int32_t>(vocab - 1);
            const std::vector<std::int32_t> targets = {last, -1, 0, 0, last, last, 0};
            std::vector<double> loss(7), squared(7);
            std::vector<std::int32_t> correct(7);
            guild::cross_entropy(device, logits.view(), view_of(targets), {.scale = 0.7, .z_loss = 0.01},
                                 part == 0 ? guild::LossWork::gradient : guild::LossWork::value,
                                 {view_of(loss), view_of(squared), view_of(correct)});
            if (part == 1) {  // NaN too
              EXPECT_EQ(std::memcmp(before.data.data(), logits.data.data(), before.data.size() * sizeof(float)), 0);
            }
            for (Index t = 0; t < 7; ++t) {
              const auto n = std::size_t(t);
              told(t, 0) = float(loss[n]), told(t, 1) = float(squared[n]), told(t, 2) = float(correct[n]);
            }
            return part == 0 ? logits : told;
          },
          3e-6);
}

}  // namespace row_variants_test
