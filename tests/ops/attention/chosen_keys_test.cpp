// Attention over chosen keys: against plain double loops, and with all keys chosen against attention without a choice.
#include <gtest/gtest.h>

#include <algorithm>
#include <guild/cpu.hpp>
#include <guild/ops/attention/attention.hpp>
#include <guild/ops/attention/index.hpp>
#include <numeric>
#include <string>

#include "../batch_invariance.hpp"

namespace chosen_keys_test {
using namespace guild;
using namespace guild_test;

/// For every token of a sequence an ascending list of positions up to its own: `most` of them at most.
struct Lists {
  Matrix<std::int32_t> chosen;
  std::vector<std::int32_t> counts;
  Matrix<std::uint32_t> bits;

  Lists(Index length, Index most)
      : chosen(length, most, most + 2),
        counts(static_cast<std::size_t>(length)),
        bits(length, chosen_words(length), chosen_words(length) + 1) {}
  void put(Index t, std::vector<std::int32_t> keys) {
    std::sort(keys.begin(), keys.end());
    std::copy(keys.begin(), keys.end(), &chosen(t, 0));
    counts[static_cast<std::size_t>(t)] = static_cast<std::int32_t>(keys.size());
    for (Index w = 0; w < bits.cols; ++w) bits(t, w) = 0;
    for (const std::int32_t s : keys) bits(t, s / 32) |= std::uint32_t{1} << (s % 32);
  }
  [[nodiscard]] bool has(Index t, Index s) const { return (bits(t, s / 32) >> (s % 32) & 1U) != 0; }

  static Lists random(Index length, Index most, unsigned seed) {
    Lists made(length, most);
    std::mt19937 random(seed);
    for (Index t = 0; t < length; ++t) {
      std::vector<std::int32_t> all(static_cast<std::size_t>(t + 1));
      std::iota(all.begin(), all.end(), 0);
      std::shuffle(all.begin(), all.end(), random);
      all.resize(std::min(all.size(), static_cast<std::size_t>(most)));
      made.put(t, all);
    }
    return made;
  }
  /// The last `most` keys of each token: whole tiles of keys that no query sees.
  static Lists last(Index length, Index most) {
    Lists made(length, most);
    for (Index t = 0; t < length; ++t) {
      std::vector<std::int32_t> keys;
      for (Index s = std::max(t + 1 - most, Index{0}); s <= t; ++s) keys.push_back(static_cast<std::int32_t>(s));
      made.put(t, keys);
    }
    return made;
  }
  static Lists all(Index length) { return last(length, length); }
};

class ChosenKeys : public BatchInvariance {};
INSTANTIATE_TEST_SUITE_P(Variants, ChosenKeys, all_variants(), variant_name);

/// A cache of rows [key | ... | value] and queries for every position.
struct Cached {
  CachedAttentionSizes sizes;
  Matrix<float> q, rows, out;
  Matrix<bf16> narrow;
  std::vector<float> sinks;

  Cached(const CachedAttentionSizes& z, Index length)
      : sizes(z),
        q(length, z.heads * z.key),
        rows(length, std::max(z.key, z.value_offset + z.value), std::max(z.key, z.value_offset + z.value) + 3),
        out(length, z.heads * z.value, z.heads * z.value + 1),
        narrow(length, rows.cols, rows.cols + 5) {
    std::mt19937 random(5);
    q.fill_normal(random);
    rows.fill_normal(random);
    sinks = normal_vector<float>(random, z.heads);
    for (Index s = 0; s < length; ++s)
      for (Index c = 0; c < rows.cols; ++c) {
        narrow(s, c) = bf16(rows(s, c));
        rows(s, c) = static_cast<float>(narrow(s, c));
      }
  }
  [[nodiscard]] CachedAttentionJob job(DType type, Index first, Index count) {
    return {.cache = type == DType::f32 ? static_cast<const void*>(rows.data.data()) : narrow.data.data(),
            .cache_type = type,
            .cache_pitch = type == DType::f32 ? rows.pitch : narrow.pitch,
            .length = first + count,
            .q = q.view().middle_rows(first, count),
            .out = out.view().middle_rows(first, count),
            .first_position = first};
  }
  [[nodiscard]] CachedAttentionJob job(DType type, Index first, Index count, Lists& lists) {
    CachedAttentionJob made = job(type, first, count);
    made.chosen = lists.chosen.view().middle_rows(first, count);
    made.counts = view_of(lists.counts).slice(first, count);
    return made;
  }
  /// Of one token and head, over the keys of a list.
  [[nodiscard]] std::vector<double> expected(Index t, Index h, const Lists& lists, bool with_sinks) const {
    std::vector<double> p, sum(static_cast<std::size_t>(sizes.value), 0.0);
    double all = with_sinks ? std::exp(double(sinks[std::size_t(h)])) : 0.0;
    for (Index s = 0; s < rows.rows; ++s) {
      double dot = -std::numeric_limits<double>::infinity();
      if (s <= t && lists.has(t, s)) {
        dot = 0.0;
        for (Index c = 0; c < sizes.key; ++c) dot += double(q(t, h * sizes.key + c)) * double(rows(s, c));
      }
      p.push_back(std::exp(dot * double(sizes.scale)));
      all += p.back();
    }
    for (Index s = 0; s < rows.rows; ++s)
      for (Index c = 0; c < sizes.value; ++c)
        sum[std::size_t(c)] += p[std::size_t(s)] / all * double(rows(s, sizes.value_offset + c));
    return sum;
  }
};

TEST_P(ChosenKeys, CachedAttentionSeesThemAlone) {
  constexpr Index length = 301;
  for (const CachedAttentionSizes& sizes :
       {CachedAttentionSizes{5, 24, 20, 0, 0.3f}, CachedAttentionSizes{40, 24, 20, 0, 0.3f},
        CachedAttentionSizes{4, 20, 12, 23, 0.3f}})
    for (const Index most_keys : {1, 9, 70, 290})
      for (const DType type : {DType::f32, DType::bf16}) {
        Cached data(sizes, length);
        Lists lists = Lists::random(length, most_keys, 3);
        for (const bool with_sinks : {false, true}) {
          CachedAttentionJob job = data.job(type, 0, length, lists);
          if (with_sinks) job.sinks = view_of(data.sinks);
          cached_attention(*three, std::span<const CachedAttentionJob>(&job, 1), sizes);
          ASSERT_TRUE(data.out.padding_is_untouched());
          for (const Index t : {0, 5, 63, 64, 200, 300})
            for (const Index h : {Index{0}, sizes.heads - 1}) {
              const auto expected = data.expected(t, h, lists, with_sinks);
              for (Index c = 0; c < sizes.value; ++c)
                ASSERT_NEAR(double(data.out(t, h * sizes.value + c)), expected[std::size_t(c)], 3e-5)
                    << "token " << t << " head " << h << " of " << most_keys << " keys";
            }
        }
      }
}

TEST_P(ChosenKeys, CachedAttentionOverAllOfThemHasTheBitsOfAttentionWithoutAChoice) {
  constexpr Index length = 700;
  for (const CachedAttentionSizes& sizes :
       {CachedAttentionSizes{5, 24, 20, 0, 0.3f}, CachedAttentionSizes{40, 24, 20, 0, 0.3f}}) {
    Cached dense(sizes, length), sparse(sizes, length);
    Lists lists = Lists::all(length);
    const CachedAttentionJob of_all = dense.job(DType::bf16, 0, length);
    cached_attention(*three, std::span<const CachedAttentionJob>(&of_all, 1), sizes);
    std::vector<CachedAttentionJob> jobs = {sparse.job(DType::bf16, 0, 333, lists),
                                            sparse.job(DType::bf16, 333, length - 334, lists),
                                            sparse.job(DType::bf16, length - 1, 1, lists)};
    cached_attention(*one, std::span<const CachedAttentionJob>(jobs), sizes);
    ASSERT_EQ(dense.out.data, sparse.out.data);
  }
}

TEST_P(ChosenKeys, ACachedTokenHasItsBitsInEveryChunkAndFollowsItsRowsAlone) {
  constexpr Index length = 500, first = 450;
  const CachedAttentionSizes sizes{3, 24, 20, 0, 0.3f};
  Cached data(sizes, length);
  Lists lists = Lists::random(length, 160, 7);
  std::vector<std::vector<float>> alone;
  const auto row_of = [&](Index t) { return std::vector<float>(&data.out(t, 0), &data.out(t, 0) + data.out.cols); };
  for (Index t = first; t < length; ++t) {
    const CachedAttentionJob job = data.job(DType::f32, t, 1, lists);
    cached_attention(*one, std::span<const CachedAttentionJob>(&job, 1), sizes);
    alone.push_back(row_of(t));
  }
  for (Index n = 1; n <= 20; ++n) {
    std::fill(data.out.data.begin(), data.out.data.end() - 1, 0.0f);
    const std::vector<CachedAttentionJob> jobs = {data.job(DType::f32, first, n, lists),
                                                  data.job(DType::f32, first + n, 2, lists)};
    cached_attention(n % 2 == 0 ? *one : *three, std::span<const CachedAttentionJob>(jobs), sizes);
    for (Index t = first; t < first + n + 2; ++t) ASSERT_EQ(row_of(t), alone[std::size_t(t - first)]) << n;
  }
  // Rows that nobody chose may hold anything.
  for (Index s = 0; s < length; ++s)
    if (!lists.has(length - 1, s))
      for (Index c = 0; c < data.rows.cols; ++c) data.rows(s, c) = std::numeric_limits<float>::quiet_NaN();
  const CachedAttentionJob job = data.job(DType::f32, length - 1, 1, lists);
  cached_attention(*three, std::span<const CachedAttentionJob>(&job, 1), sizes);
  EXPECT_EQ(row_of(length - 1), alone.back());
}

/// A whole sequence in expanded form, on both ways.
template <class Real>
struct Expanded {
  BasicExpandedAttentionSizes<Real> sizes;
  Index n;
  Matrix<Real> q, k, r, v, out, lse, dout, dq, dk, dr, dv;
  std::vector<Real> sinks;
  Matrix<Real> dsinks;

  Expanded(const BasicExpandedAttentionSizes<Real>& z, Index length)
      : sizes(z),
        n(length),
        q(n, z.heads * z.width()),
        k(n, z.key_heads() * z.nope),
        r(n, z.rope),
        v(n, z.key_heads() * z.value),
        out(n, z.heads * z.value),
        lse(n, z.heads),
        dout(n, z.heads * z.value),
        dq(n, q.cols),
        dk(n, k.cols),
        dr(n, r.cols),
        dv(n, v.cols),
        dsinks(n, z.heads) {
    std::mt19937 random(11);
    for (auto* m : {&q, &k, &r, &v, &dout}) m->fill_normal(random);
  }
  void forward(Cpu& device, View<const std::uint32_t, 2> bits) {
    const BasicExpandedAttentionJob<Real> job{.q = q.view(),
                                              .k_nope = k.view(),
                                              .k_rope = r.view(),
                                              .v = v.view(),
                                              .out = out.view(),
                                              .lse = lse.view(),
                                              .chosen = bits};
    expanded_attention(device, std::span<const BasicExpandedAttentionJob<Real>>(&job, 1), sizes);
  }
  void backward(Cpu& device, View<const std::uint32_t, 2> bits) {
    const ExpandedAttentionGradientJob<Real> job{.q = q.view(),
                                                 .k_nope = k.view(),
                                                 .k_rope = r.view(),
                                                 .v = v.view(),
                                                 .out = out.view(),
                                                 .lse = lse.view(),
                                                 .dout = dout.view(),
                                                 .dq = dq.view(),
                                                 .dk_nope = dk.view(),
                                                 .dk_rope = dr.view(),
                                                 .dv = dv.view(),
                                                 .chosen = bits};
    expanded_attention_backward(device, std::span<const ExpandedAttentionGradientJob<Real>>(&job, 1), sizes);
  }
  /// The sum of dout * out by plain loops over a mask of -infinity; fills `out` where it is given.
  double objective(const Lists& lists, Matrix<double>* outs = nullptr) const {
    double total = 0.0;
    for (Index t = 0; t < n; ++t)
      for (Index h = 0; h < sizes.heads; ++h) {
        const Index g = h / sizes.heads_per_key;
        std::vector<double> score;
        double all = 0.0;
        for (Index s = 0; s < n; ++s) {
          double dot = 0.0;
          for (Index c = 0; c < sizes.nope; ++c)
            dot += double(q(t, h * sizes.width() + c)) * double(k(s, g * sizes.nope + c));
          for (Index c = 0; c < sizes.rope; ++c)
            dot += double(q(t, h * sizes.width() + sizes.nope + c)) * double(r(s, c));
          const bool seen = s <= t && lists.has(t, s);
          score.push_back(std::exp(seen ? dot * double(sizes.scale) : -std::numeric_limits<double>::infinity()));
          all += score.back();
        }
        for (Index c = 0; c < sizes.value; ++c) {
          double sum = 0.0;
          for (Index s = 0; s < n; ++s) sum += score[std::size_t(s)] / all * double(v(s, g * sizes.value + c));
          total += sum * double(dout(t, h * sizes.value + c));
          if (outs != nullptr) (*outs)(t, h * sizes.value + c) = sum;
        }
      }
    return total;
  }
};

template <class Real>
void expect_near(const Matrix<Real>& got, const Matrix<double>& expected, double tolerance, const std::string& what) {
  for (Index t = 0; t < got.rows; ++t)
    for (Index c = 0; c < got.cols; ++c)
      ASSERT_NEAR(double(got(t, c)), expected(t, c), tolerance) << what << " " << t << ", " << c;
}

const ExpandedAttentionSizes all_sizes[] = {{3, 13, 4, 18, 0.3f}, {4, 9, 0, 9, 0.3f, AttentionMask::causal, 2}};

TEST_P(ChosenKeys, ExpandedAttentionSeesThemAlone) {
  for (const auto& sizes : all_sizes)
    for (const Index n : {1, 40, 150, 300})
      for (const Index most_keys : {1, 7, 64, 130})
        for (const bool scattered : {true, false}) {
          Lists lists = scattered ? Lists::random(n, most_keys, 9) : Lists::last(n, most_keys);
          Expanded<float> data(sizes, n);
          Matrix<double> expected(n, data.out.cols);
          data.objective(lists, &expected);
          data.forward(*three, lists.bits.view());
          expect_near(data.out, expected, 3e-5, "out");
        }
}

TEST_P(ChosenKeys, WithAllBitsSetExpandedAttentionHasTheBitsOfAttentionWithoutAChoiceOnBothWays) {
  for (const auto& sizes : all_sizes)
    for (const Index n : {1, 31, 64, 150, 600}) {
      Lists lists = Lists::all(n);
      for (auto& word : lists.bits.data) word = ~std::uint32_t{0};
      Expanded<float> dense(sizes, n), sparse(sizes, n);
      dense.forward(*one, {});
      sparse.forward(*three, lists.bits.view());
      ASSERT_EQ(dense.out.data, sparse.out.data) << n;
      ASSERT_EQ(dense.lse.data, sparse.lse.data) << n;
      dense.backward(*one, {});
      sparse.backward(*three, lists.bits.view());
      ASSERT_EQ(dense.dq.data, sparse.dq.data) << n;
      ASSERT_EQ(dense.dk.data, sparse.dk.data) << n;
      ASSERT_EQ(dense.dr.data, sparse.dr.data) << n;
      ASSERT_EQ(dense.dv.data, sparse.dv.data) << n;
    }
}

TEST_P(ChosenKeys, AnExpandedTokenHasItsBitsInEveryChunk) {
  constexpr Index n = 300;
  const ExpandedAttentionSizes sizes{3, 13, 4, 18, 0.3f};
  Expanded<float> data(sizes, n);
  Lists lists = Lists::random(n, 20, 4);
  data.forward(*three, lists.bits.view());
  for (const Index rows : {1, 2, 5, 16, 17, 20})
    for (const Index first : {0, 63, 130, 280}) {
      const Index length = first + rows;
      Matrix<float> out(rows, data.out.cols);
      Matrix<std::uint32_t> bits(rows, chosen_words(length));
      for (Index t = 0; t < rows; ++t)
        for (Index w = 0; w < bits.cols; ++w) bits(t, w) = lists.bits(first + t, w);
      const ExpandedAttentionJob job{.q = data.q.view().middle_rows(first, rows),
                                     .k_nope = data.k.view().middle_rows(0, length),
                                     .k_rope = data.r.view().middle_rows(0, length),
                                     .v = data.v.view().middle_rows(0, length),
                                     .out = out.view(),
                                     .first_position = first,
                                     .chosen = bits.view()};
      expanded_attention(*one, std::span<const ExpandedAttentionJob>(&job, 1), sizes);
      for (Index t = 0; t < rows; ++t)
        ASSERT_TRUE(same_bits(&out(t, 0), &data.out(first + t, 0), out.cols)) << first << " + " << t << " of " << rows;
    }
}

TEST_P(ChosenKeys, BackwardOverThemAgreesWithDouble) {
  for (const auto& z : all_sizes)
    for (const Index n : {1, 40, 150, 600})
      for (const Index most_keys : {1, 7, 64})
        for (const bool scattered : {true, false}) {
          Lists lists = scattered ? Lists::random(n, most_keys, 9) : Lists::last(n, most_keys);
          Expanded<float> data(z, n);
          Expanded<double> expected({z.heads, z.nope, z.rope, z.value, double(z.scale), z.mask, z.heads_per_key}, n);
          for (const auto& [from, to] :
               {std::pair{&data.q, &expected.q}, std::pair{&data.k, &expected.k}, std::pair{&data.r, &expected.r},
                std::pair{&data.v, &expected.v}, std::pair{&data.dout, &expected.dout}})
            std::copy(from->data.begin(), from->data.end(), to->data.begin());
          data.forward(*three, lists.bits.view());
          data.backward(*three, lists.bits.view());
          expected.forward(*three, lists.bits.view());
          expected.backward(*three, lists.bits.view());
          expect_near(data.dq, expected.dq, 2e-4, "dq");
          expect_near(data.dk, expected.dk, 2e-4, "dk");
          expect_near(data.dr, expected.dr, 2e-4, "dr");
          expect_near(data.dv, expected.dv, 2e-4, "dv");
        }
}

TEST(ChosenKeysInDouble, BackwardIsTheGradientByCentralDifferences) {
  Cpu device({.threads = 2});
  for (const BasicExpandedAttentionSizes<double>& sizes :
       {BasicExpandedAttentionSizes<double>{2, 3, 2, 4, 0.5},
        BasicExpandedAttentionSizes<double>{4, 3, 0, 2, 0.5, AttentionMask::causal, 2}}) {
    constexpr Index n = 9;
    Lists lists = Lists::random(n, 4, 2);
    Expanded<double> data(sizes, n);
    Matrix<double> expected(n, data.out.cols);
    data.objective(lists, &expected);
    data.forward(device, lists.bits.view());
    expect_near(data.out, expected, 1e-12, "out");
    data.backward(device, lists.bits.view());
    const auto check = [&](Matrix<double>& of, const Matrix<double>& gradient, const char* what) {
      for (Index t = 0; t < of.rows; ++t)
        for (Index c = 0; c < of.cols; ++c) {
          const double kept = of(t, c), step = 1e-5;
          of(t, c) = kept + step;
          const double above = data.objective(lists);
          of(t, c) = kept - step;
          const double below = data.objective(lists);
          of(t, c) = kept;
          ASSERT_NEAR(gradient(t, c), (above - below) / (2 * step), 1e-7) << what << " " << t << ", " << c;
        }
    };
    check(data.q, data.dq, "dq");
    check(data.k, data.dk, "dk");
    check(data.r, data.dr, "dr");
    check(data.v, data.dv, "dv");
  }
}

TEST(ChosenKeysErrors, WhatDoesNotFitIsRefused) {
  Cpu device({.threads = 1});
  const CachedAttentionSizes sizes{2, 6, 4, 0, 0.5f};
  Cached data(sizes, 10);
  Lists lists = Lists::random(10, 4, 2);
  const auto run = [&](const CachedAttentionJob& job, const CachedAttentionSizes& z) {
    return code_of([&] { cached_attention(device, std::span<const CachedAttentionJob>(&job, 1), z); });
  };
  CachedAttentionJob job = data.job(DType::f32, 0, 10, lists);
  job.counts = job.counts.slice(0, 9);
  EXPECT_EQ(run(job, sizes), ErrorCode::op_shape);
  job = data.job(DType::f32, 0, 10, lists);
  job.chosen = job.chosen.middle_rows(0, 9);
  EXPECT_EQ(run(job, sizes), ErrorCode::op_shape);
  job = data.job(DType::f32, 0, 10, lists);
  EXPECT_EQ(run(job, {2, 6, 4, 0, 0.5f, {.window = 3}}), ErrorCode::op_argument);
  job.ring = {.rows = 16};
  EXPECT_EQ(run(job, sizes), ErrorCode::op_argument);
  job = data.job(DType::f32, 0, 10, lists);
  EXPECT_EQ(run(job, {2, 6, 4, 0, 0.5f, {}, {.window = 3}}), ErrorCode::op_argument);
  EXPECT_EQ(run(job, sizes), ErrorCode::count_);
  const auto with = [&](auto&& change) {
    Lists changed = lists;
    change(changed);
    return run(data.job(DType::f32, 0, 10, changed), sizes);
  };
  EXPECT_EQ(with([](Lists& bad) { bad.chosen(3, 1) = bad.chosen(3, 0); }), ErrorCode::op_argument);
  EXPECT_EQ(with([](Lists& bad) { bad.chosen(9, 3) = 10; }), ErrorCode::op_argument);
  EXPECT_EQ(with([](Lists& bad) { bad.chosen(9, 0) = -1; }), ErrorCode::op_argument);
  EXPECT_EQ(with([](Lists& bad) { bad.counts[2] = 0; }), ErrorCode::op_argument);
  EXPECT_EQ(with([](Lists& bad) { bad.counts[2] = 5; }), ErrorCode::op_argument);

  ExpandedAttentionSizes wide{3, 5, 2, 4, 0.5f};
  Expanded<float> expanded(wide, 40);
  Lists bits = Lists::random(40, 4, 2);
  const auto both = [&](View<const std::uint32_t, 2> chosen, ErrorCode code) {
    EXPECT_EQ(code_of([&] { expanded.forward(device, chosen); }), code);
    EXPECT_EQ(code_of([&] { expanded.backward(device, chosen); }), code);
  };
  both(bits.bits.view().middle_cols(0, 1), ErrorCode::op_shape);
  both(bits.bits.view().middle_rows(0, 39), ErrorCode::op_shape);
  expanded.sizes.keys.window = 4;
  both(bits.bits.view(), ErrorCode::op_argument);
  expanded.sizes.keys.window = 0;
  expanded.sizes.mask = AttentionMask::bidirectional;
  both(bits.bits.view(), ErrorCode::op_argument);
}

}  // namespace chosen_keys_test
