// A whole model of two kinds of attention: most layers see a window, some all of the sequence.
#include <guild/cpu.hpp>
#include <guild/models/transformer.hpp>

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <tuple>
#include <utility>
#include <vector>

#include <guild/models/llama.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/layer_list.hpp>

#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"

namespace hybrid_test {

using guild::Index;
using namespace guild_test;

struct Hybrid : SmallSpec {
  using CacheElement = float;
  static constexpr guild::TrunkConfig config =
      with(SmallSpec::config, [](guild::TrunkConfig& c) { c.layers = 7, c.mtp_layers = 0; });
  static constexpr guild::MlaConfig attention = with(SmallSpec::attention, [](guild::MlaConfig& c) { c.sinks = true; });
  static constexpr std::array<int, 7> kinds = guild::every<7>(3, 0, 1);  // local, local, global, and so on
  template <class S>
  using LocalLayer = guild::Block<S, guild::Local<guild::Mla<S>, 9, 2, 4>, guild::DenseFeedForward<S>>;
  template <class S>
  using Layers = guild::LayerList<S::kinds, LocalLayer<S>, SmallSpec::ExpertLayer<S>>;
};
/// As Cohere2: layers of a window turn, those that see all have no position.
struct Unturned : guild::LlamaDefaults {
  using CacheElement = float;
  static constexpr guild::TrunkConfig config = {.vocab = 97, .hidden = 48, .layers = 8, .context = 192};
  static constexpr guild::GqaConfig attention = {.heads = 4, .key_heads = 2, .head_dim = 12};
  static constexpr guild::GqaConfig global = guild::without_position(attention);
  static constexpr guild::WindowConfig windows = {.window = 9, .types = guild::LayerTypes("sssfsssf")};
  static constexpr guild::DenseConfig dense = {.hidden = 40};
  template <class S>
  using Global = guild::Block<S, guild::Gqa<S, S::global>, guild::DenseFeedForward<S>>;
  template <class S>
  using Sliding = guild::Block<S, guild::Local<guild::Gqa<S>, S::windows.window, 0, 4>, guild::DenseFeedForward<S>>;
  template <class S>
  using Layers = guild::LayerList<guild::layer_kinds<S>, Global<S>, Sliding<S>>;
};

template <class S>
struct Runner {
  using Model = guild::Transformer<S>;
  typename Model::template Weights<guild::Published> weights = random_model<Model>();
  guild::Cpu device{{.threads = 2}};

  Matrix run(const std::vector<Piece>& pieces, const std::vector<typename Model::Cache*>& caches) {
    const Flat flat(pieces);
    Matrix states(flat.batch().size(), S::config.hidden);
    Model::forward(guild::Pass{.device = device, .batch = flat.batch()}, weights, caches, states.view());
    return states;
  }
};

template <class S>
void expect_any_split() {
  using Model = guild::Transformer<S>;
  Runner<S> runner;
  const Index length = 90;
  const Tokens tokens = random_tokens(length, S::config.vocab, 5);
  typename Model::Cache whole;
  const Matrix expected = runner.run({{0, &tokens, 0, length}}, {&whole});
  EXPECT_LE(relative_error(runner.run({{0, &tokens, 0, length}}, {}), expected), 1e-5) << "without caches";
  for (const std::vector<Index>& ends : {std::vector<Index>{1, 90}, {13, 17, 90}, {40, 44, 45, 90}, {89, 90}}) {
    typename Model::Cache cache;
    Matrix states;
    Index begin = 0;
    for (const Index end : ends) states.append(runner.run({{0, &tokens, std::exchange(begin, end), end}}, {&cache}));
    EXPECT_LE(relative_error(states, expected), 1e-5) << ends.size() << " pieces";
  }
  typename Model::Cache cache;
  Matrix states;
  for (Index t = 0; t < length; ++t) states.append(runner.run({{0, &tokens, t, t + 1}}, {&cache}));
  EXPECT_LE(relative_error(states, expected), 1e-5) << "one by one";
  EXPECT_EQ(cache.oldest(), length - 4);
}
TEST(Hybrid, AnySplitOfASequenceGivesTheSameStates) {
  expect_any_split<Hybrid>();
  using Model = guild::Transformer<Hybrid>;
  // A ring in the five local layers, all rows in the two global ones.
  constexpr Index row = Hybrid::attention.cache_dim() * Index{sizeof(float)};
  EXPECT_EQ(Model::Cache::bytes(10000), (2 * 10000 + 5 * (2 + 9 - 1 + 4)) * row);
}

TEST(Hybrid, LayersOfAWindowMayTurnAndOthersHaveNoPosition) { expect_any_split<Unturned>(); }

TEST(Hybrid, ARaggedBatchEqualsEachSequenceAlone) {
  using Model = guild::Transformer<Hybrid>;
  Runner<Hybrid> runner;
  const Tokens a = random_tokens(60, Hybrid::config.vocab, 6), b = random_tokens(60, Hybrid::config.vocab, 7);
  Model::Cache one, two, first, second;
  for (const auto& [from_a, to_a, from_b, to_b] :
       {std::array<Index, 4>{0, 30, 0, 1}, {30, 31, 1, 40}, {31, 35, 40, 41}, {35, 60, 41, 43}}) {
    Matrix apart = runner.run({{0, &a, from_a, to_a}}, {&one});
    apart.append(runner.run({{0, &b, from_b, to_b}}, {&two}));
    const Matrix together = runner.run({{0, &a, from_a, to_a}, {1, &b, from_b, to_b}}, {&first, &second});
    ASSERT_LE(relative_error(together, apart), 1e-5) << "from " << from_a << " and " << from_b;
  }
}

TEST(Hybrid, APassThatFailsLeavesNoTraceHoweverLongItIs) {
  using Model = guild::Transformer<Hybrid>;
  Runner<Hybrid> runner;
  const Tokens tokens = random_tokens(90, Hybrid::config.vocab, 8);
  for (const Index count : {Index{1}, Index{4}, Index{5}, Index{50}}) {
    Model::Cache cache, other;
    for (Index t = 0; t < 30; ++t) {
      (void)runner.run({{0, &tokens, t, t + 1}}, {&cache});
      (void)runner.run({{0, &tokens, t, t + 1}}, {&other});
    }
    auto& sixth = std::get<1>(std::get<0>(runner.weights.layers.parts).parts[1].parts).layers[0];
    auto* const weight = reinterpret_cast<float*>(sixth.feed_forward.router.weight.data.data());
    const float before = std::exchange(*weight, std::numeric_limits<float>::quiet_NaN());
    EXPECT_THROW((void)runner.run({{0, &tokens, 30, 30 + count}}, {&cache}), guild::Error);
    *weight = before;
    EXPECT_EQ(cache.length(), 30);
    EXPECT_TRUE(same_bits(runner.run({{0, &tokens, 30, 33}}, {&cache}), runner.run({{0, &tokens, 30, 33}}, {&other})))
        << count << " tokens";
  }
}

}  // namespace hybrid_test
