// DeepSeek-V4: one row per token as key and value of all heads, residual streams, and experts in every layer.
#pragma once

#include <array>
#include <cstddef>
#include <tuple>
#include <type_traits>

#include <guild/models/deepseek_v4_family.hpp>
#include <guild/models/deepseek_v4_names.hpp>
#include <guild/models/spec.hpp>
#include <guild/modules/compressed_keys.hpp>
#include <guild/modules/hash_router.hpp>
#include <guild/modules/hyper_connections.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/layer_list.hpp>
#include <guild/modules/pooled_indexer.hpp>
#include <guild/modules/shared_kv.hpp>
#include <guild/modules/streams.hpp>

namespace guild {
inline namespace v1 {

namespace detail {

/// Layers by what their attention sees, S::windows.types, and by how they route: S::hashed.layers of them first by
/// token id.
template <class S>
struct DeepSeekV4Layers {
  static_assert(S::windows.types.size() == S::config.layers,
                "DeepSeekV4Defaults: windows.types must name config.layers layers");
  static_assert(!S::windows.types.has(LayerType::full_attention),
                "DeepSeekV4Defaults: windows.types must be letters s, c and h: no layer sees all keys");
  static_assert(S::hashed.layers >= 0 && S::hashed.layers <= S::config.layers,
                "DeepSeekV4Defaults: hashed.layers must be from 0 to config.layers");
  static constexpr auto kinds = [] {
    std::array<int, std::size_t{S::config.layers}> kinds{};
    for (int i = 0; i < S::config.layers; ++i)
      kinds[static_cast<std::size_t>(i)] =
          2 * (static_cast<int>(S::windows.types[i]) - static_cast<int>(LayerType::sliding_attention)) +
          (i < S::hashed.layers ? 0 : 1);
    return kinds;
  }();
  template <class Mixer, class Router>
  using Layer = Block<S, Mixer, Moe<S, Router>, HyperConnections<S>>;
  using Sliding = typename S::template SlidingMixer<S>;
  using Sparse = typename S::template SparseMixer<S>;
  using Heavy = typename S::template HeavyMixer<S>;
  static_assert(!S::windows.types.has(LayerType::compressed_sparse_attention) || !std::is_void_v<Sparse>,
                "DeepSeekV4Defaults: windows.types names layers c, for which the Spec has no SparseMixer");
  static_assert(!S::windows.types.has(LayerType::heavily_compressed_attention) || !std::is_void_v<Heavy>,
                "DeepSeekV4Defaults: windows.types names layers h, for which the Spec has no HeavyMixer");
  using Hashed = HashRouter<S>;
  using Routed = typename S::template Router<S>;
  using type = Streams<S, LayerList<kinds, Layer<Sliding, Hashed>, Layer<Sliding, Routed>, Layer<Sparse, Hashed>,
                                    Layer<Sparse, Routed>, Layer<Heavy, Hashed>, Layer<Heavy, Routed>>>;
};

}  // namespace detail

/// Base of its Specs: a Spec replaces the numbers of the parts, and what else shall differ.
struct DeepSeekV4Defaults : SpecBase {
  static constexpr TrunkConfig config = {.norm = {.epsilon = 1e-6}};
  /// `rope` is that of layers which compress; sliding ones turn by windows.rope_base.
  static constexpr SharedKvConfig attention = {.rope = {.base = 160000.0, .mscale = 1.0, .mscale_all_dim = 1.0}};
  static constexpr WindowConfig windows = {.window = 128, .types = LayerTypes("hhchchchc"), .rope_base = 10000.0};
  static constexpr CompressionConfig compression = {};
  static constexpr IndexerConfig indexer = {.top_k = 512, .pairs = RopePairs::interleaved};
  static constexpr HyperConfig hyper = {};
  static constexpr HashConfig hashed = {};
  static constexpr TopKConfig routing = {.scoring = Scoring::sqrt_softplus, .scale = 1.5};
  static constexpr ExpertConfig experts = {.hidden = 2048, .shared = 1, .activation = {.limit = 10.0}};
  template <class S>
  static constexpr auto parts() {
    return std::tuple(S::config, S::attention, S::windows, S::compression, S::indexer, S::hyper, S::hashed, S::routing,
                      S::experts);
  }

  using Family = DeepSeekV4Family;
  using Names = DeepSeekV4Names;
  template <class S>
  using SlidingMixer = Local<SharedKv<S, sliding_attention<S>>, S::windows.window>;
  template <class S>
  using SparseMixer = Compressed<Local<SharedKv<S>, S::windows.window>,
                                 Pooled<S::compression.sparse_rate, PoolWindows::overlapping>, PooledIndexer<S>>;
  template <class S>
  using HeavyMixer = Compressed<Local<SharedKv<S>, S::windows.window>, Pooled<S::compression.heavy_rate>>;
  template <class S>
  using Layers = typename detail::DeepSeekV4Layers<S>::type;
};

/// DeepSeek-V4-Flash: 284B parameters, 13B of them active for a token. Source: the published config.json; the
/// configuration class of transformers 5.24.
struct DeepSeekV4FlashSpec : DeepSeekV4Defaults {
  static constexpr TrunkConfig config = {
      .vocab = 129280, .hidden = 4096, .layers = 43, .context = 1048576, .norm = {.epsilon = 1e-6}};
  static constexpr SharedKvConfig attention = {.heads = 64,
                                               .head_dim = 512,
                                               .rope_dim = 64,
                                               .query_rank = 1024,
                                               .output_groups = 8,
                                               .output_rank = 1024,
                                               .rope = {.base = 160000.0,
                                                        .factor = 16.0,
                                                        .beta_fast = 32.0,
                                                        .beta_slow = 1.0,
                                                        .mscale = 1.0,
                                                        .mscale_all_dim = 1.0,
                                                        .original_context = 65536}};
  static constexpr WindowConfig windows = {
      .window = 128, .types = LayerTypes("sschchchchchchchchchchchchchchchchchchchchc"), .rope_base = 10000.0};
  static constexpr TopKConfig routing = {.experts = 256, .top_k = 6, .scoring = Scoring::sqrt_softplus, .scale = 1.5};
};

/// DeepSeek-V4-Pro: 1.6T parameters, 49B of them active for a token. Source: the published config.json.
struct DeepSeekV4ProSpec : DeepSeekV4Defaults {
  static constexpr TrunkConfig config = {
      .vocab = 129280, .hidden = 7168, .layers = 61, .context = 1048576, .norm = {.epsilon = 1e-6}};
  static constexpr SharedKvConfig attention = {.heads = 128,
                                               .head_dim = 512,
                                               .rope_dim = 64,
                                               .query_rank = 1536,
                                               .output_groups = 16,
                                               .output_rank = 1024,
                                               .rope = DeepSeekV4FlashSpec::attention.rope};
  static constexpr WindowConfig windows = {
      .window = 128,
      .types = LayerTypes("hhchchchchchchchchchchchchchchchchchchchchchchchchchchchchchc"),
      .rope_base = 10000.0};
  static constexpr IndexerConfig indexer = {.top_k = 1024, .pairs = RopePairs::interleaved};
  static constexpr TopKConfig routing = {.experts = 384, .top_k = 6, .scoring = Scoring::sqrt_softplus, .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 3072, .shared = 1, .activation = {.limit = 10.0}};
};

}  // namespace v1
}  // namespace guild
