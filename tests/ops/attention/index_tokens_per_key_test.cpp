// The index of sparse attention over keys that stand for several tokens each: against plain double loops and central
// differences.
#include <gtest/gtest.h>

#include <algorithm>
#include <guild/cpu.hpp>
#include <guild/ops/attention/index.hpp>
#include <limits>
#include <numeric>
#include <string>

#include "../batch_invariance.hpp"

namespace index_tokens_per_key_test {
using namespace guild;
using namespace guild_test;

constexpr double infinity = std::numeric_limits<double>::infinity();
const Index all_ratios[] = {1, 2, 4, 128};

template <class Job>
std::span<const Job> only(const Job& job) {
  return {&job, 1};
}
template <class From, class To>
void convert(const Matrix<From>& from, Matrix<To>& to) {
  for (Index t = 0; t < to.rows; ++t)
    for (Index c = 0; c < to.cols; ++c) to(t, c) = static_cast<To>(from(t, c));
}

class IndexTokensPerKey : public BatchInvariance {};
INSTANTIATE_TEST_SUITE_P(Variants, IndexTokensPerKey, all_variants(), variant_name);

/// The index of one sequence. What no token sees is no number.
template <class Real>
struct Sequence {
  IndexSizes sizes;
  Index n, length;
  Matrix<Real> q, weights, keys, dscores, dq, dweights, dkeys;
  Matrix<bf16> narrow;

  Sequence(IndexSizes z, Index ratio, Index tokens)
      : sizes(z),
        n(tokens),
        length(tokens / ratio),
        q(n, z.heads * z.dim, z.heads * z.dim + 3),
        weights(n, z.heads, z.heads + 1),
        keys(length + 1, z.dim, z.dim + 2),
        dscores(n, length, length + 2),
        dq(n, q.cols, q.cols + 1),
        dweights(n, z.heads, z.heads + 2),
        dkeys(length, z.dim, z.dim + 1),
        narrow(length + 1, z.dim, z.dim + 3) {
    sizes.tokens_per_key = ratio;
    std::mt19937 random(17);
    for (auto* m : {&q, &weights, &keys, &dscores}) m->fill_normal(random);
    for (Index s = 0; s < keys.rows; ++s)
      for (Index c = 0; c < z.dim; ++c) {
        narrow(s, c) = bf16(s < length ? static_cast<float>(keys(s, c)) : std::numeric_limits<float>::quiet_NaN());
        keys(s, c) = static_cast<Real>(static_cast<float>(narrow(s, c)));
      }
    for (Index t = 0; t < n; ++t)
      for (Index s = visible(t); s < length; ++s) dscores(t, s) = std::numeric_limits<Real>::quiet_NaN();
  }
  [[nodiscard]] Index visible(Index t) const { return (t + 1) / sizes.tokens_per_key; }
  /// With all rows of keys, one of them behind what any token sees.
  [[nodiscard]] BasicIndexScoresJob<Real> job(Index first, Index count, View<Real, 2> to) const {
    return {q.view().middle_rows(first, count), weights.view().middle_rows(first, count), keys.view(), to, first};
  }
  [[nodiscard]] IndexScoresGradientJob<Real> gradient_job() {
    return {std::as_const(q).view(),
            std::as_const(weights).view(),
            std::as_const(keys).view().middle_rows(0, length),
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

TEST_P(IndexTokensPerKey, ScoresOfTheKeysThatATokenSeesAreWrittenAndNoOthersInEveryChunk) {
  for (const Index ratio : all_ratios)
    for (const IndexSizes& sizes : {IndexSizes{8, 16, 0.25}, IndexSizes{17, 20, 0.3}})
      for (const Index n : {1, 3, 130}) {
        const Sequence<float> data(sizes, ratio, n);
        Matrix<float> all(n, data.length + 1, data.length + 2), narrow = all, parts = all;
        index_scores(*three, only(data.job(0, n, all.view())), data.sizes);
        const BasicIndexScoresJob<float, bf16> of_narrow{data.q.view(), data.weights.view(), data.narrow.view(),
                                                         narrow.view(), 0};
        index_scores(*three, only(of_narrow), data.sizes);
        std::vector<BasicIndexScoresJob<float>> jobs;
        std::mt19937 random(4);
        for (Index first = 0, count = 0; first < n; first += count) {
          count = std::min(1 + static_cast<Index>(random()) % 20, n - first);
          jobs.push_back(data.job(first, count, parts.view().middle_rows(first, count)));
        }
        index_scores(*one, std::span<const BasicIndexScoresJob<float>>(jobs), data.sizes);
        ASSERT_TRUE(all.padding_is_untouched());
        for (Index t = 0; t < n; ++t) {
          ASSERT_TRUE(same_bits(&all(t, 0), &parts(t, 0), all.cols)) << t << " of " << n;
          ASSERT_TRUE(same_bits(&all(t, 0), &narrow(t, 0), all.cols)) << t << " of " << n;
          for (Index s = 0; s < all.cols; ++s) {
            if (s >= data.visible(t)) {
              ASSERT_EQ(all(t, s), Matrix<float>::canary) << t << ", " << s << ", " << ratio << " tokens a key";
              continue;
            }
            const double expected = data.score(t, s);
            ASSERT_NEAR(double(all(t, s)), expected, 1e-5 * (1.0 + std::abs(expected))) << t << ", " << s;
          }
        }
      }
}

TEST_P(IndexTokensPerKey, GradientsOfScoresAgreeWithDouble) {
  for (const Index ratio : all_ratios)
    for (const IndexSizes& sizes : {IndexSizes{8, 16, 0.25}, IndexSizes{33, 20, 0.3}})
      for (const Index n : {3, 65, 140}) {
        Sequence<float> data(sizes, ratio, n), other(sizes, ratio, n + 70);
        Sequence<double> expected(sizes, ratio, n);
        convert(data.q, expected.q);
        convert(data.weights, expected.weights);
        convert(data.dscores, expected.dscores);
        Sequence<float> alone = data;
        const IndexScoresGradientJob<float> jobs[] = {other.gradient_job(), data.gradient_job()};
        index_scores_backward(*three, std::span<const IndexScoresGradientJob<float>>(jobs), data.sizes);
        index_scores_backward(*one, only(expected.gradient_job()), data.sizes);
        index_scores_backward(*one, only(alone.gradient_job()), data.sizes);
        const auto compare = [&](const Matrix<float>& got, const Matrix<double>& want, const char* what) {
          ASSERT_TRUE(got.padding_is_untouched()) << what;
          for (Index t = 0; t < got.rows; ++t)
            for (Index c = 0; c < got.cols; ++c)
              ASSERT_NEAR(double(got(t, c)), want(t, c), 1e-4)
                  << what << " " << t << ", " << c << " of " << n << ", " << ratio << " tokens a key";
        };
        compare(data.dq, expected.dq, "dq");
        compare(data.dweights, expected.dweights, "dweights");
        compare(data.dkeys, expected.dkeys, "dkeys");
        ASSERT_EQ(alone.dq.data, data.dq.data);
        ASSERT_EQ(alone.dweights.data, data.dweights.data);
        ASSERT_EQ(alone.dkeys.data, data.dkeys.data);
      }
}

TEST(IndexTokensPerKeyInDouble, GradientsOfScoresAreThoseOfCentralDifferences) {
  Cpu device({.threads = 2});
  for (const Index ratio : {2, 4, 20}) {
    Sequence<double> data({4, 3, 0.7}, ratio, 13);
    const auto objective = [&] {
      double sum = 0.0;
      for (Index t = 0; t < data.n; ++t)
        for (Index s = 0; s < data.visible(t); ++s) sum += data.score(t, s) * data.dscores(t, s);
      return sum;
    };
    Matrix<double> scores(data.n, data.length + 1);
    index_scores(device, only(data.job(0, data.n, scores.view())), data.sizes);
    for (Index t = 0; t < data.n; ++t)
      for (Index s = 0; s < data.visible(t); ++s) ASSERT_NEAR(scores(t, s), data.score(t, s), 1e-12);
    index_scores_backward(device, only(data.gradient_job()), data.sizes);
    const auto check = [&](Matrix<double>& of, const Matrix<double>& gradient, const char* what) {
      for (Index t = 0; t < gradient.rows; ++t)
        for (Index c = 0; c < gradient.cols; ++c) {
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
}

TEST(ChooseKeysTokensPerKey, TheLargestScoresOfTheKeysThatATokenSeesAreChosenAndMarked) {
  Cpu device({.threads = 3});
  std::mt19937 random(3);
  for (const Index ratio : {2, 4, 128})
    for (const Index first : {0, 2, 300})
      for (const Index k : {1, 7, 40}) {
        Matrix<float> scores(150, (first + 150) / ratio + 3);
        const Index kinds = 9;
        for (Index t = 0; t < scores.rows; ++t)
          for (Index s = 0; s < scores.cols; ++s)
            scores(t, s) = s < (first + t + 1) / ratio ? static_cast<float>(static_cast<Index>(random()) % kinds) - 4.0f
                                                       : std::numeric_limits<float>::infinity();
        Matrix<std::int32_t> chosen(150, k, k + 1);
        std::vector<std::int32_t> counts(150, 99);
        Matrix<std::uint32_t> bits(150, chosen_words(scores.cols));
        choose_keys(
            device,
            only(BasicChooseKeysJob<float>{std::as_const(scores).view(), first, chosen.view(), view_of(counts), ratio}),
            k);
        mark_chosen(device,
                    only(MarkChosenJob{std::as_const(chosen).view(), view_of(std::as_const(counts)), bits.view()}));
        ASSERT_TRUE(chosen.padding_is_untouched());
        for (Index t = 0; t < 150; ++t) {
          std::vector<std::int32_t> keys(static_cast<std::size_t>((first + t + 1) / ratio));
          std::iota(keys.begin(), keys.end(), 0);
          std::sort(keys.begin(), keys.end(), [&](std::int32_t a, std::int32_t b) {
            return scores(t, a) > scores(t, b) || (scores(t, a) == scores(t, b) && a > b);
          });
          keys.resize(std::min(keys.size(), static_cast<std::size_t>(k)));
          std::sort(keys.begin(), keys.end());
          ASSERT_EQ(counts[std::size_t(t)], std::ssize(keys));
          ASSERT_TRUE(std::equal(keys.begin(), keys.end(), &chosen(t, 0))) << t << " of " << k;
          for (Index s = 0; s < 32 * bits.cols; ++s)
            ASSERT_EQ((bits(t, s / 32) >> (s % 32) & 1U) != 0, std::find(keys.begin(), keys.end(), s) != keys.end());
        }
      }
}

/// Attention over these keys and others, which count in its lse, and an index of them.
template <class Real>
struct Lesson {
  BasicExpandedAttentionSizes<Real> sizes;
  Index n, length;
  Matrix<Real> q, k, lse, scores, dscores;
  Matrix<std::uint32_t> bits;
  std::vector<Real> loss;

  Lesson(BasicExpandedAttentionSizes<Real> z, Index ratio, Index tokens)
      : sizes(z),
        n(tokens),
        length(tokens / ratio),
        q(n, z.heads * z.nope, z.heads * z.nope + 1),
        k(length, z.key_heads() * z.nope, z.key_heads() * z.nope + 2),
        lse(n, z.heads, z.heads + 1),
        scores(n, length, length + 2),
        dscores(n, length, length + 1),
        bits(n, chosen_words(length), chosen_words(length) + 1),
        loss(static_cast<std::size_t>(n), Real(-5)) {
    sizes.tokens_per_key = ratio;
    std::mt19937 random(5);
    for (auto* m : {&q, &k, &scores, &lse}) m->fill_normal(random);
    for (Index t = 0; t < n; ++t)
      for (Index s = visible(t); s < length; ++s) scores(t, s) = std::numeric_limits<Real>::quiet_NaN();
    for (Index t = 0; t < n; ++t)
      for (Index w = 0; w < bits.cols; ++w) bits(t, w) = static_cast<std::uint32_t>(t % 6 == 5 ? 0 : random() | 1);
    for (Index t = 0; t < n; ++t)
      for (Index h = 0; h < z.heads; ++h) {
        double sum = std::exp(double(lse(t, h)));
        for (Index s = 0; s < visible(t); ++s) sum += std::exp(product(t, h, s));
        lse(t, h) = static_cast<Real>(std::log(sum));
        if (t % 7 == 4) lse(t, h) = static_cast<Real>(2e3);  // these keys are worth nothing beside the others
        if (visible(t) == 0 && t % 2 == 0) lse(t, h) = static_cast<Real>(-infinity);
      }
  }
  [[nodiscard]] Index visible(Index t) const { return (t + 1) / sizes.tokens_per_key; }
  [[nodiscard]] double product(Index t, Index h, Index s) const {
    const Index g = h / sizes.heads_per_key;
    double dot = 0.0;
    for (Index c = 0; c < sizes.nope; ++c) dot += double(q(t, h * sizes.nope + c)) * double(k(s, g * sizes.nope + c));
    return dot * double(sizes.scale);
  }
  [[nodiscard]] bool sees(Index t, Index s, bool chosen) const {
    return s < visible(t) && (!chosen || (bits(t, s / 32) >> (s % 32) & 1U) != 0);
  }
  [[nodiscard]] IndexLossJob<Real> job(bool chosen) {
    IndexLossJob<Real> made{.q = q.view(),
                            .k_nope = k.view(),
                            .k_rope = {},
                            .lse = lse.view(),
                            .scores = scores.view(),
                            .dscores = dscores.view(),
                            .loss = view_of(loss)};
    if (chosen) made.chosen = bits.view();
    return made;
  }
  [[nodiscard]] double expected(Index t, bool chosen) const {
    std::vector<double> p(std::size_t(length), 0.0);
    double total = 0.0, below = 0.0, divergence = 0.0;
    for (Index s = 0; s < length; ++s) {
      if (!sees(t, s, chosen)) continue;
      for (Index h = 0; h < sizes.heads; ++h) p[std::size_t(s)] += std::exp(product(t, h, s) - double(lse(t, h)));
      total += p[std::size_t(s)];
      below += std::exp(double(scores(t, s)));
    }
    if (total == 0.0) return 0.0;
    for (Index s = 0; s < length; ++s)
      if (sees(t, s, chosen))
        divergence += p[std::size_t(s)] / total *
                      (std::log(p[std::size_t(s)] / total) - (double(scores(t, s)) - std::log(below)));
    return divergence;
  }
};

const ExpandedAttentionSizes lessons[] = {{3, 13, 0, 18, 0.3f}, {4, 9, 0, 9, 0.3f, AttentionMask::causal, 2}};

TEST(IndexTokensPerKeyInDouble, TheLossOfAnIndexHasTheGradientOfCentralDifferences) {
  Cpu device({.threads = 2});
  for (const Index ratio : {1, 2, 4, 50})
    for (const bool chosen : {false, true}) {
      Lesson<double> data({4, 3, 0, 2, 0.5, AttentionMask::causal, 2}, ratio, 41);
      index_loss(device, only(data.job(chosen)), data.sizes, 0.25);
      for (Index t = 0; t < data.n; ++t) {
        ASSERT_NEAR(data.loss[std::size_t(t)], data.expected(t, chosen), 1e-12) << t << " of " << ratio;
        for (Index s = 0; s < data.length; ++s) {
          if (s >= data.visible(t)) {
            ASSERT_EQ(data.dscores(t, s), Matrix<double>::canary);
            continue;
          }
          const double kept = data.scores(t, s), step = 1e-5;
          data.scores(t, s) = kept + step;
          const double above = data.expected(t, chosen);
          data.scores(t, s) = kept - step;
          const double below = data.expected(t, chosen);
          data.scores(t, s) = kept;
          ASSERT_NEAR(data.dscores(t, s), 0.25 * (above - below) / (2 * step), 1e-9) << t << ", " << s;
        }
      }
    }
}

TEST_P(IndexTokensPerKey, LossAndGradientAgreeWithDouble) {
  for (const Index ratio : all_ratios)
    for (const ExpandedAttentionSizes& sizes : lessons)
      for (const Index n : {3, 64, 140})
        for (const bool chosen : {false, true}) {
          Lesson<float> data(sizes, ratio, n), other(sizes, ratio, n + 30);
          Lesson<double> expected(
              {sizes.heads, sizes.nope, 0, sizes.value, double(sizes.scale), sizes.mask, sizes.heads_per_key}, ratio,
              n);
          convert(data.q, expected.q);
          convert(data.k, expected.k);
          convert(data.lse, expected.lse);
          convert(data.scores, expected.scores);
          const IndexLossJob<float> jobs[] = {other.job(false), data.job(chosen)};
          index_loss(*three, std::span<const IndexLossJob<float>>(jobs), data.sizes, 2.0f);
          index_loss(*one, only(expected.job(chosen)), expected.sizes, 2.0);
          ASSERT_TRUE(data.dscores.padding_is_untouched());
          for (Index t = 0; t < n; ++t) {
            ASSERT_NEAR(double(data.loss[std::size_t(t)]), expected.loss[std::size_t(t)], 1e-5) << t;
            for (Index s = 0; s < data.length; ++s)
              ASSERT_NEAR(double(data.dscores(t, s)), expected.dscores(t, s), 1e-5) << t << ", " << s;
          }
          const auto together = data.dscores.data;
          const auto losses = data.loss;
          index_loss(*one, only(data.job(chosen)), data.sizes, 2.0f);
          ASSERT_EQ(together, data.dscores.data);
          ASSERT_EQ(losses, data.loss);
        }
}

/// Shares so small that their sum's inverse is no float.
TEST_P(IndexTokensPerKey, ALossIsZeroOrFiniteHoweverSmallTheShareOfItsKeys) {
  Lesson<float> data({2, 3, 0, 2, 0.5f}, 4, 300);
  for (Index t = 0; t < data.n; ++t)
    for (Index h = 0; h < 2; ++h) data.lse(t, h) = 80.0f + static_cast<float>(t) / 10.0f;
  index_loss(*three, only(data.job(false)), data.sizes, 1.0f);
  for (Index t = 0; t < data.n; ++t) {
    ASSERT_TRUE(std::isfinite(data.loss[std::size_t(t)])) << t;
    for (Index s = 0; s < data.visible(t); ++s) ASSERT_TRUE(std::abs(data.dscores(t, s)) <= 1.0f) << t << ", " << s;
  }
  EXPECT_GT(data.loss[8], 0.0f);
  EXPECT_EQ(data.loss[299], 0.0f);
}

TEST(IndexTokensPerKeyErrors, WhatDoesNotFitIsRefused) {
  Cpu device({.threads = 1});
  Sequence<float> data({2, 4, 0.5}, 4, 11);
  Matrix<float> scores(11, 3);
  const auto score = [&](auto&& change) {
    auto job = data.job(0, 11, scores.view());
    IndexSizes sizes = data.sizes;
    change(job, sizes);
    return code_of([&] { index_scores(device, only(job), sizes); });
  };
  EXPECT_EQ(score([](auto&, auto&) {}), ErrorCode::count_);
  EXPECT_EQ(score([](auto&, auto& z) { z.tokens_per_key = 0; }), ErrorCode::op_argument);
  EXPECT_EQ(score([](auto&, auto& z) { z.tokens_per_key = 2; }), ErrorCode::op_shape);
  EXPECT_EQ(score([](auto& j, auto&) { j.first_position = 8; }), ErrorCode::op_shape);
  EXPECT_EQ(score([](auto& j, auto&) { j.first_position = 4; }), ErrorCode::count_);
  const auto backward = [&](auto&& change) {
    auto job = data.gradient_job();
    change(job);
    return code_of([&] { index_scores_backward(device, only(job), data.sizes); });
  };
  EXPECT_EQ(backward([](auto&) {}), ErrorCode::count_);
  EXPECT_EQ(backward([](auto& j) { j.keys.rows -= 1; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& j) { j.dkeys.rows -= 1; }), ErrorCode::op_shape);
  EXPECT_EQ(backward([](auto& j) { j.dscores.cols -= 1; }), ErrorCode::op_shape);

  Matrix<std::int32_t> chosen(11, 2);
  std::vector<std::int32_t> counts(11);
  const auto choose = [&](Index ratio) {
    const BasicChooseKeysJob<float> job{std::as_const(scores).view(), 2, chosen.view(), view_of(counts), ratio};
    return code_of([&] { choose_keys(device, only(job), 2); });
  };
  EXPECT_EQ(choose(4), ErrorCode::count_);
  EXPECT_EQ(choose(3), ErrorCode::op_shape);
  EXPECT_EQ(choose(0), ErrorCode::op_argument);

  Lesson<float> lesson({2, 3, 0, 4, 0.5f}, 4, 11);
  const auto learn = [&](auto&& change) {
    auto job = lesson.job(true);
    ExpandedAttentionSizes sizes = lesson.sizes;
    change(job, sizes);
    return code_of([&] { index_loss(device, only(job), sizes, 1.0f); });
  };
  EXPECT_EQ(learn([](auto&, auto&) {}), ErrorCode::count_);
  EXPECT_EQ(learn([](auto&, auto& z) { z.tokens_per_key = 5; }), ErrorCode::count_);  // it has two as well
  EXPECT_EQ(learn([](auto&, auto& z) { z.tokens_per_key = 3; }), ErrorCode::op_shape);
  EXPECT_EQ(learn([](auto&, auto& z) { z.tokens_per_key = -1; }), ErrorCode::op_argument);
  EXPECT_EQ(learn([](auto&, auto& z) { z.nope = 2, z.rope = 1; }), ErrorCode::op_argument);
  EXPECT_EQ(learn([](auto& j, auto&) { j.dscores.cols -= 1; }), ErrorCode::op_shape);
  EXPECT_EQ(learn([](auto& j, auto&) { j.k_nope.rows -= 1; }), ErrorCode::op_shape);
}

}  // namespace index_tokens_per_key_test
