// The index of sparse attention: scores, choice, bits and loss against plain double loops, gradients against central
// differences.
#include <gtest/gtest.h>

#include <algorithm>
#include <guild/cpu.hpp>
#include <guild/ops/attention/index.hpp>
#include <limits>
#include <numeric>
#include <string>
#include <utility>

#include "../batch_invariance.hpp"

namespace index_test {
using namespace guild;
using namespace guild_test;

class AttentionIndex : public BatchInvariance {};
INSTANTIATE_TEST_SUITE_P(Variants, AttentionIndex, all_variants(), variant_name);

template <class Job>
std::span<const Job> only(const Job& job) {
  return {&job, 1};
}

/// The index of one sequence.
template <class Real>
struct Sequence {
  IndexSizes sizes;
  Index n;
  Matrix<Real> q, weights, keys, scores, dscores, dq, dweights, dkeys;
  Matrix<bf16> narrow;

  Sequence(const IndexSizes& z, Index length)
      : sizes(z),
        n(length),
        q(n, z.heads * z.dim, z.heads * z.dim + 3),
        weights(n, z.heads, z.heads + 1),
        keys(n, z.dim, z.dim + 2),
        scores(n, n, n + 1),
        dscores(n, n, n + 2),
        dq(n, q.cols, q.cols + 1),
        dweights(n, z.heads, z.heads + 2),
        dkeys(n, z.dim, z.dim + 1),
        narrow(n, z.dim, z.dim + 3) {
    std::mt19937 random(17);
    for (auto* m : {&q, &weights, &keys, &dscores}) m->fill_normal(random);
    for (Index s = 0; s < n; ++s)
      for (Index c = 0; c < z.dim; ++c) {
        narrow(s, c) = bf16(static_cast<float>(keys(s, c)));
        keys(s, c) = static_cast<Real>(static_cast<float>(narrow(s, c)));
      }
    for (Index t = 0; t < n; ++t)
      for (Index s = t + 1; s < n; ++s) dscores(t, s) = std::numeric_limits<Real>::quiet_NaN();
  }
  template <class Other>
  explicit Sequence(const Sequence<Other>& other) : Sequence(other.sizes, other.n) {
    const auto convert = [](const auto& from, auto& to) {
      for (Index t = 0; t < to.rows; ++t)
        for (Index c = 0; c < to.cols; ++c) to(t, c) = static_cast<Real>(from(t, c));
    };
    convert(other.q, q);
    convert(other.weights, weights);
    convert(other.dscores, dscores);
  }
  [[nodiscard]] BasicIndexScoresJob<Real> job(Index first, Index count, View<Real, 2> to) const {
    return {q.view().middle_rows(first, count), weights.view().middle_rows(first, count),
            keys.view().middle_rows(0, first + count), to, first};
  }
  [[nodiscard]] BasicIndexScoresJob<float, bf16> narrow_job(Index first, Index count, View<float, 2> to) const {
    return {q.view().middle_rows(first, count), weights.view().middle_rows(first, count),
            narrow.view().middle_rows(0, first + count), to, first};
  }
  [[nodiscard]] IndexScoresGradientJob<Real> gradient_job() {
    return {std::as_const(q).view(),
            std::as_const(weights).view(),
            std::as_const(keys).view(),
            std::as_const(dscores).view(),
            dq.view(),
            dweights.view(),
            dkeys.view()};
  }
  [[nodiscard]] double score(Index t, Index s) const {
    double sum = 0.0;
    for (Index h = 0; h < sizes.heads; ++h) {
      double dot = 0.0;
      for (Index c = 0; c < sizes.dim; ++c) dot += double(q(t, h * sizes.dim + c)) * double(keys(s, c));
      sum += double(weights(t, h)) * std::max(dot * sizes.scale, 0.0);
    }
    return sum;
  }
};

const IndexSizes all_sizes[] = {{1, 5, 0.4}, {8, 16, 0.25}, {17, 20, 0.3}, {40, 24, 0.2}, {64, 128, 0.0883883}};

TEST_P(AttentionIndex, ScoresAreWeightedSumsOfWhatIsPositiveAndNothingBehindATokenIsWritten) {
  for (const IndexSizes& sizes : all_sizes)
    for (const Index n : {1, 9, 64, 131}) {
      const Sequence<float> data(sizes, n);
      for (const Index first : {Index{0}, n / 2, n - 1})
        for (const bool narrow : {false, true}) {
          Matrix<float> scores(n - first, n, n + 1);
          if (narrow)
            index_scores(*three, only(data.narrow_job(first, n - first, scores.view())), sizes);
          else
            index_scores(*three, only(data.job(first, n - first, scores.view())), sizes);
          ASSERT_TRUE(scores.padding_is_untouched());
          for (Index t = first; t < n; ++t)
            for (Index s = 0; s < n; ++s) {
              if (s > t) {
                ASSERT_EQ(scores(t - first, s), Matrix<float>::canary) << t << ", " << s;
              } else {
                const double expected = data.score(t, s);
                ASSERT_NEAR(double(scores(t - first, s)), expected, 1e-5 * (1.0 + std::abs(expected)))
                    << t << ", " << s << " of " << n << ", " << sizes.heads << " heads";
              }
            }
        }
    }
}

TEST_P(AttentionIndex, AScoreHasItsBitsInEveryChunkOnAnyThreadsAndOverALongerCache) {
  for (const IndexSizes& sizes : {IndexSizes{8, 16, 0.25}, IndexSizes{64, 128, 0.0883883}}) {
    constexpr Index n = 200;
    const Sequence<float> data(sizes, n);
    Matrix<float> all(n, n);
    index_scores(*three, only(data.job(0, n, all.view())), sizes);
    for (Index rows = 1; rows <= 20; ++rows) {
      const Index first = n - rows - 3, length = first + rows;
      std::vector<Matrix<float>> got(3, Matrix<float>(rows, length));
      const BasicIndexScoresJob<float> jobs[] = {data.job(first, rows, got[0].view()),
                                                 data.job(0, 1, got[2].view().middle_rows(0, 1).middle_cols(0, 1))};
      index_scores(rows % 2 == 0 ? *one : *three, std::span<const BasicIndexScoresJob<float>>(jobs), sizes);
      index_scores(*one, only(data.narrow_job(first, rows, got[1].view())), sizes);
      for (Index t = 0; t < rows; ++t) {
        ASSERT_TRUE(same_bits(&got[0](t, 0), &all(first + t, 0), first + t + 1)) << t << " of " << rows;
        ASSERT_TRUE(same_bits(&got[1](t, 0), &all(first + t, 0), first + t + 1)) << t << " of " << rows << ", bf16";
      }
    }
  }
}

TEST_P(AttentionIndex, GradientsOfScoresAgreeWithDouble) {
  for (const IndexSizes& sizes : {IndexSizes{3, 5, 0.4}, IndexSizes{8, 16, 0.25}, IndexSizes{33, 20, 0.3}})
    for (const Index n : {1, 9, 64, 150, 200}) {
      Sequence<float> data(sizes, n), other(sizes, 2 * n);
      for (Index t = 0; n == 200 && t < n; ++t)  // whole tiles of pairs that count for nothing
        for (Index s = 0; s < t - 9; ++s) data.dscores(t, s) = 0.0f;
      const Sequence<float> again = data;
      Sequence<double> expected(data);
      const IndexScoresGradientJob<float> jobs[] = {other.gradient_job(), data.gradient_job()};
      index_scores_backward(*three, std::span<const IndexScoresGradientJob<float>>(jobs), sizes);
      index_scores_backward(*one, only(expected.gradient_job()), sizes);
      const auto compare = [&](const Matrix<float>& got, const Matrix<double>& want, const char* what) {
        ASSERT_TRUE(got.padding_is_untouched()) << what;
        for (Index t = 0; t < got.rows; ++t)
          for (Index c = 0; c < got.cols; ++c)
            ASSERT_NEAR(double(got(t, c)), want(t, c), 1e-4) << what << " " << t << ", " << c << " of " << n;
      };
      compare(data.dq, expected.dq, "dq");
      compare(data.dweights, expected.dweights, "dweights");
      compare(data.dkeys, expected.dkeys, "dkeys");
      Sequence<float> alone = again;
      index_scores_backward(*one, only(alone.gradient_job()), sizes);
      ASSERT_EQ(alone.dq.data, data.dq.data);
      ASSERT_EQ(alone.dweights.data, data.dweights.data);
      ASSERT_EQ(alone.dkeys.data, data.dkeys.data);
    }
}

TEST(AttentionIndexInDouble, GradientsOfScoresAreThoseOfCentralDifferences) {
  Cpu device({.threads = 2});
  const IndexSizes sizes{4, 3, 0.7};
  Sequence<double> data(sizes, 7);
  const auto objective = [&] {
    double sum = 0.0;
    for (Index t = 0; t < data.n; ++t)
      for (Index s = 0; s <= t; ++s) sum += data.score(t, s) * data.dscores(t, s);
    return sum;
  };
  index_scores(device, only(data.job(0, data.n, data.scores.view())), sizes);
  for (Index t = 0; t < data.n; ++t)
    for (Index s = 0; s <= t; ++s) ASSERT_NEAR(data.scores(t, s), data.score(t, s), 1e-12);
  index_scores_backward(device, only(data.gradient_job()), sizes);
  const auto check = [&](Matrix<double>& of, const Matrix<double>& gradient, const char* what) {
    for (Index t = 0; t < of.rows; ++t)
      for (Index c = 0; c < of.cols; ++c) {
        const double kept = of(t, c), step = 1e-6;
        of(t, c) = kept + step;
        const double above = objective();
        of(t, c) = kept - step;
        const double below = objective();
        of(t, c) = kept;
        ASSERT_NEAR(gradient(t, c), (above - below) / (2 * step), 1e-7) << what << " " << t << ", " << c;
      }
  };
  check(data.q, data.dq, "dq");
  check(data.weights, data.dweights, "dweights");
  check(data.keys, data.dkeys, "dkeys");
}

/// Chosen keys of all rows of scores.
template <class Real>
struct Choice {
  Matrix<std::int32_t> chosen;
  std::vector<std::int32_t> counts;

  Choice(Cpu& device, const Matrix<Real>& scores, Index first, Index k)
      : chosen(scores.rows, k, k + 1), counts(static_cast<std::size_t>(scores.rows)) {
    choose_keys(device, only(BasicChooseKeysJob<Real>{scores.view(), first, chosen.view(), view_of(counts)}), k);
  }
  [[nodiscard]] std::vector<std::int32_t> of(Index t) const {
    return {&chosen(t, 0), &chosen(t, 0) + counts[std::size_t(t)]};
  }
};

/// The same by sorting: larger scores first, of equal ones the later.
template <class Real>
std::vector<std::int32_t> best_of(const Matrix<Real>& scores, Index t, Index position, Index k) {
  std::vector<std::int32_t> keys(static_cast<std::size_t>(position + 1));
  std::iota(keys.begin(), keys.end(), 0);
  const auto value = [&](std::int32_t s) {
    const double x = double(scores(t, s));
    return x == x ? x : -std::numeric_limits<double>::infinity();
  };
  std::sort(keys.begin(), keys.end(),
            [&](std::int32_t a, std::int32_t b) { return value(a) > value(b) || (value(a) == value(b) && a > b); });
  keys.resize(std::min(keys.size(), static_cast<std::size_t>(k)));
  std::sort(keys.begin(), keys.end());
  return keys;
}

template <class Real>
class ChooseKeys : public testing::Test {};
using Reals = testing::Types<float, double>;
TYPED_TEST_SUITE(ChooseKeys, Reals);

TYPED_TEST(ChooseKeys, TheLargestScoresUpToATokenAreChosenInAscendingOrder) {
  Cpu device({.threads = 3});
  std::mt19937 random(3);
  for (const Index first : {0, 40})
    for (const Index k : {1, 2, 15, 64, 100, 300}) {
      Matrix<TypeParam> scores(150, 190, 193);
      scores.fill_normal(random);
      for (Index t = 0; t < scores.rows; ++t) {
        const double far = t % 3 == 0 ? 1e30 : 1e-30;  // of all sizes, and of both signs
        for (Index s = 0; s < scores.cols; s += 3) scores(t, s) *= static_cast<TypeParam>(far);
        for (Index s = first + t + 1; s < scores.cols; ++s) scores(t, s) = std::numeric_limits<TypeParam>::infinity();
      }
      const Choice<TypeParam> choice(device, scores, first, k);
      ASSERT_TRUE(choice.chosen.padding_is_untouched());
      for (Index t = 0; t < scores.rows; ++t) {
        ASSERT_EQ(choice.of(t), best_of(scores, t, first + t, k)) << t << " of " << k;
        for (Index c = std::ssize(choice.of(t)); c < k; ++c)
          ASSERT_EQ(choice.chosen(t, c), Matrix<std::int32_t>::canary);
      }
    }
}

TYPED_TEST(ChooseKeys, OfEqualScoresTheLatestWinZeroesOfBothSignsBeingEqual) {
  Cpu device({.threads = 2});
  Matrix<TypeParam> scores(40, 40);
  for (Index t = 0; t < 40; ++t)
    for (Index s = 0; s < 40; ++s) scores(t, s) = static_cast<TypeParam>(s % 2 == 0 ? 0.0 : -0.0);
  for (Index t = 0; t < 40; ++t) scores(t, 0) = scores(t, 4) = TypeParam(1);
  const Choice<TypeParam> choice(device, scores, 0, 5);
  EXPECT_EQ(choice.of(39), (std::vector<std::int32_t>{0, 4, 37, 38, 39}));
  EXPECT_EQ(choice.of(6), (std::vector<std::int32_t>{0, 3, 4, 5, 6}));
  std::mt19937 random(8);
  for (const int kinds : {1, 2, 3, 7}) {
    Matrix<TypeParam> few(120, 120);
    for (Index t = 0; t < 120; ++t)
      for (Index s = 0; s < 120; ++s) few(t, s) = static_cast<TypeParam>(static_cast<int>(random() % 7) % kinds - 1);
    for (const Index k : {1, 8, 60}) {
      const Choice<TypeParam> of_few(device, few, 0, k);
      for (Index t = 0; t < 120; ++t) ASSERT_EQ(of_few.of(t), best_of(few, t, t, k)) << t << " of " << k;
    }
  }
}

TYPED_TEST(ChooseKeys, AChoiceDoesNotChangeWhenLaterTokensAreAppended) {
  Cpu device({.threads = 2});
  std::mt19937 random(8);
  Matrix<TypeParam> scores(90, 90);
  for (Index t = 0; t < 90; ++t)
    for (Index s = 0; s < 90; ++s) scores(t, s) = std::max(TypeParam(0), static_cast<TypeParam>(random() % 5) - 2);
  const Choice<TypeParam> whole(device, scores, 0, 12);
  for (const Index length : {1, 12, 13, 50, 89}) {
    Matrix<TypeParam> prefix(length, length);
    for (Index t = 0; t < length; ++t) std::copy_n(&scores(t, 0), length, &prefix(t, 0));
    const Choice<TypeParam> part(device, prefix, 0, 12);
    for (Index t = 0; t < length; ++t) ASSERT_EQ(part.of(t), whole.of(t)) << t << " of " << length;
  }
  for (const Index first : {11, 30, 89}) {  // and in a chunk of its own
    Matrix<TypeParam> last(1, first + 1);
    std::copy_n(&scores(first, 0), first + 1, &last(0, 0));
    ASSERT_EQ((Choice<TypeParam>(device, last, first, 12).of(0)), whole.of(first));
  }
}

TYPED_TEST(ChooseKeys, WhatIsNoNumberLosesAndInfinitiesAreNumbers) {
  Cpu device({.threads = 1});
  Matrix<TypeParam> scores(1, 6);
  const auto infinity = std::numeric_limits<TypeParam>::infinity(), nan = std::numeric_limits<TypeParam>::quiet_NaN();
  const TypeParam values[] = {-infinity, nan, TypeParam(-2), infinity, -nan, TypeParam(-3)};
  std::copy_n(values, 6, &scores(0, 0));
  EXPECT_EQ((Choice<TypeParam>(device, scores, 5, 3).of(0)), (std::vector<std::int32_t>{2, 3, 5}));
  EXPECT_EQ((Choice<TypeParam>(device, scores, 5, 4).of(0)), (std::vector<std::int32_t>{0, 2, 3, 5}));
  EXPECT_EQ((Choice<TypeParam>(device, scores, 5, 5).of(0)), (std::vector<std::int32_t>{0, 2, 3, 4, 5}));
}

TEST(MarkChosen, TheBitsOfAChoiceAreSetAndNoOthers) {
  Cpu device({.threads = 2});
  for (const Index length : {1, 31, 32, 33, 200}) {
    Matrix<float> scores(length, length);
    std::mt19937 random(3);
    scores.fill_normal(random);
    for (const Index k : {1, 20, 64, 300}) {
      const Choice<float> choice(device, scores, 0, k);
      Matrix<std::uint32_t> bits(length, chosen_words(length), chosen_words(length) + 1);
      mark_chosen(device, only(MarkChosenJob{choice.chosen.view(), view_of(choice.counts), bits.view()}));
      ASSERT_TRUE(bits.padding_is_untouched());
      for (Index t = 0; t < length; ++t) {
        const auto keys = choice.of(t);
        for (Index s = 0; s < 32 * bits.cols; ++s)
          ASSERT_EQ((bits(t, s / 32) >> (s % 32) & 1U) != 0, std::find(keys.begin(), keys.end(), s) != keys.end())
              << t << ", " << s;
      }
    }
  }
}

/// Attention and index of one sequence, for the loss of the index.
template <class Real>
struct Lesson {
  BasicExpandedAttentionSizes<Real> sizes;
  Index n;
  Matrix<Real> q, kv, k_rope, out, lse, scores, dscores;
  std::vector<Real> loss;

  Lesson(const BasicExpandedAttentionSizes<Real>& z, Index length)
      : sizes(z),
        n(length),
        q(n, z.heads * z.width(), z.heads * z.width() + 1),
        kv(n, z.key_heads() * (z.nope + z.value), z.key_heads() * (z.nope + z.value) + 2),
        k_rope(n, z.rope, z.rope + 1),
        out(n, z.heads * z.value),
        lse(n, z.heads, z.heads + 1),
        scores(n, n, n + 2),
        dscores(n, n, n + 1),
        loss(static_cast<std::size_t>(n)) {
    std::mt19937 random(5);
    for (auto* m : {&q, &kv, &k_rope, &scores}) m->fill_normal(random);
    for (Index t = 0; t < n; ++t)
      for (Index s = t + 1; s < n; ++s) scores(t, s) = std::numeric_limits<Real>::quiet_NaN();
  }
  [[nodiscard]] Index stride() const { return sizes.nope + sizes.value; }
  [[nodiscard]] View<const Real, 2> keys() const {
    return std::as_const(kv).view().middle_cols(0, (sizes.key_heads() - 1) * stride() + sizes.nope);
  }
  void attend(Cpu& device, View<const std::uint32_t, 2> bits) {
    const BasicExpandedAttentionJob<Real> job{
        .q = q.view(),
        .k_nope = keys(),
        .k_rope = k_rope.view(),
        .v = std::as_const(kv).view().middle_cols(sizes.nope, kv.cols - sizes.nope),
        .out = out.view(),
        .key_head_stride = stride(),
        .value_head_stride = stride(),
        .lse = lse.view(),
        .chosen = bits};
    expanded_attention(device, only(job), sizes);
  }
  [[nodiscard]] IndexLossJob<Real> job(View<const std::uint32_t, 2> bits) {
    return {.q = q.view(),
            .k_nope = keys(),
            .k_rope = k_rope.view(),
            .lse = lse.view(),
            .scores = scores.view(),
            .chosen = bits,
            .dscores = dscores.view(),
            .loss = view_of(loss),
            .key_head_stride = stride()};
  }
  /// The loss of a token by plain loops that know no log-sum-exp of attention.
  template <class Sees>
  [[nodiscard]] double expected(Index t, Sees&& sees) const {
    std::vector<double> p(static_cast<std::size_t>(n), 0.0);
    double total = 0.0, below = 0.0, divergence = 0.0;
    for (Index h = 0; h < sizes.heads; ++h) {
      std::vector<double> one(static_cast<std::size_t>(n), 0.0);
      double all = 0.0;
      for (Index s = 0; s <= t; ++s) {
        if (!sees(t, s)) continue;
        double dot = 0.0;
        for (Index c = 0; c < sizes.nope; ++c)
          dot += double(q(t, h * sizes.width() + c)) * double(kv(s, h / sizes.heads_per_key * stride() + c));
        for (Index c = 0; c < sizes.rope; ++c)
          dot += double(q(t, h * sizes.width() + sizes.nope + c)) * double(k_rope(s, c));
        all += one[std::size_t(s)] = std::exp(dot * double(sizes.scale));
      }
      for (Index s = 0; s <= t; ++s) p[std::size_t(s)] += one[std::size_t(s)] / all;
    }
    for (const double share : p) total += share;
    for (Index s = 0; s <= t; ++s)
      if (sees(t, s)) below += std::exp(double(scores(t, s)));
    for (Index s = 0; s <= t; ++s) {
      if (!sees(t, s)) continue;
      const double share = p[std::size_t(s)] / total;
      divergence += share * (std::log(share) - (double(scores(t, s)) - std::log(below)));
    }
    return divergence;
  }
};

/// Every token sees itself, and about a third of the others.
Matrix<std::uint32_t> some_bits(Index n) {
  std::mt19937 random(7);
  Matrix<std::uint32_t> bits(n, chosen_words(n), chosen_words(n) + 1);
  for (Index t = 0; t < n; ++t) {
    for (Index w = 0; w < bits.cols; ++w) bits(t, w) = static_cast<std::uint32_t>(random() & random());
    bits(t, t / 32) |= std::uint32_t{1} << (t % 32);
  }
  return bits;
}

/// Every token sees the last five: there are whole tiles of keys that no query sees.
Matrix<std::uint32_t> last_bits(Index n) {
  Matrix<std::uint32_t> bits = some_bits(n);
  for (Index t = 0; t < n; ++t) {
    for (Index w = 0; w < bits.cols; ++w) bits(t, w) = 0;
    for (Index s = std::max(t - 4, Index{0}); s <= t; ++s) bits(t, s / 32) |= std::uint32_t{1} << (s % 32);
  }
  return bits;
}

TEST(IndexLossInDouble, ItsGradientIsThatOfCentralDifferencesOverAllAndOverChosenKeys) {
  Cpu device({.threads = 2});
  for (const BasicExpandedAttentionSizes<double>& sizes :
       {BasicExpandedAttentionSizes<double>{3, 4, 2, 5, 0.5},
        BasicExpandedAttentionSizes<double>{4, 3, 0, 2, 0.5, AttentionMask::causal, 2}})
    for (const bool chosen : {false, true}) {
      constexpr Index n = 40;
      Lesson<double> data(sizes, n);
      const Matrix<std::uint32_t> bits = some_bits(n);
      const auto view = chosen ? bits.view() : View<const std::uint32_t, 2>{};
      const auto sees = [&](Index t, Index s) { return !chosen || (bits(t, s / 32) >> (s % 32) & 1U) != 0; };
      data.attend(device, view);
      index_loss(device, only(data.job(view)), sizes, 0.25);
      for (Index t = 0; t < n; ++t) {
        ASSERT_NEAR(data.loss[std::size_t(t)], data.expected(t, sees), 1e-12);
        for (Index s = 0; s < n; ++s) {
          if (s > t) {
            ASSERT_EQ(data.dscores(t, s), Matrix<double>::canary);
            continue;
          }
          if (!sees(t, s)) {
            ASSERT_EQ(data.dscores(t, s), 0.0);
            continue;
          }
          const double kept = data.scores(t, s), step = 1e-5;
          data.scores(t, s) = kept + step;
          const double above = data.expected(t, sees);
          data.scores(t, s) = kept - step;
          const double below = data.expected(t, sees);
          data.scores(t, s) = kept;
          ASSERT_NEAR(data.dscores(t, s), 0.25 * (above - below) / (2 * step), 1e-9) << t << ", " << s;
        }
      }
    }
}

TEST_P(AttentionIndex, LossAndGradientAgreeWithDouble) {
  for (const ExpandedAttentionSizes& sizes :
       {ExpandedAttentionSizes{3, 13, 4, 18, 0.3f}, ExpandedAttentionSizes{4, 9, 0, 9, 0.3f, AttentionMask::causal, 2}})
    for (const Index n : {1, 20, 64, 150})
      for (const int kind : {0, 1, 2}) {
        Lesson<float> data(sizes, n), other(sizes, n + 30);
        Lesson<double> expected(
            {sizes.heads, sizes.nope, sizes.rope, sizes.value, double(sizes.scale), sizes.mask, sizes.heads_per_key},
            n);
        for (const auto& [from, to] :
             {std::pair{&data.q, &expected.q}, std::pair{&data.kv, &expected.kv},
              std::pair{&data.k_rope, &expected.k_rope}, std::pair{&data.scores, &expected.scores}})
          std::copy(from->data.begin(), from->data.end(), to->data.begin());
        const Matrix<std::uint32_t> bits = kind == 1 ? some_bits(n) : last_bits(n);
        const auto view = kind > 0 ? bits.view() : View<const std::uint32_t, 2>{};
        data.attend(*three, view);
        other.attend(*three, {});
        expected.attend(*one, view);
        const IndexLossJob<float> jobs[] = {other.job({}), data.job(view)};
        index_loss(*three, std::span<const IndexLossJob<float>>(jobs), sizes, 2.0f);
        index_loss(*one, only(expected.job(view)), expected.sizes, 2.0);
        ASSERT_TRUE(data.dscores.padding_is_untouched());
        for (Index t = 0; t < n; ++t) {
          ASSERT_NEAR(double(data.loss[std::size_t(t)]), expected.loss[std::size_t(t)], 1e-5) << t;
          for (Index s = 0; s < n; ++s)
            ASSERT_NEAR(double(data.dscores(t, s)), expected.dscores(t, s), 1e-5) << t << ", " << s;
        }
        const auto together = data.dscores.data;
        const auto losses = data.loss;
        index_loss(*one, only(data.job(view)), sizes, 2.0f);
        ASSERT_EQ(together, data.dscores.data);
        ASSERT_EQ(losses, data.loss);
      }
}

TEST(AttentionIndexErrors, WhatDoesNotFitIsRefusedInOneSentence) {
  Cpu device({.threads = 1});
  Sequence<float> data({2, 4, 0.5}, 6);
  const auto scores = [&](auto change) {
    auto job = data.job(2, 4, data.scores.view().middle_rows(0, 4));
    IndexSizes sizes = data.sizes;
    change(job, sizes);
    return code_of([&] { index_scores(device, only(job), sizes); });
  };
  using Job = BasicIndexScoresJob<float>;
  EXPECT_EQ(scores([](Job&, IndexSizes&) {}), ErrorCode::count_);
  EXPECT_EQ(scores([](Job& job, IndexSizes&) { job.q.cols -= 1; }), ErrorCode::op_shape);
  EXPECT_EQ(scores([](Job& job, IndexSizes&) { job.weights.rows -= 1; }), ErrorCode::op_shape);
  EXPECT_EQ(scores([](Job& job, IndexSizes&) { job.keys.cols += 1; }), ErrorCode::op_shape);
  EXPECT_EQ(scores([](Job& job, IndexSizes&) { job.scores.cols -= 1; }), ErrorCode::op_shape);
  EXPECT_EQ(scores([](Job& job, IndexSizes&) { job.first_position = 3; }), ErrorCode::op_shape);
  EXPECT_EQ(scores([](Job& job, IndexSizes&) { job.scores.data = nullptr; }), ErrorCode::op_argument);
  EXPECT_EQ(scores([](Job&, IndexSizes& sizes) { sizes.heads = 0; }), ErrorCode::op_argument);
  EXPECT_EQ(scores([](Job&, IndexSizes& sizes) { sizes.scale = 0.0; }), ErrorCode::op_argument);
  const auto backward = [&](auto change) {
    auto job = data.gradient_job();
    change(job);
    return code_of([&] { index_scores_backward(device, only(job), data.sizes); });
  };
  EXPECT_EQ(backward([](auto& job) { job.dscores.cols -= 1; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& job) { job.dq.cols -= 1; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& job) { job.dkeys.rows -= 1; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& job) { job.dweights.cols += 1; }), ErrorCode::op_shape);

  Matrix<std::int32_t> chosen(6, 3);
  std::vector<std::int32_t> counts(6);
  Matrix<std::uint32_t> bits(6, 1);
  const auto choose = [&](Index k, Index first) {
    const BasicChooseKeysJob<float> job{std::as_const(data.scores).view(), first, chosen.view(), view_of(counts)};
    return code_of([&] { choose_keys(device, only(job), k); });
  };
  EXPECT_EQ(choose(3, 0), ErrorCode::count_);
  EXPECT_EQ(choose(4, 0), ErrorCode::op_shape);
  EXPECT_EQ(choose(0, 0), ErrorCode::op_argument);
  EXPECT_EQ(choose(3, 1), ErrorCode::op_shape);
  MarkChosenJob mark{std::as_const(chosen).view(), view_of(std::as_const(counts)).slice(0, 5), bits.view()};
  EXPECT_EQ(code_of([&] { mark_chosen(device, only(mark)); }), ErrorCode::op_shape);

  Lesson<float> lesson({2, 3, 2, 4, 0.5f}, 6);
  const auto learn = [&](auto change, ExpandedAttentionSizes sizes) {
    auto job = lesson.job({});
    change(job);
    return code_of([&] { index_loss(device, only(job), sizes, 1.0f); });
  };
  EXPECT_EQ(learn([](auto& job) { job.lse.cols -= 1; }, lesson.sizes), ErrorCode::op_shape);
  EXPECT_EQ(learn([](auto& job) { job.scores.cols -= 1; }, lesson.sizes), ErrorCode::op_shape);
  EXPECT_EQ(learn([](auto& job) { job.loss.size -= 1; }, lesson.sizes), ErrorCode::op_shape);
  EXPECT_EQ(learn([&](auto& job) { job.chosen = std::as_const(bits).view().middle_rows(0, 5); }, lesson.sizes),
            ErrorCode::op_shape);
  ExpandedAttentionSizes both_ways = lesson.sizes;
  both_ways.mask = AttentionMask::bidirectional;
  EXPECT_EQ(learn([](auto&) {}, both_ways), ErrorCode::op_argument);
}

}  // namespace index_test
