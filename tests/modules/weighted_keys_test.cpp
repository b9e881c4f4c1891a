#include <guild/modules/weighted_keys.hpp>

#include <guild/modules/gates.hpp>
#include <guild/modules/gqa.hpp>
#include <guild/modules/indexer.hpp>
#include <guild/modules/mla.hpp>
#include <guild/modules/sequence_cache.hpp>
#include <guild/modules/shared_kv.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "../support/exact_pass.hpp"
#include "../support/gradient_cases.hpp"
#include "../support/one_attention.hpp"

namespace weighted_keys_test {

using guild::Index;
using namespace guild;
using namespace guild_test;

struct Few : Latent {
  static constexpr IndexerConfig indexer = {.heads = 8, .dim = 16, .top_k = 24};
};
template <class S>
using Sparse = SparseTopK<Mla<S>, Indexer<S>>;

std::vector<float> random_masses(Index count) {
  std::vector<float> masses;
  Random random(3);
  for (Index i = 0; i < count; ++i) masses.push_back(0.5f + std::floor(float(random.uniform()) * 12.0f));
  return masses;
}

/// Of a kind, as it is and with weighted keys.
template <class A>
void expect_bits_of_the_kind(LatentForm form = LatentForm::automatic) {
  Attention<A> plain(form);
  Attention<Weighted<A>> weighted(form);
  const std::vector<Index> ends = {3, 4, 25, 26, 100, 150};
  const Matrix whole = plain.alone(150), pieces = plain.run(ends);
  EXPECT_TRUE(same_bits(weighted.alone(150), whole));
  EXPECT_TRUE(same_bits(weighted.run(ends), pieces));
  weighted.masses = std::vector<float>(150, 1.0f);
  EXPECT_TRUE(same_bits(weighted.alone(150), whole));
  EXPECT_TRUE(same_bits(weighted.run(ends), pieces));
  weighted.masses = random_masses(150);
  EXPECT_GT(relative_error(weighted.alone(150), whole), 1e-2);
  EXPECT_GT(relative_error(weighted.run(ends), pieces), 1e-2);
}
TEST(WeightedKeys, WithoutMassesOrWithOnesTheyHaveTheBitsOfTheKind) {
  for (const LatentForm form : {LatentForm::absorbed, LatentForm::expanded, LatentForm::automatic}) {
    expect_bits_of_the_kind<Mla<Latent>>(form);
    expect_bits_of_the_kind<Local<Mla<Latent>, 9, 3, 4>>(form);
    expect_bits_of_the_kind<Sparse<Few>>(form);
  }
  expect_bits_of_the_kind<Gqa<Grouped>>();
  expect_bits_of_the_kind<Local<Gqa<Grouped>, 9, 3, 4>>();
  expect_bits_of_the_kind<Gated<Gqa<Grouped>, BranchGate<9>>>();
}

TEST(WeightedKeys, ExtendingInAnySplitEqualsOneForward) {
  const std::vector<float> masses = random_masses(150);
  for (const LatentForm form : {LatentForm::absorbed, LatentForm::expanded, LatentForm::automatic}) {
    expect_any_split<Weighted<Mla<Latent>>>(3e-6, form, masses);
    expect_any_split<Weighted<Local<Mla<Latent>, 9, 3, 4>>>(3e-6, form, masses);
    expect_any_split<Weighted<Local<Mla<Latent>, 70, 66, 7>>>(3e-6, form, masses);
    expect_any_split<Weighted<Sparse<Few>>>(3e-6, form, masses);
  }
  expect_any_split<Weighted<Gqa<Grouped>>>(3e-6, LatentForm::automatic, masses);
  expect_any_split<Weighted<Local<Gqa<Grouped>, 9, 3, 4>>>(3e-6, LatentForm::automatic, masses);
  expect_any_split<Weighted<Local<Gqa<GroupedBf16>, 20, 2>>>(3e-6, LatentForm::automatic, masses);
  expect_any_split<Weighted<Gated<Local<Mla<Latent>, 40, 2>, FarBiasGate<9>>>>(3e-6, LatentForm::automatic, masses);
}

/// A cache goes back with its biases, to where it may, and its copy is another sequence.
template <class A>
void expect_cache_goes_back(Index most) {
  static_assert(SequenceCache<typename A::Cache>);
  Attention<A> attention;
  attention.masses = random_masses(150);
  typename A::Cache cache;
  cache.reserve(150);
  EXPECT_EQ(cache.reserved(), 150);
  (void)attention.extend(cache, 0, 60);
  typename A::Cache copy = cache;
  copy.reserve(150);
  const auto mark = cache.mark();
  const Matrix once = attention.extend(cache, 60, 60 + most), again = attention.extend(copy, 60, 60 + most);
  EXPECT_TRUE(same_bits(again, once));
  cache.rewind(mark);
  EXPECT_EQ(cache.length(), 60);
  EXPECT_EQ(cache.key_biases().length(), 60);
  const std::vector<float> masses = attention.masses;
  for (Index t = 60; t < 150; ++t) attention.masses[std::size_t(t)] = 40.0f;  // another sequence from here on
  EXPECT_FALSE(same_bits(attention.extend(cache, 60, 60 + most), once));
  attention.masses = masses;
  cache.rewind(cache.mark(60));
  EXPECT_TRUE(same_bits(attention.extend(cache, 60, 60 + most), once));
  const Matrix more = attention.extend(cache, 60 + most, 62 + most);
  EXPECT_TRUE(same_bits(attention.extend(copy, 60 + most, 62 + most), more));
}
TEST(WeightedKeys, TheirCacheGoesBackWithItsBiases) {
  expect_cache_goes_back<Weighted<Mla<Latent>>>(40);
  expect_cache_goes_back<Weighted<Gqa<Grouped>>>(40);
  expect_cache_goes_back<Weighted<Sparse<Few>>>(40);
  for (const Index most : {4, 30}) {  // within the chunk, and a pass that takes a second ring
    expect_cache_goes_back<Weighted<Local<Mla<Latent>, 9, 2, 4>>>(most);
    expect_cache_goes_back<Weighted<Local<Gqa<Grouped>, 9, 2, 4>>>(most);
  }
  constexpr Index width = Few::attention.cache_dim();
  EXPECT_EQ(Weighted<Mla<Latent>>::Cache::bytes(10), 10 * 4 * (width + 1));
  EXPECT_EQ(Weighted<Sparse<Few>>::Cache::bytes(10), 10 * 4 * (width + Few::indexer.dim + 1));
  using Ring = Weighted<Local<Mla<Latent>, 9, 2, 4>>::Cache;
  EXPECT_EQ(Ring::bytes(100), (2 + 9 - 1 + 4) * 4 * (width + 1));
}

/// Sequences of one pass, each with its part of the masses, some of which go on where the caches end.
TEST(WeightedKeys, ASequenceIsTheSameBesideOthers) {
  using A = Weighted<Local<Gqa<Grouped>, 9, 2, 4>>;
  const std::vector<float> masses = random_masses(150);
  Cpu device({.threads = 2});
  const auto weights = random_weights<A>(DType::f32);
  const Buffer<float> values = random_values(150 * A::hidden, 7);
  const Tokens none(150);
  const auto run = [&](const std::vector<Piece>& pieces, std::vector<A::Cache>& caches) {
    const Flat flat(pieces);
    Matrix x(flat.batch().size(), A::hidden), y = x;
    std::vector<float> of_pass;
    for (const Chunk& chunk : flat.chunks)
      for (Index t = 0; t < chunk.count; ++t) {
        const Index place = chunk.first_position + t + 10 * chunk.sequence;
        std::copy_n(values.data() + place * A::hidden, A::hidden, x.values.data() + (chunk.begin + t) * A::hidden);
        of_pass.push_back(masses[std::size_t(place)]);
      }
    Pass pass{.device = device, .batch = flat.batch()};
    pass.masses = {of_pass.data(), Index(of_pass.size())};
    const auto of = [&](int sequence) -> auto& { return caches[std::size_t(sequence)]; };
    A::forward(pass, weights, Caches<A::Cache>(of), x.view(), y.view());
    return y;
  };
  std::vector<A::Cache> alone(3), together(3);
  for (auto* all : {&alone, &together})
    for (A::Cache& cache : *all) cache.reserve(100);
  const Matrix first = run({{0, &none, 0, 50}}, alone), zero = run({{0, &none, 50, 53}}, alone),
               two = run({{2, &none, 0, 40}}, alone);
  (void)run({{1, &none, 0, 30}, {0, &none, 0, 50}}, together);
  const Matrix mixed = run({{2, &none, 0, 40}, {1, &none, 30, 30}, {0, &none, 50, 53}}, together);
  EXPECT_LE(relative_error(mixed.middle_rows(0, 40), two), 2e-6);
  EXPECT_LE(relative_error(mixed.middle_rows(40, 3), zero), 2e-6);
}

struct Tiny : gradient_cases::TinySpec {
  static constexpr IndexerConfig indexer = {.heads = 8, .dim = 6, .top_k = 4};
};

template <class A>
struct Exact : ExactPass<A> {
  std::vector<float> masses = random_masses(this->tokens);
  explicit Exact(std::vector<Index> lengths) : ExactPass<A>(std::move(lengths)) {
    this->ragged.pass.masses = {masses.data(), this->tokens};
  }
};

/// What a head gives the keys that token t of a sequence sees: exp(score) times the mass, by the definition.
template <class Score>
std::vector<double> shares_of(const Chunk& chunk, Index t, const std::vector<float>& masses, Score&& score) {
  std::vector<double> shares;
  double sum = 0;
  for (Index s = 0; s <= t; ++s) {
    shares.push_back(double(masses[std::size_t(chunk.begin + s)]) * std::exp(score(chunk.begin + s)));
    sum += shares.back();
  }
  for (double& share : shares) share /= sum;
  return shares;
}
/// exp(score) of latent attention between rows t and s of a pass.
template <class One>
double latent_score(One& one, Index t, Index s, Index h) {
  constexpr MlaConfig c = Tiny::attention;
  const auto query = host_view(one.device, one.saved.query), rows = host_view(one.device, one.saved.latents),
             keys = host_view(one.device, one.saved.keys_values);
  double dot = 0;
  for (Index i = 0; i < c.nope_dim; ++i)
    dot += query(t, h * c.query_dim() + i) * keys(s, h * (c.nope_dim + c.value_dim) + i);
  for (Index i = 0; i < c.rope_dim; ++i)
    dot += query(t, h * c.query_dim() + c.nope_dim + i) * rows(s, c.latent_rank + i);
  return dot * double(softmax_scale(c));
}

TEST(WeightedKeys, AttentionIsTheSumByMassesTimesExponentials) {
  Exact<Weighted<Mla<Tiny>>> latent({5, 1, 9});
  latent.forward();
  constexpr MlaConfig c = Tiny::attention;
  const auto values = host_view(latent.device, latent.saved.keys_values),
             attended = host_view(latent.device, latent.saved.attended);
  for (const Chunk& chunk : latent.ragged.pass.batch.chunks)
    for (Index t = 0; t < chunk.count; ++t)
      for (Index h = 0; h < c.heads; ++h) {
        const auto shares =
            shares_of(chunk, t, latent.masses, [&](Index s) { return latent_score(latent, chunk.begin + t, s, h); });
        for (Index i = 0; i < c.value_dim; ++i) {
          double expected = 0;
          for (Index s = 0; s <= t; ++s)
            expected +=
                shares[std::size_t(s)] * values(chunk.begin + s, h * (c.nope_dim + c.value_dim) + c.nope_dim + i);
          ASSERT_NEAR(attended(chunk.begin + t, h * c.value_dim + i), expected, 1e-12) << t;
        }
      }
  using Spec = gradient_cases::RowNormGqaSpec;
  constexpr GqaConfig g = Spec::attention;
  Exact<Weighted<Gqa<Spec>>> grouped({5, 1, 9});
  grouped.forward();
  const auto query = host_view(grouped.device, grouped.saved.query), key = host_view(grouped.device, grouped.saved.key),
             value = host_view(grouped.device, grouped.saved.value),
             out = host_view(grouped.device, grouped.saved.attended);
  static_assert(g.heads == g.key_heads);
  for (const Chunk& chunk : grouped.ragged.pass.batch.chunks)
    for (Index t = 0; t < chunk.count; ++t)
      for (Index h = 0; h < g.heads; ++h) {
        const auto shares = shares_of(chunk, t, grouped.masses, [&](Index s) {
          double dot = 0;
          for (Index i = 0; i < g.head_dim; ++i)
            dot += query(chunk.begin + t, h * g.head_dim + i) * key(s, h * g.head_dim + i);
          return dot / std::sqrt(double(g.head_dim));
        });
        for (Index i = 0; i < g.head_dim; ++i) {
          double expected = 0;
          for (Index s = 0; s <= t; ++s)
            expected += shares[std::size_t(s)] * value(chunk.begin + s, h * g.head_dim + i);
          ASSERT_NEAR(out(chunk.begin + t, h * g.head_dim + i), expected, 1e-12) << t;
        }
      }
}

template <class A>
void expect_central_differences() {
  Exact<A> one({4, 1, 9});
  one.backward();
  auto list = one.tensors(false);
  list.push_back({"x", one.x.data(), one.dx.data(), one.x.size()});
  expect_gradients(list, [&] { return one.loss(); });
}
TEST(WeightedKeys, GradientsAreThoseOfCentralDifferences) {
  using gradient_cases::GqaSpec;
  expect_central_differences<Weighted<Mla<Tiny>>>();
  expect_central_differences<Weighted<Local<Mla<gradient_cases::PlainQuerySpec>, 3, 1>>>();
  expect_central_differences<Weighted<Gqa<GqaSpec>>>();
  expect_central_differences<Weighted<Local<Gqa<GqaSpec>, 3, 1>>>();
  expect_central_differences<Weighted<Gated<Gqa<GqaSpec>, FarBiasGate<2, 1>>>>();
  expect_central_differences<Weighted<Gated<Mla<Tiny>, BranchGate<2>>>>();
  expect_central_differences<Weighted<Sparse<Tiny>>>();
}

/// With an index that scores nothing the loss is the divergence of what attention looked at from equal shares.
TEST(WeightedKeys, AnIndexLearnsWhatAttentionLooksAtByMasses) {
  Exact<Weighted<Sparse<Tiny>>> one({3, 4});
  for (double& weight : one.weights.indexer.head_weights.weight.data.view()) weight = 0.0;
  one.ragged.pass.indexing = {.weight = 1.0};
  const double found = one.backward();
  double expected = 0;
  for (const Chunk& chunk : one.ragged.pass.batch.chunks)
    for (Index t = 0; t < chunk.count; ++t) {
      std::vector<double> looked(std::size_t(t) + 1);
      for (Index h = 0; h < Tiny::attention.heads; ++h) {
        const auto shares =
            shares_of(chunk, t, one.masses, [&](Index s) { return latent_score(one, chunk.begin + t, s, h); });
        for (std::size_t s = 0; s < shares.size(); ++s) looked[s] += shares[s] / double(Tiny::attention.heads);
      }
      for (const double p : looked) expected += p * std::log(p * double(looked.size())) / double(one.tokens);
    }
  EXPECT_GT(expected, 0.01);
  EXPECT_NEAR(found, expected, 1e-9);
}

struct Shared : SpecDefaults {
  using CacheElement = float;
  static constexpr TrunkConfig config = {.vocab = 64, .hidden = 32, .layers = 1, .context = 128};
  static constexpr SharedKvConfig attention = {
      .heads = 2, .head_dim = 16, .rope_dim = 8, .query_rank = 8, .output_groups = 1, .output_rank = 8};
};
template <class A>
std::string refusal(const std::vector<float>& masses) {
  Attention<A> attention;
  attention.masses = masses;
  try {
    (void)attention.alone(Index(masses.size()));
    return "";
  } catch (const Error& error) { return error.what(); }
}
TEST(WeightedKeys, MassesThatAreNoneAreRefusedAndOtherKindsDoNotHeedAny) {
  const std::vector<float> masses = random_masses(20);
  const auto has = [](const std::string& text, const char* part) { return text.find(part) != std::string::npos; };
  const auto expect_ignored = [&]<class A>(std::type_identity<A>) {
    Attention<A> with, without;
    with.masses = masses;
    EXPECT_TRUE(same_bits(with.alone(20), without.alone(20)));
  };
  expect_ignored(std::type_identity<Mla<Latent>>{});
  expect_ignored(std::type_identity<Local<Gqa<Grouped>, 9>>{});
  expect_ignored(std::type_identity<Sparse<Few>>{});
  expect_ignored(std::type_identity<SharedKv<Shared>>{});
  EXPECT_EQ(refusal<Weighted<Mla<Latent>>>(masses), "");
  for (const float bad : {0.0f, -1.0f, std::numeric_limits<float>::infinity(), std::nanf("")}) {
    std::vector<float> with = masses;
    with[7] = bad;
    EXPECT_TRUE(has(refusal<Weighted<Gqa<Grouped>>>(with), "expected a positive number"));
  }
  Exact<Weighted<Mla<Tiny>>> one({9});
  one.ragged.pass.masses.size = 8;
  EXPECT_THROW(one.forward(), Error);
}

}  // namespace weighted_keys_test
