// GLM-5: latent attention over the keys that an index chooses.
#pragma once

#include <array>
#include <cstddef>

#include <guild/models/deepseek_v32.hpp>
#include <guild/models/glm5_family.hpp>
#include <guild/modules/block.hpp>
#include <guild/modules/layer_list.hpp>
#include <guild/modules/shared_indexer.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// Layers of which some have no index, as S::indexer.types says.
template <class S>
struct Glm5Layers {
  using SharedMixer = SparseTopK<Mla<S>, SharedIndexer<S>>;
  static_assert(S::indexer.types.size() == 0 || S::indexer.types.size() == S::config.layers,
                "Glm5Defaults: indexer.types must name config.layers layers");
  static_assert(S::indexer.types.size() == 0 || S::indexer.types[0] == IndexerType::full,
                "Glm5Defaults: indexer.types must begin with f: there is no index before the first layer");
  static constexpr auto kinds = [] {
    std::array<int, std::size_t{S::config.layers}> kinds{};
    for (int i = 0; i < S::config.layers; ++i) {
      const bool shared = i < S::indexer.types.size() && S::indexer.types[i] == IndexerType::shared;
      const bool routed = expert_layers(config_of<S>) > 0 && i >= S::dense.layers;
      kinds[static_cast<std::size_t>(i)] = (shared ? 1 : 0) + (routed ? 2 : 0);
    }
    return kinds;
  }();
  using type = LayerList<kinds, typename S::template DenseLayer<S>, Block<S, SharedMixer, DenseFeedForward<S>>,
                         typename S::template ExpertLayer<S>, Block<S, SharedMixer, Moe<S>>>;
};
template <class S>
requires(!S::indexer.types.has(IndexerType::shared)) struct Glm5Layers<S> {
  using type = DenseThenExperts<S>;
};

}  // namespace detail

/// Base of its Specs: a Spec replaces the numbers of the parts, and what else shall differ.
struct Glm5Defaults : DeepSeekV32Defaults {
  static constexpr TrunkConfig config = {.norm = {.epsilon = 1e-5}};
  static constexpr MlaConfig attention = {.query_rank = 2048, .nope_dim = 192, .value_dim = 256};
  static constexpr IndexerConfig indexer = {.heads = 32, .pairs = RopePairs::interleaved};
  using Family = GlmMoeDsaFamily;
  template <class S>
  using Layers = typename detail::Glm5Layers<S>::type;
};

/// GLM-5: 744B parameters, 40B of them active for a token. Source: the published config.json.
struct Glm5Spec : Glm5Defaults {
  static constexpr TrunkConfig config = {
      .vocab = 154880, .hidden = 6144, .layers = 78, .mtp_layers = 1, .context = 202752, .norm = {.epsilon = 1e-5}};
  static constexpr MlaConfig attention = {.heads = 64,
                                          .query_rank = 2048,
                                          .latent_rank = 512,
                                          .nope_dim = 192,
                                          .rope_dim = 64,
                                          .value_dim = 256,
                                          .rope = {.base = 1e6}};
  static constexpr IndexerConfig indexer = {.heads = 32, .dim = 128, .top_k = 2048, .pairs = RopePairs::interleaved};
  static constexpr DenseConfig dense = {.hidden = 12288, .layers = 3};
  static constexpr TopKConfig routing = {.experts = 256, .top_k = 8, .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 2048, .shared = 1};
};

}  // namespace v1
}  // namespace guild
