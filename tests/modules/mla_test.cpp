#include <guild/cpu.hpp>
#include <guild/modules/mla.hpp>

#include <gtest/gtest.h>

#include <vector>

#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"

namespace mla_test {

using guild::Index;
using guild::LatentForm;
using namespace guild_test;

struct WithoutQueryLatent : SmallSpec {
  using CacheElement = float;
  static constexpr guild::MlaConfig attention =
      with(SmallSpec::attention, [](guild::MlaConfig& c) { c.query_rank = 0; });
};
struct WithYarn : SmallSpec {
  using CacheElement = float;
  static constexpr guild::MlaConfig attention = with(SmallSpec::attention, [](guild::MlaConfig& c) {
    c.rope = {.factor = 4.0, .mscale_all_dim = 1.0, .original_context = 16};
  });
};

struct NoPosition : SmallSpec {
  using CacheElement = float;
  static constexpr guild::MlaConfig attention = guild::without_position(SmallSpec::attention);
};

/// One attention module with random weights. Inputs are the rows of a fixed random matrix, by position.
template <class S>
class Attention {
 public:
  using Mla = guild::Mla<S>;
  static constexpr Index hidden = S::config.hidden;

  explicit Attention(guild::DType type = guild::DType::f32) : weights_(random_weights<Mla>(type)) {}

  /// Runs a sequence in pieces that end at `ends`.
  Matrix run(const std::vector<Index>& ends, LatentForm form) {
    typename Mla::Cache cache;
    cache.reserve(ends.back());
    Matrix out;
    Index begin = 0;
    for (const Index end : ends) {
      const Tokens none(static_cast<std::size_t>(end));
      out.append(extend({{0, &none, begin, end}}, {&cache}, form));
      begin = end;
    }
    return out;
  }
  Matrix extend(const std::vector<Piece>& pieces, const std::vector<typename Mla::Cache*>& caches, LatentForm form,
                Index distinct = 0) {
    const Flat flat(pieces);
    Matrix x(flat.batch().size(), hidden), y(flat.batch().size(), hidden);
    for (const guild::Chunk& chunk : flat.chunks)
      for (Index t = 0; t < chunk.count; ++t)
        for (Index i = 0; i < hidden; ++i)
          x.view()(chunk.begin + t, i) = inputs_[(chunk.first_position + t + distinct * chunk.sequence) * hidden + i];
    const auto cache = [&](int sequence) ->
        typename Mla::Cache& { return *caches[static_cast<std::size_t>(sequence)]; };
    device_.tuning().latent_form = form;
    Mla::forward(guild::Pass{.device = device_, .batch = flat.batch()}, weights_, cache, x.view(), y.view());
    return y;
  }

 private:
  guild::Cpu device_{{.threads = 2}};
  typename Mla::template Weights<guild::Published> weights_;
  guild::Buffer<float> inputs_ = random_values(300 * hidden, 7);
};

constexpr LatentForm forms[] = {LatentForm::absorbed, LatentForm::expanded, LatentForm::automatic};

template <class S>
void expect_absorbed_equals_expanded(guild::DType type, double tolerance) {
  Attention<S> attention(type);
  for (const Index length : {1, 2, 15, 16, 17, 40, 100}) {
    const Matrix absorbed = attention.run({length}, LatentForm::absorbed),
                 expanded = attention.run({length}, LatentForm::expanded);
    EXPECT_LE(relative_error(absorbed, expanded), tolerance) << length << " tokens, type " << guild::name(type);
    EXPECT_GT(relative_error(absorbed, Matrix(length, S::config.hidden)), 1.0);  // the result is not all zero
  }
}

TEST(Mla, AbsorbedEqualsExpanded) {
  for (const guild::DType type : {guild::DType::f32, guild::DType::bf16, guild::DType::f16, guild::DType::f8_e4m3})
    expect_absorbed_equals_expanded<TinySpec>(type, 2e-6);
}
TEST(Mla, AbsorbedEqualsExpandedWithoutQueryCompression) {
  expect_absorbed_equals_expanded<WithoutQueryLatent>(guild::DType::f32, 2e-6);
}
TEST(Mla, AbsorbedEqualsExpandedWithYarn) { expect_absorbed_equals_expanded<WithYarn>(guild::DType::f32, 2e-6); }
TEST(Mla, AbsorbedEqualsExpandedOverACacheInBf16) {
  expect_absorbed_equals_expanded<TinyBf16Spec>(guild::DType::f32, 2e-6);
}

template <class S>
void expect_any_split(double tolerance) {
  Attention<S> attention;
  constexpr Index length = 40;
  const Matrix whole = attention.run({length}, LatentForm::expanded);
  for (const LatentForm form : forms) {
    for (Index split = 1; split < length; ++split)
      EXPECT_LE(relative_error(attention.run({split, length}, form), whole), tolerance)
          << "split at " << split << ", form " << static_cast<int>(form);
    guild::Random random(11);
    for (int round = 0; round < 8; ++round) {
      std::vector<Index> ends;
      for (Index end = 0; end < length;)
        ends.push_back(end = std::min(length, end + 1 + static_cast<Index>(random.uniform() * (round + 1) * 3)));
      EXPECT_LE(relative_error(attention.run(ends, form), whole), tolerance)
          << ends.size() << " pieces, form " << static_cast<int>(form);
    }
    std::vector<Index> one_by_one;
    for (Index end = 1; end <= length; ++end) one_by_one.push_back(end);
    EXPECT_LE(relative_error(attention.run(one_by_one, form), whole), tolerance)
        << "one by one, form " << static_cast<int>(form);
  }
}
TEST(Mla, ExtendingInAnySplitEqualsOneForward) { expect_any_split<TinySpec>(2e-6); }
TEST(Mla, ExtendingInAnySplitEqualsOneForwardWithoutQueryCompression) { expect_any_split<WithoutQueryLatent>(2e-6); }
TEST(Mla, ExtendingInAnySplitEqualsOneForwardOverACacheInBf16) { expect_any_split<TinyBf16Spec>(2e-6); }

// bf16 keeps 8 bits of a value: the cached latents are off by up to 2^-9 of themselves, about 0.2 %.
TEST(Mla, ACacheInBf16ChangesTheResultByLessThanOnePercent) {
  Attention<TinySpec> exact;
  Attention<TinyBf16Spec> rounded;
  for (const LatentForm form : forms) {
    const double error = relative_error(rounded.run({100}, form), exact.run({100}, form));
    EXPECT_LE(error, 0.01);
    EXPECT_GE(error, 1e-5) << "the cache was not in bf16";
  }
}

/// How much the last of 20 tokens' output changes when the tokens before it come in the opposite order.
template <class S>
double change_by_order() {
  constexpr Index length = 20, hidden = S::config.hidden;
  guild::Cpu device{{.threads = 1}};
  const auto weights = random_weights<guild::Mla<S>>();
  const guild::Buffer<float> values = random_values(length * hidden, 8);
  const Tokens none(length);
  const Flat flat({{0, &none, 0, length}});
  const auto last = [&](bool reversed) {
    Matrix x(length, hidden), y(length, hidden);
    for (Index t = 0; t < length; ++t) {
      const Index from = reversed && t + 1 < length ? length - 2 - t : t;
      std::copy_n(values.data() + from * hidden, hidden, x.view().row(t).data);
    }
    guild::Mla<S>::forward(guild::Pass{.device = device, .batch = flat.batch()}, weights, {}, x.view(), y.view());
    return y.middle_rows(length - 1, 1);
  };
  return relative_error(last(true), last(false));
}
TEST(Mla, WithoutPositionTheOrderOfEarlierTokensMeansNothing) {
  EXPECT_LE(change_by_order<NoPosition>(), 2e-6);
  EXPECT_GE(change_by_order<TinySpec>(), 1e-3);
}
TEST(Mla, ExtendingInAnySplitEqualsOneForwardWithoutPosition) { expect_any_split<NoPosition>(2e-6); }

TEST(Mla, AChunkThatDoesNotFollowItsCacheIsRefused) {
  Attention<TinySpec> attention;
  Attention<TinySpec>::Mla::Cache cache;
  cache.reserve(20);
  const Tokens none(20);
  (void)attention.extend({{0, &none, 0, 5}}, {&cache}, LatentForm::automatic);
  for (const Index begin : {4, 6}) {
    EXPECT_THROW((void)attention.extend({{0, &none, begin, 8}}, {&cache}, LatentForm::automatic), guild::Error);
    EXPECT_EQ(cache.length(), 5);
  }
}

TEST(Mla, SequencesOfABatchDoNotSeeEachOther) {
  Attention<TinySpec> attention;
  using Cache = Attention<TinySpec>::Mla::Cache;
  const Tokens none(100);
  constexpr Index distinct = 100;  // sequence s reads the inputs from row 100 * s
  for (const LatentForm form : forms) {
    Cache alone[3], together[3];
    for (int s = 0; s < 3; ++s) alone[s].reserve(50), together[s].reserve(50);
    const auto step = [&](Cache* caches, const std::vector<Piece>& pieces) {
      return attention.extend(pieces, {&caches[0], &caches[1], &caches[2]}, form, distinct);
    };
    // Warm up, then mix: sequence 0 decodes one token, 1 has nothing to do, 2 prefills.
    step(alone, {{0, &none, 0, 20}});
    step(alone, {{1, &none, 0, 3}});
    step(together, {{1, &none, 0, 3}, {0, &none, 0, 20}});
    const Matrix zero = step(alone, {{0, &none, 20, 21}}), two = step(alone, {{2, &none, 0, 12}});
    const Matrix mixed = step(together, {{2, &none, 0, 12}, {1, &none, 3, 3}, {0, &none, 20, 21}});
    EXPECT_LE(relative_error(mixed.middle_rows(0, 12), two), 2e-6);
    EXPECT_LE(relative_error(mixed.middle_rows(12, 1), zero), 2e-6);
  }
}

/// The CPU, counting the elements that copies of rows take through row kernels.
struct CopyCounter : guild::Cpu {
  using Cpu::Cpu;
  Index copied = 0;
};
template <class From, class To>
Index elements_of(const guild::CopyRowsJob<From, To>& job) {
  return job.y.rows * job.parts.count * job.parts.width;
}
template <class Kernel>
void for_each_row(CopyCounter& device, Index rows, Index row_work, const Kernel& kernel) {
  if constexpr (requires { elements_of(kernel.jobs.data[0]); })
    for (const auto& job : kernel.jobs) device.copied += elements_of(job);
  for_each_row(static_cast<guild::Cpu&>(device), rows, row_work, kernel);
}

TEST(Mla, EveryElementToAndFromTheCachesAndEveryRotatedPartIsCopiedByRowKernels) {
  using Mla = guild::Mla<TinyBf16Spec>;
  const auto weights = random_weights<Mla>(guild::DType::f32);
  const guild::Buffer<float> inputs = random_values(100 * SmallSpec::config.hidden, 7);
  const auto& numbers = SmallSpec::attention;
  for (const LatentForm form : {LatentForm::absorbed, LatentForm::expanded}) {
    CopyCounter device({.threads = 2});
    device.tuning().latent_form = form;
    Mla::Cache caches[2];
    for (auto& cache : caches) cache.reserve(60);
    const Tokens none(60);
    const auto run = [&](const std::vector<Piece>& pieces) {
      const Flat flat(pieces);
      Matrix y(flat.batch().size(), SmallSpec::config.hidden);
      const guild::View<const float, 2> x(inputs.data(), y.rows, y.cols);
      device.copied = 0;
      const auto cache = [&](int sequence) -> Mla::Cache& { return caches[sequence]; };
      Mla::forward(guild::Pass{.device = device, .batch = flat.batch()}, weights, cache, x, y.view());
      return device.copied;
    };
    // Written: the new rows. Read: the whole sequence where it is expanded, new queries alone where they are absorbed.
    const auto expected = [&](Index tokens, Index length) {
      return tokens * numbers.cache_dim() +
             (form == LatentForm::expanded ? length * numbers.cache_dim() : tokens * numbers.heads * numbers.rope_dim);
    };
    EXPECT_EQ(run({{0, &none, 0, 50}}), expected(50, 50));
    EXPECT_EQ(run({{0, &none, 50, 53}, {1, &none, 0, 7}}), expected(10, 60));
  }
}

/// A batch of several sequences, each with `before` tokens in its cache and `count` new ones (s of them fewer for
/// sequence s; sequence 4 has none), on a device of its own.
struct BoundedBatch {
  using Mla = guild::Mla<TinyBf16Spec>;
  static constexpr int sequences = 9;
  Index before, count;
  Mla::Weights<guild::Published> weights = random_weights<Mla>(guild::DType::bf16);

  struct Result {
    Matrix y;
    Index scratch;  ///< bytes the device holds afterwards
  };
  [[nodiscard]] Result run(Index most, LatentForm form) const {
    const Tokens none(static_cast<std::size_t>(before + count));
    std::vector<Piece> pieces;
    for (int s = 0; s < sequences; ++s) pieces.push_back({s, &none, before, before + (s == 4 ? 0 : count - s)});
    const Flat flat(pieces);
    const guild::Buffer<float> inputs = random_values(flat.batch().size() * SmallSpec::config.hidden, 7);
    Mla::Cache caches[sequences];
    for (int s = 0; s < sequences; ++s) {
      caches[s].reserve(before + count);
      const auto rows = random_values(before * Mla::Cache::width, 20 + static_cast<std::uint64_t>(s));
      const auto held = caches[s].append(before);
      for (Index i = 0; i < rows.size(); ++i) held.data[i] = guild::bf16(rows[i]);
    }
    guild::Cpu device({.threads = 2});
    Matrix y(flat.batch().size(), SmallSpec::config.hidden);
    const guild::View<const float, 2> x(inputs.data(), y.rows, y.cols);
    device.tuning() = {.latent_form = form, .most_expanded = most};
    const auto cache = [&](int sequence) -> Mla::Cache& { return caches[sequence]; };
    Mla::forward(guild::Pass{.device = device, .batch = flat.batch()}, weights, cache, x, y.view());
    return {y, device.scratch_bytes()};
  }
};

constexpr Index most_expanded = guild::Tuning{}.most_expanded;

TEST(Mla, TheExpansionsOfABatchTogetherStayBelowTheBound) {
  const BoundedBatch batch{.before = 1000, .count = 10};
  using Mla = BoundedBatch::Mla;
  constexpr Index one = Mla::CachedAttention::expanded_floats(1010);
  // Of each sequence the widened latents too. The device holds up to twice what was taken at a time.
  constexpr Index sequence = 2 * Index{sizeof(float)} * (one + 1010 * Mla::Cache::width);
  const auto held = [&](Index most) { return batch.run(most, LatentForm::expanded).scratch; };
  const Index least = held(one);  // one expansion, and what the kernels take for themselves
  EXPECT_GT(held(most_expanded), least + 6 * sequence) << "without a bound all eight are there";
  for (const Index together : {2, 5}) EXPECT_LE(held(together * one), least + (together - 1) * sequence);
}

TEST(Mla, WhatAChunkGetsDoesNotDependOnTheChunksItIsExpandedWith) {
  using Mla = BoundedBatch::Mla;
  for (const Index before : {0, 33}) {
    const BoundedBatch batch{.before = before, .count = 100};
    const Matrix together = batch.run(most_expanded, LatentForm::automatic).y;
    ASSERT_FALSE(same_bits(together, batch.run(most_expanded, LatentForm::absorbed).y)) << "nothing was expanded";
    for (const Index groups_of : {1, 2, 3, 5, 8})
      for (const LatentForm form : {LatentForm::automatic, LatentForm::expanded})
        EXPECT_TRUE(
            same_bits(batch.run(groups_of * Mla::CachedAttention::expanded_floats(before + 100), form).y, together))
            << "groups of " << groups_of;
  }
}

TEST(Mla, AChunkBeyondTheBoundRunsAbsorbedUnlessItMustBeExpanded) {
  const BoundedBatch batch{.before = 0, .count = 100};
  EXPECT_TRUE(same_bits(batch.run(1, LatentForm::automatic).y, batch.run(1, LatentForm::absorbed).y));
  EXPECT_TRUE(same_bits(batch.run(1, LatentForm::expanded).y, batch.run(most_expanded, LatentForm::expanded).y));
}

TEST(Mla, AutomaticTakesTheFormWithFewerMultiplications) {
  using Attention = guild::Mla<TinySpec>::CachedAttention;
  EXPECT_TRUE(Attention::runs_absorbed({}, 1, 100));
  EXPECT_FALSE(Attention::runs_absorbed({}, 100, 100));
  EXPECT_TRUE(Attention::runs_absorbed({.latent_form = LatentForm::absorbed}, 100, 100));
  EXPECT_FALSE(Attention::runs_absorbed({.latent_form = LatentForm::expanded}, 1, 100));
}

}  // namespace mla_test
