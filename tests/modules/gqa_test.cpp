#include <guild/cpu.hpp>
#include <guild/modules/gqa.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include <guild/models/llama.hpp>

#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"

namespace gqa_test {

using guild::Index;
using namespace guild_test;

struct Grouped : guild::LlamaDefaults {
  using CacheElement = float;
  static constexpr guild::TrunkConfig config = {.vocab = 97, .hidden = 48, .layers = 2, .context = 192};
  static constexpr guild::GqaConfig attention = {.heads = 6, .key_heads = 2, .head_dim = 10};
};
struct GroupedBf16 : Grouped {
  using CacheElement = guild::bf16;
};
struct All : Grouped {  // biases and norms
  static constexpr guild::GqaConfig attention = {
      .heads = 6, .key_heads = 3, .head_dim = 8, .bias = true, .query_key_norm = true};
};
struct MultiHead : Grouped {
  static constexpr guild::GqaConfig attention = {.heads = 4, .key_heads = 4, .head_dim = 6};
};
struct MultiQuery : Grouped {
  static constexpr guild::GqaConfig attention = {.heads = 8, .key_heads = 1, .head_dim = 6};
};
struct NoPosition : All {
  static constexpr guild::GqaConfig attention = guild::without_position(All::attention);
};
/// Another kind of attention in the same Spec.
struct TwoKinds : Grouped {
  static constexpr guild::GqaConfig narrow = {.heads = 2, .key_heads = 1, .head_dim = 4};
};
static_assert(guild::Gqa<TwoKinds>::width == 10 && guild::Gqa<TwoKinds, TwoKinds::narrow>::width == 4);

/// One attention module with random weights. Inputs are the rows of a fixed random matrix, by position.
template <class S>
class Attention {
 public:
  using Gqa = guild::Gqa<S>;
  static constexpr Index hidden = S::config.hidden;

  explicit Attention(int threads = 2, guild::DType type = guild::DType::f32)
      : device_({.threads = threads}), weights_(random_weights<Gqa>(type)) {}

  /// Runs a sequence in pieces that end at `ends`.
  Matrix run(const std::vector<Index>& ends) {
    typename Gqa::Cache cache;
    cache.reserve(ends.back());
    Matrix out;
    Index begin = 0;
    for (const Index end : ends) {
      const Tokens none(static_cast<std::size_t>(end));
      out.append(extend({{0, &none, begin, end}}, {&cache}));
      begin = end;
    }
    return out;
  }
  /// Each sequence has inputs of its own.
  Matrix extend(const std::vector<Piece>& pieces, const std::vector<typename Gqa::Cache*>& caches,
                guild::AttentionMask mask = guild::AttentionMask::causal) {
    const Flat flat(pieces);
    const Matrix x = inputs(flat.chunks, flat.batch().size());
    Matrix y(x.rows, hidden);
    const auto cache = [&](int sequence) -> auto& { return *caches[static_cast<std::size_t>(sequence)]; };
    Gqa::forward(guild::Pass{.device = device_, .batch = flat.batch(), .mask = mask}, weights_,
                 guild::Caches<typename Gqa::Cache>(cache), x.view(), y.view());
    return y;
  }
  /// Without caches: each piece is a whole sequence.
  Matrix alone(const std::vector<Piece>& pieces, guild::AttentionMask mask = guild::AttentionMask::causal) {
    const Flat flat(pieces);
    const Matrix x = inputs(flat.chunks, flat.batch().size());
    Matrix y(x.rows, hidden);
    Gqa::forward(guild::Pass{.device = device_, .batch = flat.batch(), .mask = mask}, weights_, {}, x.view(), y.view());
    return y;
  }

  Matrix inputs(const std::vector<guild::Chunk>& chunks, Index rows) const {
    Matrix x(rows, hidden);
    for (const guild::Chunk& chunk : chunks)
      for (Index t = 0; t < chunk.count; ++t)
        for (Index i = 0; i < hidden; ++i)
          x.view()(chunk.begin + t, i) = inputs_[(chunk.first_position + t + 3 * chunk.sequence) * hidden + i];
    return x;
  }
  [[nodiscard]] const auto& weights() const { return weights_; }

 private:
  guild::Cpu device_;
  typename Gqa::template Weights<guild::Published> weights_;
  guild::Buffer<float> inputs_ = random_values(300 * hidden, 7);
};

/// Written as plainly as possible, in double: what the module says it computes.
template <class S>
Matrix naive(const Attention<S>& attention, Index length, bool causal) {
  using Gqa = guild::Gqa<S>;
  static constexpr const guild::GqaConfig& c = Gqa::config;
  const auto& w = attention.weights();
  const Matrix x = attention.inputs({{0, 0, length, 0}}, length);
  using Rows = std::vector<std::vector<double>>;
  const auto times = [](const guild::StoredMatrix& m, const std::vector<double>& v) {
    std::vector<double> out(static_cast<std::size_t>(m.rows));
    for (Index r = 0; r < m.rows; ++r)
      for (Index i = 0; i < m.cols; ++i)
        out[static_cast<std::size_t>(r)] += static_cast<double>(m.view().at(r, i)) * v[static_cast<std::size_t>(i)];
    return out;
  };
  const auto heads_of = [&](const auto& matrix, const auto& bias, const auto* norm, bool turns) {
    Rows rows;
    for (Index t = 0; t < length; ++t) {
      std::vector<double> row = times(matrix.weight, {x.view().row(t).begin(), x.view().row(t).end()});
      if (c.bias)
        for (std::size_t i = 0; i < row.size(); ++i) row[i] += static_cast<double>(bias.data[static_cast<Index>(i)]);
      constexpr auto width = static_cast<std::size_t>(Gqa::width);
      for (std::size_t h = 0; h < row.size(); h += width) {
        if (c.query_key_norm && norm != nullptr) {
          double square = 0.0;
          for (std::size_t i = 0; i < width; ++i) square += row[h + i] * row[h + i];
          for (std::size_t i = 0; i < width; ++i)
            row[h + i] *= static_cast<double>(norm->weight.data[static_cast<Index>(i)]) /
                          std::sqrt(square / static_cast<double>(width) + 1e-6);
        }
        if (turns && c.rope.pairs != guild::RopePairs::none)
          for (std::size_t i = 0; i < width / 2; ++i) {
            const double angle = static_cast<double>(t) *
                                 std::pow(c.rope.base, -2.0 * static_cast<double>(i) / static_cast<double>(width));
            double &a = row[h + i], &b = row[h + i + width / 2];
            const double turned = a * std::cos(angle) - b * std::sin(angle);
            b = a * std::sin(angle) + b * std::cos(angle), a = turned;
          }
      }
      rows.push_back(row);
    }
    return rows;
  };
  const Rows query = heads_of(w.query, w.query_bias, &w.norms.query, true),
             key = heads_of(w.key, w.key_bias, &w.norms.key, true),
             value = heads_of(w.value, w.value_bias, static_cast<decltype(&w.norms.key)>(nullptr), false);
  Matrix y(length, S::config.hidden);
  for (Index t = 0; t < length; ++t) {
    std::vector<double> joined(static_cast<std::size_t>(Gqa::heads * Gqa::width));
    for (int h = 0; h < c.heads; ++h) {
      const int q0 = h * c.head_dim, k0 = h / (c.heads / c.key_heads) * c.head_dim;
      const Index sees = causal ? t + 1 : length;
      std::vector<double> share(static_cast<std::size_t>(sees));
      double sum = 0.0;
      for (Index s = 0; s < sees; ++s) {
        double score = 0.0;
        for (int i = 0; i < c.head_dim; ++i)
          score += query[static_cast<std::size_t>(t)][static_cast<std::size_t>(q0 + i)] *
                   key[static_cast<std::size_t>(s)][static_cast<std::size_t>(k0 + i)];
        sum += share[static_cast<std::size_t>(s)] = std::exp(score / std::sqrt(static_cast<double>(c.head_dim)));
      }
      for (Index s = 0; s < sees; ++s)
        for (int i = 0; i < c.head_dim; ++i)
          joined[static_cast<std::size_t>(q0 + i)] +=
              share[static_cast<std::size_t>(s)] / sum *
              value[static_cast<std::size_t>(s)][static_cast<std::size_t>(k0 + i)];
    }
    const auto out = times(w.output.weight, joined);
    for (Index i = 0; i < y.cols; ++i) y.view()(t, i) = static_cast<float>(out[static_cast<std::size_t>(i)]);
  }
  return y;
}

template <class S>
void expect_equal_to_naive() {
  for (const Index length : {1, 2, 17, 40, 70}) {
    Attention<S> attention;
    const Tokens none(static_cast<std::size_t>(length));
    const Matrix wanted = naive(attention, length, true);
    EXPECT_LE(relative_error(attention.run({length}), wanted), 2e-6) << "from the cache, " << length << " tokens";
    EXPECT_LE(relative_error(attention.alone({{0, &none, 0, length}}), wanted), 2e-6) << length << " tokens";
    EXPECT_LE(relative_error(attention.alone({{0, &none, 0, length}}, guild::AttentionMask::bidirectional),
                             naive(attention, length, false)),
              2e-6)
        << "both ways, " << length << " tokens";
  }
}
TEST(Gqa, EqualsPlainLoopsInDouble) { expect_equal_to_naive<Grouped>(); }
TEST(Gqa, EqualsPlainLoopsInDoubleWithBiasesAndNorms) { expect_equal_to_naive<All>(); }
TEST(Gqa, EqualsPlainLoopsInDoubleWithAKeyForEachHead) { expect_equal_to_naive<MultiHead>(); }
TEST(Gqa, EqualsPlainLoopsInDoubleWithOneKeyForAll) { expect_equal_to_naive<MultiQuery>(); }
TEST(Gqa, EqualsPlainLoopsInDoubleWithoutPosition) { expect_equal_to_naive<NoPosition>(); }

/// Decoding one by one, in chunks, and the whole: products of few rows and of many are added in other orders, attention
/// is not.
template <class S>
void expect_any_split() {
  Attention<S> attention;
  constexpr Index length = 40;
  const Matrix whole = attention.run({length});
  for (Index split = 1; split < length; ++split)
    EXPECT_LE(relative_error(attention.run({split, length}), whole), 2e-6) << "split at " << split;
  std::vector<Index> one_by_one;
  for (Index end = 1; end <= length; ++end) one_by_one.push_back(end);
  EXPECT_LE(relative_error(attention.run(one_by_one), whole), 2e-6);
}
TEST(Gqa, ExtendingInAnySplitEqualsOneForward) { expect_any_split<Grouped>(); }
TEST(Gqa, ExtendingInAnySplitEqualsOneForwardWithBiasesAndNorms) { expect_any_split<All>(); }
TEST(Gqa, ExtendingInAnySplitEqualsOneForwardWithoutPosition) { expect_any_split<NoPosition>(); }
TEST(Gqa, ExtendingInAnySplitEqualsOneForwardOverACacheInBf16) { expect_any_split<GroupedBf16>(); }

TEST(Gqa, ACacheInBf16ChangesTheResultByLessThanOnePercent) {
  Attention<Grouped> exact;
  Attention<GroupedBf16> rounded;
  const double error = relative_error(rounded.run({100}), exact.run({100}));
  EXPECT_LE(error, 0.01);
  EXPECT_GE(error, 1e-5) << "the cache was not in bf16";
}

TEST(Gqa, ARowHasTheSameBitsInAnyBatchAndWithAnyThreads) {
  using Cache = guild::Gqa<All>::Cache;
  const Tokens none(100);
  for (const int threads : {1, 2, 4}) {
    Attention<All> attention(threads);
    // Sequences of several lengths, which then decode a token each: together, and each alone.
    const std::vector<Index> lengths = {1, 37, 64, 5};
    std::vector<Cache> caches(lengths.size());
    std::vector<Cache*> pointers;
    std::vector<Piece> next;
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      caches[i].reserve(100);
      pointers.push_back(&caches[i]);
      next.push_back({static_cast<int>(i), &none, lengths[i], lengths[i] + 1});
    }
    for (std::size_t i = 0; i < lengths.size(); ++i)
      (void)attention.extend({{static_cast<int>(i), &none, 0, lengths[i]}}, pointers);
    std::vector<Cache::Mark> marks;
    for (const Cache& cache : caches) marks.push_back(cache.mark());
    const Matrix together = attention.extend(next, pointers);
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      caches[i].rewind(marks[i]);
      EXPECT_TRUE(same_bits(attention.extend({next[i]}, pointers), together.middle_rows(static_cast<Index>(i), 1)))
          << "sequence " << i << ", " << threads << " threads";
    }
    EXPECT_TRUE(same_bits(attention.run({70}), Attention<All>(1).run({70}))) << threads << " threads";
  }
}

TEST(Gqa, RefusesAChunkThatDoesNotFollowItsCacheAndMasksThatSeeLaterTokens) {
  Attention<Grouped> attention;
  guild::Gqa<Grouped>::Cache cache;
  cache.reserve(10);
  const Tokens none(10);
  EXPECT_THROW((void)attention.extend({{0, &none, 2, 4}}, {&cache}), guild::Error);
  EXPECT_THROW((void)attention.extend({{0, &none, 0, 4}}, {&cache}, guild::AttentionMask::bidirectional), guild::Error);
  EXPECT_EQ(cache.length(), 0);
}

TEST(Gqa, ItsCacheHoldsKeysAndValuesOfItsKeyHeads) {
  EXPECT_EQ(guild::Gqa<Grouped>::Cache::bytes(10), 10 * 2 * 2 * 10 * 4);
  EXPECT_EQ(guild::Gqa<GroupedBf16>::Cache::bytes(10), 10 * 2 * 2 * 10 * 2);
}

}  // namespace gqa_test
