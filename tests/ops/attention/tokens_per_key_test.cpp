// Attention over keys that stand for several tokens each: against plain double loops and central differences.
#include <gtest/gtest.h>

#include <algorithm>
#include <guild/cpu.hpp>
#include <guild/ops/attention/attention.hpp>
#include <limits>
#include <string>

#include "../batch_invariance.hpp"

namespace tokens_per_key_test {
using namespace guild;
using namespace guild_test;

constexpr double infinity = std::numeric_limits<double>::infinity();
const Index all_ratios[] = {1, 2, 4, 128};

/// Chosen keys of every token, as bits and as lists: about half of those it sees, of some tokens that see many none of
/// a whole tile.
struct Choice {
  Matrix<std::uint32_t> bits;
  Matrix<std::int32_t> lists;
  std::vector<std::int32_t> counts;

  Choice(Index n, Index length, Index ratio)
      : bits(n, chosen_words(length), chosen_words(length) + 1),
        lists(n, length + 1, length + 2),
        counts(static_cast<std::size_t>(n)) {
    std::mt19937 random(3);
    for (Index t = 0; t < n; ++t) {
      for (Index w = 0; w < bits.cols; ++w) bits(t, w) = 0;
      Index count = 0;
      const Index visible = (t + 1) / ratio, begin = t % 3 == 0 ? visible / 2 : 0;
      for (Index s = begin; s < visible; ++s)
        if (s == visible - 1 || random() % 2 == 0) {
          lists(t, count++) = static_cast<std::int32_t>(s);
          bits(t, s / 32) |= std::uint32_t{1} << (s % 32);
        }
      counts[std::size_t(t)] = static_cast<std::int32_t>(count);
      for (Index s = visible; s < 32 * bits.cols; ++s)  // which mean nothing
        bits(t, s / 32) |= static_cast<std::uint32_t>(random() % 2) << (s % 32);
    }
  }
  [[nodiscard]] bool has(Index t, Index s) const { return (bits(t, s / 32) >> (s % 32) & 1U) != 0; }
};

/// One head of one token in double: out, and the logarithm of the denominator.
struct Expected {
  std::vector<double> out;
  double lse = -infinity;
};
template <class Sees, class Score, class Value>
Expected expected_of(Index length, Index values, double sink, Sees&& sees, Score&& score, Value&& value) {
  Expected made{std::vector<double>(std::size_t(values), 0.0)};
  double peak = sink, sum = 0.0;
  for (Index s = 0; s < length; ++s)
    if (sees(s)) peak = std::max(peak, score(s));
  if (peak == -infinity) return made;
  sum = std::exp(sink - peak);
  for (Index s = 0; s < length; ++s)
    if (sees(s)) sum += std::exp(score(s) - peak);
  for (Index s = 0; s < length; ++s)
    for (Index c = 0; sees(s) && c < values; ++c)
      made.out[std::size_t(c)] += std::exp(score(s) - peak) / sum * value(s, c);
  made.lse = peak + std::log(sum);
  return made;
}

class TokensPerKey : public BatchInvariance {};
INSTANTIATE_TEST_SUITE_P(Variants, TokensPerKey, all_variants(), variant_name);

/// A cache of pooled rows, behind which stand two that nobody may read, and queries for every position.
struct Cached {
  CachedAttentionSizes sizes;
  Index n, length;
  Matrix<float> q, out, lse, rows;
  Matrix<bf16> narrow;
  std::vector<float> sinks;
  Choice choice;

  Cached(CachedAttentionSizes z, Index ratio, Index tokens)
      : sizes(z),
        n(tokens),
        length(tokens / ratio),
        q(n, z.heads * z.key),
        out(n, z.heads * z.value, z.heads * z.value + 1),
        lse(n, z.heads, z.heads + 2),
        rows(length + 2, std::max(z.key, z.value_offset + z.value), std::max(z.key, z.value_offset + z.value) + 3),
        narrow(length + 2, rows.cols, rows.cols + 5),
        choice(n, length, ratio) {
    sizes.tokens_per_key = ratio;
    std::mt19937 random(5);
    q.fill_normal(random);
    rows.fill_normal(random);
    sinks = normal_vector<float>(random, z.heads);
    for (Index s = 0; s < rows.rows; ++s)
      for (Index c = 0; c < rows.cols; ++c) {
        narrow(s, c) = bf16(s < length ? rows(s, c) : std::numeric_limits<float>::quiet_NaN());
        rows(s, c) = static_cast<float>(narrow(s, c));
      }
  }
  [[nodiscard]] CachedAttentionJob job(DType type, Index first, Index count, bool sink, bool chosen) {
    CachedAttentionJob made{
        .cache = type == DType::f32 ? static_cast<const void*>(rows.data.data()) : narrow.data.data(),
        .cache_type = type,
        .cache_pitch = type == DType::f32 ? rows.pitch : narrow.pitch,
        .length = (first + count) / sizes.tokens_per_key,
        .q = q.view().middle_rows(first, count),
        .out = out.view().middle_rows(first, count),
        .first_position = first,
        .lse = lse.view().middle_rows(first, count)};
    if (sink) made.sinks = view_of(sinks);
    if (chosen) made.chosen = choice.lists.view().middle_rows(first, count);
    if (chosen) made.counts = view_of(choice.counts).slice(first, count);
    return made;
  }
  [[nodiscard]] Expected expected(Index t, Index h, bool sink, bool chosen) const {
    const auto sees = [&](Index s) { return s < (t + 1) / sizes.tokens_per_key && (!chosen || choice.has(t, s)); };
    const auto score = [&](Index s) {
      double dot = 0.0;
      for (Index c = 0; c < sizes.key; ++c) dot += double(q(t, h * sizes.key + c)) * double(rows(s, c));
      return dot * double(sizes.scale);
    };
    const auto value = [&](Index s, Index c) { return double(rows(s, sizes.value_offset + c)); };
    return expected_of(length, sizes.value, sink ? double(sinks[std::size_t(h)]) : -infinity, sees, score, value);
  }
};

const CachedAttentionSizes all_rows[] = {{5, 24, 20, 0, 0.3f}, {40, 24, 20, 0, 0.3f}, {4, 20, 12, 23, 0.3f}};

void expect_lse(float got, double expected, double tolerance) {
  if (expected == -infinity)
    ASSERT_EQ(double(got), -infinity);
  else
    ASSERT_NEAR(double(got), expected, tolerance);
}

TEST_P(TokensPerKey, CachedAttentionSeesTheKeysThatStandForNothingBehindAToken) {
  for (const Index ratio : all_ratios)
    for (const CachedAttentionSizes& sizes : all_rows)
      for (const DType type : {DType::f32, DType::bf16})
        for (const int kind : type == DType::f32 ? std::vector{0, 3} : std::vector{1, 2}) {
          const bool sink = kind % 2 == 1, chosen = kind >= 2;
          Cached data(sizes, ratio, ratio == 2 && sizes.heads < 40 ? 601 : 257);
          const CachedAttentionJob job = data.job(type, 0, data.n, sink, chosen);
          cached_attention(*three, std::span<const CachedAttentionJob>(&job, 1), data.sizes);
          ASSERT_TRUE(data.out.padding_is_untouched() && data.lse.padding_is_untouched());
          for (const Index t : {0, 1, 3, 4, 126, 127, 128, 256, 600})
            for (const Index h : {Index{0}, sizes.heads - 1}) {
              if (t >= data.n) continue;
              SCOPED_TRACE(std::to_string(ratio) + " tokens a key, token " + std::to_string(t));
              const Expected expected = data.expected(t, h, sink, chosen);
              for (Index c = 0; c < sizes.value; ++c) {
                const float got = data.out(t, h * sizes.value + c);
                ASSERT_TRUE(t + 1 >= ratio || (got == 0.0f && !std::signbit(got)));
                ASSERT_NEAR(double(got), expected.out[std::size_t(c)], 3e-5);
              }
              expect_lse(data.lse(t, h), expected.lse, 3e-5);
              ASSERT_TRUE(t + 1 >= ratio || !sink || data.lse(t, h) == data.sinks[std::size_t(h)]);
            }
        }
}

TEST_P(TokensPerKey, ACachedTokenHasItsBitsInEveryChunkAndOnAnyThreads) {
  for (const Index ratio : {2, 4, 128})
    for (const bool chosen : {false, true}) {
      constexpr Index n = 401;
      Cached whole({3, 24, 20, 0, 0.3f}, ratio, n), parts({3, 24, 20, 0, 0.3f}, ratio, n);
      const CachedAttentionJob job = whole.job(DType::bf16, 0, n, false, chosen);
      cached_attention(*three, std::span<const CachedAttentionJob>(&job, 1), whole.sizes);
      std::mt19937 random(9);
      for (const Index longest : {1, 3, 6, 90}) {
        std::fill(parts.out.data.begin(), parts.out.data.end() - 1, 5.0f);
        std::fill(parts.lse.data.begin(), parts.lse.data.end() - 1, 5.0f);
        std::vector<CachedAttentionJob> jobs;
        for (Index first = 0, count = 0; first < n; first += count) {
          count = std::min(1 + static_cast<Index>(random()) % longest, n - first);
          jobs.push_back(parts.job(DType::bf16, first, count, false, chosen));
        }
        std::shuffle(jobs.begin(), jobs.end(), random);
        cached_attention(longest == 3 ? *one : *three, std::span<const CachedAttentionJob>(jobs), whole.sizes);
        for (Index t = 0; t < n; ++t) {
          ASSERT_TRUE(same_bits(&parts.out(t, 0), &whole.out(t, 0), whole.out.cols)) << t << " of " << longest;
          ASSERT_TRUE(same_bits(&parts.lse(t, 0), &whole.lse(t, 0), whole.lse.cols)) << t << " of " << longest;
        }
      }
    }
}

TEST_P(TokensPerKey, WithAllKeysChosenBitsAreThoseOfAttentionWithoutAChoice) {
  for (const Index ratio : {2, 4, 128}) {
    Cached dense({5, 24, 20, 0, 0.3f}, ratio, 601), sparse({5, 24, 20, 0, 0.3f}, ratio, 601);
    for (Index t = 0; t < sparse.n; ++t) {
      const Index visible = (t + 1) / ratio;
      for (Index s = 0; s < visible; ++s) sparse.choice.lists(t, s) = static_cast<std::int32_t>(s);
      sparse.choice.counts[std::size_t(t)] = static_cast<std::int32_t>(visible);
    }
    const CachedAttentionJob of_all = dense.job(DType::f32, 0, dense.n, true, false);
    const CachedAttentionJob of_chosen = sparse.job(DType::f32, 0, dense.n, true, true);
    cached_attention(*three, std::span<const CachedAttentionJob>(&of_all, 1), dense.sizes);
    cached_attention(*one, std::span<const CachedAttentionJob>(&of_chosen, 1), dense.sizes);
    ASSERT_EQ(dense.out.data, sparse.out.data);
    ASSERT_EQ(dense.lse.data, sparse.lse.data);
  }
}

TEST_P(TokensPerKey, ALogSumExpOfACacheIsThatOfAllKeysWhereAKeyIsAToken) {
  Cached data({5, 24, 20, 0, 0.3f}, 1, 40);
  const CachedAttentionJob job = data.job(DType::f32, 30, 10, true, false);
  cached_attention(*one, std::span<const CachedAttentionJob>(&job, 1), data.sizes);
  for (Index t = 30; t < 40; ++t)
    for (Index h = 0; h < 5; ++h) expect_lse(data.lse(t, h), data.expected(t, h, true, false).lse, 1e-5);
}

/// A whole sequence in expanded form, on both ways.
template <class Real>
struct Expanded {
  BasicExpandedAttentionSizes<Real> sizes;
  Index n, length;
  Matrix<Real> q, k, v, out, lse, dout, dq, dk, dv, dsinks;
  std::vector<Real> sinks;
  Choice choice;

  Expanded(BasicExpandedAttentionSizes<Real> z, Index ratio, Index tokens)
      : sizes(z),
        n(tokens),
        length(tokens / ratio),
        q(n, z.heads * z.nope, z.heads * z.nope + 1),
        k(length, z.key_heads() * z.nope, z.key_heads() * z.nope + 2),
        v(length, z.key_heads() * z.value, z.key_heads() * z.value + 3),
        out(n, z.heads * z.value, z.heads * z.value + 2),
        lse(n, z.heads, z.heads + 1),
        dout(n, z.heads * z.value, z.heads * z.value + 3),
        dq(n, q.cols, q.cols + 2),
        dk(length, k.cols, k.cols + 1),
        dv(length, v.cols, v.cols + 1),
        dsinks(n, z.heads, z.heads + 1),
        choice(n, length, ratio) {
    sizes.tokens_per_key = ratio;
    std::mt19937 random(11);
    for (auto* m : {&q, &k, &v, &dout}) m->fill_normal(random);
    sinks = normal_vector<Real>(random, z.heads);
  }
  template <class Other>
  explicit Expanded(const Expanded<Other>& other)
      : Expanded({other.sizes.heads, other.sizes.nope, 0, other.sizes.value, Real(other.sizes.scale),
                  AttentionMask::causal, other.sizes.heads_per_key},
                 other.sizes.tokens_per_key, other.n) {
    const auto convert = [](const auto& from, auto& to) {
      for (Index t = 0; t < to.rows; ++t)
        for (Index c = 0; c < to.cols; ++c) to(t, c) = static_cast<Real>(from(t, c));
    };
    convert(other.q, q);
    convert(other.k, k);
    convert(other.v, v);
    convert(other.dout, dout);
    std::transform(other.sinks.begin(), other.sinks.end(), sinks.begin(), [](auto x) { return static_cast<Real>(x); });
  }
  [[nodiscard]] BasicExpandedAttentionJob<Real> job(Index first, Index count, bool sink, bool chosen) {
    const Index keys = (first + count) / sizes.tokens_per_key;
    BasicExpandedAttentionJob<Real> made{.q = q.view().middle_rows(first, count),
                                         .k_nope = k.view().middle_rows(0, keys),
                                         .v = v.view().middle_rows(0, keys),
                                         .out = out.view().middle_rows(first, count),
                                         .first_position = first,
                                         .lse = lse.view().middle_rows(first, count)};
    if (sink) made.sinks = view_of(sinks);
    if (chosen) made.chosen = choice.bits.view().middle_rows(first, count).middle_cols(0, chosen_words(keys));
    return made;
  }
  [[nodiscard]] ExpandedAttentionGradientJob<Real> gradient_job(bool sink, bool chosen) {
    ExpandedAttentionGradientJob<Real> made{.q = q.view(),
                                            .k_nope = k.view(),
                                            .v = v.view(),
                                            .out = out.view(),
                                            .lse = lse.view(),
                                            .dout = dout.view(),
                                            .dq = dq.view(),
                                            .dk_nope = dk.view(),
                                            .dv = dv.view()};
    if (sink) made.sinks = view_of(sinks);
    if (sink) made.dsinks = dsinks.view();
    if (chosen) made.chosen = choice.bits.view();
    return made;
  }
  void forward(Cpu& device, bool sink, bool chosen) {
    const auto made = job(0, n, sink, chosen);
    expanded_attention(device, std::span<const BasicExpandedAttentionJob<Real>>(&made, 1), sizes);
  }
  void backward(Cpu& device, bool sink, bool chosen) {
    const auto made = gradient_job(sink, chosen);
    expanded_attention_backward(device, std::span<const ExpandedAttentionGradientJob<Real>>(&made, 1), sizes);
  }
  [[nodiscard]] Expected expected(Index t, Index h, bool sink, bool chosen) const {
    const Index g = h / sizes.heads_per_key;
    const auto sees = [&](Index s) { return s < (t + 1) / sizes.tokens_per_key && (!chosen || choice.has(t, s)); };
    const auto score = [&](Index s) {
      double dot = 0.0;
      for (Index c = 0; c < sizes.nope; ++c) dot += double(q(t, h * sizes.nope + c)) * double(k(s, g * sizes.nope + c));
      return dot * double(sizes.scale);
    };
    const auto value = [&](Index s, Index c) { return double(v(s, g * sizes.value + c)); };
    return expected_of(length, sizes.value, sink ? double(sinks[std::size_t(h)]) : -infinity, sees, score, value);
  }
  /// The sum of dout * out, by plain loops.
  [[nodiscard]] double objective(bool sink, bool chosen) const {
    double total = 0.0;
    for (Index t = 0; t < n; ++t)
      for (Index h = 0; h < sizes.heads; ++h) {
        const Expected one = expected(t, h, sink, chosen);
        for (Index c = 0; c < sizes.value; ++c) total += one.out[std::size_t(c)] * double(dout(t, h * sizes.value + c));
      }
    return total;
  }
};

const ExpandedAttentionSizes all_sizes[] = {
    {3, 13, 0, 18, 0.3f}, {4, 9, 0, 9, 0.3f, AttentionMask::causal, 2}, {6, 20, 0, 20, 0.2f, AttentionMask::causal, 6}};

TEST_P(TokensPerKey, ExpandedAttentionSeesTheKeysThatStandForNothingBehindAToken) {
  for (const Index ratio : all_ratios)
    for (const auto& sizes : all_sizes)
      for (const Index n : {1, 3, 127, 128, 160})
        for (const int kind : {0, 1, 2, 3}) {
          const bool sink = kind % 2 == 1, chosen = kind >= 2;
          Expanded<float> data(sizes, ratio, n);
          data.forward(*three, sink, chosen);
          ASSERT_TRUE(data.out.padding_is_untouched() && data.lse.padding_is_untouched());
          for (Index t = 0; t < n; t += t < 5 ? 1 : 31)
            for (const Index h : {Index{0}, sizes.heads - 1}) {
              SCOPED_TRACE(std::to_string(ratio) + " tokens a key, token " + std::to_string(t));
              const Expected expected = data.expected(t, h, sink, chosen);
              for (Index c = 0; c < sizes.value; ++c) {
                const float got = data.out(t, h * sizes.value + c);
                ASSERT_TRUE(t + 1 >= ratio || (got == 0.0f && !std::signbit(got)));
                ASSERT_NEAR(double(got), expected.out[std::size_t(c)], 3e-5);
              }
              expect_lse(data.lse(t, h), expected.lse, 3e-5);
            }
        }
}

TEST_P(TokensPerKey, AnExpandedTokenHasItsBitsInEveryChunkAndOnAnyThreads) {
  for (const Index ratio : {2, 4, 128})
    for (const bool chosen : {false, true}) {
      constexpr Index n = 401;
      Expanded<float> whole(all_sizes[1], ratio, n), parts(all_sizes[1], ratio, n);
      whole.forward(*three, false, chosen);
      std::mt19937 random(9);
      for (const Index longest : {1, 3, 90}) {
        std::fill(parts.out.data.begin(), parts.out.data.end() - 1, 5.0f);
        std::fill(parts.lse.data.begin(), parts.lse.data.end() - 1, 5.0f);
        std::vector<ExpandedAttentionJob> jobs;
        for (Index first = 0, count = 0; first < n; first += count) {
          count = std::min(1 + static_cast<Index>(random()) % longest, n - first);
          jobs.push_back(parts.job(first, count, false, chosen));
        }
        expanded_attention(longest == 3 ? *one : *three, std::span<const ExpandedAttentionJob>(jobs), whole.sizes);
        for (Index t = 0; t < n; ++t) {
          ASSERT_TRUE(same_bits(&parts.out(t, 0), &whole.out(t, 0), whole.out.cols)) << t << " of " << longest;
          ASSERT_TRUE(same_bits(&parts.lse(t, 0), &whole.lse(t, 0), whole.lse.cols)) << t << " of " << longest;
        }
      }
    }
}

/// Elements agree to `tolerance` times the largest expected one, or 1.
void expect_close(const Matrix<float>& got, const Matrix<double>& expected, double tolerance, const std::string& what) {
  ASSERT_TRUE(got.padding_is_untouched()) << what;
  double largest = 1.0;  // gradients of a single key are differences of equal numbers
  for (Index t = 0; t < got.rows; ++t)
    for (Index c = 0; c < got.cols; ++c) largest = std::max(largest, std::abs(expected(t, c)));
  for (Index t = 0; t < got.rows; ++t)
    for (Index c = 0; c < got.cols; ++c)
      ASSERT_NEAR(double(got(t, c)), expected(t, c), tolerance * largest) << what << " row " << t << " column " << c;
}

TEST_P(TokensPerKey, GradientsAgreeWithDoubleAndHaveTheSameBitsOnAnyThreadsAndInAnyBatch) {
  const auto check = [&](const ExpandedAttentionSizes& sizes, Index ratio, Index n, bool sink, bool chosen) {
    Expanded<float> data(sizes, ratio, n), other(sizes, ratio, 70);
    Expanded<double> exact(data);
    exact.forward(*three, sink, chosen);
    exact.backward(*three, sink, chosen);
    data.forward(*three, sink, chosen);
    other.forward(*three, sink, chosen);
    Expanded<float> alone = data;
    alone.backward(*one, sink, chosen);
    const ExpandedAttentionGradientJob<float> jobs[] = {other.gradient_job(sink, chosen),
                                                        data.gradient_job(sink, chosen)};
    expanded_attention_backward(*three, std::span<const ExpandedAttentionGradientJob<float>>(jobs), data.sizes);
    const std::string what = std::to_string(ratio) + " tokens a key, " + std::to_string(n) + " tokens: ";
    expect_close(data.dq, exact.dq, 1e-5, what + "dq");
    expect_close(data.dk, exact.dk, 1e-5, what + "dk");
    expect_close(data.dv, exact.dv, 1e-5, what + "dv");
    if (sink) expect_close(data.dsinks, exact.dsinks, 1e-5, what + "dsinks");
    ASSERT_EQ(alone.dq.data, data.dq.data) << what;
    ASSERT_EQ(alone.dk.data, data.dk.data) << what;
    ASSERT_EQ(alone.dv.data, data.dv.data) << what;
  };
  for (const Index ratio : all_ratios)
    for (const auto& sizes : all_sizes)
      for (const Index n : {3, 65, 150})
        for (const int kind : n == 150 ? std::vector{0, 3} : std::vector{1, 2}) {
          check(sizes, ratio, n, kind % 2 == 1, kind >= 2);
          if (HasFatalFailure()) return;
        }
  check({1, 5, 0, 3, 0.4f}, 2, 1101, true, true);  // keys cut into ranges
}

TEST_P(TokensPerKey, WithAllBitsSetExpandedAttentionHasTheBitsOfAttentionWithoutAChoiceOnBothWays) {
  for (const Index ratio : {2, 4, 128}) {
    Expanded<float> dense(all_sizes[1], ratio, 401), sparse(all_sizes[1], ratio, 401);
    for (Index t = 0; t < sparse.n; ++t)
      for (Index w = 0; w < sparse.choice.bits.cols; ++w) sparse.choice.bits(t, w) = ~std::uint32_t{0};
    for (auto* data : {&dense, &sparse}) {
      data->forward(*three, false, data == &sparse);
      data->backward(*one, false, data == &sparse);
    }
    ASSERT_EQ(dense.out.data, sparse.out.data);
    ASSERT_EQ(dense.lse.data, sparse.lse.data);
    ASSERT_EQ(dense.dq.data, sparse.dq.data);
    ASSERT_EQ(dense.dk.data, sparse.dk.data);
    ASSERT_EQ(dense.dv.data, sparse.dv.data);
  }
}

template <class Real>
void check_without_a_denominator(Cpu& device) {
  Expanded<Real> data({4, 9, 0, 9, Real(0.3), AttentionMask::causal, 2}, 4, 150), other = data;
  data.forward(device, true, false);
  other.forward(device, true, false);
  for (const Index t : {50, 149})
    for (Index h = 0; h < 4; ++h) {
      data.lse(t, h) = static_cast<Real>(-infinity);
      for (Index c = 9 * h; c < 9 * h + 9; ++c) other.dout(t, c) = 0;
    }
  data.backward(device, true, false);
  other.backward(device, true, false);
  for (const Index t : {50, 149}) {
    for (Index c = 0; c < data.dq.cols; ++c) ASSERT_EQ(data.dq(t, c), Real(0));
    for (Index h = 0; h < 4; ++h) ASSERT_EQ(data.dsinks(t, h), Real(0));
  }
  for (const auto& [got, expected] : {std::pair{&data.dk, &other.dk}, std::pair{&data.dv, &other.dv}})
    for (Index s = 0; s < got->rows; ++s)
      for (Index c = 0; c < got->cols; ++c) ASSERT_NEAR((*got)(s, c), (*expected)(s, c), 1e-5);
}
TEST_P(TokensPerKey, ATokenWhoseDenominatorIsNothingHasNoShareInGradients) {
  check_without_a_denominator<float>(*three);
  check_without_a_denominator<double>(*three);
}

TEST(TokensPerKeyInDouble, GradientsAreThoseOfCentralDifferences) {
  Cpu device({.threads = 2});
  for (const Index ratio : {1, 2, 4, 5})
    for (const int kind : {0, 1, 2, 3}) {
      const bool sink = kind % 2 == 1, chosen = kind >= 2;
      Expanded<double> data({4, 3, 0, 2, 0.6, AttentionMask::causal, 2}, ratio, 14);
      data.forward(device, sink, chosen);
      data.backward(device, sink, chosen);
      for (Index t = 0; t < data.n; ++t)
        for (Index h = 0; h < 4; ++h) {
          const Expected expected = data.expected(t, h, sink, chosen);
          for (Index c = 0; c < 2; ++c) ASSERT_NEAR(data.out(t, h * 2 + c), expected.out[std::size_t(c)], 1e-13);
          if (expected.lse == -infinity)
            ASSERT_EQ(data.lse(t, h), -infinity);
          else
            ASSERT_NEAR(data.lse(t, h), expected.lse, 1e-13);
        }
      const auto slope = [&](double& of) {
        const double kept = of, step = 1e-6;
        of = kept + step;
        const double above = data.objective(sink, chosen);
        of = kept - step;
        const double below = data.objective(sink, chosen);
        of = kept;
        return (above - below) / (2 * step);
      };
      const auto check = [&](Matrix<double>& of, const Matrix<double>& gradient, const char* what) {
        for (Index t = 0; t < of.rows; ++t)
          for (Index c = 0; c < of.cols; ++c)
            ASSERT_NEAR(gradient(t, c), slope(of(t, c)), 1e-7) << what << " " << t << ", " << c << " of " << ratio;
      };
      check(data.q, data.dq, "dq");
      check(data.k, data.dk, "dk");
      check(data.v, data.dv, "dv");
      for (Index h = 0; sink && h < 4; ++h) {
        double sum = 0.0;
        for (Index t = 0; t < data.n; ++t) sum += data.dsinks(t, h);
        ASSERT_NEAR(sum, slope(data.sinks[std::size_t(h)]), 1e-7);
      }
    }
}

TEST(TokensPerKeyErrors, WhatDoesNotFitIsRefused) {
  Cpu device({.threads = 1});
  Cached data({2, 6, 4, 0, 0.5f}, 4, 11);
  const auto cached = [&](auto&& change, bool chosen = false) {
    CachedAttentionJob job = data.job(DType::f32, 0, 11, false, chosen);
    CachedAttentionSizes sizes = data.sizes;
    change(job, sizes);
    return code_of([&] { cached_attention(device, std::span<const CachedAttentionJob>(&job, 1), sizes); });
  };
  EXPECT_EQ(cached([](auto&, auto&) {}), ErrorCode::count_);
  EXPECT_EQ(cached([](auto&, auto& z) { z.tokens_per_key = 0; }), ErrorCode::op_argument);
  EXPECT_EQ(cached([](auto&, auto& z) { z.tokens_per_key = 3; }), ErrorCode::op_shape);
  EXPECT_EQ(cached([](auto&, auto& z) { z.keys.window = 5; }), ErrorCode::op_argument);
  EXPECT_EQ(cached([](auto&, auto& z) { z.near.window = 5; }), ErrorCode::op_argument);
  EXPECT_EQ(cached([](auto& j, auto&) { j.ring.rows = 20; }), ErrorCode::op_argument);
  EXPECT_EQ(cached([](auto& j, auto&) { j.length = 1; }), ErrorCode::op_shape);
  EXPECT_EQ(cached([](auto& j, auto&) { j.lse.cols = 1; }), ErrorCode::op_shape);
  EXPECT_EQ(cached([](auto& j, auto&) { j.cache = nullptr; }), ErrorCode::op_argument);
  EXPECT_EQ(cached([](auto&, auto&) {}, true), ErrorCode::count_);
  data.choice.counts[7] = 0;  // of a token that sees two
  EXPECT_EQ(cached([](auto&, auto&) {}, true), ErrorCode::op_argument);
  data.choice.counts[7] = 1;
  data.choice.lists(7, 0) = 2;
  EXPECT_EQ(cached([](auto&, auto&) {}, true), ErrorCode::op_argument);
  data.choice.lists(7, 0) = 1;
  data.choice.counts[2] = 1;  // of a token that sees none
  EXPECT_EQ(cached([](auto&, auto&) {}, true), ErrorCode::op_argument);
  // Before the first key there need be no cache.
  EXPECT_EQ(cached([](auto& j, auto&) {
              j.cache = nullptr;
              j.length = 0;
              for (auto* rows : {&j.out, &j.lse}) *rows = rows->middle_rows(0, 3);
              j.q = j.q.middle_rows(0, 3);
            }),
            ErrorCode::count_);

  Expanded<float> expanded({2, 5, 0, 4, 0.5f}, 4, 11);
  expanded.forward(device, false, false);
  const auto both = [&](auto&& change) {
    ExpandedAttentionJob job = expanded.job(0, 11, false, true);
    ExpandedAttentionGradientJob<float> gradient = expanded.gradient_job(false, true);
    ExpandedAttentionSizes sizes = expanded.sizes;
    change(job, sizes);
    change(gradient, sizes);
    const ErrorCode code =
        code_of([&] { expanded_attention(device, std::span<const ExpandedAttentionJob>(&job, 1), sizes); });
    EXPECT_EQ(code_of([&] {
                expanded_attention_backward(device, std::span<const ExpandedAttentionGradientJob<float>>(&gradient, 1),
                                            sizes);
              }),
              code);
    return code;
  };
  EXPECT_EQ(both([](auto&, auto&) {}), ErrorCode::count_);
  EXPECT_EQ(both([](auto&, auto& z) { z.tokens_per_key = 0; }), ErrorCode::op_argument);
  EXPECT_EQ(both([](auto&, auto& z) { z.tokens_per_key = 3; }), ErrorCode::op_shape);
  EXPECT_EQ(both([](auto&, auto& z) { z.keys.window = 5; }), ErrorCode::op_argument);
  EXPECT_EQ(both([](auto&, auto& z) { z.near.window = 5; }), ErrorCode::op_argument);
  EXPECT_EQ(both([](auto&, auto& z) { z.mask = AttentionMask::bidirectional; }), ErrorCode::op_argument);
  EXPECT_EQ(both([](auto&, auto& z) { z.nope = 3, z.rope = 2; }), ErrorCode::op_argument);
  EXPECT_EQ(both([](auto& j, auto&) { j.k_nope.rows = 1; }), ErrorCode::op_shape);
  EXPECT_EQ(both([](auto& j, auto&) { j.v.rows = 1; }), ErrorCode::op_shape);
  EXPECT_EQ(both([](auto& j, auto&) { j.chosen.cols = 0; }), ErrorCode::op_shape);
  ExpandedAttentionJob job = expanded.job(0, 11, false, false);
  job.skipped = 64;
  job.first_position = 64;
  EXPECT_EQ(
      code_of([&] { expanded_attention(device, std::span<const ExpandedAttentionJob>(&job, 1), expanded.sizes); }),
      ErrorCode::op_argument);
}

}  // namespace tokens_per_key_test
