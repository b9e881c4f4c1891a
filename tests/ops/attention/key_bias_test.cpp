// A bias for each key: in every form of attention against sums in double, and as so many equal keys.
#include <gtest/gtest.h>

#include <guild/cpu.hpp>
#include <guild/ops/attention/attention.hpp>
#include <guild/ops/attention/index.hpp>

#include "../batch_invariance.hpp"

namespace attention_key_bias_test {
using namespace guild;
using namespace guild_test;

struct Shape {
  Index heads, nope, rope, value;
  Index heads_per_key = 1;
  KeyWindow keys{}, near{};  ///< with a far bias unless `near` is all
  bool chooses = false;
  Index tokens_per_key = 1;
  AttentionMask mask = AttentionMask::causal;

  [[nodiscard]] Index groups() const { return heads / heads_per_key; }
  [[nodiscard]] bool far() const { return !near.all(); }
  template <class Real>
  [[nodiscard]] BasicExpandedAttentionSizes<Real> sizes() const {
    return {heads, nope, rope, value, Real(0.4), mask, heads_per_key, keys, near, tokens_per_key};
  }
};

/// A sequence of n tokens and its keys with all that goes in and comes out.
template <class Real>
struct Sequence {
  Shape shape;
  Index n, length;
  Matrix<Real> q, k, rope, v, sinks, bias, key_bias, dout, out, lse, dq, dk, drope, dv, dsinks, dbias;
  Matrix<std::uint32_t> bits;
  bool biased = true;

  Sequence(const Shape& s, Index tokens, Index keys)
      : shape(s),
        n(tokens),
        length(keys),
        q(n, s.heads * (s.nope + s.rope)),
        k(length, s.groups() * s.nope),
        rope(length, s.rope),
        v(length, s.groups() * s.value),
        sinks(1, s.heads),
        bias(n, s.heads),
        key_bias(length, 1, 3),
        dout(n, s.heads * s.value),
        out(n, s.heads * s.value),
        lse(n, s.heads),
        dq(n, q.cols),
        dk(length, k.cols),
        drope(length, s.rope),
        dv(length, v.cols),
        dsinks(n, s.heads),
        dbias(n, s.heads),
        bits(n, chosen_words(length)) {}
  static Sequence random(const Shape& s, Index tokens, unsigned seed) {
    Sequence made(s, tokens, tokens / s.tokens_per_key);
    std::mt19937 random(seed);
    for (auto* m : {&made.q, &made.k, &made.rope, &made.v, &made.sinks, &made.bias, &made.dout, &made.key_bias})
      m->fill_normal(random, 1.3);
    for (Index t = 0; t < made.n; ++t) {  // about two of three, and the last it may see
      for (Index w = 0; w < made.bits.cols; ++w) made.bits(t, w) = std::uint32_t(random() | random());
      if (const Index last = visible_keys(t, s.tokens_per_key) - 1; last >= 0)
        made.bits(t, last / 32) |= std::uint32_t{1} << (last % 32);
    }
    return made;
  }
  template <class Other>
  explicit Sequence(const Sequence<Other>& o) : Sequence(o.shape, o.n, o.length) {
    const auto convert = [](const auto& from, auto& to) {
      for (Index t = 0; t < to.rows; ++t)
        for (Index c = 0; c < to.cols; ++c) to(t, c) = static_cast<Real>(from(t, c));
    };
    convert(o.q, q), convert(o.k, k), convert(o.rope, rope), convert(o.v, v), convert(o.sinks, sinks);
    convert(o.bias, bias), convert(o.dout, dout), convert(o.key_bias, key_bias);
    bits = o.bits;
  }

  static View<Real, 2> where(bool there, Matrix<Real>& m) { return there ? m.view() : View<Real, 2>{}; }
  [[nodiscard]] View<const std::uint32_t, 2> bits_of(Index first, Index count) const {
    return shape.chooses ? bits.view().middle_rows(first, count) : View<const std::uint32_t, 2>{};
  }
  BasicExpandedAttentionJob<Real> job(Index first, Index count) {
    return {.q = q.view().middle_rows(first, count),
            .k_nope = k.view(),
            .k_rope = rope.view(),
            .v = v.view(),
            .out = out.view().middle_rows(first, count),
            .first_position = first,
            .lse = lse.view().middle_rows(first, count),
            .sinks = {&sinks(0, 0), shape.heads},
            .far_bias = shape.far() ? bias.view().middle_rows(first, count) : View<Real, 2>{},
            .chosen = bits_of(first, count),
            .key_bias = where(biased, key_bias)};
  }
  void forward(Cpu& device) {
    const std::vector<BasicExpandedAttentionJob<Real>> jobs = {job(0, n)};
    expanded_attention(device, jobs, shape.sizes<Real>());
  }
  void backward(Cpu& device) {
    const std::vector<ExpandedAttentionGradientJob<Real>> jobs = {{.q = q.view(),
                                                                   .k_nope = k.view(),
                                                                   .k_rope = rope.view(),
                                                                   .v = v.view(),
                                                                   .out = out.view(),
                                                                   .lse = lse.view(),
                                                                   .dout = dout.view(),
                                                                   .dq = dq.view(),
                                                                   .dk_nope = dk.view(),
                                                                   .dk_rope = drope.view(),
                                                                   .dv = dv.view(),
                                                                   .sinks = {&sinks(0, 0), shape.heads},
                                                                   .dsinks = dsinks.view(),
                                                                   .far_bias = where(shape.far(), bias),
                                                                   .dfar_bias = where(shape.far(), dbias),
                                                                   .chosen = bits_of(0, n),
                                                                   .key_bias = where(biased, key_bias)}};
    expanded_attention_backward(device, jobs, shape.sizes<Real>());
  }
  /// True if token t sees key s.
  [[nodiscard]] bool sees(Index t, Index s) const {
    if (shape.mask == AttentionMask::bidirectional) return true;
    if (shape.chooses && (bits(t, s / 32) >> (s % 32) & 1U) == 0) return false;
    return s < visible_keys(t, shape.tokens_per_key) && shape.keys.sees(t, s);
  }
  /// exp of what the definition adds up for a key.
  [[nodiscard]] double weight(Index t, Index head, Index s) const {
    const Index width = shape.nope + shape.rope, g = head / shape.heads_per_key;
    double dot = 0;
    for (Index c = 0; c < width; ++c)
      dot +=
          double(q(t, head * width + c)) * double(c < shape.nope ? k(s, g * shape.nope + c) : rope(s, c - shape.nope));
    const bool is_far = shape.far() && !shape.near.sees(t, s);
    return std::exp(dot * double(float(0.4)) + (is_far ? double(bias(t, head)) : 0.0) + double(key_bias(s, 0)));
  }
  void expect_naive(const Matrix<Real>& got, Index first, double tolerance, const std::string& what) const {
    for (Index t = first; t < first + got.rows; ++t)
      for (Index head = 0; head < shape.heads; ++head) {
        std::vector<double> expected(std::size_t(shape.value));
        double sum = std::exp(double(sinks(0, head)));
        for (Index s = 0; s < length; ++s) {
          if (!sees(t, s)) continue;
          const double w = weight(t, head, s);
          sum += w;
          for (Index c = 0; c < shape.value; ++c)
            expected[std::size_t(c)] += w * double(v(s, head / shape.heads_per_key * shape.value + c));
        }
        for (Index c = 0; c < shape.value; ++c)
          ASSERT_NEAR(double(got(t - first, head * shape.value + c)), expected[std::size_t(c)] / sum, tolerance)
              << what << " token " << t << " head " << head;
        if (&got == &out) {
          ASSERT_NEAR(double(lse(t, head)), std::log(sum), tolerance) << what << " lse of token " << t;
        }
      }
  }
};

/// All that a bias of keys goes with.
std::vector<Shape> shapes(Index nope, Index rope) {
  const Index heads_per_key = rope == 0 ? 2 : 1;
  std::vector<Shape> all;
  for (const auto& [keys, near] : std::vector<std::pair<KeyWindow, KeyWindow>>{
           {{}, {}}, {{5, 0}, {}}, {{70, 3}, {}}, {{100, 65}, {}}, {{}, {7, 3}}, {{100, 5}, {30, 2}}})
    all.push_back({4, nope, rope, 5, heads_per_key, keys, near});
  all.push_back({.heads = 4, .nope = nope, .rope = rope, .value = 5, .heads_per_key = heads_per_key, .chooses = true});
  if (rope == 0) all.push_back({.heads = 4, .nope = nope, .rope = 0, .value = 5, .tokens_per_key = 3});
  return all;
}
std::string text_of(const Shape& s) {
  return "window " + std::to_string(s.keys.window) + "+" + std::to_string(s.keys.pinned) + " near " +
         std::to_string(s.near.window) + (s.chooses ? " chosen" : "") + " tokens a key " +
         std::to_string(s.tokens_per_key);
}
void expect_close(const Matrix<float>& got, const Matrix<double>& expected, const std::string& what) {
  double largest = 0.1;
  for (Index t = 0; t < got.rows; ++t)
    for (Index c = 0; c < got.cols; ++c) largest = std::max(largest, std::abs(expected(t, c)));
  for (Index t = 0; t < got.rows; ++t)
    for (Index c = 0; c < got.cols; ++c)
      ASSERT_NEAR(double(got(t, c)), expected(t, c), 2e-5 * largest) << what << " row " << t << " column " << c;
}

class KeyBias : public BatchInvariance {};
INSTANTIATE_TEST_SUITE_P(Variants, KeyBias, all_variants(), variant_name);

TEST_P(KeyBias, ExpandedAttentionAddsItToTheScores) {
  for (const Index rope : {0, 4})
    for (const Shape& shape : shapes(6, rope)) {
      auto s = Sequence<float>::random(shape, 200, 1);
      s.forward(*three);
      s.expect_naive(s.out, 0, 1e-5, text_of(shape));
      Sequence<double> exact(s);
      exact.forward(*three);
      exact.expect_naive(exact.out, 0, 3e-7, text_of(shape) + " in double");  // the scale is rounded in one of the two
      const Matrix<float> whole = s.out;
      std::fill(s.out.data.begin(), s.out.data.end(), 0.0f);
      const Index step = 37;
      for (Index first = 0; first < s.n; first += step) {
        const std::vector<ExpandedAttentionJob> jobs = {s.job(first, std::min(step, s.n - first))};
        expanded_attention(*one, jobs, shape.sizes<float>());
      }
      ASSERT_TRUE(same_bits(s.out.data.data(), whole.data.data(), s.n * s.out.cols)) << text_of(shape);
      if (HasFatalFailure()) return;
    }
}

TEST_P(KeyBias, GradientsAgreeWithDouble) {
  for (const Index rope : {0, 4})
    for (const Shape& shape : shapes(6, rope))
      for (const Index n : {Index{9}, Index{140}, Index{530}}) {  // 530: several ranges of keys
        if (n == 530 && (rope > 0 || shape.keys.window > 0 || shape.near.window > 0 || shape.chooses)) continue;
        auto s = Sequence<float>::random(shape, n, 2);
        Sequence<double> exact(s);
        exact.forward(*three), exact.backward(*three);
        s.forward(*three), s.backward(*three);
        const std::string what = text_of(shape) + " of " + std::to_string(n) + ": ";
        expect_close(s.dq, exact.dq, what + "dq"), expect_close(s.dk, exact.dk, what + "dk");
        expect_close(s.dv, exact.dv, what + "dv"), expect_close(s.dsinks, exact.dsinks, what + "dsinks");
        if (rope > 0) expect_close(s.drope, exact.drope, what + "dk_rope");
        if (shape.far()) expect_close(s.dbias, exact.dbias, what + "dfar_bias");
        const Matrix<float> dq = s.dq, dk = s.dk, dv = s.dv;
        s.backward(*one);
        ASSERT_TRUE(dq.data == s.dq.data && dk.data == s.dk.data && dv.data == s.dv.data) << what << "threads";
        if (HasFatalFailure()) return;
      }
}

TEST_P(KeyBias, ZeroesChangeNoBitOnBothWays) {
  for (const Index rope : {0, 4})
    for (const Shape& shape : shapes(6, rope)) {
      auto with = Sequence<float>::random(shape, 200, 3);
      for (Index i = 0; i < with.length; ++i) with.key_bias(i, 0) = 0.0f;
      auto without = with;
      without.biased = false;
      for (auto* s : {&with, &without}) s->forward(*three), s->backward(*three);
      ASSERT_EQ(with.out.data, without.out.data) << text_of(shape);
      ASSERT_EQ(with.lse.data, without.lse.data) << text_of(shape);
      for (const auto gradient : {&Sequence<float>::dq, &Sequence<float>::dk, &Sequence<float>::drope,
                                  &Sequence<float>::dv, &Sequence<float>::dsinks, &Sequence<float>::dbias})
        ASSERT_EQ((with.*gradient).data, (without.*gradient).data) << text_of(shape);
    }
}

/// Rows [key | value] of a cache and their biases, in a ring where there is one.
template <class Element>
struct Rows {
  RingRows ring;
  Matrix<Element> cache;
  Matrix<float> bias;

  Rows(const Sequence<float>& s, Index length, RingRows where)
      : ring(where),
        cache(where.rows > 0 ? where.pinned + where.rows : length, s.k.cols + s.v.cols, s.k.cols + s.v.cols + 3),
        bias(cache.rows, 1, 2) {
    for (Index p = 0; p < length; ++p) {
      for (Index c = 0; c < cache.cols; ++c)
        cache(ring.row_of(p), c) = static_cast<Element>(c < s.k.cols ? s.k(p, c) : s.v(p, c - s.k.cols));
      bias(ring.row_of(p), 0) = s.key_bias(p, 0);
    }
  }
  [[nodiscard]] CachedAttentionJob job(Sequence<float>& s, Index first, Index count, View<float, 2> out) const {
    return {.cache = cache.data.data(),
            .cache_type = dtype_of<Element>,
            .cache_pitch = cache.pitch,
            .length = visible_keys(first + count - 1, s.shape.tokens_per_key),
            .q = s.q.view().middle_rows(first, count),
            .out = out,
            .first_position = first,
            .ring = ring,
            .sinks = {&s.sinks(0, 0), s.shape.heads},
            .far_bias = s.shape.far() ? s.bias.view().middle_rows(first, count) : View<float, 2>{},
            .key_bias = s.biased ? bias.view() : View<const float, 2>{}};
  }
};
/// Its bits as lists.
struct Lists {
  Matrix<std::int32_t> chosen;
  std::vector<std::int32_t> counts;

  explicit Lists(const Sequence<float>& s) : chosen(s.n, s.length), counts(std::size_t(s.n)) {
    for (Index t = 0; t < s.n; ++t)
      for (Index key = 0; key < s.length; ++key)
        if (s.sees(t, key)) chosen(t, counts[std::size_t(t)]++) = std::int32_t(key);
  }
  void add_to(CachedAttentionJob& job) const {
    job.chosen = chosen.view().middle_rows(job.first_position, job.q.rows);
    job.counts = view_of(counts).slice(job.first_position, job.q.rows);
  }
};
CachedAttentionSizes cached_sizes(const Shape& s) {
  return {s.heads, s.nope, s.value, s.nope, 0.4f, s.keys, s.near, s.tokens_per_key};
}
std::vector<Shape> cached_shapes() {
  std::vector<Shape> all = shapes(6, 0);
  for (Shape& shape : all) shape.heads_per_key = shape.heads;
  return all;
}

TEST_P(KeyBias, CachedAttentionAddsItToTheScoresOfARowWhereverItLies) {
  for (const Shape& shape : cached_shapes()) {
    auto s = Sequence<float>::random(shape, 300, 4);
    const Rows<float> all(s, s.length, {});
    const Lists lists(s);
    Matrix<float> alone(s.n, s.out.cols);
    for (Index t = 0; t < s.n; ++t) {
      std::vector<CachedAttentionJob> jobs = {all.job(s, t, 1, alone.view().middle_rows(t, 1))};
      if (shape.chooses) lists.add_to(jobs[0]);
      cached_attention(*three, jobs, cached_sizes(shape));
    }
    s.expect_naive(alone, 0, 1e-5, text_of(shape));
    for (const auto& [first, count] : {std::pair<Index, Index>{0, 300}, {3, 33}, {120, 70}, {254, 5}, {290, 2}}) {
      Matrix<float> out(count, alone.cols);
      const auto expect_alone = [&](CachedAttentionJob job, const char* what) {
        if (shape.chooses) lists.add_to(job);
        cached_attention(*one, std::span<const CachedAttentionJob>(&job, 1), cached_sizes(shape));
        ASSERT_TRUE(same_bits(&out(0, 0), &alone(first, 0), count * out.cols))
            << text_of(shape) << what << first << " + " << count;
      };
      expect_alone(all.job(s, first, count, out.view()), " chunk ");
      if (shape.keys.all()) continue;
      const Rows<float> ring(s, first + count, {shape.keys.pinned, shape.keys.window - 1 + count});
      expect_alone(ring.job(s, first, count, out.view()), " ring of chunk ");
    }
    const Rows<bf16> rounded(s, s.length, {});
    for (Index t = 0; t < s.length; ++t) {
      for (Index c = 0; c < s.k.cols; ++c) s.k(t, c) = float(bf16(s.k(t, c)));
      for (Index c = 0; c < s.v.cols; ++c) s.v(t, c) = float(bf16(s.v(t, c)));
    }
    std::vector<CachedAttentionJob> jobs = {rounded.job(s, 0, s.n, alone.view())};
    if (shape.chooses) lists.add_to(jobs[0]);
    cached_attention(*three, jobs, cached_sizes(shape));
    s.expect_naive(alone, 0, 1e-5, text_of(shape) + " bf16");
    if (HasFatalFailure()) return;
  }
}

TEST_P(KeyBias, ZeroesChangeNoBitOfCachedAttention) {
  for (const Shape& shape : cached_shapes()) {
    auto s = Sequence<float>::random(shape, 500, 5);
    for (Index i = 0; i < s.length; ++i) s.key_bias(i, 0) = 0.0f;
    const Rows<float> all(s, s.length, {});
    const Lists lists(s);
    Matrix<float> out[2] = {s.out, s.out};
    for (const bool biased : {false, true}) {
      s.biased = biased;
      std::vector<CachedAttentionJob> jobs = {all.job(s, 300, 200, out[biased].view().middle_rows(0, 200))};
      if (shape.chooses) lists.add_to(jobs[0]);
      cached_attention(*three, jobs, cached_sizes(shape));
    }
    ASSERT_EQ(out[1].data, out[0].data) << text_of(shape);
  }
}

/// Keys with the logarithms of 1 to 5 as biases, and the same keys 1 to 5 times without.
template <class Real>
std::pair<Sequence<Real>, Sequence<Real>> few_and_many() {
  const Shape shape{
      .heads = 4, .nope = 6, .rope = 3, .value = 5, .heads_per_key = 2, .mask = AttentionMask::bidirectional};
  const Index keys = 90;
  auto few = Sequence<Real>::random(shape, keys, 6);
  Index rows = 0;
  for (Index s = 0; s < keys; ++s) rows += s % 5 + 1;
  Sequence<Real> many(shape, keys, rows);
  many.q = few.q, many.sinks = few.sinks, many.dout = few.dout;
  rows = 0;
  for (Index s = 0; s < keys; ++s) {
    few.key_bias(s, 0) = Real(std::log(double(s % 5 + 1)));
    for (Index copy = 0; copy <= s % 5; ++copy, ++rows)
      for (const auto of : {&Sequence<Real>::k, &Sequence<Real>::rope, &Sequence<Real>::v})
        for (Index c = 0; c < (few.*of).cols; ++c) (many.*of)(rows, c) = (few.*of)(s, c);
  }
  many.biased = false;
  return {few, many};
}

TEST(KeyBiasInDouble, AKeyWithTheLogarithmOfANumberIsSoManyEqualKeys) {
  auto [few, many] = few_and_many<double>();
  Cpu device({.threads = 2});
  few.forward(device), many.forward(device);
  for (Index t = 0; t < few.n; ++t) {
    for (Index c = 0; c < few.out.cols; ++c) ASSERT_NEAR(few.out(t, c), many.out(t, c), 1e-12);
    for (Index h = 0; h < few.lse.cols; ++h) ASSERT_NEAR(few.lse(t, h), many.lse(t, h), 1e-12);
  }
}

TEST_P(KeyBias, AKeyWithTheLogarithmOfANumberIsSoManyEqualKeys) {
  auto [few, many] = few_and_many<float>();
  few.forward(*three), many.forward(*three);
  for (Index t = 0; t < few.n; ++t) {
    for (Index c = 0; c < few.out.cols; ++c) ASSERT_NEAR(few.out(t, c), many.out(t, c), 1e-5);
    for (Index h = 0; h < few.lse.cols; ++h) ASSERT_NEAR(few.lse(t, h), many.lse(t, h), 1e-5);
  }
}

TEST(KeyBiasInDouble, GradientsAreThoseOfCentralDifferences) {
  constexpr double step = 1e-6;
  Shape bidirectional{.heads = 4, .nope = 3, .rope = 2, .value = 3, .mask = AttentionMask::bidirectional};
  std::vector<Shape> all = {bidirectional};
  for (Shape shape : {Shape{4, 3, 2, 3, 2}, {4, 3, 2, 3, 2, {4, 2}}, {4, 3, 2, 3, 1, {6, 1}, {3, 0}}}) {
    all.push_back(shape);
    shape.chooses = shape.keys.all();
    if (shape.chooses) all.push_back(shape);
  }
  for (const Shape& shape : all) {
    Cpu device({.threads = 2});
    auto s = Sequence<double>::random(shape, 9, 7);
    const auto loss = [&] {
      s.forward(device);
      double sum = 0;
      for (Index t = 0; t < s.n; ++t)
        for (Index c = 0; c < s.out.cols; ++c) sum += s.out(t, c) * s.dout(t, c);
      return sum;
    };
    (void)loss();
    s.backward(device);
    const auto check = [&](Matrix<double>& input, const Matrix<double>& gradient, const char* what) {
      for (Index t = 0; t < input.rows; ++t)
        for (Index c = 0; c < input.cols; ++c) {
          const double before = input(t, c);
          input(t, c) = before + step;
          const double above = loss();
          input(t, c) = before - step;
          const double below = loss();
          input(t, c) = before;
          const double numeric = (above - below) / (2 * step);
          ASSERT_NEAR(gradient(t, c), numeric, 1e-7 + 1e-5 * std::abs(numeric))
              << what << " row " << t << " column " << c << " " << text_of(shape);
        }
    };
    check(s.q, s.dq, "dq"), check(s.k, s.dk, "dk"), check(s.rope, s.drope, "dk_rope"), check(s.v, s.dv, "dv");
    if (shape.far()) check(s.bias, s.dbias, "dfar_bias");
    if (HasFatalFailure()) return;
  }
}

/// The loss of an index over what a sequence's attention looked at, and its gradient.
template <class Real>
void index_loss_of(Cpu& device, Sequence<Real>& s, Matrix<Real>& scores, Matrix<Real>& dscores, Matrix<Real>& loss) {
  const std::vector<IndexLossJob<Real>> jobs = {{.q = s.q.view(),
                                                 .k_nope = s.k.view(),
                                                 .k_rope = s.rope.view(),
                                                 .lse = s.lse.view(),
                                                 .scores = scores.view(),
                                                 .chosen = s.bits_of(0, s.n),
                                                 .dscores = dscores.view(),
                                                 .loss = {&loss(0, 0), s.n},
                                                 .key_bias = s.where(s.biased, s.key_bias)}};
  index_loss(device, jobs, s.shape.template sizes<Real>(), Real(1));
}

TEST_P(KeyBias, TheLossOfAnIndexIsOverWhatAttentionGaveWithIt) {
  for (const Index rope : {0, 4})
    for (const Shape& shape : shapes(6, rope)) {
      if (!shape.keys.all() || shape.far()) continue;
      auto s = Sequence<float>::random(shape, 80, 8);
      Matrix<float> scores(s.n, s.length), dscores = scores, loss(1, s.n);
      std::mt19937 random(9);
      scores.fill_normal(random);
      s.forward(*three);
      index_loss_of(*three, s, scores, dscores, loss);
      Sequence<double> exact(s);
      Matrix<double> same(s.n, s.length), slopes = same, losses(1, s.n);
      for (Index t = 0; t < s.n; ++t)
        for (Index c = 0; c < s.length; ++c) same(t, c) = double(scores(t, c));
      exact.forward(*three);
      index_loss_of(*three, exact, same, slopes, losses);
      for (Index t = 0; t < s.n; ++t) {
        double all = 0, sum = 0, divergence = 0;
        std::vector<double> share(std::size_t(s.length));
        for (Index key = 0; key < s.length; ++key) {
          if (!s.sees(t, key)) continue;
          for (Index h = 0; h < shape.heads; ++h)
            share[std::size_t(key)] += exact.weight(t, h, key) / std::exp(exact.lse(t, h));
          all += share[std::size_t(key)], sum += std::exp(same(t, key));
        }
        for (Index key = 0; key < s.length; ++key) {
          if (!s.sees(t, key)) continue;
          const double p = share[std::size_t(key)] / all, of_index = std::exp(same(t, key)) / sum;
          divergence += p * std::log(p / of_index);
          ASSERT_NEAR(slopes(t, key), of_index - p, 1e-6) << text_of(shape) << " token " << t << " key " << key;
          ASSERT_NEAR(double(dscores(t, key)), slopes(t, key), 1e-5) << text_of(shape) << " token " << t;
        }
        ASSERT_NEAR(losses(0, t), divergence, 1e-6) << text_of(shape) << " token " << t;
        ASSERT_NEAR(double(loss(0, t)), divergence, 1e-4) << text_of(shape) << " token " << t;
      }
      const Matrix<float> before = dscores;
      for (Index i = 0; i < s.length; ++i) s.key_bias(i, 0) = 0.0f;
      s.forward(*three), index_loss_of(*three, s, scores, dscores, loss);
      ASSERT_NE(dscores.data, before.data);
      const Matrix<float> zeroes = dscores, loss_of_zeroes = loss;
      s.biased = false;
      index_loss_of(*three, s, scores, dscores, loss);
      ASSERT_EQ(dscores.data, zeroes.data);
      ASSERT_EQ(loss.data, loss_of_zeroes.data);
    }
}

TEST(KeyBiasErrors, WhatDoesNotFitIsRefused) {
  Cpu device({.threads = 1});
  auto s = Sequence<float>::random({2, 4, 0, 3, 2}, 20, 10);
  const auto expanded = [&](View<const float, 2> bias) {
    auto job = s.job(0, s.n);
    job.key_bias = bias;
    return code_of(
        [&] { expanded_attention(device, std::span<const ExpandedAttentionJob>(&job, 1), s.shape.sizes<float>()); });
  };
  const Matrix<float> wide(20, 2), shorter(19, 1);
  EXPECT_EQ(expanded(wide.view()), ErrorCode::op_shape);
  EXPECT_EQ(expanded(shorter.view()), ErrorCode::op_shape);
  const Rows<float> all(s, s.length, {});
  const auto cached = [&](View<const float, 2> bias) {
    auto job = all.job(s, 0, s.n, s.out.view());
    job.key_bias = bias;
    return code_of(
        [&] { cached_attention(device, std::span<const CachedAttentionJob>(&job, 1), cached_sizes(s.shape)); });
  };
  EXPECT_EQ(cached(wide.view()), ErrorCode::op_shape);
  EXPECT_EQ(cached(shorter.view()), ErrorCode::op_argument);
}

}  // namespace attention_key_bias_test
