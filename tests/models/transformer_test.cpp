// The whole model on a small random Spec: against a naive model in double, and against itself in every way to run it.
#include <guild/cpu.hpp>
#include <guild/models/transformer.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"

namespace transformer_test {

using guild::ErrorCode;
using guild::Index;
using guild::LatentForm;
using namespace guild_test;

struct DenseOnly : SmallSpec {
  using CacheElement = float;
  static constexpr guild::TopKConfig routing = with(SmallSpec::routing, [](guild::TopKConfig& c) { c.experts = 0; });
};
struct MoeOnlyTied : SmallSpec {
  using CacheElement = float;
  static constexpr guild::DenseConfig dense = with(SmallSpec::dense, [](guild::DenseConfig& c) { c.layers = 0; });
  static constexpr guild::TrunkConfig config =
      with(SmallSpec::config, [](guild::TrunkConfig& c) { c.tied_embeddings = true; });
  static constexpr guild::MlaConfig attention =
      with(SmallSpec::attention, [](guild::MlaConfig& c) { c.query_rank = 0; });
};

/// A model in double, written as plainly as possible; rotary position without YaRN.
template <class S>
struct Naive {
  using Model = guild::Transformer<S>;
  using Vec = std::vector<double>;
  static constexpr guild::TrunkConfig c = S::config;
  static constexpr guild::MlaConfig a = S::attention;
  const typename Model::template Weights<guild::Published>& weights;

  static double at(const guild::StoredMatrix& m, Index row, Index col) {
    return static_cast<double>(m.view().at(row, col));
  }
  static Vec times(const guild::StoredMatrix& m, const Vec& x) {
    Vec y(static_cast<std::size_t>(m.rows));
    for (Index r = 0; r < m.rows; ++r)
      for (Index i = 0; i < m.cols; ++i) y[static_cast<std::size_t>(r)] += at(m, r, i) * x[static_cast<std::size_t>(i)];
    return y;
  }
  static Vec norm(const Vec& x, const guild::StoredVector& weight, double epsilon) {
    double square = 0.0;
    for (const double v : x) square += v * v;
    Vec y = x;
    for (std::size_t i = 0; i < y.size(); ++i)
      y[i] *= static_cast<double>(weight.data[static_cast<Index>(i)]) /
              std::sqrt(square / static_cast<double>(x.size()) + epsilon);
    return y;
  }
  static Vec part(const Vec& x, Index begin, Index count) { return {x.begin() + begin, x.begin() + begin + count}; }
  static Vec rotated(Vec x, std::size_t position) {
    for (std::size_t i = 0; i < x.size(); i += 2) {
      const double angle = static_cast<double>(position) *
                           std::pow(a.rope.base, -static_cast<double>(i) / static_cast<double>(x.size()));
      const double u = x[i], v = x[i + 1];
      x[i] = u * std::cos(angle) - v * std::sin(angle);
      x[i + 1] = u * std::sin(angle) + v * std::cos(angle);
    }
    return x;
  }
  static void add(Vec& x, const Vec& y, double factor = 1.0) {
    for (std::size_t i = 0; i < x.size(); ++i) x[i] += factor * y[i];
  }

  template <class W>
  static Vec network(const W& w, const Vec& x) {
    return network(w.gate.weight, w.up.weight, w.down.weight, x);
  }
  template <class M>
  static Vec network(const M& gate, const M& up, const M& down, const Vec& x) {
    Vec g = times(gate, x), u = times(up, x);
    for (std::size_t i = 0; i < g.size(); ++i) u[i] *= g[i] / (1.0 + std::exp(-g[i]));
    return times(down, u);
  }
  template <class W>
  static std::vector<Vec> attend(const W& w, const std::vector<Vec>& x) {
    const std::size_t n = x.size();
    constexpr Index per_head = a.nope_dim + a.value_dim;
    std::vector<Vec> query(n), up(n), key_rope(n), out(n);
    for (std::size_t t = 0; t < n; ++t) {
      if constexpr (a.query_rank > 0)
        query[t] = times(w.query_up.weight, norm(times(w.query_down.weight, x[t]), w.query_norm.weight, 1e-6));
      else
        query[t] = times(w.query_up.weight, x[t]);
      const Vec latent = times(w.latent_down.weight, x[t]);
      up[t] = times(w.latent_up.weight, norm(part(latent, 0, a.latent_rank), w.latent_norm.weight, 1e-6));
      key_rope[t] = rotated(part(latent, a.latent_rank, a.rope_dim), t);
    }
    for (std::size_t t = 0; t < n; ++t) {
      Vec joined;
      for (Index h = 0; h < a.heads; ++h) {
        const Vec q = part(query[t], h * a.query_dim(), a.nope_dim);
        const Vec q_rope = rotated(part(query[t], h * a.query_dim() + a.nope_dim, a.rope_dim), t);
        Vec score(t + 1);
        for (std::size_t s = 0; s <= t; ++s) {
          const Vec k = part(up[s], h * per_head, a.nope_dim);
          score[s] = (std::inner_product(q.begin(), q.end(), k.begin(), 0.0) +
                      std::inner_product(q_rope.begin(), q_rope.end(), key_rope[s].begin(), 0.0)) /
                     std::sqrt(double(a.query_dim()));
        }
        double total = 0.0;
        for (double& value : score) total += value = std::exp(value);
        Vec sum(a.value_dim);
        for (std::size_t s = 0; s <= t; ++s)
          add(sum, part(up[s], h * per_head + a.nope_dim, a.value_dim), score[s] / total);
        joined.insert(joined.end(), sum.begin(), sum.end());
      }
      out[t] = times(w.output.weight, joined);
    }
    return out;
  }
  template <class W>
  static Vec experts(const W& w, const Vec& x) {
    constexpr guild::TopKConfig m = S::routing;
    const Vec logits = times(w.router.weight, x);
    Vec score(logits.size()), choice(logits.size()), group(m.groups);
    for (std::size_t e = 0; e < score.size(); ++e) {
      score[e] = 1.0 / (1.0 + std::exp(-logits[e]));
      choice[e] = score[e] + static_cast<double>(w.router.selection_bias.data[static_cast<Index>(e)]);
    }
    constexpr std::size_t size = m.experts / m.groups;
    for (std::size_t g = 0; g < group.size(); ++g) {
      Vec best = part(choice, static_cast<Index>(g * size), size);
      std::sort(best.rbegin(), best.rend());
      group[g] = best[0] + best[1];
    }
    Vec sorted = group;
    std::sort(sorted.rbegin(), sorted.rend());
    for (std::size_t e = 0; e < score.size(); ++e)
      if (group[e / size] < sorted[m.top_groups - 1]) choice[e] = -INFINITY;
    Vec y(x.size());
    double total = 0.0;
    std::vector<std::size_t> chosen;
    for (int k = 0; k < m.top_k; ++k) {
      const auto best = static_cast<std::size_t>(std::max_element(choice.begin(), choice.end()) - choice.begin());
      chosen.push_back(best);
      choice[best] = -INFINITY;
      total += score[best];
    }
    const auto& pool = w.experts;
    for (const std::size_t e : chosen)
      add(y, network(pool.gate.pieces[e], pool.up.pieces[e], pool.down.pieces[e], x), score[e] / total * m.scale);
    add(y, network(w.shared, x));
    return y;
  }
  template <class Block, class W>
  void block(const W& w, std::vector<Vec>& x) const {
    std::vector<Vec> normed;
    for (const Vec& row : x) normed.push_back(norm(row, w.mixer_norm.weight, c.norm.epsilon));
    const auto update = attend(w.mixer, normed);
    for (std::size_t t = 0; t < x.size(); ++t) {
      add(x[t], update[t]);
      const Vec row = norm(x[t], w.feed_forward_norm.weight, c.norm.epsilon);
      if constexpr (std::is_same_v<Block, typename S::template ExpertLayer<S>>)
        add(x[t], experts(w.feed_forward, row));
      else
        add(x[t], network(w.feed_forward, row));
    }
  }

  /// States after the final norm.
  [[nodiscard]] std::vector<Vec> states(const Tokens& tokens) const {
    std::vector<Vec> x;
    for (const std::int32_t token : tokens) {
      Vec row(c.hidden);
      for (Index i = 0; i < c.hidden; ++i) row[static_cast<std::size_t>(i)] = at(weights.embedding.weight, token, i);
      x.push_back(row);
    }
    for (const auto& w : std::get<0>(weights.layers.parts).layers) block<typename S::template DenseLayer<S>>(w, x);
    if constexpr (guild::expert_layers(guild::config_of<S>) > 0)
      for (const auto& w : std::get<1>(weights.layers.parts).layers) block<typename S::template ExpertLayer<S>>(w, x);
    for (Vec& row : x) row = norm(row, weights.final_norm.weight, c.norm.epsilon);
    return x;
  }
  [[nodiscard]] Matrix logits(const Tokens& tokens) const {
    const auto x = states(tokens);
    Matrix out(static_cast<Index>(x.size()), c.vocab);
    for (std::size_t t = 0; t < x.size(); ++t) {
      const Vec y = times(c.tied_embeddings ? weights.embedding.weight : weights.head.weight, x[t]);
      for (std::size_t i = 0; i < y.size(); ++i)
        out.view()(static_cast<Index>(t), static_cast<Index>(i)) = static_cast<float>(y[i]);
    }
    return out;
  }
  /// Logits of the first prediction layer; row t guesses token t + 2.
  [[nodiscard]] Matrix second_logits(const Tokens& tokens) const {
    const auto& w = weights.mtp[0];
    auto x = states(Tokens(tokens.begin(), tokens.end() - 1));
    for (std::size_t t = 0; t < x.size(); ++t) {
      Vec row(c.hidden);
      for (Index i = 0; i < c.hidden; ++i) row[static_cast<std::size_t>(i)] = at(w.embedding.weight, tokens[t + 1], i);
      Vec joined = norm(row, w.embedding_norm.weight, c.norm.epsilon);
      const Vec hidden = norm(x[t], w.hidden_norm.weight, c.norm.epsilon);
      joined.insert(joined.end(), hidden.begin(), hidden.end());
      x[t] = times(w.projection.weight, joined);
    }
    block<typename Model::Mtp::Block>(w.block, x);
    Matrix out(static_cast<Index>(x.size()), c.vocab);
    for (std::size_t t = 0; t < x.size(); ++t) {
      const Vec y = times(w.head.weight, norm(x[t], w.head_norm.weight, c.norm.epsilon));
      for (std::size_t i = 0; i < y.size(); ++i)
        out.view()(static_cast<Index>(t), static_cast<Index>(i)) = static_cast<float>(y[i]);
    }
    return out;
  }
};

template <class S>
struct Runner {
  using Model = guild::Transformer<S>;
  typename Model::template Weights<guild::Published> weights;
  guild::Cpu device;
  std::vector<std::unique_ptr<typename Model::Cache>> caches{};

  explicit Runner(guild::DType type = guild::DType::f32, int threads = 2, int sequences = 4, int mtp = 0)
      : weights(random_model<Model>(type, 1, mtp)), device({.threads = threads}) {
    clear(sequences);
  }
  void clear(int sequences) {
    caches.clear();
    for (int i = 0; i < sequences; ++i) {
      caches.push_back(std::make_unique<typename Model::Cache>());
      caches.back()->mtp.resize(weights.mtp.size());
    }
  }
  std::vector<typename Model::Cache*> pointers() {
    std::vector<typename Model::Cache*> out;
    for (auto& cache : caches) out.push_back(cache.get());
    return out;
  }
  Matrix states(const std::vector<Piece>& pieces, LatentForm form = LatentForm::automatic) {
    const Flat flat(pieces);
    Matrix out(flat.batch().size(), S::config.hidden);
    const auto list = pointers();
    device.tuning().latent_form = form;
    Model::forward(guild::Pass{.device = device, .batch = flat.batch()}, weights, list, out.view());
    return out;
  }
  Matrix logits(const Matrix& states) {
    Matrix out(states.rows, S::config.vocab);
    Model::logits(device, weights, states.view(), out.view());
    return out;
  }
  Matrix run(const std::vector<Piece>& pieces, LatentForm form = LatentForm::automatic) {
    return logits(states(pieces, form));
  }
};

template <class S>
void expect_equal_to_naive(guild::DType type) {
  Runner<S> runner(type);
  const Tokens tokens = random_tokens(33, S::config.vocab, 5);
  const Matrix expected = Naive<S>{runner.weights}.logits(tokens);
  EXPECT_LE(relative_error(runner.run({{0, &tokens, 0, 33}}, LatentForm::expanded), expected), 1e-5)
      << guild::name(type);
  EXPECT_LE(relative_error(runner.run({{1, &tokens, 0, 33}}, LatentForm::absorbed), expected), 1e-5)
      << guild::name(type);
}
// Stored weights are multiplied as they are, so every stored type stays as close to double as float itself.
TEST(Transformer, EqualsAModelInDoubleForEveryStoredType) {
  for (const auto type : {guild::DType::f32, guild::DType::bf16, guild::DType::f16, guild::DType::f8_e4m3})
    expect_equal_to_naive<TinySpec>(type);
}
TEST(Transformer, EqualsAModelInDoubleWithDenseLayersOnly) { expect_equal_to_naive<DenseOnly>(guild::DType::f32); }
TEST(Transformer, EqualsAModelInDoubleWithExpertLayersOnlyAndTiedEmbeddings) {
  expect_equal_to_naive<MoeOnlyTied>(guild::DType::f32);
}

// What rounding the weights costs is stated here, so that a change for the worse is seen. Without experts: a rounded
// router of random weights chooses others now and then, and then the logits are simply different.
TEST(Transformer, StoredTypesChangeTheLogitsByLittle) {
  const Tokens tokens = random_tokens(33, DenseOnly::config.vocab, 5);
  Runner<DenseOnly> exact;
  const Matrix expected = exact.run({{0, &tokens, 0, 33}});
  const struct {
    guild::DType type;
    double least, most;
  } rows[] = {{guild::DType::f16, 1e-5, 0.01}, {guild::DType::bf16, 1e-4, 0.06}, {guild::DType::f8_e4m3, 1e-3, 0.5}};
  for (const auto& row : rows) {
    Runner<DenseOnly> rounded(row.type);
    const double error = relative_error(rounded.run({{0, &tokens, 0, 33}}), expected);
    EXPECT_LE(error, row.most) << guild::name(row.type);
    EXPECT_GE(error, row.least) << guild::name(row.type);
  }
}

TEST(Transformer, ARaggedBatchEqualsEachSequenceAlone) {
  for (const LatentForm form : {LatentForm::automatic, LatentForm::absorbed, LatentForm::expanded}) {
    Runner<TinySpec> alone, together;
    const Tokens tokens[4] = {random_tokens(50, 97, 1), random_tokens(40, 97, 2), random_tokens(9, 97, 3),
                              random_tokens(30, 97, 4)};
    const auto step = [&](std::vector<Piece> pieces) {
      const Matrix mixed = together.run(pieces, form);
      Index row = 0;
      for (const Piece& piece : pieces) {
        const Index count = piece.end - piece.begin;
        if (count > 0) {
          EXPECT_LE(relative_error(mixed.middle_rows(row, count), alone.run({piece}, form)), 1e-5)
              << "sequence " << piece.sequence << " from " << piece.begin;
        }
        row += count;
      }
      EXPECT_EQ(row, mixed.rows);
    };
    step({{0, &tokens[0], 0, 20}, {1, &tokens[1], 0, 1}});
    step({{3, &tokens[3], 0, 17},
          {0, &tokens[0], 20, 21},
          {2, &tokens[2], 0, 0},
          {1, &tokens[1], 1, 30}});  // prefill, decode, empty
    step({{0, &tokens[0], 21, 22}, {1, &tokens[1], 30, 31}, {2, &tokens[2], 0, 9}, {3, &tokens[3], 17, 18}});
    step({{3, &tokens[3], 18, 19},
          {2, &tokens[2], 9, 9},
          {1, &tokens[1], 31, 32},
          {0, &tokens[0], 22, 23}});  // all decode
    EXPECT_EQ(together.caches[0]->length(), 23);
    EXPECT_EQ(together.caches[2]->length(), 9);
  }
}

// With at most 16 rows in a batch every product sums in one order: then the batch makes no difference at all.
TEST(Transformer, DecodingTogetherGivesTheBitsOfDecodingAlone) {
  Runner<TinySpec> alone, together;
  const Tokens tokens[3] = {random_tokens(50, 97, 1), random_tokens(40, 97, 2), random_tokens(40, 97, 3)};
  const Index start[3] = {30, 7, 15};
  for (int s = 0; s < 3; ++s)
    for (Runner<TinySpec>* runner : {&alone, &together}) (void)runner->run({{s, &tokens[s], 0, start[s]}});
  for (Index i = 0; i < 5; ++i) {
    const Matrix mixed =
        together.run({{2, &tokens[2], 15 + i, 16 + i}, {0, &tokens[0], 30 + i, 31 + i}, {1, &tokens[1], 7 + i, 8 + i}});
    EXPECT_TRUE(same_bits(mixed.middle_rows(0, 1), alone.run({{2, &tokens[2], 15 + i, 16 + i}})));
    EXPECT_TRUE(same_bits(mixed.middle_rows(1, 1), alone.run({{0, &tokens[0], 30 + i, 31 + i}})));
    EXPECT_TRUE(same_bits(mixed.middle_rows(2, 1), alone.run({{1, &tokens[1], 7 + i, 8 + i}})));
  }
}

TEST(Transformer, TheOrderOfSequencesInABatchChangesNoBit) {
  const Tokens a = random_tokens(25, 97, 1), b = random_tokens(12, 97, 2), c = random_tokens(1, 97, 3);
  Runner<TinySpec> first, second;
  const Matrix abc = first.run({{0, &a, 0, 25}, {1, &b, 0, 12}, {2, &c, 0, 1}});
  const Matrix cab = second.run({{2, &c, 0, 1}, {0, &a, 0, 25}, {1, &b, 0, 12}});
  EXPECT_TRUE(same_bits(abc.middle_rows(0, 25), cab.middle_rows(1, 25)));
  EXPECT_TRUE(same_bits(abc.middle_rows(25, 12), cab.middle_rows(26, 12)));
  EXPECT_TRUE(same_bits(abc.middle_rows(37, 1), cab.middle_rows(0, 1)));
}

TEST(Transformer, AnySplitOfASequenceGivesTheSameLogits) {
  Runner<TinySpec> runner;
  const Tokens tokens = random_tokens(24, 97, 6);
  const Matrix whole = runner.run({{0, &tokens, 0, 24}});
  for (Index split = 0; split <= 24; ++split) {
    runner.clear(1);
    Matrix out = runner.run({{0, &tokens, 0, split}});
    if (split < 24) out.append(runner.run({{0, &tokens, split, 24}}));
    EXPECT_LE(relative_error(out, whole), 1e-5) << split;
  }
}

TEST(Transformer, TheNumberOfThreadsChangesNoBit) {
  const Tokens tokens = random_tokens(60, 97, 6);
  for (const auto type : {guild::DType::f32, guild::DType::bf16, guild::DType::f8_e4m3}) {
    Runner<TinySpec> one(type, 1), four(type, 4);
    for (const auto& [begin, end] : {std::pair<Index, Index>{0, 40}, {40, 41}, {41, 42}, {42, 60}})
      EXPECT_TRUE(same_bits(one.run({{0, &tokens, begin, end}}), four.run({{0, &tokens, begin, end}}))) << begin;
  }
}

TEST(Transformer, RunsTheSameTwice) {
  const Tokens tokens = random_tokens(60, 97, 6);
  Runner<TinySpec> runner(guild::DType::bf16, 4);
  const Matrix first = runner.run({{0, &tokens, 0, 60}});
  for (int round = 1; round < 4; ++round) EXPECT_TRUE(same_bits(runner.run({{round, &tokens, 0, 60}}), first));
}

/// A batch whose tokens are those that follow.
guild::Batch following(const Flat& flat, const std::int32_t* tokens) {
  guild::Batch batch = flat.batch();
  batch.tokens.data = tokens;
  return batch;
}

TEST(Transformer, ThePredictionLayerEqualsAModelInDouble) {
  Runner<TinySpec> runner(guild::DType::f32, 2, 1, 1);
  using Model = guild::Transformer<TinySpec>;
  const Tokens tokens = random_tokens(20, 97, 8);
  const Matrix expected = Naive<TinySpec>{runner.weights}.second_logits(tokens);
  for (const Index split : {19, 7, 1}) {  // in one piece, and in two
    runner.clear(1);
    Matrix found;
    for (const auto& [begin, end] : {std::pair<Index, Index>{0, split}, {split, 19}}) {
      if (begin == end) continue;
      const Flat flat({{0, &tokens, begin, end}});
      const Matrix states = runner.states({{0, &tokens, begin, end}});
      Matrix out(end - begin, 97);
      const auto list = runner.pointers();
      const guild::Pass pass{.device = runner.device, .batch = following(flat, tokens.data() + begin + 1)};
      Model::predict_second(pass, runner.weights, list, states.view(), out.view());
      found.append(out);
    }
    EXPECT_LE(relative_error(found, expected), 1e-5) << split;
  }
}

ErrorCode code_of(const std::function<void()>& call, std::string* message = nullptr) {
  try {
    call();
  } catch (const guild::Error& error) {
    if (message != nullptr) *message = error.what();
    return error.code();
  }
  return ErrorCode::count_;
}

TEST(Transformer, RefusesABatchThatDoesNotFitItsCaches) {
  using Model = guild::Transformer<TinySpec>;
  Runner<TinySpec> runner(guild::DType::f32, 2, 2);
  const Tokens tokens = random_tokens(300, 97, 8);
  const Matrix before = runner.run({{0, &tokens, 0, 5}});
  const auto expect = [&](ErrorCode code, const std::vector<Piece>& pieces) {
    std::string message;
    EXPECT_EQ(guild::name(code_of([&] { (void)runner.states(pieces); }, &message)), guild::name(code)) << message;
    EXPECT_EQ(runner.caches[0]->length(), 5);
    EXPECT_EQ(runner.caches[1]->length(), 0);
  };
  expect(ErrorCode::op_shape, {{0, &tokens, 4, 6}});  // position 4 is taken
  expect(ErrorCode::op_shape, {{0, &tokens, 6, 7}});  // a gap
  expect(ErrorCode::op_shape, {{2, &tokens, 0, 1}});  // no such cache
  expect(ErrorCode::op_shape, {{-1, &tokens, 0, 1}});
  expect(ErrorCode::op_shape, {{0, &tokens, 5, 7}, {0, &tokens, 5, 8}});  // one sequence twice
  expect(ErrorCode::in_context, {{1, &tokens, 0, 193}});
  const Tokens bad = {3, 97};
  expect(ErrorCode::in_token, {{1, &bad, 0, 2}});
  const Tokens negative = {-1};
  expect(ErrorCode::in_token, {{1, &negative, 0, 1}});

  Flat flat({{0, &tokens, 5, 8}});
  Matrix states(3, 48);
  auto list = runner.pointers();
  const auto run = [&](const guild::Batch& batch) {
    Model::forward(guild::Pass{.device = runner.device, .batch = batch}, runner.weights, list, states.view());
  };
  const auto shape = guild::name(ErrorCode::op_shape);
  flat.positions[1] = 9;
  EXPECT_EQ(guild::name(code_of([&] { run(flat.batch()); })), shape);
  flat.positions[1] = 6;
  flat.chunks[0].count = 2;  // does not cover the rows
  EXPECT_EQ(guild::name(code_of([&] { run(flat.batch()); })), shape);
  flat.chunks[0].count = 4;
  EXPECT_EQ(guild::name(code_of([&] { run(flat.batch()); })), shape);
  flat.chunks[0].count = std::numeric_limits<Index>::max();
  EXPECT_EQ(guild::name(code_of([&] { run(flat.batch()); })), shape);
  flat.chunks[0].count = 3;
  list[0] = nullptr;
  EXPECT_EQ(guild::name(code_of([&] { run(flat.batch()); })), guild::name(ErrorCode::op_argument));
  list[0] = runner.caches[0].get();
  Matrix small(2, 48);
  const guild::Pass pass{.device = runner.device, .batch = flat.batch()};
  EXPECT_EQ(guild::name(code_of([&] { Model::forward(pass, runner.weights, list, small.view()); })), shape);
  EXPECT_EQ(runner.caches[0]->length(), 5);
  run(flat.batch());  // nothing was spoilt
  EXPECT_EQ(runner.caches[0]->length(), 8);
}

/// Decoded in two pieces, each layer from the states of the one before, against whole sequences without a cache.
TEST(Transformer, ADeeperPredictionLayerStandsOnTheOneBefore) {
  using Model = guild::Transformer<TinySpec>;
  using Mtp = Model::Mtp;
  Runner<TinySpec> runner(guild::DType::f32, 2, 1, 2);
  const Tokens tokens = random_tokens(20, 97, 8);
  constexpr Index count = 18, split = 7;
  const Flat whole({{0, &tokens, 0, count}});
  Matrix x = runner.states({{0, &tokens, 0, count}}), y(count, 48), expected(count, 97);
  for (std::size_t depth = 0; depth < 2; ++depth) {
    const auto& layer = runner.weights.mtp[depth];
    const guild::Pass pass{.device = runner.device, .batch = following(whole, tokens.data() + depth + 1)};
    Mtp::forward(pass, layer, layer.embedding.weight.view(), {}, x.view(), y.view());
    Mtp::Head::forward(runner.device, layer.head, y.view(), expected.view());
    std::swap(x, y);
  }
  runner.clear(1);
  Matrix found;
  for (const auto& [begin, end] : {std::pair<Index, Index>{0, split}, {split, count}}) {
    const Flat flat({{0, &tokens, begin, end}});
    Matrix states = runner.states({{0, &tokens, begin, end}}), own(end - begin, 48), out(end - begin, 97);
    const auto list = runner.pointers();
    for (std::size_t depth = 0; depth < 2; ++depth) {
      const guild::Pass pass{.device = runner.device,
                             .batch = following(flat, tokens.data() + begin + static_cast<Index>(depth) + 1)};
      Model::predict_second(pass, runner.weights, list, states.view(), out.view(), depth, own.view());
      std::swap(states, own);
    }
    found.append(out);
  }
  EXPECT_LT(relative_error(found, expected), 1e-5);
}

TEST(Transformer, RefusesAPredictionLayerThatIsNotThere) {
  using Model = guild::Transformer<TinySpec>;
  Runner<TinySpec> without(guild::DType::f32, 2, 1, 0), with_one(guild::DType::f32, 2, 1, 1);
  const Tokens tokens = random_tokens(9, 97, 8);
  const Flat flat({{0, &tokens, 0, 8}});
  Matrix out(8, 97);
  for (auto* runner : {&without, &with_one}) {
    const Matrix states = runner->states({{0, &tokens, 0, 8}});
    const auto list = runner->pointers();
    const std::size_t depth = runner == &without ? 0 : 1;
    EXPECT_EQ(guild::name(code_of([&] {
                const guild::Pass pass{.device = runner->device, .batch = following(flat, tokens.data() + 1)};
                Model::predict_second(pass, runner->weights, list, states.view(), out.view(), depth);
              })),
              guild::name(ErrorCode::op_argument));
  }
  // A cache without rows for the layer grows them.
  const Matrix states = with_one.states({{0, &tokens, 8, 9}});
  with_one.caches[0]->mtp.clear();
  const auto list = with_one.pointers();
  const Flat one({{0, &tokens, 8, 9}});
  Matrix row(1, 97);
  EXPECT_EQ(guild::name(code_of([&] {
              const guild::Pass pass{.device = with_one.device, .batch = following(one, tokens.data())};
              Model::predict_second(pass, with_one.weights, list, states.view(), row.view());
            })),
            guild::name(ErrorCode::op_argument));
}

TEST(Transformer, ARouterThatIsNotFiniteLeavesTheCacheAsItWas) {
  Runner<TinySpec> runner;
  const Tokens tokens = random_tokens(30, 97, 8);
  (void)runner.run({{0, &tokens, 0, 10}});
  Runner<TinySpec> healthy;
  (void)healthy.run({{0, &tokens, 0, 10}});
  auto& router = std::get<1>(runner.weights.layers.parts).layers[1].feed_forward.router.weight;
  float saved = 0.0f;
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(&saved, router.data.data() + 16, 4);
  std::memcpy(router.data.data() + 16, &nan, 4);
  EXPECT_EQ(guild::name(code_of([&] { (void)runner.run({{0, &tokens, 10, 15}}); })),
            guild::name(ErrorCode::op_nonfinite));
  EXPECT_EQ(runner.caches[0]->length(), 10);
  std::memcpy(router.data.data() + 16, &saved, 4);
  EXPECT_TRUE(same_bits(runner.run({{0, &tokens, 10, 30}}), healthy.run({{0, &tokens, 10, 30}})));
}

// Each thread has its own device (a copy shares the pool) and caches; the weights are one and const.
TEST(Transformer, EightThreadsOnOneModelEqualOne) {
  using Model = guild::Transformer<TinySpec>;
  const auto weights = random_model<Model>(guild::DType::bf16);
  const guild::Cpu device({.threads = 3});
  const auto work = [&](int session) {
    guild::Cpu own = device;
    typename Model::Cache cache;
    typename Model::Cache* list[] = {&cache};
    const Tokens tokens = random_tokens(24, 97, static_cast<std::uint64_t>(session));
    Matrix out;
    for (const auto& [begin, end] : {std::pair<Index, Index>{0, 18}, {18, 19}, {19, 20}, {20, 24}}) {
      const Flat flat({{0, &tokens, begin, end}});
      Matrix states(end - begin, 48), logits(end - begin, 97);
      Model::forward(guild::Pass{.device = own, .batch = flat.batch()}, weights, list, states.view());
      Model::logits(own, weights, states.view(), logits.view());
      out.append(logits);
    }
    return out;
  };
  constexpr int sessions = 4;
  std::vector<Matrix> expected;
  for (int s = 0; s < sessions; ++s) expected.push_back(work(s));
  std::vector<std::thread> threads;
  std::vector<int> wrong(8, 0);
  for (std::size_t t = 0; t < 8; ++t)
    threads.emplace_back([&, t] {
      for (int round = 0; round < 2 * sessions; ++round) {
        const int s = (round + static_cast<int>(t)) % sessions;
        if (!same_bits(work(s), expected[static_cast<std::size_t>(s)])) ++wrong[t];
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(8, 0));
}

TEST(Transformer, WeightsWithOtherNumbersOfPredictionLayersAreNotWalkedTogether) {
  using Model = guild::Transformer<DenseOnly>;
  Model::Weights<guild::Dense<float>> a, b;
  a.mtp.resize(2);
  b.mtp.resize(1);
  int seen = 0;
  const auto count = [&](const auto&...) { ++seen; };
  for (const bool swapped : {false, true}) try {
      Model::visit(count, guild::Path(), swapped ? b : a, swapped ? a : b);
      FAIL() << "they were walked";
    } catch (const guild::Error& error) {
      EXPECT_EQ(error.code(), guild::ErrorCode::op_shape);
      EXPECT_NE(std::string(error.what()).find("prediction layers cannot be walked together"), std::string::npos);
    }
  EXPECT_EQ(seen, 0) << "nothing is visited before the check";
}

}  // namespace transformer_test
