#include <guild/modules/layer_list.hpp>

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <type_traits>
#include <vector>

#include <guild/modules/block.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/mla.hpp>
#include <guild/modules/moe.hpp>

#include "../support/random_weights.hpp"

namespace layer_list_test {

using guild::Index;
using guild::LayerList;
using guild::Repeat;
using guild::Segment;
using guild::Stack;
using namespace guild_test;

using Global = guild::Block<TinySpec, guild::Mla<TinySpec>, guild::DenseFeedForward<TinySpec>>;
using Nearby = guild::Block<TinySpec, guild::Local<guild::Mla<TinySpec>, 8>, guild::DenseFeedForward<TinySpec>>;

constexpr std::array<int, 12> five_to_one = guild::every<12>(6, 0, 1);
constexpr std::array<int, 14> with_rest = guild::every<14>(6, 0, 1);
constexpr std::array<int, 5> alternating = {1, 0, 1, 0, 1};
constexpr std::array<int, 4> alike = {0, 0, 0, 0};
constexpr std::array<int, 6> irregular = {1, 1, 0, 1, 0, 0};
static_assert(five_to_one == std::array{0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1});

static_assert(
    std::is_same_v<LayerList<five_to_one, Nearby, Global>, Repeat<Stack<Segment<Nearby, 5>, Segment<Global, 1>>, 2>>);
static_assert(
    std::is_same_v<LayerList<with_rest, Nearby, Global>,
                   Stack<Repeat<Stack<Segment<Nearby, 5>, Segment<Global, 1>>, 2>, Stack<Segment<Nearby, 2>>>>);
static_assert(
    std::is_same_v<LayerList<alternating, Nearby, Global>,
                   Stack<Repeat<Stack<Segment<Global, 1>, Segment<Nearby, 1>>, 2>, Stack<Segment<Global, 1>>>>);
static_assert(std::is_same_v<LayerList<alike, Nearby>, Stack<Segment<Nearby, 4>>>);
static_assert(std::is_same_v<LayerList<irregular, Nearby, Global>,
                             Stack<Segment<Global, 2>, Segment<Nearby, 1>, Segment<Global, 1>, Segment<Nearby, 2>>>);

/// Of each layer the first tensor's path.
struct Numbers {
  std::vector<std::string>* layers;
  template <class Shape, class... T>
  void operator()(const guild::Path& path, Shape, T&...) const {
    const std::string text = path.str(), layer = text.substr(0, text.find('.', 7));
    if (layers->empty() || layers->back() != layer) layers->push_back(layer);
  }
};

TEST(LayerList, LayersAreNumberedThroughAndOfTheKindTheListSays) {
  using Layers = LayerList<with_rest, Nearby, Global>;
  EXPECT_EQ(Layers::layers, 14);
  Layers::Weights<guild::Published> weights;
  std::vector<std::string> layers, expected;
  const guild::Path root;
  Layers::visit(Numbers{&layers}, root / "layers", 0, weights);
  for (int i = 0; i < 14; ++i) expected.push_back("layers." + std::to_string(i));
  EXPECT_EQ(layers, expected);
  // Of 14 layers two are global: the others keep a ring.
  constexpr Index row = TinySpec::attention.cache_dim() * Index{sizeof(TinySpec::CacheElement)};
  EXPECT_EQ(Layers::Cache::bytes(1000), (2 * 1000 + 12 * (8 - 1 + 16)) * row);
}

}  // namespace layer_list_test
