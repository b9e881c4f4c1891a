// Attention over two sets of keys joined: against one softmax over both in double, on both ways.
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <guild/cpu.hpp>
#include <guild/device/host_team.hpp>
#include <guild/ops/attention/attention.hpp>
#include <guild/ops/attention/join.hpp>
#include <limits>

#include "../batch_invariance.hpp"

namespace join_attention_test {
using namespace guild;
using namespace guild_test;

constexpr double infinity = std::numeric_limits<double>::infinity();

template <class Real>
struct Set {
  Matrix<Real> out, lse;

  Set(Index rows, Index heads, Index value)
      : out(rows, heads * value, heads * value + 2), lse(rows, heads, heads + 1) {}
};

template <class Device, class Real>
void join(Device& device, const Set<Real>& first, const Set<Real>& second, Set<Real>& to) {
  join_attention(device, first.out.view(), first.lse.view(), second.out.view(), second.lse.view(), to.out.view(),
                 to.lse.view());
}

/// Two sets of random results, of all relations of their denominators.
template <class Real>
std::array<Set<Real>, 2> random_sets(Index rows, Index heads, Index value) {
  std::array<Set<Real>, 2> sets = {Set<Real>(rows, heads, value), Set<Real>(rows, heads, value)};
  std::mt19937 random(3);
  for (auto& set : sets) {
    set.out.fill_normal(random);
    set.lse.fill_normal(random, 3.0);
  }
  for (Index t = 0; t < rows; ++t)
    for (Index h = 0; h < heads; ++h) {
      sets[0].lse(t, h) += static_cast<Real>(t % 3 == 0 ? 40.0 : 0.0);
      sets[1].lse(t, h) += static_cast<Real>(t % 7 == 0 ? 300.0 : 0.0);
      for (std::size_t i = 0; i < 2; ++i) {
        if ((t + h) % 5 != Index(i) && (t + h) % 11 != 7) continue;  // no key
        sets[i].lse(t, h) = static_cast<Real>(-infinity);
        for (Index c = 0; c < value; ++c) sets[i].out(t, h * value + c) = 0;
      }
    }
  return sets;
}

class JoinAttention : public BatchInvariance {};
INSTANTIATE_TEST_SUITE_P(Variants, JoinAttention, all_variants(), variant_name);

template <class Real>
void check_join(Cpu& device, double tolerance) {
  for (const Index value : {1, 5, 16, 33})
    for (const Index heads : {1, 3, 17}) {
      const auto sets = random_sets<Real>(40, heads, value);
      Set<Real> got(40, heads, value);
      join(device, sets[0], sets[1], got);
      ASSERT_TRUE(got.out.padding_is_untouched() && got.lse.padding_is_untouched());
      for (Index t = 0; t < 40; ++t)
        for (Index h = 0; h < heads; ++h) {
          const double a = double(sets[0].lse(t, h)), b = double(sets[1].lse(t, h)), peak = std::max(a, b);
          const double lse = peak == -infinity ? peak : peak + std::log(std::exp(a - peak) + std::exp(b - peak));
          if (lse == -infinity)
            ASSERT_EQ(double(got.lse(t, h)), lse);
          else
            ASSERT_NEAR(double(got.lse(t, h)), lse, tolerance * (1 + std::abs(lse)));
          for (Index c = h * value; c < (h + 1) * value; ++c) {
            const double expected = lse == -infinity ? 0.0
                                                     : std::exp(a - lse) * double(sets[0].out(t, c)) +
                                                           std::exp(b - lse) * double(sets[1].out(t, c));
            ASSERT_NEAR(double(got.out(t, c)), expected, tolerance * 4) << t << ", " << c;
          }
        }
    }
}

TEST_P(JoinAttention, IsTheSumByTheirSharesInTheDenominator) {
  check_join<float>(*three, 1e-6);
  check_join<double>(*three, 1e-14);
}

TEST_P(JoinAttention, MayBeWrittenOverASetAndHasTheSameBitsThereOnAnyThreadsAndForARowAlone) {
  const auto sets = random_sets<float>(40, 6, 21);
  Set<float> apart(40, 6, 21), alone(40, 6, 21);
  join(*three, sets[0], sets[1], apart);
  auto over = sets;
  join(*one, sets[0], over[1], over[1]);
  join(*three, over[0], sets[1], over[0]);
  for (Index t = 0; t < 40; ++t)
    join_attention(*one, sets[0].out.view().middle_rows(t, 1), sets[0].lse.view().middle_rows(t, 1),
                   sets[1].out.view().middle_rows(t, 1), sets[1].lse.view().middle_rows(t, 1),
                   alone.out.view().middle_rows(t, 1), alone.lse.view().middle_rows(t, 1));
  for (const Set<float>& other : {over[0], over[1], alone}) {
    EXPECT_EQ(other.out.data, apart.out.data);
    EXPECT_EQ(other.lse.data, apart.lse.data);
  }
}

TEST_P(JoinAttention, ASetWithoutAKeyChangesNoBitOfTheOther) {
  auto sets = random_sets<float>(12, 2, 19);
  for (Index t = 0; t < 12; ++t)
    for (Index c = 0; c < 38; c += 3)
      if (double(sets[0].lse(t, c / 19)) != -infinity) sets[0].out(t, c) = -0.0f;
  sets[0].lse(3, 1) = std::numeric_limits<float>::quiet_NaN();
  Set<float> nothing(12, 2, 19), got(12, 2, 19);
  for (Index t = 0; t < 12; ++t) {
    for (Index c = 0; c < 38; ++c) nothing.out(t, c) = 0.0f;
    for (Index h = 0; h < 2; ++h) nothing.lse(t, h) = static_cast<float>(-infinity);
  }
  for (const bool turned : {false, true}) {
    join(*three, turned ? nothing : sets[0], turned ? sets[0] : nothing, got);
    for (Index t = 0; t < 12; ++t) {
      ASSERT_TRUE(same_bits(&got.out(t, 0), &sets[0].out(t, 0), 38)) << t;
      ASSERT_TRUE(same_bits(&got.lse(t, 0), &sets[0].lse(t, 0), 2)) << t;
    }
  }
}

/// Queries over a window of their own tokens, with sinks, and over pooled keys: one softmax.
template <class Real>
struct TwoSets {
  static constexpr Index n = 21, heads = 4, groups = 2, width = 3, value = 2;
  Index ratio;
  Matrix<Real> q, dout, k[2], v[2], dq[2], dk[2], dv[2];
  Matrix<Real> dsinks;
  std::vector<Real> sinks;
  Matrix<std::uint32_t> bits;
  Set<Real> all, pooled;

  explicit TwoSets(Index tokens_per_key)
      : ratio(tokens_per_key),
        q(n, heads * width),
        dout(n, heads * value),
        k{{n, groups * width}, {n / ratio, groups * width}},
        v{{n, groups * value}, {n / ratio, groups * value}},
        dq{q, q},
        dk{k[0], k[1]},
        dv{v[0], v[1]},
        dsinks(n, heads),
        bits(n, chosen_words(n / ratio)),
        all(n, heads, value),
        pooled(n, heads, value) {
    std::mt19937 random(5);
    for (auto* m : {&q, &dout, &k[0], &k[1], &v[0], &v[1]}) m->fill_normal(random);
    sinks = normal_vector<Real>(random, heads);
    for (Index t = 0; t < n; ++t) bits(t, 0) = static_cast<std::uint32_t>(t % 4 == 0 ? 0 : random());
  }
  [[nodiscard]] BasicExpandedAttentionSizes<Real> sizes(std::size_t set) const {
    BasicExpandedAttentionSizes<Real> made{heads, width, 0, value, Real(0.6), AttentionMask::causal, heads / groups};
    if (set == 0) made.keys.window = 6;
    if (set == 1) made.tokens_per_key = ratio;
    return made;
  }
  void forward(Cpu& device) {
    for (const std::size_t i : {0U, 1U}) {
      Set<Real>& to = i == 0 ? all : pooled;
      BasicExpandedAttentionJob<Real> job{
          .q = q.view(), .k_nope = k[i].view(), .v = v[i].view(), .out = to.out.view(), .lse = to.lse.view()};
      if (i == 0) job.sinks = view_of(sinks);
      if (i == 1) job.chosen = bits.view();
      expanded_attention(device, std::span<const BasicExpandedAttentionJob<Real>>(&job, 1), sizes(i));
    }
    join(device, all, pooled, all);
  }
  void backward(Cpu& device) {
    for (const std::size_t i : {0U, 1U}) {
      ExpandedAttentionGradientJob<Real> job{.q = q.view(),
                                             .k_nope = k[i].view(),
                                             .v = v[i].view(),
                                             .out = all.out.view(),
                                             .lse = all.lse.view(),
                                             .dout = dout.view(),
                                             .dq = dq[i].view(),
                                             .dk_nope = dk[i].view(),
                                             .dv = dv[i].view()};
      if (i == 0) job.sinks = view_of(sinks);
      if (i == 0) job.dsinks = dsinks.view();
      if (i == 1) job.chosen = bits.view();
      expanded_attention_backward(device, std::span<const ExpandedAttentionGradientJob<Real>>(&job, 1), sizes(i));
    }
    for (Index t = 0; t < n; ++t)
      for (Index c = 0; c < q.cols; ++c) dq[0](t, c) += dq[1](t, c);
  }
  /// The sum of dout * out of one softmax over all keys, by plain loops; its results in `to`.
  double objective(Set<double>* to = nullptr) const {
    double total = 0.0;
    for (Index t = 0; t < n; ++t)
      for (Index h = 0; h < heads; ++h) {
        const Index g = h / (heads / groups);
        double sum = std::exp(double(sinks[std::size_t(h)])), out[value] = {};
        const auto add = [&](std::size_t i, Index s) {
          double dot = 0.0;
          for (Index c = 0; c < width; ++c) dot += double(q(t, h * width + c)) * double(k[i](s, g * width + c));
          const double p = std::exp(0.6 * dot);
          sum += p;
          for (Index c = 0; c < value; ++c) out[c] += p * double(v[i](s, g * value + c));
        };
        for (Index s = std::max(t - 5, Index{0}); s <= t; ++s) add(0, s);
        for (Index s = 0; s < (t + 1) / ratio; ++s)
          if ((bits(t, 0) >> s & 1U) != 0) add(1, s);
        for (Index c = 0; c < value; ++c) {
          total += out[c] / sum * double(dout(t, h * value + c));
          if (to != nullptr) to->out(t, h * value + c) = out[c] / sum;
        }
        if (to != nullptr) to->lse(t, h) = std::log(sum);
      }
    return total;
  }
};

TEST(JoinAttentionInDouble, TwoSetsAreOneSoftmaxAndItsGradientsThoseOfCentralDifferences) {
  Cpu device({.threads = 2});
  for (const Index ratio : {1, 2, 4, 8, 30}) {
    TwoSets<double> data(ratio);
    data.forward(device);
    data.backward(device);
    Set<double> expected(data.n, data.heads, data.value);
    data.objective(&expected);
    for (Index t = 0; t < data.n; ++t) {
      for (Index c = 0; c < expected.out.cols; ++c) ASSERT_NEAR(data.all.out(t, c), expected.out(t, c), 1e-13);
      for (Index h = 0; h < data.heads; ++h) ASSERT_NEAR(data.all.lse(t, h), expected.lse(t, h), 1e-13);
    }
    const auto slope = [&](double& of) {
      const double kept = of, step = 1e-6;
      of = kept + step;
      const double above = data.objective();
      of = kept - step;
      const double below = data.objective();
      of = kept;
      return (above - below) / (2 * step);
    };
    const auto check = [&](Matrix<double>& of, const Matrix<double>& gradient, const char* what) {
      for (Index t = 0; t < of.rows; ++t)
        for (Index c = 0; c < of.cols; ++c)
          ASSERT_NEAR(gradient(t, c), slope(of(t, c)), 1e-7) << what << " " << t << ", " << c << " of " << ratio;
    };
    check(data.q, data.dq[0], "dq");
    for (const std::size_t i : {0U, 1U}) {
      check(data.k[i], data.dk[i], "dk");
      check(data.v[i], data.dv[i], "dv");
    }
    for (Index h = 0; h < data.heads; ++h) {
      double sum = 0.0;
      for (Index t = 0; t < data.n; ++t) sum += data.dsinks(t, h);
      ASSERT_NEAR(sum, slope(data.sinks[std::size_t(h)]), 1e-7);
    }
  }
}

TEST_P(JoinAttention, GradientsOfTwoSetsAgreeWithDouble) {
  for (const Index ratio : {1, 4, 30}) {
    TwoSets<double> exact(ratio);
    TwoSets<float> data(ratio);
    exact.forward(*one);
    exact.backward(*one);
    data.forward(*three);
    data.backward(*three);
    const auto compare = [&](const Matrix<float>& got, const Matrix<double>& expected, const char* what) {
      for (Index t = 0; t < got.rows; ++t)
        for (Index c = 0; c < got.cols; ++c) ASSERT_NEAR(double(got(t, c)), expected(t, c), 2e-5) << what;
    };
    compare(data.all.out, exact.all.out, "out");
    compare(data.all.lse, exact.all.lse, "lse");
    compare(data.dq[0], exact.dq[0], "dq");
    compare(data.dsinks, exact.dsinks, "dsinks");
    for (const std::size_t i : {0U, 1U}) {
      compare(data.dk[i], exact.dk[i], "dk");
      compare(data.dv[i], exact.dv[i], "dv");
    }
  }
}

TEST(JoinAttentionErrors, WhatDoesNotFitIsRefused) {
  Cpu device({.threads = 1});
  const auto code = [&](Index rows, Index heads, Index value) {
    const Set<float> first(5, 2, 3), second(rows, heads, value);
    Set<float> to(5, 2, 3);
    return code_of([&] { join(device, first, second, to); });
  };
  EXPECT_EQ(code(5, 2, 3), ErrorCode::count_);
  EXPECT_EQ(code(4, 2, 3), ErrorCode::op_shape);
  EXPECT_EQ(code(5, 3, 2), ErrorCode::op_shape);
  EXPECT_EQ(code(5, 2, 4), ErrorCode::op_shape);
  const Set<float> set(5, 2, 3);
  Set<float> to(5, 4, 3), wide(5, 2, 7);
  EXPECT_EQ(code_of([&] { join(device, set, set, to); }), ErrorCode::op_shape);
  EXPECT_EQ(code_of([&] {
              join_attention(device, set.out.view(), set.lse.view(), set.out.view(), set.lse.view(),
                             wide.out.view().middle_cols(0, 7), wide.lse.view());
            }),
            ErrorCode::op_argument);
}

}  // namespace join_attention_test
