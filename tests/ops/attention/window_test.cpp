// Attention to a window of keys, with pinned first keys, sinks and a bias for far keys: both forms, forward and
// backward, against sums over the visible pairs in double.
#include <gtest/gtest.h>

#include <guild/cpu.hpp>
#include <guild/ops/attention/attention.hpp>

#include "../batch_invariance.hpp"

namespace attention_window_test {
using namespace guild;
using namespace guild_test;

struct Shape {
  Index heads, nope, rope, value;
  Index heads_per_key = 1;
  KeyWindow keys{};
  bool sinks = false;
  double scale = 0.4;
  KeyWindow near{};  ///< with a far bias unless it is all

  [[nodiscard]] Index groups() const { return heads / heads_per_key; }
  template <class Real>
  [[nodiscard]] BasicExpandedAttentionSizes<Real> sizes() const {
    return {heads, nope, rope, value, Real(scale), AttentionMask::causal, heads_per_key, keys, near};
  }
};

/// One sequence of n tokens with all that goes in and comes out.
template <class Real>
struct Sequence {
  Shape shape;
  Index n;
  Matrix<Real> q, k, rope, v, sinks, bias, dout, out, lse, dq, dk, drope, dv, dsinks, dbias;

  Sequence(const Shape& s, Index length)
      : shape(s),
        n(length),
        q(n, s.heads * (s.nope + s.rope)),
        k(n, s.groups() * s.nope),
        rope(n, s.rope),
        v(n, s.groups() * s.value),
        sinks(1, s.heads),
        bias(n, s.heads),
        dout(n, s.heads * s.value),
        out(n, s.heads * s.value),
        lse(n, s.heads),
        dq(n, q.cols),
        dk(n, k.cols),
        drope(n, s.rope),
        dv(n, v.cols),
        dsinks(n, s.heads),
        dbias(n, s.heads) {}
  static Sequence random(const Shape& s, Index length, unsigned seed) {
    Sequence made(s, length);
    std::mt19937 random(seed);
    for (auto* m : {&made.q, &made.k, &made.rope, &made.v, &made.sinks, &made.bias, &made.dout}) m->fill_normal(random);
    return made;
  }
  template <class Other>
  explicit Sequence(const Sequence<Other>& o) : Sequence(o.shape, o.n) {
    const auto convert = [](const auto& from, auto& to) {
      for (Index t = 0; t < to.rows; ++t)
        for (Index c = 0; c < to.cols; ++c) to(t, c) = static_cast<Real>(from(t, c));
    };
    convert(o.q, q), convert(o.k, k), convert(o.rope, rope), convert(o.v, v), convert(o.sinks, sinks);
    convert(o.bias, bias), convert(o.dout, dout);
  }

  [[nodiscard]] View<const Real> sink_view() {
    return shape.sinks ? View<const Real>{&sinks(0, 0), shape.heads} : View<const Real>{};
  }
  [[nodiscard]] View<Real, 2> biased(Matrix<Real>& m) { return shape.near.all() ? View<Real, 2>{} : m.view(); }
  [[nodiscard]] View<const Real, 2> bias_of(Index first, Index count) {
    return shape.near.all() ? View<const Real, 2>{} : bias.view().middle_rows(first, count);
  }
  [[nodiscard]] View<Real, 2> rotary(Matrix<Real>& m) { return shape.rope > 0 ? m.view() : View<Real, 2>{}; }
  /// Tokens [first, first + count) against all keys up to them.
  BasicExpandedAttentionJob<Real> job(Index first, Index count) {
    const Index length = first + count;
    const auto seen = [&](View<Real, 2> all) { return all.rows > 0 ? all.middle_rows(0, length) : all; };
    return {.q = q.view().middle_rows(first, count),
            .k_nope = seen(k.view()),
            .k_rope = seen(rotary(rope)),
            .v = seen(v.view()),
            .out = out.view().middle_rows(first, count),
            .first_position = first,
            .lse = lse.view().middle_rows(first, count),
            .sinks = sink_view(),
            .far_bias = bias_of(first, count)};
  }
  ExpandedAttentionGradientJob<Real> gradient_job() {
    return {.q = q.view(),
            .k_nope = k.view(),
            .k_rope = rotary(rope),
            .v = v.view(),
            .out = out.view(),
            .lse = lse.view(),
            .dout = dout.view(),
            .dq = dq.view(),
            .dk_nope = dk.view(),
            .dk_rope = rotary(drope),
            .dv = dv.view(),
            .sinks = sink_view(),
            .dsinks = shape.sinks ? dsinks.view() : View<Real, 2>{},
            .far_bias = bias_of(0, n),
            .dfar_bias = biased(dbias)};
  }
  void forward(Cpu& device) {
    const std::vector<BasicExpandedAttentionJob<Real>> jobs = {job(0, n)};
    expanded_attention(device, jobs, shape.sizes<Real>());
  }
  void backward(Cpu& device) {
    const std::vector<ExpandedAttentionGradientJob<Real>> jobs = {gradient_job()};
    expanded_attention_backward(device, jobs, shape.sizes<Real>());
  }
  /// The sum over the visible pairs, as the definition says it; the logarithm of the denominator last.
  [[nodiscard]] std::vector<double> naive(Index t, Index head) const {
    const Index g = head / shape.heads_per_key, width = shape.nope + shape.rope, window = shape.keys.window;
    std::vector<double> result(std::size_t(shape.value) + 1);
    double sum = shape.sinks ? std::exp(double(sinks(0, head))) : 0.0;
    for (Index s = 0; s <= t; ++s) {
      if (window > 0 && t - s >= window && s >= shape.keys.pinned) continue;
      double dot = 0;
      for (Index c = 0; c < width; ++c)
        dot += double(q(t, head * width + c)) *
               double(c < shape.nope ? k(s, g * shape.nope + c) : rope(s, c - shape.nope));
      const bool far = !shape.near.all() && t - s >= shape.near.window && s >= shape.near.pinned;
      const double weight = std::exp(dot * shape.scale + (far ? double(bias(t, head)) : 0.0));
      sum += weight;
      for (Index c = 0; c < shape.value; ++c) result[std::size_t(c)] += weight * double(v(s, g * shape.value + c));
    }
    for (Index c = 0; c < shape.value; ++c) result[std::size_t(c)] /= sum;
    result.back() = std::log(sum);
    return result;
  }
  void expect_naive(double tolerance, const std::string& what) const {
    for (Index t = 0; t < n; ++t)
      for (Index head = 0; head < shape.heads; ++head) {
        const auto expected = naive(t, head);
        for (Index c = 0; c < shape.value; ++c)
          ASSERT_NEAR(double(out(t, head * shape.value + c)), expected[std::size_t(c)], tolerance)
              << what << " token " << t << " head " << head << " column " << c;
        ASSERT_NEAR(double(lse(t, head)), expected.back(), tolerance) << what << " lse of token " << t;
      }
  }
};

std::string text_of(const KeyWindow& keys, const KeyWindow& near = {}) {
  return "window " + std::to_string(keys.window) + " pinned " + std::to_string(keys.pinned) +
         (near.all() ? "" : ", near " + std::to_string(near.window) + " pinned " + std::to_string(near.pinned));
}
struct Sight {
  KeyWindow keys, near{};
};
const std::vector<Sight> sights = {
    {{0, 0}},          {{1, 0}},         {{5, 0}},           {{64, 0}},           {{100, 0}},          {{1, 1}},
    {{7, 4}},          {{63, 3}},        {{70, 65}},         {{130, 2}},          {{300, 4}},          {{0, 0}, {1, 0}},
    {{0, 0}, {64, 0}}, {{0, 0}, {7, 3}}, {{0, 0}, {90, 66}}, {{100, 5}, {30, 2}}, {{130, 0}, {100, 0}}};

template <class Real>
void expect_close(const Matrix<float>& got, const Matrix<Real>& expected, const std::string& what) {
  double largest = 0.1;
  for (Index t = 0; t < got.rows; ++t)
    for (Index c = 0; c < got.cols; ++c) largest = std::max(largest, std::abs(double(expected(t, c))));
  for (Index t = 0; t < got.rows; ++t)
    for (Index c = 0; c < got.cols; ++c)
      ASSERT_NEAR(double(got(t, c)), double(expected(t, c)), 1e-5 * largest) << what << " row " << t << " column " << c;
}

/// A cache of [key | value] rows in a ring behind the pinned ones, as it is after `length` tokens.
struct Ring {
  RingRows rows;
  Matrix<float> cache;

  Ring(const Sequence<float>& s, Index length, RingRows where)
      : rows(where), cache(where.rows > 0 ? where.pinned + where.rows : length, s.k.cols + s.v.cols) {
    for (Index p = 0; p < length; ++p)
      for (Index c = 0; c < cache.cols; ++c) cache(rows.row_of(p), c) = c < s.k.cols ? s.k(p, c) : s.v(p, c - s.k.cols);
  }
};

CachedAttentionSizes cached_sizes(const Shape& shape) {
  return {shape.heads, shape.nope, shape.value, shape.nope, float(shape.scale), shape.keys, shape.near};
}
CachedAttentionJob cached_job(Sequence<float>& s, Ring& ring, Index first, Index count, View<float, 2> out) {
  return {.cache = ring.cache.data.data(),
          .cache_type = DType::f32,
          .cache_pitch = ring.cache.pitch,
          .length = first + count,
          .q = s.q.view().middle_rows(first, count),
          .out = out,
          .first_position = first,
          .ring = ring.rows,
          .sinks = s.sink_view(),
          .far_bias = s.bias_of(first, count)};
}

TEST(AttentionWindow, ForwardEqualsTheSumOverTheVisiblePairs) {
  for (const auto& [keys, near] : sights)
    for (const bool sinks : {false, true}) {
      const Shape shape{4, 6, 4, 5, 2, keys, sinks, 0.4, near};
      const std::string what = text_of(keys, near) + (sinks ? " with sinks" : "");
      const auto inputs = Sequence<float>::random(shape, 263, 3);
      Cpu device({.threads = 2});
      Sequence<double> exact(inputs);
      exact.forward(device);
      exact.expect_naive(1e-12, what);
      for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
        if (!runs_here(isa)) continue;
        Cpu variant({.threads = 3, .isa = isa});
        auto sequence = inputs;
        sequence.forward(variant);
        sequence.expect_naive(5e-6, what + " " + std::string(name(isa)));
        if (HasFatalFailure()) return;
      }
    }
}

TEST(AttentionWindow, AWindowOfAllKeysHasTheBitsOfNone) {
  Shape shape{3, 4, 0, 5};
  Cpu device({.threads = 2});
  auto all = Sequence<float>::random(shape, 200, 4);
  all.forward(device), all.backward(device);
  shape.keys = {.window = 200, .pinned = 3};
  auto window = Sequence<float>::random(shape, 200, 4);
  window.forward(device), window.backward(device);
  EXPECT_EQ(window.out.data, all.out.data);
  EXPECT_EQ(window.lse.data, all.lse.data);
  EXPECT_EQ(window.dv.data, all.dv.data);
  EXPECT_EQ(window.dq.data, all.dq.data);
}

TEST(AttentionWindow, AFarBiasOfZeroHasTheBitsOfNone) {
  Shape shape{3, 4, 0, 5, 3, {}, true};
  Cpu device({.threads = 2});
  const auto inputs = Sequence<float>::random(shape, 700, 4);
  auto without = inputs, with = inputs;
  with.shape.near = {.window = 20, .pinned = 2};
  std::fill(with.bias.data.begin(), with.bias.data.end(), 0.0f);
  for (auto* s : {&without, &with}) s->forward(device), s->backward(device);
  EXPECT_EQ(with.out.data, without.out.data);
  EXPECT_EQ(with.lse.data, without.lse.data);
  Ring all(without, without.n, {});
  Matrix<float> from_cache[2] = {Matrix<float>(70, 15), Matrix<float>(70, 15)};
  for (auto* s : {&without, &with}) {
    const std::vector<CachedAttentionJob> jobs = {cached_job(*s, all, 630, 70, from_cache[s == &with].view())};
    cached_attention(device, jobs, cached_sizes(s->shape));
  }
  EXPECT_EQ(from_cache[1].data, from_cache[0].data);
  EXPECT_EQ(with.dsinks.data, without.dsinks.data);
  EXPECT_EQ(with.dv.data, without.dv.data);
  EXPECT_EQ(with.dq.data, without.dq.data);
}

TEST(AttentionWindow, AFarBiasFarBelowZeroLeavesTheWindow) {
  Shape shape{2, 4, 2, 3, 1, {16, 3}};
  Cpu device({.threads = 1});
  auto window = Sequence<float>::random(shape, 300, 5);
  auto biased = window;
  biased.shape.keys = {}, biased.shape.near = shape.keys;
  std::fill(biased.bias.data.begin(), biased.bias.data.end(), -1000.0f);
  for (auto* s : {&window, &biased}) s->forward(device), s->backward(device);
  expect_close(biased.out, window.out, "out");
  expect_close(biased.dq, window.dq, "dq");
  expect_close(biased.dv, window.dv, "dv");
  for (Index t = 0; t < biased.n; ++t)
    for (Index head = 0; head < shape.heads; ++head) EXPECT_EQ(biased.dbias(t, head), 0.0f);
}

TEST(AttentionWindow, ASinkFarAboveAllKeysTakesAllAndOneFarBelowNothing) {
  Shape shape{2, 4, 0, 3, 1, {16, 0}, true};
  Cpu device({.threads = 1});
  auto sequence = Sequence<float>::random(shape, 40, 5);
  sequence.sinks(0, 0) = 1000.0f, sequence.sinks(0, 1) = -1000.0f;
  sequence.forward(device), sequence.backward(device);
  shape.sinks = false;
  auto without = Sequence<float>::random(shape, 40, 5);
  without.forward(device);
  for (Index t = 0; t < 40; ++t) {
    EXPECT_EQ(sequence.out(t, 0), 0.0f);
    EXPECT_EQ(sequence.lse(t, 0), 1000.0f);
    EXPECT_EQ(sequence.out(t, 3), without.out(t, 3));
    EXPECT_EQ(sequence.dsinks(t, 0), 0.0f);  // nothing flows through an output that is zero whatever the keys are
    EXPECT_EQ(sequence.dsinks(t, 1), 0.0f);
  }
}

TEST(AttentionWindow, BackwardEqualsCentralDifferencesInDouble) {
  constexpr double epsilon = 1e-6;
  for (const auto& [keys, near] :
       {Sight{{3, 0}}, {{1, 0}}, {{2, 1}}, {{4, 2}}, {{0, 0}}, {{0, 0}, {2, 1}}, {{6, 1}, {3, 0}}})
    for (const bool sinks : {false, true}) {
      const Shape shape{4, 3, 2, 3, 2, keys, sinks, 0.4, near};
      const std::string of_case = text_of(keys, near);
      Cpu device({.threads = 2});
      auto s = Sequence<double>::random(shape, 9, 6);
      const auto loss = [&] {
        s.forward(device);
        double sum = 0;
        for (Index t = 0; t < s.n; ++t)
          for (Index c = 0; c < s.out.cols; ++c) sum += s.out(t, c) * s.dout(t, c);
        return sum;
      };
      (void)loss();
      s.backward(device);
      Matrix<double> dsinks(1, shape.heads);
      for (Index head = 0; head < shape.heads; ++head) {
        dsinks(0, head) = 0;
        for (Index t = 0; t < s.n; ++t) dsinks(0, head) += s.dsinks(t, head);
      }
      const auto check = [&](Matrix<double>& input, const Matrix<double>& gradient, const char* what) {
        for (Index t = 0; t < input.rows; ++t)
          for (Index c = 0; c < input.cols; ++c) {
            const double before = input(t, c);
            input(t, c) = before + epsilon;
            const double above = loss();
            input(t, c) = before - epsilon;
            const double below = loss();
            input(t, c) = before;
            const double numeric = (above - below) / (2 * epsilon);
            ASSERT_NEAR(gradient(t, c), numeric, 1e-7 + 1e-5 * std::abs(numeric))
                << what << " row " << t << " column " << c << " " << of_case;
          }
      };
      check(s.q, s.dq, "dq"), check(s.k, s.dk, "dk"), check(s.rope, s.drope, "dk_rope"), check(s.v, s.dv, "dv");
      if (sinks) check(s.sinks, dsinks, "dsinks");
      if (!near.all()) check(s.bias, s.dbias, "dfar_bias");
      if (HasFatalFailure()) return;
    }
}

TEST(AttentionWindow, BackwardOfEveryVariantEqualsThePlainLoopsInDouble) {
  for (const auto& [keys, near] : sights)
    for (const Index n : {Index{9}, Index{150}, Index{1100}}) {  // 1100: several ranges of keys
      const Shape shape{2, 6, n == 150 ? Index{4} : Index{0}, 5, n == 9 ? Index{2} : Index{1}, keys, true, 0.4, near};
      Cpu device({.threads = 3});
      const auto inputs = Sequence<float>::random(shape, n, 7);
      Sequence<double> exact(inputs);
      exact.forward(device), exact.backward(device);
      for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
        if (!runs_here(isa)) continue;
        Cpu variant({.threads = 3, .isa = isa});
        auto sequence = inputs;
        sequence.forward(variant), sequence.backward(variant);
        const std::string what =
            text_of(keys, near) + ", length " + std::to_string(n) + ", " + std::string(name(isa)) + ": ";
        expect_close(sequence.dq, exact.dq, what + "dq");
        expect_close(sequence.dk, exact.dk, what + "dk");
        expect_close(sequence.drope, exact.drope, what + "dk_rope");
        expect_close(sequence.dv, exact.dv, what + "dv");
        expect_close(sequence.dsinks, exact.dsinks, what + "dsinks");
        if (!near.all()) expect_close(sequence.dbias, exact.dbias, what + "dfar_bias");
        if (HasFatalFailure()) return;
      }
    }
}

TEST(AttentionWindow, CachedRowsGiveTheSumOverTheVisiblePairs) {
  for (const auto& [keys, near] : sights)
    for (const bool sinks : {false, true}) {
      const Shape shape{3, 6, 0, 5, 3, keys, sinks, 0.4, near};
      auto s = Sequence<float>::random(shape, 700, 8);
      Ring all(s, s.n, {});
      for (const Isa isa : {Isa::baseline, Isa::avx2, Isa::avx512}) {
        if (!runs_here(isa)) continue;
        Cpu variant({.threads = 3, .isa = isa});
        for (const auto& [first, count] :
             {std::pair<Index, Index>{0, 1}, {0, 130}, {62, 3}, {255, 1}, {500, 200}, {699, 1}}) {
          const std::vector<CachedAttentionJob> jobs = {
              cached_job(s, all, first, count, s.out.view().middle_rows(first, count))};
          cached_attention(variant, jobs, cached_sizes(shape));
          for (Index t = first; t < first + count; ++t)
            for (Index head = 0; head < shape.heads; ++head) {
              const auto expected = s.naive(t, head);
              for (Index c = 0; c < shape.value; ++c)
                ASSERT_NEAR(s.out(t, head * shape.value + c), expected[std::size_t(c)], 5e-6)
                    << text_of(shape.keys, shape.near) << " token " << t << " of " << first << " + " << count << " "
                    << name(isa);
            }
        }
      }
    }
}

TEST(AttentionWindow, ARingOfTheWindowAndTheChunkHasTheBitsOfAllRows) {
  for (const KeyWindow& keys : {KeyWindow{1, 0}, {5, 0}, {64, 3}, {100, 4}, {130, 70}})
    for (const Index count : {Index{1}, Index{7}, Index{70}}) {
      const Shape shape{3, 6, 0, 5, 3, keys, true};
      auto s = Sequence<float>::random(shape, 640, 9);
      Cpu device({.threads = 2});
      for (const Index first : {Index{0}, Index{3}, Index{200}, Index{501}, Index{570}}) {
        Ring all(s, first + count, {}), ring(s, first + count, {keys.pinned, keys.window - 1 + count});
        Matrix<float> out(count, shape.heads * shape.value), of_ring = out;
        const std::vector<CachedAttentionJob> jobs = {cached_job(s, all, first, count, out.view())};
        const std::vector<CachedAttentionJob> ring_jobs = {cached_job(s, ring, first, count, of_ring.view())};
        cached_attention(device, jobs, cached_sizes(shape));
        cached_attention(device, ring_jobs, cached_sizes(shape));
        ASSERT_EQ(of_ring.data, out.data) << text_of(keys) << " chunk " << first << " + " << count;
      }
    }
}

TEST(AttentionWindow, ARingOfOneRowLessIsRefused) {
  const Shape shape{3, 6, 0, 5, 3, {20, 2}};
  auto s = Sequence<float>::random(shape, 100, 10);
  Cpu device({.threads = 1});
  Ring ring(s, 100, {2, 20 - 1 + 4 - 1});
  const std::vector<CachedAttentionJob> jobs = {cached_job(s, ring, 96, 4, s.out.view().middle_rows(96, 4))};
  EXPECT_EQ(code_of([&] { cached_attention(device, jobs, cached_sizes(shape)); }), ErrorCode::op_argument);
}

TEST(AttentionWindow, ATokenHasTheBitsOfTheTokenAloneInEveryChunk) {
  for (const KeyWindow& keys : {KeyWindow{5, 0}, {64, 3}, {100, 70}, {200, 0}}) {
    const Shape shape{3, 6, 0, 5, 3, keys, true, 0.4, {keys.window - 3, 1}};
    auto s = Sequence<float>::random(shape, 900, 11);
    Ring all(s, s.n, {});
    Cpu one({.threads = 1}), three({.threads = 3});
    Matrix<float> alone(s.n, shape.heads * shape.value);
    for (Index t = 0; t < s.n; ++t) {
      const std::vector<CachedAttentionJob> jobs = {cached_job(s, all, t, 1, alone.view().middle_rows(t, 1))};
      cached_attention(three, jobs, cached_sizes(shape));
    }
    for (const auto& [first, count] :
         {std::pair<Index, Index>{0, 900}, {3, 33}, {120, 70}, {254, 5}, {640, 64}, {830, 2}}) {
      Matrix<float> out(count, alone.cols);
      const std::vector<CachedAttentionJob> jobs = {cached_job(s, all, first, count, out.view())};
      cached_attention(count % 2 == 0 ? one : three, jobs, cached_sizes(shape));
      for (Index t = 0; t < count; ++t)
        ASSERT_TRUE(same_bits(&out(t, 0), &alone(first + t, 0), alone.cols))
            << text_of(keys) << " token " << first + t << " in a chunk from " << first;
    }
  }
}

TEST(AttentionWindow, ExpandedTokensHaveTheBitsOfTheWholeInEveryChunkAndWithoutSkippedKeys) {
  for (const KeyWindow& keys : {KeyWindow{5, 0}, {64, 3}, {100, 70}, {200, 0}}) {
    const Shape shape{4, 6, 4, 5, 2, keys, true, 0.4, {keys.window - 3, 1}};
    auto s = Sequence<float>::random(shape, 900, 12);
    Cpu one({.threads = 1}), three({.threads = 3});
    s.forward(three);
    const Matrix<float> whole = s.out;
    const Index pinned = (keys.pinned + attention_tile - 1) / attention_tile * attention_tile;
    for (const auto& [first, count] : {std::pair<Index, Index>{0, 1}, {3, 133}, {120, 70}, {640, 64}, {899, 1}}) {
      auto job = s.job(first, count);
      const std::vector<BasicExpandedAttentionJob<float>> jobs = {job};
      expanded_attention(one, jobs, shape.sizes<float>());
      ASSERT_EQ(s.out.data, whole.data) << text_of(keys) << " chunk " << first << " + " << count;
      job.skipped = (keys.begin(first) - pinned) / attention_tile * attention_tile;
      if (job.skipped <= 0) continue;
      const auto without = [&](const View<const float, 2>& all) {
        Matrix<float> kept(all.rows - job.skipped, all.cols);
        for (Index t = 0; t < kept.rows; ++t)
          for (Index c = 0; c < kept.cols; ++c) kept(t, c) = all.row(t < pinned ? t : t + job.skipped).data[c];
        return kept;
      };
      Matrix<float> k = without(job.k_nope), rope = without(job.k_rope), v = without(job.v);
      job.k_nope = k.view(), job.k_rope = rope.view(), job.v = v.view();
      const std::vector<BasicExpandedAttentionJob<float>> fewer = {job};
      expanded_attention(three, fewer, shape.sizes<float>());
      ASSERT_EQ(s.out.data, whole.data) << text_of(keys) << " without " << job.skipped << " keys";
    }
  }
}

TEST(AttentionWindow, RefusesWhatCannotBe) {
  Shape shape{2, 4, 0, 4, 1, {-1, 0}};
  Cpu device({.threads = 1});
  auto s = Sequence<float>::random(shape, 4, 13);
  EXPECT_EQ(code_of([&] { s.forward(device); }), ErrorCode::op_argument);
  s.shape.keys = {2, 0};
  auto sizes = s.shape.sizes<float>();
  sizes.mask = AttentionMask::bidirectional;
  const std::vector<BasicExpandedAttentionJob<float>> jobs = {s.job(0, 4)};
  EXPECT_EQ(code_of([&] { expanded_attention(device, jobs, sizes); }), ErrorCode::op_argument);
  auto skipping = s.job(0, 4);
  skipping.skipped = 64;
  const std::vector<BasicExpandedAttentionJob<float>> skipped = {skipping};
  EXPECT_EQ(code_of([&] { expanded_attention(device, skipped, s.shape.sizes<float>()); }), ErrorCode::op_argument);
  s.shape.near = {3, 0};
  EXPECT_EQ(code_of([&] { s.forward(device); }), ErrorCode::op_argument) << "nearer than what is seen";
  s.shape.near = {1, 0};
  auto unbiased = s.gradient_job();
  unbiased.dfar_bias = {};
  const std::vector<ExpandedAttentionGradientJob<float>> no_place = {unbiased};
  EXPECT_EQ(code_of([&] { expanded_attention_backward(device, no_place, s.shape.sizes<float>()); }),
            ErrorCode::op_shape);
  auto all = s.shape.sizes<float>();
  all.near = {};
  const std::vector<BasicExpandedAttentionJob<float>> biased = {s.job(0, 4)};
  EXPECT_EQ(code_of([&] { expanded_attention(device, biased, all); }), ErrorCode::op_argument) << "nothing is far";
  s.shape.near = {};
  s.shape.sinks = true;
  auto job = s.gradient_job();
  job.dsinks = {};
  const std::vector<ExpandedAttentionGradientJob<float>> gradients = {job};
  EXPECT_EQ(code_of([&] { expanded_attention_backward(device, gradients, s.shape.sizes<float>()); }),
            ErrorCode::op_shape);
}

}  // namespace attention_window_test
