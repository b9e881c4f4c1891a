#include <guild/modules/shared_indexer.hpp>

#include <guild/modules/block.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/mla.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <tuple>
#include <vector>

#include "../support/gradient_check.hpp"
#include "../support/one_attention.hpp"
#include "../support/whole_stack.hpp"

namespace shared_indexer_test {

using guild::Index;
using namespace guild;
using namespace guild_test;

struct Tiny : Latent {
  static constexpr DenseConfig dense = {.hidden = 14, .layers = 1};
  static constexpr TrunkConfig config = {.vocab = 19, .hidden = 12, .layers = 1, .context = 64};
  static constexpr MlaConfig attention = {
      .heads = 2, .query_rank = 6, .latent_rank = 5, .nope_dim = 4, .rope_dim = 4, .value_dim = 3};
  static constexpr IndexerConfig indexer = {.heads = 8, .dim = 6, .top_k = 4};
};
using FullMixer = SparseTopK<Mla<Tiny>, Indexer<Tiny>>;
using SharedMixer = SparseTopK<Mla<Tiny>, SharedIndexer<Tiny>>;
template <class Mixer, int Count = 1>
using Layers = Segment<Block<Tiny, Mixer, DenseFeedForward<Tiny>>, Count>;

/// Passes in double over whole sequences, of which two are longer than what a token sees.
template <class... Parts>
struct Exact {
  using Module = WholeStack<Stack<Parts...>>;
  static constexpr Index hidden = Tiny::config.hidden;
  Cpu device{{.threads = 1}};
  Random random{9};
  RaggedPass ragged{device, {4, 1, 9, 7}, 5, 19};
  Index tokens = ragged.tokens();
  typename Module::template Weights<Dense<double>> weights, gradients;
  Buffer<double> x{tokens * hidden}, dx{tokens * hidden}, y{tokens * hidden}, dy{tokens * hidden};
  Arena arena;
  Arena::Frame memory{arena};
  typename Module::template Saved<double> saved;

  Exact() {
    allocate<Module>(weights);
    allocate<Module>(gradients);
    Module::visit(FillRandom{&random}, Path{}, weights);
    for (double& value : x.view()) value = normal(random);
    for (double& value : dy.view()) value = normal(random);
  }
  void forward(bool with_room = true) {
    saved = {};
    auto pass = ragged.pass.with(memory);
    auto scratch = device.scratch();
    if (with_room) pass.keys = room_for_choice(pass.batch, Tiny::indexer.top_k, scratch);
    Module::forward(pass, weights, {}, x.view(tokens, hidden), y.view(tokens, hidden), &saved);
  }
  double loss() {
    forward();
    return std::inner_product(y.view().begin(), y.view().end(), dy.view().begin(), 0.0);
  }
};

TEST(SharedIndexer, HasTheGradientsOfAttentionOverTheKeysOfTheLayerBefore) {
  using Two = Exact<Layers<FullMixer>, Layers<SharedMixer>>;
  Two one;
  one.forward();
  std::copy(one.dy.view().begin(), one.dy.view().end(), one.dx.data());
  Two::Module::backward(one.ragged.pass.with(one.memory), one.weights, one.saved, one.dx.view(one.tokens, one.hidden),
                        one.gradients);
  std::vector<Differentiated> all, list;
  Two::Module::visit(CollectDifferentiated{&all}, Path{}, one.weights, one.gradients);
  for (const Differentiated& tensor : all)
    if (tensor.name.find("indexer") == std::string::npos) list.push_back(tensor);
  EXPECT_EQ(all.size() - list.size(), 5U);  // of one index
  list.push_back({"x", one.x.data(), one.dx.data(), one.x.size()});
  expect_gradients(list, [&] { return one.loss(); });
}

TEST(SharedIndexer, KeepsTheChoiceOfTheLastIndexBeforeIt) {
  Exact<Layers<FullMixer>, Layers<SharedMixer, 2>, Layers<FullMixer>, Layers<SharedMixer>> one;
  one.forward();
  const auto bits = [&](const auto& layer) {
    const auto view = host_view(one.device, layer.mixer.chosen);
    return std::vector<std::uint32_t>(view.begin(), view.end());
  };
  auto& parts = one.saved.parts;
  const auto first = bits(std::get<0>(parts).layers[0]), second = bits(std::get<2>(parts).layers[0]);
  EXPECT_EQ(bits(std::get<1>(parts).layers[0]), first);
  EXPECT_EQ(bits(std::get<1>(parts).layers[1]), first);
  EXPECT_EQ(bits(std::get<3>(parts).layers[0]), second);
  EXPECT_NE(first, second);
}

TEST(SharedIndexer, RefusesAPassWithoutRoomForAChoice) {
  Exact<Layers<FullMixer>, Layers<SharedMixer>> one;
  EXPECT_THROW(one.forward(false), Error);
}

TEST(SharedIndexer, CachesNoKeysOfAnIndex) {
  EXPECT_EQ(SharedMixer::Cache::bytes(10), Mla<Tiny>::Cache::bytes(10));
  EXPECT_LT(SharedMixer::Cache::bytes(10), FullMixer::Cache::bytes(10));
}

}  // namespace shared_indexer_test
