#include <guild/modules/block.hpp>

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include <guild/cpu.hpp>

#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"

namespace block_test {

using guild::Index;
using namespace guild_test;

struct FourNorms : TinySpec {
  static constexpr guild::TrunkConfig config = with(TinySpec::config, [](guild::TrunkConfig& c) {
    c.norm = {.epsilon = 1e-3, .place = guild::NormPlace::before_and_after};
  });
};

template <class S>
struct Layer {
  using Block = guild::Block<S, guild::Mla<S>, guild::Moe<S>>;
  static constexpr Index length = 17, hidden = S::config.hidden;
  guild::Cpu device{{.threads = 2}};
  typename Block::template Weights<guild::Published> weights = random_weights<Block>();
  guild::Buffer<float> values = random_values(length * hidden, 3);
  Tokens none = Tokens(length);
  Flat flat{{{0, &none, 0, length}}};
  guild::Pass<guild::Cpu> pass{.device = device, .batch = flat.batch()};

  [[nodiscard]] guild::DeviceView<const float, 2> x() const { return values.view(length, hidden); }
  /// The layer as its formula says, from its parts.
  Matrix by_parts() {
    constexpr double epsilon = S::config.norm.epsilon;
    Matrix normed(length, hidden), out(length, hidden), middle(length, hidden), y(length, hidden);
    Block::Norm::forward(device, weights.mixer_norm, x(), normed.view(), epsilon);
    Block::Mixer::forward(pass, weights.mixer, {}, normed.view(), out.view());
    if (Block::post_norms) Block::Norm::forward(device, weights.mixer_post_norm, out.view(), out.view(), epsilon);
    for (std::size_t i = 0; i < out.values.size(); ++i)
      middle.values[i] = values[static_cast<Index>(i)] + out.values[i];
    Block::Norm::forward(device, weights.feed_forward_norm, middle.view(), normed.view(), epsilon);
    Block::FeedForward::forward(pass, weights.feed_forward, normed.view(), out.view());
    if (Block::post_norms)
      Block::Norm::forward(device, weights.feed_forward_post_norm, out.view(), out.view(), epsilon);
    for (std::size_t i = 0; i < out.values.size(); ++i) y.values[i] = middle.values[i] + out.values[i];
    return y;
  }
};

template <class S>
void expect_sum_of_parts() {
  Layer<S> layer;
  const Matrix expected = layer.by_parts();
  Matrix y(layer.length, layer.hidden), kept(layer.length, layer.hidden);
  Layer<S>::Block::forward(layer.pass, layer.weights, {}, layer.x(), y.view());
  EXPECT_LE(relative_error(y, expected), 1e-6);
  guild::Arena arena;
  guild::Arena::Frame memory(arena);
  typename Layer<S>::Block::template Saved<float> saved;
  Layer<S>::Block::forward(layer.pass.with(memory), layer.weights, {}, layer.x(), kept.view(), &saved);
  EXPECT_LE(relative_error(kept, y), 1e-6) << "with what backward needs";
  EXPECT_EQ(saved.mixed.data != nullptr, Layer<S>::Block::post_norms);
}
TEST(Block, AddsWhatItsPartsGive) { expect_sum_of_parts<TinySpec>(); }
TEST(Block, MayNormaliseWhatItAdds) { expect_sum_of_parts<FourNorms>(); }

TEST(Block, VisitsItsNormsInTheOrderTheyAreUsed) {
  Layer<FourNorms> layer;
  std::vector<std::string> norms;
  Layer<FourNorms>::Block::visit(
      [&norms](const guild::Path& path, const auto&, auto&) {
        if (path.str().find("norm.weight") != std::string::npos && path.str().find("latent") == std::string::npos &&
            path.str().find("query") == std::string::npos)
          norms.push_back(path.str());
      },
      guild::Path(), layer.weights);
  EXPECT_EQ(norms, (std::vector<std::string>{"mixer_norm.weight", "mixer_post_norm.weight", "feed_forward_norm.weight",
                                             "feed_forward_post_norm.weight"}));
}

}  // namespace block_test
