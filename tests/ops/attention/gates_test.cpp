// Gates of attention: by their definitions in double, and the one softmax with a far bias as a mixture of two.
#include <gtest/gtest.h>

#include <cmath>
#include <span>
#include <utility>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/ops/attention/attention.hpp>
#include <guild/ops/attention/gates.hpp>

#include "../gradient_check.hpp"

namespace attention_gates_test {
using namespace guild;
using namespace guild_test;

TEST(AttentionGates, ALengthBiasGrowsWithTheLogarithmOfTheWindows) {
  Cpu device({.threads = 2});
  const std::vector<std::int32_t> positions = {0, 7, 8, 1000, 163839};
  const std::vector<float> head = {0.5f, -1.0f, 0.0f}, length = {0.25f, 0.0f, -2.0f};
  Matrix<float> bias(5, 3);
  std::mt19937 random(1);
  bias.fill_normal(random);
  const Matrix<float> before = bias;
  add_length_bias(device, view_of(head), view_of(length), view_of(positions), 8, bias.view());
  for (Index t = 0; t < 5; ++t)
    for (Index h = 0; h < 3; ++h)
      EXPECT_NEAR(bias(t, h),
                  before(t, h) + head[std::size_t(h)] +
                      length[std::size_t(h)] * std::log(1.0 + (positions[std::size_t(t)] + 1.0) / 8.0),
                  3e-6);
  EXPECT_EQ(
      code_of([&] { add_length_bias(device, view_of(head), view_of(length), view_of(positions), 0, bias.view()); }),
      ErrorCode::op_argument);
}

struct Result {
  Matrix<double> out, lse;
};

/// One softmax over all keys with a bias on the far ones is lambda o_near + (1 - lambda) o_far with
/// lambda = sigmoid(lse_near - lse_far - bias).
TEST(AttentionGates, AFarBiasMixesTheTwoSoftmaxesOfNearAndFarKeys) {
  constexpr Index n = 40, heads = 2, width = 5, value = 3;
  Cpu device({.threads = 2});
  std::mt19937 random(2);
  Matrix<double> q(n, heads * width), k(n, heads * width), v(n, heads * value), bias(n, heads);
  for (auto* m : {&q, &k, &v, &bias}) m->fill_normal(random);
  const KeyWindow near{9, 2};
  const auto run = [&](const KeyWindow& keys, bool biased) {
    Result result{Matrix<double>(n, heads * value), Matrix<double>(n, heads)};
    std::vector<BasicExpandedAttentionJob<double>> jobs(1);
    jobs[0].q = q.view(), jobs[0].k_nope = k.view(), jobs[0].v = v.view();
    jobs[0].out = result.out.view(), jobs[0].lse = result.lse.view();
    if (biased) jobs[0].far_bias = bias.view();
    const BasicExpandedAttentionSizes<double> sizes{heads, width, 0, value, 0.4, AttentionMask::causal, 1, keys, near};
    expanded_attention(device, std::span<const BasicExpandedAttentionJob<double>>(jobs), sizes);
    return result;
  };
  const Result all = run({}, false), window = run(near, false), gated = run({}, true);
  for (Index t = 0; t < n; ++t)
    for (Index h = 0; h < heads; ++h) {
      const double far = std::exp(all.lse(t, h)) - std::exp(window.lse(t, h));
      const bool has_far = t >= near.window + near.pinned;
      const double lambda = has_far ? 1.0 / (1.0 + std::exp(-(window.lse(t, h) - std::log(far) - bias(t, h)))) : 1.0;
      for (Index c = h * value; c < (h + 1) * value; ++c) {
        const double of_window = window.out(t, c);
        const double of_far = (std::exp(all.lse(t, h)) * all.out(t, c) - std::exp(window.lse(t, h)) * of_window) / far;
        ASSERT_NEAR(gated.out(t, c), has_far ? lambda * of_window + (1.0 - lambda) * of_far : of_window, 1e-11) << t;
      }
    }
}

TEST(AttentionGates, BranchesAreMixedHeadByHead) {
  Cpu device({.threads = 2});
  std::mt19937 random(3);
  Matrix<double> shares(4, 6), near(4, 15), all(4, 15), out(4, 15), dout(4, 15), dnear(4, 15), dall(4, 15);
  Matrix<double> dshares(4, 6);
  for (auto* m : {&shares, &near, &all, &dout}) m->fill_normal(random);
  const auto loss = [&] {
    mix_branches(device, shares.view(), near.view(), all.view(), out.view());
    double sum = 0;
    for (Index t = 0; t < 4; ++t)
      for (Index c = 0; c < 15; ++c) sum += out(t, c) * dout(t, c);
    return sum;
  };
  double expected = 0;
  for (Index t = 0; t < 4; ++t)
    for (Index c = 0; c < 15; ++c)
      expected += dout(t, c) * (shares(t, c / 5) * near(t, c) + shares(t, 3 + c / 5) * all(t, c));
  EXPECT_NEAR(loss(), expected, 1e-12);
  mix_branches_backward(device, shares.view(), near.view(), all.view(), dout.view(), dnear.view(), dall.view(),
                        dshares.view());
  const auto check = [&](Matrix<double>& input, const Matrix<double>& gradient) {
    for (Index t = 0; t < input.rows; ++t)
      for (Index c = 0; c < input.cols; ++c) {
        const double before = std::exchange(input(t, c), input(t, c) + 1e-4), above = loss();
        input(t, c) = before - 1e-4;
        const double below = loss();
        input(t, c) = before;
        ASSERT_NEAR(gradient(t, c), (above - below) / 2e-4, 1e-8);
      }
  };
  check(shares, dshares), check(near, dnear), check(all, dall);
}

TEST(AttentionGates, SharesOfHeadsAddUpToOne) {
  Cpu device({.threads = 2});
  const std::vector<float> alpha = {1.0f, 0.25f};
  Matrix<float> shares(3, 4);
  head_weights(device, view_of(alpha), shares.view());
  for (Index t = 0; t < 3; ++t) {
    EXPECT_EQ(shares(t, 0), 0.0f);
    EXPECT_EQ(shares(t, 1), 0.75f);
    EXPECT_EQ(shares(t, 2), 1.0f);
    EXPECT_EQ(shares(t, 3), 0.25f);
  }
  const std::vector<float> bias = {0.0f, 1.0f, -1.0f, 100.0f};
  Matrix<float> y = shares;
  biased_sigmoid(device, view_of(bias), y.view());
  for (Index c = 0; c < 4; ++c)
    EXPECT_NEAR(y(1, c), 1.0 / (1.0 + std::exp(-double(shares(1, c)) - double(bias[std::size_t(c)]))), 2e-7);
}

TEST(AttentionGates, RefuseShapesThatDoNotFit) {
  Cpu device({.threads = 1});
  Matrix<float> shares(3, 4), near(3, 6), all(3, 6), out(3, 6), narrow(3, 5), odd(3, 3);
  const auto code = [&](Matrix<float>& s, Matrix<float>& n, Matrix<float>& o) {
    return code_of([&] { mix_branches(device, s.view(), n.view(), all.view(), o.view()); });
  };
  EXPECT_EQ(code(shares, narrow, out), ErrorCode::op_shape);
  EXPECT_EQ(code(shares, near, narrow), ErrorCode::op_argument);
  EXPECT_EQ(code(odd, near, out), ErrorCode::op_argument);
  const std::vector<float> alpha(3);
  EXPECT_EQ(code_of([&] { head_weights(device, view_of(alpha), shares.view()); }), ErrorCode::op_shape);
  EXPECT_EQ(code_of([&] { biased_sigmoid(device, view_of(alpha), shares.view()); }), ErrorCode::op_shape);
}

}  // namespace attention_gates_test
