#include <guild/modules/indexer.hpp>

#include <guild/modules/block.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/merge_span.hpp>
#include <guild/modules/mla.hpp>
#include <guild/modules/recompute.hpp>
#include <guild/modules/segment.hpp>
#include <guild/modules/weighted_keys.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "../support/exact_pass.hpp"
#include "../support/index_objective.hpp"
#include "../support/one_attention.hpp"
#include "../support/whole_stack.hpp"

namespace indexer_test {

using guild::Index;
using namespace guild;
using namespace guild_test;

template <class S>
using Sparse = SparseTopK<Mla<S>, Indexer<S>>;

/// Eight heads: fewer leave many scores at zero, where all heads' products are negative.
struct Few : Latent {
  static constexpr IndexerConfig indexer = {.heads = 8, .dim = 16, .top_k = 24};
};
struct FewBf16 : Few {
  using CacheElement = bf16;
};
struct Interleaved : Few {
  static constexpr IndexerConfig indexer = {.heads = 8, .dim = 16, .top_k = 24, .pairs = RopePairs::interleaved};
};
struct AllOf150 : Few {
  static constexpr IndexerConfig indexer = {.heads = 8, .dim = 16, .top_k = 150};
};

TEST(SparseTopK, OverNoMoreTokensThanItMayChooseHasTheBitsOfAllKeys) {
  for (const LatentForm form : {LatentForm::absorbed, LatentForm::expanded, LatentForm::automatic}) {
    Attention<Mla<Latent>> dense(form);
    Attention<Sparse<AllOf150>> sparse(form);
    EXPECT_TRUE(same_bits(sparse.alone(150), dense.alone(150)));
    for (const auto& ends : {std::vector<Index>{150}, std::vector<Index>{3, 4, 100, 150}})
      EXPECT_TRUE(same_bits(sparse.run(ends), dense.run(ends)));
    EXPECT_FALSE(same_bits(sparse.alone(151), dense.alone(151)));
  }
}

TEST(SparseTopK, TokensThatChooseAllKeysHaveTheBitsOfAllKeysBesideOthersThatDoNot) {
  Attention<Mla<Latent>> dense;
  Attention<Sparse<Few>> sparse;
  const Matrix all = dense.alone(60), chosen = sparse.alone(60);
  EXPECT_TRUE(same_bits(chosen.middle_rows(0, 24), all.middle_rows(0, 24)));
  for (Index t = 24; t < 60; ++t) EXPECT_FALSE(same_bits(chosen.middle_rows(t, 1), all.middle_rows(t, 1))) << t;
}

TEST(SparseTopK, ExtendingInAnySplitEqualsOneForward) {
  for (const LatentForm form : {LatentForm::absorbed, LatentForm::expanded, LatentForm::automatic})
    expect_any_split<Sparse<Few>>(3e-6, form);
  expect_any_split<Sparse<Interleaved>>(3e-6);
  expect_any_split<Sparse<FewBf16>>(3e-6);
}

TEST(SparseTopK, ScoresOfFewTokensAtATimeChooseTheSameKeys) {
  Attention<Sparse<Few>> attention;
  const Matrix alone = attention.alone(150), cached = attention.run({60, 150});
  for (const Index most : {1, 150, 700, 5000}) {
    attention.tuning().most_index_scores = most;
    EXPECT_TRUE(same_bits(attention.alone(150), alone)) << most;
    EXPECT_TRUE(same_bits(attention.run({60, 150}), cached)) << most;
  }
}

template <class S>
struct Exact : ExactPass<Sparse<S>> {
  using ExactPass<Sparse<S>>::ExactPass;
};

struct Tiny : Latent {
  static constexpr DenseConfig dense = {.hidden = 14, .layers = 1};
  static constexpr TrunkConfig config = {.vocab = 19, .hidden = 12, .layers = 1, .context = 64};
  static constexpr MlaConfig attention = {
      .heads = 2,
      .query_rank = 6,
      .latent_rank = 5,
      .nope_dim = 4,
      .rope_dim = 4,
      .value_dim = 3,
      .rope = {.factor = 4.0, .mscale = 0.5, .mscale_all_dim = 1.0, .original_context = 16}};
  static constexpr IndexerConfig indexer = {.heads = 8, .dim = 6, .top_k = 4};
};
struct TinyInterleaved : Tiny {
  static constexpr IndexerConfig indexer = {.heads = 8, .dim = 6, .top_k = 4, .pairs = RopePairs::interleaved};
};

/// The scores of each token of a sequence, by the formulas: linear maps, LayerNorm, rotation, sums over heads.
template <class S>
std::vector<std::vector<double>> scores_by_formula(Exact<S>& one, Index begin, Index count) {
  constexpr Index heads = S::indexer.heads, dim = S::indexer.dim, hidden = S::config.hidden,
                  rank = S::attention.query_rank, rotary = S::attention.rope_dim, pairs = rotary / 2;
  const auto& w = one.weights;
  const auto times = [](const DenseMatrix<double>& matrix, const std::vector<double>& from) {
    std::vector<double> to(static_cast<std::size_t>(matrix.data.size()) / from.size());
    for (std::size_t r = 0; r < to.size(); ++r)
      for (std::size_t c = 0; c < from.size(); ++c)
        to[r] += matrix.data[static_cast<Index>(r * from.size() + c)] * from[c];
    return to;
  };
  const auto rotate = [&](double* at, Index position) {
    const RopeTable table(S::attention.rope, S::attention.rope_dim);
    for (Index i = 0; i < pairs; ++i) {
      const bool halves = S::indexer.pairs == RopePairs::halves;
      double &a = at[halves ? i : 2 * i], &b = at[halves ? i + pairs : 2 * i + 1];
      const double angle = double(position) * table.inverse_frequency(i), m = table.magnitude();
      const double turned = m * (a * std::cos(angle) - b * std::sin(angle));
      b = m * (a * std::sin(angle) + b * std::cos(angle));
      a = turned;
    }
  };
  std::vector<std::vector<double>> keys;
  std::vector<std::vector<double>> all;
  for (Index t = 0; t < count; ++t) {
    const double* const from = one.x.data() + (begin + t) * hidden;
    const std::vector<double> x(from, from + hidden);
    std::vector<double> latent = times(w.query_down.weight, x), key = times(w.indexer.key.weight, x);
    double squares = 0, mean = 0, variance = 0;
    for (const double v : latent) squares += v * v / double(rank);
    for (std::size_t i = 0; i < latent.size(); ++i)
      latent[i] *= w.query_norm.weight.data[static_cast<Index>(i)] / std::sqrt(squares + 1e-6);
    for (const double v : key) mean += v / double(dim);
    for (const double v : key) variance += (v - mean) * (v - mean) / double(dim);
    for (Index i = 0; i < dim; ++i) {
      double& v = key[static_cast<std::size_t>(i)];
      v = (v - mean) / std::sqrt(variance + 1e-6) * w.indexer.key_norm.weight.data[i] + w.indexer.key_norm.bias.data[i];
    }
    rotate(key.data(), t);
    keys.push_back(key);
    std::vector<double> query = times(w.indexer.query.weight, latent);
    const std::vector<double> head = times(w.indexer.head_weights.weight, x);
    for (Index h = 0; h < heads; ++h) rotate(query.data() + h * dim, t);
    std::vector<double> scores;
    for (const auto& k : keys) {
      double score = 0;
      for (Index h = 0; h < heads; ++h) {
        double product = 0;
        for (Index i = 0; i < dim; ++i)
          product += query[static_cast<std::size_t>(h * dim + i)] * k[static_cast<std::size_t>(i)];
        score += head[static_cast<std::size_t>(h)] / std::sqrt(double(heads)) *
                 std::max(product / std::sqrt(double(dim)), 0.0);
      }
      scores.push_back(score);
    }
    all.push_back(scores);
  }
  return all;
}
/// The keys of largest score.
template <class S>
std::vector<bool> seen_of(const std::vector<double>& scores) {
  std::vector<bool> seen(scores.size());
  std::vector<std::size_t> order(scores.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return scores[a] > scores[b]; });
  for (std::size_t i = 0; i < order.size() && i < std::size_t{S::indexer.top_k}; ++i) seen[order[i]] = true;
  return seen;
}

template <class S>
void expect_choice_of_formula() {
  Exact<S> one({3, 40, 70});
  one.forward();
  ChosenBits bits(one.saved.chosen, S::indexer.top_k);
  int not_latest = 0;
  for (const Chunk& chunk : one.ragged.pass.batch.chunks) {
    const View<std::uint32_t, 2> found = host_view(one.device, bits.next(chunk));
    EXPECT_EQ(found.data == nullptr, chunk.count <= S::indexer.top_k);
    if (found.data == nullptr) continue;
    const auto scores = scores_by_formula(one, chunk.begin, chunk.count);
    for (Index t = 0; t < chunk.count; ++t) {
      const std::vector<bool> seen = seen_of<S>(scores[static_cast<std::size_t>(t)]);
      for (Index s = 0; s <= t; ++s) {
        const bool chosen = (found(t, s / 32) >> (s % 32) & 1U) != 0;
        ASSERT_EQ(chosen, bool(seen[static_cast<std::size_t>(s)])) << t << ", " << s;
        not_latest += chosen && s + S::indexer.top_k <= t ? 1 : 0;
      }
    }
  }
  EXPECT_GT(not_latest, 50);
}
TEST(Indexer, ChoosesTheKeysOfLargestScoreByTheFormula) {
  expect_choice_of_formula<Tiny>();
  expect_choice_of_formula<TinyInterleaved>();
}

/// Softmax over the keys that are seen, 0 for the others.
std::vector<double> softmax(const std::vector<double>& scores, const std::vector<bool>& seen) {
  std::vector<double> shares(scores.size());
  double sum = 0;
  for (std::size_t s = 0; s < scores.size(); ++s) sum += shares[s] = seen[s] ? std::exp(scores[s]) : 0.0;
  for (double& share : shares) share /= sum;
  return shares;
}
TEST(Indexer, ItsObjectiveIsTheDivergenceFromWhatAllHeadsLookAtByTheFormula) {
  constexpr Index heads = Tiny::attention.heads, nope = Tiny::attention.nope_dim, rotary = Tiny::attention.rope_dim,
                  width = nope + rotary, stride = nope + Tiny::attention.value_dim;
  for (const KeySight sight : {KeySight::chosen, KeySight::all}) {
    Exact<Tiny> one({4, 1, 9});
    one.ragged.pass.indexing = {.weight = 1.0, .sight = sight};
    const double found = one.backward();
    const auto query = host_view(one.device, one.saved.query), rows = host_view(one.device, one.saved.latents),
               keys = host_view(one.device, one.saved.keys_values);
    double expected = 0;
    for (const Chunk& chunk : one.ragged.pass.batch.chunks)
      for (const auto& scores : scores_by_formula(one, chunk.begin, chunk.count)) {
        const Index t = chunk.begin + static_cast<Index>(scores.size()) - 1;
        const auto seen = sight == KeySight::all ? std::vector<bool>(scores.size(), true) : seen_of<Tiny>(scores);
        std::vector<double> looked(scores.size());
        for (Index h = 0; h < heads; ++h) {
          std::vector<double> products(scores.size());
          for (std::size_t s = 0; s < products.size(); ++s) {
            const Index key = chunk.begin + static_cast<Index>(s);
            for (Index i = 0; i < nope; ++i) products[s] += query(t, h * width + i) * keys(key, h * stride + i);
            for (Index i = 0; i < rotary; ++i)
              products[s] += query(t, h * width + nope + i) * rows(key, Tiny::attention.latent_rank + i);
            products[s] *= double(softmax_scale(Tiny::attention));
          }
          const auto shares = softmax(products, seen);
          for (std::size_t s = 0; s < shares.size(); ++s) looked[s] += shares[s] / double(heads);
        }
        const auto guess = softmax(scores, seen);
        for (std::size_t s = 0; s < scores.size(); ++s)
          if (seen[s]) expected += looked[s] * std::log(looked[s] / guess[s]) / double(one.tokens);
      }
    EXPECT_GT(expected, 0.01);
    EXPECT_NEAR(found, expected, 1e-9);
  }
}

/// Slots that an index chooses among: a layer of weighted keys behind merging. Without the straight-through term, which
/// is no derivative.
struct Half : DefaultMerging {
  using Budget = TokenBucket<1, 2, 4, 8>;
  using Novelty = CosineNovelty<5>;
  static constexpr float threshold = 0.25f;
};
struct FewRanks : DefaultInflation {
  static constexpr Index gate_rank = 4, detail_rank = 3;
  static constexpr bool confidence = false;
};
using OnSlots = WholeStack<MergeSpan<Segment<Block<Tiny, Weighted<Sparse<Tiny>>, DenseFeedForward<Tiny>>, 1>,
                                     SoftTokenMerging<Tiny, Half>, TokenInflation<Tiny, FewRanks>>>;
struct LearnedOnSlots : OnSlots {
  static constexpr Index hidden = Tiny::config.hidden;
  template <class P, class W, class S, class G>
  static void backward(const P& pass, const W& weights, View<double, 2>, S& saved, View<double, 2> dy,
                       View<double, 2> dx, G& gradients) {
    std::copy_n(dy.data, dy.rows * dy.cols, dx.data);
    OnSlots::backward(pass, weights, saved, dx, gradients);
  }
};
struct OfSlots : ExactPass<LearnedOnSlots> {
  static constexpr Index most = 60;  ///< elements of a tensor that are looked at
  OfSlots() : ExactPass({1, 18}) {
    forward();
    EXPECT_LT(saved.merged.slots.rows, 16);
    EXPECT_GT(saved.merged.slots.rows, 1 + 2 * Tiny::indexer.top_k);
  }
};
struct OfTokens : Exact<Tiny> {
  static constexpr Index most = 400;
  OfTokens() : Exact<Tiny>({4, 1, 9}) {}
  Index chosen() const { return saved.chosen.size; }
};

TEST(Indexer, HasNoGradientOfTheModelsLossAndAttentionHasItOverTheChosenKeys) {
  expect_no_gradient_of_the_models_loss<OfTokens>();
  expect_no_gradient_of_the_models_loss<OfSlots>();
}

TEST(Indexer, HasTheGradientOfItsObjectiveAlone) {
  for (const KeySight sight : {KeySight::chosen, KeySight::all}) {
    expect_the_gradient_of_its_objective_alone<OfTokens>(sight, 5);
    expect_the_gradient_of_its_objective_alone<OfSlots>(sight, 5);
  }
}

TEST(Indexer, ItsObjectiveChangesNoBitOfOtherGradients) { expect_its_objective_changes_no_other_bit<OfTokens>(); }

/// Gradients of all tensors of two layers, and the objectives of their indices.
template <template <class> class Kept>
std::vector<double> gradients_of_two_layers() {
  using Layers = WholeStack<Kept<Segment<Block<Tiny, Sparse<Tiny>, DenseFeedForward<Tiny>>, 2>>>;
  constexpr Index hidden = Tiny::config.hidden;
  Cpu device({.threads = 2});
  Random random(9);
  RaggedPass ragged(device, {4, 1, 9}, 5, 19);
  const Index tokens = ragged.tokens();
  typename Layers::template Weights<Dense<double>> weights, gradients;
  allocate<Layers>(weights);
  allocate<Layers>(gradients);
  Layers::visit(FillRandom{&random}, Path{}, weights);
  Buffer<double> x(tokens * hidden), y(tokens * hidden), dx(tokens * hidden), loss(2);
  for (double& value : x.view()) value = normal(random);
  for (double& value : dx.view()) value = normal(random);
  Arena arena;
  Arena::Frame memory(arena);
  auto pass = ragged.pass.with(memory);
  pass.indexing = {.weight = 0.7, .loss_l = loss.view()};
  typename Layers::template Saved<double> saved;
  Layers::forward(pass, weights, {}, x.view(tokens, hidden), y.view(tokens, hidden), &saved);
  Layers::backward(pass, weights, saved, dx.view(tokens, hidden), gradients);
  std::vector<Differentiated> list;
  Layers::visit(CollectDifferentiated{&list}, Path{}, weights, gradients);
  std::vector<double> all(loss.view().begin(), loss.view().end());
  for (const Differentiated& one : list) all.insert(all.end(), one.gradient, one.gradient + one.count);
  all.insert(all.end(), dx.view().begin(), dx.view().end());
  return all;
}
template <class Layers>
using AsTheyAre = Layers;
template <class Layers>
using Recomputed = Recompute<Layers>;
TEST(SparseTopK, LayersThatAreComputedAgainHaveTheSameGradientsAndObjectives) {
  const auto once = gradients_of_two_layers<AsTheyAre>();
  EXPECT_GT(once[0], 0.01);
  EXPECT_GT(once[1], 0.01);
  EXPECT_EQ(gradients_of_two_layers<Recomputed>(), once);
}

TEST(SparseTopK, SequencesOfABatchDoNotSeeEachOther) {
  using Module = Sparse<Few>;
  constexpr Index hidden = Few::config.hidden;
  Cpu device({.threads = 2});
  const auto weights = random_weights<Module>(DType::f32);
  const Buffer<float> values = random_values(200 * hidden, 7);
  const Tokens none(100);
  const auto run = [&](const std::vector<Piece>& pieces, std::vector<Module::Cache>& caches) {
    const Flat flat(pieces);
    Matrix x(flat.batch().size(), hidden), y(flat.batch().size(), hidden);
    for (const Chunk& chunk : flat.chunks)
      std::copy_n(values.data() + (chunk.first_position + 60 * chunk.sequence) * hidden, chunk.count * hidden,
                  x.values.data() + chunk.begin * hidden);
    const auto of = [&](int sequence) -> auto& { return caches[static_cast<std::size_t>(sequence)]; };
    Module::forward(Pass{.device = device, .batch = flat.batch()}, weights, Caches<Module::Cache>(of), x.view(),
                    y.view());
    return y;
  };
  std::vector<Module::Cache> alone(3), together(3);
  for (auto* caches : {&alone, &together})
    for (auto& cache : *caches) cache.reserve(100);
  const Matrix first = run({{0, &none, 0, 50}}, alone), zero = run({{0, &none, 50, 51}}, alone),
               two = run({{2, &none, 0, 40}}, alone);
  (void)run({{1, &none, 0, 30}, {0, &none, 0, 50}}, together);
  const Matrix mixed = run({{2, &none, 0, 40}, {1, &none, 30, 30}, {0, &none, 50, 51}}, together);
  EXPECT_LE(relative_error(mixed.middle_rows(0, 40), two), 2e-6);
  EXPECT_LE(relative_error(mixed.middle_rows(40, 1), zero), 2e-6);
}

TEST(SparseTopK, ItsCacheGoesBackWithItsIndexKeys) {
  Attention<Sparse<Few>> attention;
  Attention<Sparse<Few>>::Cache cache;
  cache.reserve(100);
  EXPECT_EQ(cache.reserved(), 100);
  (void)attention.extend(cache, 0, 60);
  const auto mark = cache.mark();
  const Matrix once = attention.extend(cache, 60, 90);
  cache.rewind(mark);
  EXPECT_EQ(cache.length(), 60);
  EXPECT_EQ(cache.index_keys().length(), 60);
  EXPECT_TRUE(same_bits(attention.extend(cache, 60, 90), once));
  EXPECT_EQ(decltype(cache)::bytes(10), 10 * 4 * (Few::attention.cache_dim() + Few::indexer.dim));
}

TEST(SparseTopK, RefusesAPassWhoseTokensSeeLaterOnes) {
  Exact<Tiny> one({9});
  one.ragged.pass.mask = AttentionMask::bidirectional;
  EXPECT_THROW(one.forward(), Error);
}

}  // namespace indexer_test
