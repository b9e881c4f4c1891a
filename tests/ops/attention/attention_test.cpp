#include <gtest/gtest.h>

#include <cstring>
#include <guild/cpu.hpp>
#include <guild/ops/attention/attention.hpp>
#include <memory>

#include "../ops_test_support.hpp"

namespace attention_test {
using namespace guild_test;

/// softmax(scale * q . keys) . values in double, the naive way. q [dim], keys [count][dim], values [count][dim_out].
template <class Key, class Value>
std::vector<double> naive(Index count, Index dim, Index dim_out, double scale, const float* q, Key key, Value value) {
  std::vector<double> score(static_cast<std::size_t>(count)), out(static_cast<std::size_t>(dim_out));
  double peak = -1e300, sum = 0;
  for (Index s = 0; s < count; ++s) {
    double dot = 0;
    for (Index c = 0; c < dim; ++c) dot += double(q[c]) * double(key(s, c));
    score[std::size_t(s)] = dot * scale;
    peak = std::max(peak, dot * scale);
  }
  for (auto& x : score) sum += x = std::exp(x - peak);
  for (Index c = 0; c < dim_out; ++c)
    for (Index s = 0; s < count; ++s) out[std::size_t(c)] += score[std::size_t(s)] / sum * double(value(s, c));
  return out;
}

void expect_near(const Matrix<float>& got, const Matrix<float>& expected, double tolerance, std::string_view what) {
  ASSERT_TRUE(got.padding_is_untouched()) << what;
  for (Index t = 0; t < got.rows; ++t)
    for (Index c = 0; c < got.cols; ++c)
      ASSERT_NEAR(got(t, c), expected(t, c), tolerance) << what << " token " << t << " column " << c;
}

using Sizes = guild::CachedAttentionSizes;

/// Rows [latent | rotary key], as latent attention caches them.
Sizes latent_rows(Index heads, Index latent, Index rope, float scale) {
  return {heads, latent + rope, latent, 0, scale};
}

/// One sequence with its own memory. Columns and rows of the cache that nobody may read are poison.
template <class Element>
struct CachedSequence {
  Matrix<Element> cache;
  Matrix<float> q, out;
  Index first;

  CachedSequence(const Sizes& z, Index first_, Index n, unsigned seed, Index spare_rows = 3)
      : cache(first_ + n + spare_rows, std::max(z.key, z.value_offset + z.value),
              std::max(z.key, z.value_offset + z.value) + 5),
        q(n, z.heads * z.key, z.heads * z.key + 3),
        out(n, z.heads * z.value, z.heads * z.value + 2),
        first(first_) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    q.fill_normal(random);
    for (Index s = 0; s < cache.rows; ++s)
      for (Index i = 0; i < cache.cols; ++i) {
        const bool is_read = i < z.key || (i >= z.value_offset && i < z.value_offset + z.value);
        cache(s, i) = Element(s < first + n && is_read ? normal(random) : std::numeric_limits<float>::quiet_NaN());
      }
  }
  guild::CachedAttentionJob job() {
    return {cache.data.data(), guild::dtype_of<Element>, cache.pitch, first + q.rows, q.view(), out.view(), first};
  }
  void check(const Sizes& z, double tolerance) {
    ASSERT_TRUE(out.padding_is_untouched());
    for (Index t = 0; t < q.rows; ++t)
      for (Index h = 0; h < z.heads; ++h) {
        const auto key = [&](Index s, Index i) { return static_cast<float>(cache(s, i)); };
        const auto value = [&](Index s, Index i) { return key(s, z.value_offset + i); };
        const auto expected = naive(first + t + 1, z.key, z.value, z.scale, &q(t, h * z.key), key, value);
        for (Index i = 0; i < z.value; ++i)
          ASSERT_NEAR(out(t, h * z.value + i), expected[std::size_t(i)], tolerance)
              << "first " << first << " n " << q.rows << " token " << t << " head " << h << " column " << i;
      }
  }
};

template <class Element>
void check_cached(const Sizes& z, const std::vector<std::pair<Index, Index>>& chunks, int threads = 3) {
  guild::Cpu device({.threads = threads});
  std::vector<CachedSequence<Element>> sequences;
  std::vector<guild::CachedAttentionJob> jobs;
  unsigned seed = 1;
  for (auto [first, n] : chunks) sequences.emplace_back(z, first, n, seed++);
  for (auto& s : sequences) jobs.push_back(s.job());
  guild::cached_attention(device, jobs, z);
  for (auto& s : sequences) s.check(z, 5e-6);
  // The front door ran the best variant; the others must agree with it.
  std::vector<Matrix<float>> best;
  for (auto& s : sequences) best.push_back(s.out);
  for (const guild::Isa isa : {guild::Isa::baseline, guild::Isa::avx2, guild::Isa::avx512}) {
    if (!guild::runs_here(isa)) continue;
    guild::run_cached_attention(device, jobs, z, isa);
    for (std::size_t i = 0; i < best.size(); ++i) expect_near(sequences[i].out, best[i], 5e-6, guild::name(isa));
  }
}

const std::vector<std::pair<Index, Index>> edges = {
    {0, 1},  {0, 2},   {0, 17},  {1, 1},   {15, 1},  {16, 1},  {30, 5},  {62, 1},  {63, 1}, {64, 1},
    {60, 9}, {126, 3}, {127, 1}, {128, 1}, {129, 4}, {250, 8}, {511, 1}, {512, 2}, {700, 1}};

TEST(CachedAttention, EqualsTheSoftmaxInDoubleForTheMiniModel) {
  check_cached<float>(latent_rows(4, 64, 16, 0.14f), edges);
  check_cached<guild::bf16>(latent_rows(4, 64, 16, 0.14f), edges);
}

TEST(CachedAttention, EqualsTheSoftmaxInDoubleForOddSizes) {
  for (const Sizes& z : {latent_rows(1, 1, 0, 1.0f), latent_rows(3, 7, 2, 0.5f), latent_rows(5, 33, 6, 0.3f),
                         latent_rows(16, 16, 8, 0.2f), latent_rows(17, 20, 4, 0.2f), latent_rows(33, 40, 10, 0.15f)}) {
    check_cached<float>(z, edges);
    check_cached<guild::bf16>(z, edges);
  }
}

TEST(CachedAttention, EqualsTheSoftmaxInDoubleForTheWidthsOfR1) {
  check_cached<guild::bf16>(latent_rows(20, 512, 64, 0.05f), {{0, 1}, {200, 1}, {130, 3}});
  check_cached<float>(latent_rows(20, 512, 64, 0.05f), {{300, 1}, {0, 6}});
}

/// Values behind the keys, apart from them, and as columns amid the keys.
const std::vector<Sizes> layouts = {{4, 16, 16, 16, 0.25f}, {3, 7, 5, 7, 0.5f},     {2, 24, 20, 61, 0.2f},
                                    {5, 1, 3, 2, 1.0f},     {8, 33, 17, 16, 0.2f},  {2, 40, 17, 20, 0.2f},
                                    {17, 20, 33, 25, 0.2f}, {1, 64, 64, 100, 0.12f}};

TEST(CachedAttention, EqualsTheSoftmaxInDoubleWhereverTheValuesLie) {
  for (const Sizes& z : layouts) {
    check_cached<float>(z, edges);
    check_cached<guild::bf16>(z, edges);
  }
}

/// Grouped-query attention: rows [keys of all key heads | values of all], and a job for each key head of a sequence.
template <class Element>
struct GroupedSequence {
  Index key_heads, group, dim, first;
  Matrix<Element> cache;
  Matrix<float> q, out;

  GroupedSequence(Index key_heads_, Index group_, Index dim_, Index first_, Index n, unsigned seed)
      : key_heads(key_heads_),
        group(group_),
        dim(dim_),
        first(first_),
        cache(first + n, 2 * key_heads * dim, 2 * key_heads * dim + 3),
        q(n, key_heads * group * dim, key_heads * group * dim + 1),
        out(n, q.cols, q.cols + 2) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    q.fill_normal(random);
    for (Index s = 0; s < cache.rows; ++s)
      for (Index i = 0; i < cache.cols; ++i) cache(s, i) = Element(normal(random));
  }
  [[nodiscard]] Sizes sizes() const { return {group, dim, dim, key_heads * dim, 0.3f}; }
  void add_jobs(std::vector<guild::CachedAttentionJob>& jobs) {
    for (Index h = 0; h < key_heads; ++h)
      jobs.push_back({&cache(0, h * dim), guild::dtype_of<Element>, cache.pitch, first + q.rows,
                      q.view().middle_cols(h * group * dim, group * dim),
                      out.view().middle_cols(h * group * dim, group * dim), first});
  }
  void check() {
    ASSERT_TRUE(out.padding_is_untouched());
    for (Index t = 0; t < q.rows; ++t)
      for (Index h = 0; h < key_heads * group; ++h) {
        const Index column = h / group * dim;
        const auto key = [&](Index s, Index i) { return static_cast<float>(cache(s, column + i)); };
        const auto value = [&](Index s, Index i) { return static_cast<float>(cache(s, key_heads * dim + column + i)); };
        const auto expected = naive(first + t + 1, dim, dim, 0.3f, &q(t, h * dim), key, value);
        for (Index i = 0; i < dim; ++i)
          ASSERT_NEAR(out(t, h * dim + i), expected[std::size_t(i)], 5e-6)
              << "groups of " << group << ", token " << t << ", head " << h << ", column " << i;
      }
  }
};

template <class Element>
void check_grouped() {
  for (const Index group : {1, 2, 4, 8})
    for (const Index key_heads : {1, 3}) {
      std::vector<std::vector<float>> results;
      for (const int threads : {1, 2, 4}) {
        guild::Cpu device({.threads = threads});
        std::vector<GroupedSequence<Element>> sequences;
        unsigned seed = 1;
        for (auto [first, n] : edges) sequences.emplace_back(key_heads, group, 20, first, n, seed++);
        std::vector<guild::CachedAttentionJob> jobs;
        for (auto& s : sequences) s.add_jobs(jobs);
        guild::cached_attention(device, jobs, sequences[0].sizes());
        results.emplace_back();
        for (auto& s : sequences) {
          if (threads == 1) s.check();
          results.back().insert(results.back().end(), s.out.data.begin(), s.out.data.end());
        }
        ASSERT_EQ(results.back(), results[0]) << threads << " threads";
      }
    }
}

TEST(CachedAttention, EqualsTheSoftmaxInDoubleForGroupsOfQueryHeads) {
  check_grouped<float>();
  check_grouped<guild::bf16>();
}

TEST(CachedAttention, AttendsOverALongContext) {
  check_cached<guild::bf16>(latent_rows(2, 24, 8, 0.2f), {{4999, 1}, {2047, 2}});
}

TEST(CachedAttention, HasTheSameBitsForEveryThreadCountAndBatch) {
  const Sizes z = latent_rows(6, 40, 8, 0.2f);
  std::vector<std::vector<float>> results;
  for (int threads : {1, 2, 4})
    for (bool alone : {false, true}) {
      guild::Cpu device({.threads = threads});
      CachedSequence<guild::bf16> subject(z, 900, 1, 7), other(z, 100, 30, 8), third(z, 2000, 1, 9);
      std::vector<guild::CachedAttentionJob> jobs;
      if (!alone) jobs = {other.job(), third.job()};
      jobs.push_back(subject.job());
      guild::cached_attention(device, jobs, z);
      results.push_back(subject.out.data);
    }
  for (const auto& result : results) EXPECT_EQ(result, results[0]);
}

TEST(CachedAttention, SurvivesScoresOfAnySize) {
  guild::Cpu device({.threads = 2});
  const Sizes z = latent_rows(2, 8, 4, 1.0f);
  CachedSequence<float> s(z, 200, 2, 3);
  for (auto& x : s.q.data) x *= 1000.0f;  // one key takes all the weight
  const guild::CachedAttentionJob job = s.job();
  guild::cached_attention(device, std::span(&job, 1), z);
  s.check(z, 1e-3);
}

TEST(CachedAttention, ShowsANaNOfAQueryInItsOwnRowOnly) {
  guild::Cpu device({.threads = 2});
  const Sizes z = latent_rows(2, 8, 4, 1.0f);
  CachedSequence<float> s(z, 100, 2, 3);
  s.q(0, 5) = std::numeric_limits<float>::quiet_NaN();  // token 0, head 0
  const guild::CachedAttentionJob job = s.job();
  guild::cached_attention(device, std::span(&job, 1), z);
  EXPECT_TRUE(std::isnan(s.out(0, 0)));
  EXPECT_FALSE(std::isnan(s.out(0, z.value)));
  EXPECT_FALSE(std::isnan(s.out(1, 0)));
}

TEST(CachedAttention, AllocatesNothingAfterWarmUp) {
  guild::Cpu device({.threads = 2});
  const Sizes z = latent_rows(4, 64, 16, 0.1f);
  CachedSequence<float> s(z, 700, 1, 3);
  const guild::CachedAttentionJob job = s.job();
  const auto run = [&] { guild::cached_attention(device, std::span(&job, 1), z); };
  run();
  const Index held = device.scratch_bytes();
  run();
  EXPECT_EQ(device.scratch_bytes(), held);
}

TEST(CachedAttention, TakesEmptyBatchesAndChunks) {
  guild::Cpu device({.threads = 2});
  const Sizes z = latent_rows(2, 8, 4, 1.0f);
  guild::cached_attention(device, {}, z);
  CachedSequence<float> empty(z, 0, 0, 1), other(z, 5, 1, 2);
  const guild::CachedAttentionJob jobs[] = {empty.job(), other.job(), empty.job()};
  guild::cached_attention(device, jobs, z);
  other.check(z, 5e-6);
}

TEST(CachedAttention, DoesLargeBatchesInRounds) {
  // 40 sequences whose parts need 40 * 16 * 64 * 514 floats of scratch: more than one round takes.
  guild::Cpu device({.threads = 4});
  const Sizes z = latent_rows(64, 512, 2, 0.05f);
  CachedSequence<guild::bf16> one(z, 2047, 1, 5);
  std::vector<Matrix<float>> outs(40, one.out);
  std::vector<guild::CachedAttentionJob> jobs(40, one.job());
  for (std::size_t i = 0; i < jobs.size(); ++i) jobs[i].out = outs[i].view();
  guild::cached_attention(device, jobs, z);
  const auto job = one.job();
  guild::cached_attention(device, std::span(&job, 1), z);
  for (const auto& out : outs) ASSERT_EQ(out.data, one.out.data);
  EXPECT_LT(device.scratch_bytes(), Index{200} << 20);
}

TEST(CachedAttention, RefusesJobsThatDoNotFit) {
  guild::Cpu device({.threads = 1});
  const Sizes z = latent_rows(2, 8, 4, 1.0f);
  CachedSequence<float> s(z, 4, 2, 3);
  const auto code = [&](auto change) {
    guild::CachedAttentionJob job = s.job();
    change(job);
    return code_of([&] { guild::cached_attention(device, std::span<const guild::CachedAttentionJob>(&job, 1), z); });
  };
  using guild::ErrorCode;
  EXPECT_EQ(code([](auto&) {}), ErrorCode::count_);
  EXPECT_EQ(code([](auto& j) { j.length = 5; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.first_position = -1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.out.rows = 1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.q.cols -= 1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.cache_type = guild::DType::f16; }), ErrorCode::op_argument);
  EXPECT_EQ(code([](auto& j) { j.cache_pitch = 11; }), ErrorCode::op_argument);
  EXPECT_EQ(code([](auto& j) { j.cache = nullptr; }), ErrorCode::op_argument);

  const auto code_of_sizes = [&](Sizes sizes) {
    const guild::CachedAttentionJob job = s.job();  // rows of 12 columns, pitch 17
    return code_of([&] { guild::cached_attention(device, std::span(&job, 1), sizes); });
  };
  EXPECT_EQ(code_of_sizes({2, 12, 8, 4, 1.0f}), ErrorCode::count_);
  EXPECT_EQ(code_of_sizes({2, 12, 8, 9, 1.0f}), ErrorCode::count_);
  EXPECT_EQ(code_of_sizes({2, 12, 8, 10, 1.0f}), ErrorCode::op_argument);
  EXPECT_EQ(code_of_sizes({2, 12, 8, -1, 1.0f}), ErrorCode::op_argument);
  EXPECT_EQ(code_of_sizes({2, 12, 0, 0, 1.0f}), ErrorCode::op_argument);
  EXPECT_EQ(code_of_sizes({2, 0, 8, 0, 1.0f}), ErrorCode::op_argument);
  EXPECT_EQ(code_of_sizes({0, 12, 8, 0, 1.0f}), ErrorCode::op_argument);
  EXPECT_EQ(code_of_sizes({3, 12, 8, 0, 1.0f}), ErrorCode::op_shape);
  EXPECT_EQ(code_of_sizes({2, 12, 7, 0, 1.0f}), ErrorCode::op_shape);
}

struct ExpandedCase {
  Index heads, nope, rope, value;
  float scale;
  Index heads_per_key = 1;

  [[nodiscard]] Index key_heads() const { return heads / heads_per_key; }
  [[nodiscard]] guild::ExpandedAttentionSizes sizes() const {
    return {heads, nope, rope, value, scale, guild::AttentionMask::causal, heads_per_key};
  }
};

struct ExpandedSequence {
  Matrix<float> q, kv, k_rope, out;
  Index first;
  bool joined;  ///< keys and values as one matrix, as kv_b_proj leaves them, or head by head in two halves

  ExpandedSequence(const ExpandedCase& c, Index first_, Index n, unsigned seed, bool joined_)
      : q(n, c.heads * (c.nope + c.rope), c.heads * (c.nope + c.rope) + 3),
        kv(first_ + n, c.key_heads() * (c.nope + c.value), c.key_heads() * (c.nope + c.value) + 1),
        k_rope(first_ + n, c.rope, c.rope + 7),
        out(n, c.heads * c.value, c.heads * c.value + 2),
        first(first_),
        joined(joined_) {
    std::mt19937 random(seed);
    q.fill_normal(random);
    kv.fill_normal(random);
    k_rope.fill_normal(random);
  }
  Index key_column(const ExpandedCase& c, Index h) const {
    return h / c.heads_per_key * (joined ? c.nope + c.value : c.nope);
  }
  Index value_column(const ExpandedCase& c, Index h) const {
    return joined ? key_column(c, h) + c.nope : c.key_heads() * c.nope + h / c.heads_per_key * c.value;
  }
  guild::ExpandedAttentionJob job(const ExpandedCase& c) {
    const Index both = c.nope + c.value;
    const guild::View<const float, 2> all = kv.view();
    return {.q = q.view(),
            .k_nope = joined ? all.middle_cols(0, (c.key_heads() - 1) * both + c.nope)
                             : all.middle_cols(0, c.key_heads() * c.nope),
            .k_rope = c.rope > 0 ? k_rope.view() : guild::View<float, 2>{},
            .v = joined ? all.middle_cols(c.nope, (c.key_heads() - 1) * both + c.value)
                        : all.middle_cols(c.key_heads() * c.nope, c.key_heads() * c.value),
            .out = out.view(),
            .first_position = first,
            .key_head_stride = joined ? both : 0,
            .value_head_stride = joined ? both : 0};
  }
  void check(const ExpandedCase& c, double tolerance) {
    ASSERT_TRUE(out.padding_is_untouched());
    for (Index t = 0; t < q.rows; ++t)
      for (Index h = 0; h < c.heads; ++h) {
        const auto key = [&](Index s, Index i) {
          return i < c.nope ? kv(s, key_column(c, h) + i) : k_rope(s, i - c.nope);
        };
        const auto value = [&](Index s, Index i) { return kv(s, value_column(c, h) + i); };
        const auto expected =
            naive(first + t + 1, c.nope + c.rope, c.value, c.scale, &q(t, h * (c.nope + c.rope)), key, value);
        for (Index i = 0; i < c.value; ++i)
          ASSERT_NEAR(out(t, h * c.value + i), expected[std::size_t(i)], tolerance)
              << "first " << first << " n " << q.rows << " token " << t << " head " << h << " column " << i;
      }
  }
};

void check_expanded(const ExpandedCase& c, const std::vector<std::pair<Index, Index>>& chunks, bool joined) {
  guild::Cpu device({.threads = 3});
  std::vector<ExpandedSequence> sequences;
  std::vector<guild::ExpandedAttentionJob> jobs;
  unsigned seed = 1;
  for (auto [first, n] : chunks) sequences.emplace_back(c, first, n, seed++, joined);
  for (auto& s : sequences) jobs.push_back(s.job(c));
  guild::expanded_attention(device, jobs, c.sizes());
  for (auto& s : sequences) s.check(c, 5e-6);
  std::vector<Matrix<float>> best;
  for (auto& s : sequences) best.push_back(s.out);
  for (const guild::Isa isa : {guild::Isa::baseline, guild::Isa::avx2, guild::Isa::avx512}) {
    if (!guild::runs_here(isa)) continue;
    guild::run_expanded_attention(device, jobs, c.sizes(), isa);
    for (std::size_t i = 0; i < best.size(); ++i) expect_near(sequences[i].out, best[i], 5e-6, guild::name(isa));
  }
}

const std::vector<std::pair<Index, Index>> chunks = {{0, 1},   {0, 2},   {0, 31},  {0, 32}, {0, 33}, {0, 64},
                                                     {0, 65},  {5, 1},   {7, 40},  {63, 2}, {64, 1}, {100, 28},
                                                     {128, 3}, {0, 130}, {31, 33}, {96, 70}};

TEST(ExpandedAttention, EqualsTheSoftmaxInDoubleForTheMiniModel) {
  check_expanded({2, 32, 16, 32, 0.14f}, chunks, true);
  check_expanded({2, 32, 16, 32, 0.14f}, chunks, false);
}

TEST(ExpandedAttention, EqualsTheSoftmaxInDoubleForOddSizes) {
  for (const ExpandedCase& c :
       {ExpandedCase{1, 1, 0, 1, 1.0f}, {2, 0, 4, 3, 0.5f}, {3, 5, 2, 17, 0.4f}, {2, 33, 6, 40, 0.2f}})
    check_expanded(c, chunks, true);
}

TEST(ExpandedAttention, EqualsTheSoftmaxInDoubleForGroupsOfHeads) {
  for (const ExpandedCase& c : {ExpandedCase{1, 20, 0, 20, 0.2f, 1},
                                {6, 20, 0, 20, 0.2f, 2},
                                {4, 16, 0, 24, 0.2f, 4},
                                {16, 24, 0, 24, 0.2f, 8},
                                {6, 5, 4, 17, 0.4f, 3}})
    for (const bool joined : {true, false}) check_expanded(c, chunks, joined);
}

TEST(ExpandedAttention, EqualsTheSoftmaxInDoubleForTheWidthsOfR1) {
  check_expanded({2, 128, 64, 128, 0.1f}, {{0, 1}, {0, 70}, {50, 40}}, true);
}

void check_expanded_bits(const ExpandedCase& c) {
  std::vector<std::vector<float>> results;
  for (int threads : {1, 2, 4})
    for (bool alone : {false, true}) {
      guild::Cpu device({.threads = threads});
      ExpandedSequence subject(c, 40, 90, 7, true), other(c, 0, 30, 8, true);
      std::vector<guild::ExpandedAttentionJob> jobs;
      if (!alone) jobs.push_back(other.job(c));
      jobs.push_back(subject.job(c));
      guild::expanded_attention(device, jobs, c.sizes());
      results.push_back(subject.out.data);
    }
  for (const auto& result : results) EXPECT_EQ(result, results[0]);
}

TEST(ExpandedAttention, HasTheSameBitsForEveryThreadCountAndBatch) {
  check_expanded_bits({3, 32, 8, 20, 0.2f});
  check_expanded_bits({4, 32, 0, 32, 0.2f, 2});
}

TEST(ExpandedAttention, EqualsCachedAttentionOfGroupedRows) {
  guild::Cpu device({.threads = 2});
  GroupedSequence<float> s(3, 4, 20, 70, 50, 3);
  std::vector<guild::CachedAttentionJob> jobs;
  s.add_jobs(jobs);
  guild::cached_attention(device, jobs, s.sizes());
  Matrix<float> out(50, 240);
  const guild::View<const float, 2> rows = std::as_const(s.cache).view();
  const guild::ExpandedAttentionJob expanded{.q = s.q.view(),
                                             .k_nope = rows.middle_cols(0, 60),
                                             .v = rows.middle_cols(60, 60),
                                             .out = out.view(),
                                             .first_position = 70};
  guild::expanded_attention(device, std::span(&expanded, 1), {12, 20, 0, 20, 0.3f, guild::AttentionMask::causal, 4});
  for (Index t = 0; t < 50; ++t)
    for (Index i = 0; i < 240; ++i) ASSERT_NEAR(out(t, i), s.out(t, i), 2e-6);
}

TEST(ExpandedAttention, EqualsCachedAttentionWhereKeysAndValuesAreTheLatents) {
  guild::Cpu device({.threads = 2});
  const Sizes z = latent_rows(1, 24, 8, 0.2f);
  CachedSequence<float> s(z, 70, 50, 3, 0);
  const guild::CachedAttentionJob job = s.job();
  guild::cached_attention(device, std::span(&job, 1), z);
  Matrix<float> out(50, 24);
  const guild::View<const float, 2> cache = std::as_const(s.cache).view();
  const guild::ExpandedAttentionJob expanded{.q = s.q.view(),
                                             .k_nope = cache.middle_cols(0, 24),
                                             .k_rope = cache.middle_cols(24, 8),
                                             .v = cache.middle_cols(0, 24),
                                             .out = out.view(),
                                             .first_position = 70};
  guild::expanded_attention(device, std::span(&expanded, 1), {1, 24, 8, 24, 0.2f});
  for (Index t = 0; t < 50; ++t)
    for (Index i = 0; i < 24; ++i) ASSERT_NEAR(out(t, i), s.out(t, i), 2e-6);
}

TEST(ExpandedAttention, RefusesJobsThatDoNotFit) {
  guild::Cpu device({.threads = 1});
  const ExpandedCase c{2, 8, 4, 6, 1.0f};
  ExpandedSequence s(c, 4, 2, 3, true);
  const auto code = [&](auto change) {
    guild::ExpandedAttentionJob job = s.job(c);
    change(job);
    return code_of(
        [&] { guild::expanded_attention(device, std::span<const guild::ExpandedAttentionJob>(&job, 1), c.sizes()); });
  };
  using guild::ErrorCode;
  EXPECT_EQ(code([](auto&) {}), ErrorCode::count_);
  EXPECT_EQ(code([](auto& j) { j.first_position = 5; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.key_head_stride = 0; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.v.rows -= 1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.out.cols += 1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.q.cols += 1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.k_rope = {}; }), ErrorCode::op_shape);

  const auto code_of_group = [&](Index heads_per_key) {
    const guild::ExpandedAttentionJob job = s.job(c);
    return code_of([&] {
      guild::expanded_attention(device, std::span(&job, 1),
                                {2, 8, 4, 6, 1.0f, guild::AttentionMask::causal, heads_per_key});
    });
  };
  EXPECT_EQ(code_of_group(1), ErrorCode::count_);
  EXPECT_EQ(code_of_group(2), ErrorCode::op_shape);  // one key head is narrower
  EXPECT_EQ(code_of_group(0), ErrorCode::op_argument);
  EXPECT_EQ(code_of_group(3), ErrorCode::op_argument);
  EXPECT_EQ(code_of_group(4), ErrorCode::op_argument);
}

}  // namespace attention_test
