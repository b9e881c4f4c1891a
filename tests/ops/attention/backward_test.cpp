#include <gtest/gtest.h>

#include <guild/cpu.hpp>
#include <guild/ops/attention/attention.hpp>

#include "../ops_test_support.hpp"

namespace attention_backward_test {
using namespace guild_test;
using guild::AttentionMask;
using guild::Isa;

struct Sizes {
  Index heads, nope, rope, value;
  double scale;
  Index heads_per_key = 1;

  [[nodiscard]] Index key_heads() const { return heads / heads_per_key; }
  template <class Real>
  [[nodiscard]] guild::BasicExpandedAttentionSizes<Real> with(AttentionMask mask) const {
    return {heads, nope, rope, value, static_cast<Real>(scale), mask, heads_per_key};
  }
};

constexpr double poison = -777.0;

/// One sequence: keys and values as one matrix as kv_b_proj leaves them (each head [key N | value V], and a column
/// between heads that nobody may touch), or in two halves.
template <class Real>
struct Sequence {
  Sizes sizes;
  Index n, spare;
  bool joined;
  Matrix<Real> q, kv, k_rope, out, lse, dout, dq, dkv, dk_rope;

  Sequence(const Sizes& s, Index length, bool joined_)
      : sizes(s),
        n(length),
        spare(joined_ ? 1 : 0),
        joined(joined_),
        q(n, s.heads * (s.nope + s.rope), s.heads * (s.nope + s.rope) + 3),
        kv(n, s.key_heads() * (s.nope + s.value + spare), s.key_heads() * (s.nope + s.value + spare) + 1),
        k_rope(n, s.rope, s.rope + 2),
        out(n, s.heads * s.value, s.heads * s.value + 2),
        lse(n, s.heads, s.heads + 1),
        dout(n, s.heads * s.value, s.heads * s.value + 5),
        dq(n, q.cols, q.cols + 1),
        dkv(n, kv.cols, kv.cols + 4),
        dk_rope(n, s.rope, s.rope + 3) {
    for (auto* m : {&dq, &dkv, &dk_rope, &out, &lse})
      for (Index t = 0; t < n; ++t)
        for (Index c = 0; c < m->cols; ++c) (*m)(t, c) = Real(poison);
  }
  static Sequence random(const Sizes& s, Index length, bool joined, unsigned seed) {
    Sequence made(s, length, joined);
    std::mt19937 random(seed);
    for (auto* m : {&made.q, &made.kv, &made.k_rope, &made.dout}) m->fill_normal(random);
    return made;
  }
  /// The same inputs in another type.
  template <class Other>
  explicit Sequence(const Sequence<Other>& other) : Sequence(other.sizes, other.n, other.joined) {
    const auto convert = [](const auto& from, auto& to) {
      for (Index t = 0; t < to.rows; ++t)
        for (Index c = 0; c < to.cols; ++c) to(t, c) = static_cast<Real>(from(t, c));
    };
    convert(other.q, q);
    convert(other.kv, kv);
    convert(other.k_rope, k_rope);
    convert(other.dout, dout);
  }

  [[nodiscard]] Index stride() const { return joined ? sizes.nope + sizes.value + spare : 0; }
  [[nodiscard]] Index key_column(Index h) const { return h / sizes.heads_per_key * (joined ? stride() : sizes.nope); }
  [[nodiscard]] Index value_column(Index h) const {
    return joined ? key_column(h) + sizes.nope : sizes.key_heads() * sizes.nope + h / sizes.heads_per_key * sizes.value;
  }
  template <class T>
  guild::View<T, 2> keys(guild::View<T, 2> all) const {
    return all.middle_cols(0, key_column(sizes.heads - 1) + sizes.nope);
  }
  template <class T>
  guild::View<T, 2> values(guild::View<T, 2> all) const {
    return all.middle_cols(value_column(0), value_column(sizes.heads - 1) + sizes.value - value_column(0));
  }
  /// Without a rotary part there need be no view.
  guild::View<Real, 2> rotary(Matrix<Real>& keys) const {
    return sizes.rope > 0 ? keys.view() : guild::View<Real, 2>{};
  }
  guild::BasicExpandedAttentionJob<Real> forward_job() {
    return {.q = q.view(),
            .k_nope = keys<const Real>(kv.view()),
            .k_rope = rotary(k_rope),
            .v = values<const Real>(kv.view()),
            .out = out.view(),
            .first_position = 0,
            .key_head_stride = stride(),
            .value_head_stride = stride(),
            .lse = lse.view()};
  }
  guild::ExpandedAttentionGradientJob<Real> gradient_job() {
    return {.q = q.view(),
            .k_nope = keys<const Real>(kv.view()),
            .k_rope = rotary(k_rope),
            .v = values<const Real>(kv.view()),
            .out = out.view(),
            .lse = lse.view(),
            .dout = dout.view(),
            .dq = dq.view(),
            .dk_nope = keys<Real>(dkv.view()),
            .dk_rope = rotary(dk_rope),
            .dv = values<Real>(dkv.view()),
            .key_head_stride = stride(),
            .value_head_stride = stride()};
  }
};

template <class Real>
void forward(guild::Cpu& device, std::vector<Sequence<Real>>& batch, AttentionMask mask) {
  std::vector<guild::BasicExpandedAttentionJob<Real>> jobs;
  for (auto& s : batch) jobs.push_back(s.forward_job());
  guild::expanded_attention(device, jobs, batch[0].sizes.template with<Real>(mask));
}

template <class Real>
void backward(guild::Cpu& device, std::vector<Sequence<Real>>& batch, AttentionMask mask) {
  std::vector<guild::ExpandedAttentionGradientJob<Real>> jobs;
  for (auto& s : batch) jobs.push_back(s.gradient_job());
  guild::expanded_attention_backward(device, jobs, batch[0].sizes.template with<Real>(mask));
}

template <class Real>
std::vector<Sequence<Real>> make_batch(const Sizes& sizes, const std::vector<Index>& lengths, bool joined) {
  std::vector<Sequence<Real>> batch;
  unsigned seed = 1;
  for (const Index n : lengths) batch.push_back(Sequence<Real>::random(sizes, n, joined, seed++));
  return batch;
}

/// Elements agree to `tolerance` times the largest expected one, or times 0.1 where all are smaller: gradients of a
/// single token are differences of equal numbers.
template <class Real>
void expect_close(const Matrix<Real>& got, const Matrix<double>& expected, double tolerance, const std::string& what) {
  ASSERT_TRUE(got.padding_is_untouched()) << what;
  double largest = 0.1;
  for (Index t = 0; t < got.rows; ++t)
    for (Index c = 0; c < got.cols; ++c)
      if (expected(t, c) != poison) largest = std::max(largest, std::abs(expected(t, c)));
  for (Index t = 0; t < got.rows; ++t)
    for (Index c = 0; c < got.cols; ++c)
      ASSERT_NEAR(double(got(t, c)), expected(t, c), tolerance * largest) << what << " row " << t << " column " << c;
}

const std::vector<AttentionMask> masks = {AttentionMask::causal, AttentionMask::bidirectional};
const std::string mask_names[] = {"causal", "bidirectional"};

/// Attention and its log-sum-exp of one head of one token, the naive way.
std::pair<std::vector<double>, double> naive(const Sequence<double>& s, Index t, Index head, AttentionMask mask) {
  const Sizes& z = s.sizes;
  const Index visible = mask == AttentionMask::causal ? t + 1 : s.n;
  std::vector<double> weight(std::size_t(visible), 0.0), out(std::size_t(z.value), 0.0);
  double sum = 0;
  for (Index k = 0; k < visible; ++k) {
    double dot = 0;
    for (Index c = 0; c < z.nope + z.rope; ++c)
      dot += s.q(t, head * (z.nope + z.rope) + c) *
             (c < z.nope ? s.kv(k, s.key_column(head) + c) : s.k_rope(k, c - z.nope));
    sum += weight[std::size_t(k)] = std::exp(dot * z.scale);
  }
  for (Index k = 0; k < visible; ++k)
    for (Index c = 0; c < z.value; ++c)
      out[std::size_t(c)] += weight[std::size_t(k)] / sum * s.kv(k, s.value_column(head) + c);
  return {out, std::log(sum)};
}

TEST(ExpandedAttentionMask, ForwardAndLogSumExpEqualTheSoftmaxInDouble) {
  const std::vector<Index> lengths = {1, 2, 15, 31, 32, 33, 63, 64, 65, 100, 128, 130};
  for (const Sizes& sizes : {Sizes{2, 32, 16, 32, 0.14},
                             {3, 5, 2, 17, 0.4},
                             {1, 4, 0, 1, 0.5},
                             {4, 20, 0, 20, 0.2, 2},
                             {8, 6, 2, 5, 0.4, 4}})
    for (const AttentionMask mask : masks) {
      guild::Cpu device({.threads = 3});
      auto batch = make_batch<float>(sizes, lengths, true);
      std::vector<Sequence<double>> exact(batch.begin(), batch.end());
      forward(device, batch, mask);
      forward(device, exact, mask);
      for (std::size_t i = 0; i < batch.size(); ++i) {
        Sequence<double> expected = exact[i];
        for (Index t = 0; t < expected.n; ++t)
          for (Index h = 0; h < sizes.heads; ++h) {
            const auto [out, lse] = naive(expected, t, h, mask);
            expected.lse(t, h) = lse;
            for (Index c = 0; c < sizes.value; ++c) expected.out(t, h * sizes.value + c) = out[std::size_t(c)];
          }
        const std::string what = mask_names[int(mask)] + ", length " + std::to_string(expected.n);
        expect_close(exact[i].out, expected.out, 1e-13, what + ", out in double");
        expect_close(exact[i].lse, expected.lse, 1e-13, what + ", lse in double");
        expect_close(batch[i].out, expected.out, 2e-6, what + ", out");
        expect_close(batch[i].lse, expected.lse, 2e-6, what + ", lse");
      }
    }
}

TEST(ExpandedAttentionMask, EveryVariantWritesTheLogSumExp) {
  const Sizes sizes{2, 20, 8, 12, 0.2};
  for (const AttentionMask mask : masks) {
    guild::Cpu device({.threads = 2});
    auto exact = make_batch<double>(sizes, {70}, true);
    forward(device, exact, mask);
    for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
      if (!guild::runs_here(isa)) continue;
      Sequence<float> s(make_batch<double>(sizes, {70}, true)[0]);
      const auto job = s.forward_job();
      guild::run_expanded_attention(device, std::span(&job, 1), sizes.with<float>(mask), isa);
      expect_close(s.out, exact[0].out, 2e-6, std::string(guild::name(isa)));
      expect_close(s.lse, exact[0].lse, 2e-6, std::string(guild::name(isa)));
    }
  }
}

TEST(ExpandedAttentionMask, RefusesALogSumExpThatDoesNotFit) {
  guild::Cpu device({.threads = 1});
  const Sizes sizes{2, 8, 4, 6, 1.0};
  auto batch = make_batch<float>(sizes, {5}, true);
  auto job = batch[0].forward_job();
  job.lse.cols += 1;
  EXPECT_EQ(code_of([&] {
              guild::expanded_attention(device, std::span(&std::as_const(job), 1), {2, 8, 4, 6, 1.0f});
            }),
            guild::ErrorCode::op_shape);
}

TEST(ExpandedAttentionBackward, EqualsCentralDifferencesInDouble) {
  constexpr double epsilon = 1e-6;
  for (const Sizes& sizes : {Sizes{2, 4, 2, 3, 0.5},
                             {1, 3, 0, 2, 0.7},
                             {3, 0, 2, 1, 0.6},
                             {2, 3, 0, 3, 0.5, 2},
                             {4, 2, 2, 3, 0.6, 2},
                             {8, 1, 2, 2, 0.6, 4},
                             {8, 2, 0, 2, 0.6, 8}})
    for (const AttentionMask mask : masks) {
      guild::Cpu device({.threads = 2});
      auto batch = make_batch<double>(sizes, {1, 7, 5}, sizes.heads % 4 == 2);
      forward(device, batch, mask);
      backward(device, batch, mask);
      const auto loss = [&] {
        forward(device, batch, mask);
        double sum = 0;
        for (const auto& s : batch)
          for (Index t = 0; t < s.n; ++t)
            for (Index c = 0; c < s.out.cols; ++c) sum += s.out(t, c) * s.dout(t, c);
        return sum;
      };
      for (auto& s : batch) {
        const auto check = [&](Matrix<double>& input, const Matrix<double>& gradient, const char* what) {
          for (Index t = 0; t < input.rows; ++t)
            for (Index c = 0; c < input.cols; ++c) {
              if (&input == &s.kv && s.joined && c % s.stride() == s.stride() - 1) {
                ASSERT_EQ(gradient(t, c), poison) << "columns between heads must stay as they are";
                continue;
              }
              const double before = input(t, c);
              input(t, c) = before + epsilon;
              const double above = loss();
              input(t, c) = before - epsilon;
              const double below = loss();
              input(t, c) = before;
              const double numeric = (above - below) / (2 * epsilon);
              ASSERT_NEAR(gradient(t, c), numeric, 1e-7 + 1e-5 * std::abs(numeric))
                  << what << " token " << t << " column " << c << " " << mask_names[int(mask)];
            }
        };
        check(s.q, s.dq, "dq");
        check(s.kv, s.dkv, "dk_nope, dv");
        check(s.k_rope, s.dk_rope, "dk_rope");
      }
    }
}

void check_variants(const Sizes& sizes, const std::vector<Index>& lengths, bool joined) {
  for (const AttentionMask mask : masks) {
    guild::Cpu device({.threads = 3});
    const auto inputs = make_batch<float>(sizes, lengths, joined);
    std::vector<Sequence<double>> exact(inputs.begin(), inputs.end());
    forward(device, exact, mask);
    backward(device, exact, mask);
    for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
      if (!guild::runs_here(isa)) continue;
      guild::Cpu variant({.threads = 3, .isa = isa});
      auto batch = inputs;
      forward(variant, batch, mask);
      backward(variant, batch, mask);
      for (std::size_t i = 0; i < batch.size(); ++i) {
        const std::string what = std::string(guild::name(isa)) + ", " + mask_names[int(mask)] + ", length " +
                                 std::to_string(batch[i].n) + ": ";
        expect_close(batch[i].dq, exact[i].dq, 1e-5, what + "dq");
        expect_close(batch[i].dkv, exact[i].dkv, 1e-5, what + "dk_nope, dv");
        expect_close(batch[i].dk_rope, exact[i].dk_rope, 1e-5, what + "dk_rope");
        if (::testing::Test::HasFatalFailure()) return;
      }
    }
  }
}

const std::vector<Index> edges = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 48, 63, 64, 65, 72, 100, 127, 128, 129, 150};

TEST(ExpandedAttentionBackward, EveryVariantEqualsThePlainLoopsInDoubleAroundTheEdgesOfTiles) {
  check_variants({2, 32, 16, 32, 0.14}, edges, true);
  check_variants({2, 32, 16, 32, 0.14}, {65, 1, 20}, false);
}

TEST(ExpandedAttentionBackward, EveryVariantEqualsThePlainLoopsInDoubleForOddSizes) {
  for (const Sizes& sizes : {Sizes{1, 1, 0, 1, 1.0},
                             {2, 0, 4, 3, 0.5},
                             {3, 5, 2, 17, 0.4},
                             {2, 33, 6, 40, 0.2},
                             {1, 64, 32, 64, 0.1},
                             {1, 70, 15, 96, 0.1},
                             {1, 128, 64, 128, 0.07}})
    check_variants(sizes, {70, 1, 100}, true);
}

TEST(ExpandedAttentionBackward, EveryVariantEqualsThePlainLoopsInDoubleForGroupsOfHeads) {
  check_variants({2, 32, 0, 32, 0.14, 2}, edges, true);
  check_variants({4, 20, 0, 20, 0.2, 2}, {65, 1, 20, 128}, false);
  check_variants({8, 12, 0, 17, 0.2, 4}, {70, 1, 64}, true);
  check_variants({8, 12, 4, 9, 0.2, 8}, {70, 1, 64}, true);
  check_variants({6, 7, 2, 9, 0.3, 3}, {70, 33}, false);
}

TEST(ExpandedAttentionBackward, EveryVariantEqualsThePlainLoopsInDoubleForSequencesCutIntoRangesOfKeys) {
  check_variants({8, 4, 2, 3, 0.4, 8}, {511, 3, 1100}, true);
  check_variants({1, 4, 2, 3, 0.4}, {511, 3, 800}, true);
}

template <class Real>
void check_bits(Index length, const Sizes& sizes = {3, 12, 4, 10, 0.3}) {
  for (const AttentionMask mask : masks) {
    std::vector<std::vector<Real>> results;
    for (const int threads : {1, 4, 2})
      for (const bool alone : {false, true}) {
        guild::Cpu device({.threads = threads});
        std::vector<Sequence<Real>> batch;
        if (!alone) batch = make_batch<Real>(sizes, {33, 90}, true);
        batch.push_back(Sequence<Real>::random(sizes, length, true, 9));
        forward(device, batch, mask);
        backward(device, batch, mask);
        const auto& subject = batch.back();
        results.push_back(subject.dq.data);
        results.back().insert(results.back().end(), subject.dkv.data.begin(), subject.dkv.data.end());
        results.back().insert(results.back().end(), subject.dk_rope.data.begin(), subject.dk_rope.data.end());
      }
    for (const auto& result : results) EXPECT_EQ(result, results[0]);
  }
}

TEST(ExpandedAttentionBackward, HasTheSameBitsForEveryThreadCountAndBatch) {
  check_bits<float>(600);
  check_bits<double>(40);
  check_bits<float>(600, {8, 12, 4, 10, 0.3, 4});
  check_bits<float>(1100, {4, 12, 0, 12, 0.3, 4});
  check_bits<double>(40, {4, 12, 0, 12, 0.3, 2});
}

TEST(ExpandedAttentionBackward, DoesLargeBatchesInRounds) {
  // Each sequence needs 8 * 2304 * (124 + 4) + 2304 * 4 floats of scratch: seven fit into a round.
  guild::Cpu device({.threads = 4});
  const Sizes sizes{1, 124, 4, 1, 0.1};
  auto one = make_batch<float>(sizes, {2304}, true);
  forward(device, one, AttentionMask::causal);
  std::vector<Sequence<float>> batch(10, one[0]);
  backward(device, batch, AttentionMask::causal);
  backward(device, one, AttentionMask::causal);
  for (const auto& s : batch) {
    ASSERT_EQ(s.dq.data, one[0].dq.data);
    ASSERT_EQ(s.dkv.data, one[0].dkv.data);
    ASSERT_EQ(s.dk_rope.data, one[0].dk_rope.data);
  }
  EXPECT_LT(device.scratch_bytes(), Index{160} << 20);
}

TEST(ExpandedAttentionBackward, SurvivesScoresOfAnySize) {
  guild::Cpu device({.threads = 2});
  const Sizes sizes{2, 8, 4, 6, 1.0};
  auto batch = make_batch<float>(sizes, {100}, true);
  for (Index t = 0; t < 100; ++t)
    for (Index c = 0; c < batch[0].q.cols; ++c) batch[0].q(t, c) *= 1000.0f;  // one key takes all the weight
  std::vector<Sequence<double>> exact(batch.begin(), batch.end());
  forward(device, batch, AttentionMask::causal);
  forward(device, exact, AttentionMask::causal);
  backward(device, batch, AttentionMask::causal);
  backward(device, exact, AttentionMask::causal);
  expect_close(batch[0].dkv, exact[0].dkv, 1e-2, "dk_nope, dv");
}

TEST(ExpandedAttentionBackward, ShowsANaNOfAGradientInWhatItReachesOnly) {
  guild::Cpu device({.threads = 2});
  const Sizes sizes{2, 8, 4, 6, 0.3};
  auto batch = make_batch<float>(sizes, {100}, true);
  forward(device, batch, AttentionMask::causal);
  batch[0].dout(70, 1) = std::numeric_limits<float>::quiet_NaN();  // token 70, head 0
  backward(device, batch, AttentionMask::causal);
  const auto& s = batch[0];
  for (Index t = 0; t < 100; ++t) {
    EXPECT_EQ(std::isnan(s.dq(t, 0)), t == 70) << t;
    EXPECT_EQ(std::isnan(s.dkv(t, 0)), t <= 70) << t;
    EXPECT_FALSE(std::isnan(s.dq(t, 12))) << t;
    EXPECT_FALSE(std::isnan(s.dkv(t, s.key_column(1)))) << t;
  }
}

TEST(ExpandedAttentionBackward, AllocatesNothingAfterWarmUp) {
  guild::Cpu device({.threads = 2});
  auto batch = make_batch<float>({2, 8, 4, 6, 0.3}, {600, 20}, true);
  forward(device, batch, AttentionMask::causal);
  backward(device, batch, AttentionMask::causal);
  const Index held = device.scratch_bytes();
  backward(device, batch, AttentionMask::causal);
  EXPECT_EQ(device.scratch_bytes(), held);
}

TEST(ExpandedAttentionBackward, TakesEmptyBatchesAndSequences) {
  guild::Cpu device({.threads = 2});
  guild::expanded_attention_backward(device, std::span<const guild::ExpandedAttentionGradientJob<float>>{},
                                     {2, 8, 4, 6, 1.0f});
  guild::expanded_attention_backward(device, std::span<const guild::ExpandedAttentionGradientJob<double>>{},
                                     {2, 8, 4, 6, 1.0});
  auto batch = make_batch<float>({2, 8, 4, 6, 0.3}, {0, 9, 0}, true);
  std::vector<Sequence<double>> exact(batch.begin(), batch.end());
  forward(device, batch, AttentionMask::causal);
  backward(device, batch, AttentionMask::causal);
  forward(device, exact, AttentionMask::causal);
  backward(device, exact, AttentionMask::causal);
  expect_close(batch[1].dq, exact[1].dq, 1e-5, "dq");
}

TEST(ExpandedAttentionBackward, RefusesJobsThatDoNotFit) {
  guild::Cpu device({.threads = 1});
  auto batch = make_batch<float>({2, 8, 4, 6, 1.0}, {6}, true);
  const auto code = [&](auto change) {
    auto job = batch[0].gradient_job();
    change(job);
    return code_of([&] {
      guild::expanded_attention_backward(device, std::span(&std::as_const(job), 1), {2, 8, 4, 6, 1.0f});
    });
  };
  using guild::ErrorCode;
  EXPECT_EQ(code([](auto&) {}), ErrorCode::count_);
  EXPECT_EQ(code([](auto& j) { j.q.cols += 1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.k_nope.rows -= 1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.k_rope.rows += 1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.v.cols -= 1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.out.rows -= 1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.lse.cols = 1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.dout.cols += 1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.dq.rows -= 1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.dk_nope.cols += 1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.dk_rope.cols -= 1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.dv.rows += 1; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.lse.data = nullptr; }), ErrorCode::op_argument);
  EXPECT_EQ(code([](auto& j) { j.key_head_stride = 7; }), ErrorCode::op_argument);
  EXPECT_EQ(code([](auto& j) { j.value_head_stride = 5; }), ErrorCode::op_argument);
  EXPECT_EQ(code([](auto& j) { j.k_rope = {}; }), ErrorCode::op_shape);
  EXPECT_EQ(code([](auto& j) { j.dk_rope = {}; }), ErrorCode::op_shape);

  const auto code_of_group = [&](Index heads_per_key) {
    const auto job = batch[0].gradient_job();
    return code_of([&] {
      guild::expanded_attention_backward(device, std::span(&job, 1),
                                         {2, 8, 4, 6, 1.0f, AttentionMask::causal, heads_per_key});
    });
  };
  EXPECT_EQ(code_of_group(1), ErrorCode::count_);
  EXPECT_EQ(code_of_group(2), ErrorCode::op_shape);
  EXPECT_EQ(code_of_group(0), ErrorCode::op_argument);
  EXPECT_EQ(code_of_group(3), ErrorCode::op_argument);
}

}  // namespace attention_backward_test
