// What the gradient checks of modules and of whole models have in common: small Specs with all that may differ, and how
// a module is called.
#pragma once

#include <cstdint>
#include <utility>

#include <guild/cpu.hpp>
#include <guild/models/deepseek_v4.hpp>
#include <guild/models/gemma3.hpp>
#include <guild/models/gpt_oss.hpp>
#include <guild/models/llama.hpp>
#include <guild/models/mixtral.hpp>
#include <guild/models/transformer.hpp>
#include <guild/modules/hash_router.hpp>
#include <guild/modules/streams.hpp>

#include "gradient_check.hpp"

namespace gradient_cases {

using guild::Index;
using guild::View;
using guild_test::gradient_check;

struct TinySpec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 19, .hidden = 12, .layers = 2, .context = 64};
  static constexpr guild::MlaConfig attention = {
      .heads = 2,
      .query_rank = 6,
      .latent_rank = 5,
      .nope_dim = 4,
      .rope_dim = 4,
      .value_dim = 3,
      .rope = {.factor = 4.0, .mscale = 1.0, .mscale_all_dim = 1.0, .original_context = 16}};
  static constexpr guild::DenseConfig dense = {.hidden = 14, .layers = 1};
  static constexpr guild::TopKConfig routing = {.experts = 8, .top_k = 3, .groups = 4, .top_groups = 2, .scale = 2.5};
  static constexpr guild::ExpertConfig experts = {.hidden = 5, .shared = 1};
};
struct PlainQuerySpec : TinySpec {
  static constexpr guild::MlaConfig attention = [] {
    auto a = TinySpec::attention;
    a.query_rank = 0;
    a.sinks = true;
    return a;
  }();
  static constexpr guild::TopKConfig routing = {.experts = 8,
                                                .top_k = 3,
                                                .scoring = guild::Scoring::softmax,
                                                .selection = guild::Selection::greedy,
                                                .normalize = false,
                                                .scale = 2.5};
  static constexpr guild::ExpertConfig experts = {.hidden = 5, .shared = 0};
};

/// Networks of other activations; limits that some values exceed; a shared expert with a gate.
struct GeluSpec : TinySpec {
  static constexpr guild::DenseConfig dense = {
      .hidden = 14, .layers = 1, .activation = {.kind = guild::Activation::gelu}};
  static constexpr guild::ExpertConfig experts = {.hidden = 5,
                                                  .shared = 1,
                                                  .shared_hidden = 7,
                                                  .shared_gate = true,
                                                  .activation = {.alpha = 1.702, .limit = 0.7, .up_offset = 1.0}};
};

/// Networks without a gate; a shared expert with one of the token.
struct UngatedSpec : TinySpec {
  static constexpr guild::DenseConfig dense = {
      .hidden = 14, .layers = 1, .activation = {.kind = guild::Activation::gelu, .gated = false}};
  static constexpr guild::ExpertConfig experts = {
      .hidden = 5,
      .shared = 1,
      .shared_gate = true,
      .activation = {.kind = guild::Activation::relu_squared, .gated = false}};
};

/// Experts and a router with biases.
struct BiasedSpec : GeluSpec {
  static constexpr guild::TopKConfig routing = {.experts = 5,
                                                .top_k = 2,
                                                .scoring = guild::Scoring::softmax,
                                                .selection = guild::Selection::greedy,
                                                .bias = true};
  static constexpr guild::ExpertConfig experts = {
      .hidden = 5, .shared = 0, .bias = true, .activation = {.alpha = 1.702, .limit = 0.7, .up_offset = 1.0}};
};

/// Grouped-query attention with all that it may have.
struct SharedKvSpec : TinySpec {
  static constexpr guild::SharedKvConfig attention = {
      .heads = 4, .head_dim = 6, .rope_dim = 4, .query_rank = 5, .output_groups = 2, .output_rank = 3};
};
struct GqaSpec : guild::LlamaDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 19, .hidden = 12, .layers = 2, .context = 64};
  static constexpr guild::GqaConfig attention = {.heads = 6,
                                                 .key_heads = 2,
                                                 .head_dim = 4,
                                                 .bias = true,
                                                 .output_bias = true,
                                                 .query_key_norm = true,
                                                 .sinks = true,
                                                 .rope = {.factor = 4.0,
                                                          .original_context = 16,
                                                          .pairs = guild::RopePairs::halves,
                                                          .scaling = guild::RopeScaling::llama3}};
  static constexpr guild::DenseConfig dense = {.hidden = 14};
};
/// Norms of whole rows; part of a head turns.
struct RowNormGqaSpec : GqaSpec {
  static constexpr guild::GqaConfig attention = {.heads = 2,
                                                 .key_heads = 2,
                                                 .head_dim = 6,
                                                 .query_key_norm = true,
                                                 .norm_span = guild::NormSpan::row,
                                                 .rope_share = 0.7};
};
struct MixtralSpec : guild::MixtralDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 19, .hidden = 12, .layers = 2, .context = 64};
  static constexpr guild::GqaConfig attention = {.heads = 4, .key_heads = 1, .head_dim = 4};
  static constexpr guild::TopKConfig routing = {
      .experts = 5, .top_k = 2, .scoring = guild::Scoring::softmax, .selection = guild::Selection::greedy};
  static constexpr guild::ExpertConfig experts = {.hidden = 5, .shared = 0};
};

/// All that Gemma 3 has.
struct GemmaSpec : guild::Gemma3Defaults {
  static constexpr guild::TrunkConfig config = {.vocab = 19,
                                                .hidden = 12,
                                                .layers = 3,
                                                .context = 64,
                                                .tied_embeddings = true,
                                                .embedding_scale = guild::EmbeddingScale::root_of_hidden,
                                                .norm = guild::gemma3_norm};
  static constexpr guild::GqaConfig attention = {.heads = 4,
                                                 .key_heads = 2,
                                                 .head_dim = 4,
                                                 .query_key_norm = true,
                                                 .scale_dim = 7,
                                                 .rope = {.base = 100.0, .pairs = guild::RopePairs::halves}};
  static constexpr guild::WindowConfig windows = {.window = 3, .types = guild::LayerTypes("ssf"), .rope_base = 20.0};
  static constexpr guild::DenseConfig dense = {.hidden = 14, .activation = {.kind = guild::Activation::gelu_tanh}};
};
/// Windows, sinks and biases wherever there are any.
struct GptOssSpec : guild::GptOssDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 19, .hidden = 12, .layers = 2, .context = 64};
  static constexpr guild::GqaConfig attention = [] {
    auto changed = guild::GptOssDefaults::attention;
    changed.heads = 4, changed.key_heads = 2, changed.head_dim = 4;
    return changed;
  }();
  static constexpr guild::WindowConfig windows = {.window = 3, .types = guild::LayerTypes("sf")};
  static constexpr guild::TopKConfig routing = BiasedSpec::routing;
  static constexpr guild::ExpertConfig experts = BiasedSpec::experts;
};

/// Three residual streams.
struct HyperSpec : TinySpec {
  static constexpr guild::HyperConfig hyper = {.streams = 3, .sinkhorn_rounds = 4, .epsilon = 1e-3};
  template <class S>
  using DenseLayer = guild::Block<S, guild::Mla<S>, guild::DenseFeedForward<S>, guild::HyperConnections<S>>;
  template <class S>
  using ExpertLayer = guild::Block<S, guild::Mla<S>, guild::Moe<S>, guild::HyperConnections<S>>;
  template <class S>
  using Layers = guild::Streams<S, guild::DenseThenExperts<S>>;
  template <class S>
  static constexpr auto parts() {
    return std::tuple(S::config, S::attention, S::hyper, S::dense, S::routing, S::experts);
  }
};

/// All that DeepSeek-V4 has, in a layer of windows alone and one of pooled rows: streams, a shared row with sinks, both
/// routers, limits.
struct DeepSeekV4Spec : guild::DeepSeekV4Defaults {
  static constexpr guild::TrunkConfig config = {.vocab = 19, .hidden = 12, .layers = 2, .context = 64};
  static constexpr guild::SharedKvConfig attention = {
      .heads = 4, .head_dim = 6, .rope_dim = 4, .query_rank = 5, .output_groups = 2, .output_rank = 3};
  static constexpr guild::WindowConfig windows = {.window = 3, .types = guild::LayerTypes("sh"), .rope_base = 20.0};
  static constexpr guild::CompressionConfig compression = {.sparse_rate = 2, .heavy_rate = 3};
  static constexpr guild::HyperConfig hyper = HyperSpec::hyper;
  static constexpr guild::HashConfig hashed = {.layers = 1};
  static constexpr guild::TopKConfig routing = {
      .experts = 5, .top_k = 2, .scoring = guild::Scoring::sqrt_softplus, .scale = 1.5};
  static constexpr guild::ExpertConfig experts = {.hidden = 5, .shared = 1, .activation = {.limit = 1.25}};
};

/// The routers of DeepSeek-V4: layers whose tokens have their experts from a table, then layers that choose.
struct HashSpec : TinySpec {
  static constexpr guild::DenseConfig dense = {.layers = 0};
  static constexpr guild::TopKConfig routing = {
      .experts = 8, .top_k = 3, .scoring = guild::Scoring::sqrt_softplus, .scale = 1.5};
  template <class S>
  using HashLayer = guild::Block<S, guild::Mla<S>, guild::Moe<S, guild::HashRouter<S>>>;
  template <class S>
  using Layers = guild::Stack<guild::Segment<HashLayer<S>, 1>, guild::Segment<typename S::template ExpertLayer<S>, 1>>;
};

/// What most modules share: hidden in, hidden out, and a pass.
template <class M, class S>
struct LayerCase {
  using Module = M;
  static constexpr Index inputs = S::config.hidden, outputs = S::config.hidden;
  static constexpr std::int32_t vocab = S::config.vocab;
  template <class Real>
  using Saved = typename M::template Saved<Real>;
  template <class P, class W, class X, class Y, class Saved>
  static void forward(const P& pass, const W& weights, X x, Y y, Saved& saved) {
    M::forward(pass, weights, x, y, &saved);
  }
  template <class... A>
  static void backward(A&&... a) {
    M::backward(std::forward<A>(a)...);
  }
  template <class... A>
  static double extra_loss(A&&...) {
    return 0.0;
  }
};
/// Modules that may have caches, and have none in training.
template <class M, class S>
struct UncachedCase : LayerCase<M, S> {
  template <class P, class W, class X, class Y, class Saved>
  static void forward(const P& pass, const W& weights, X x, Y y, Saved& saved) {
    M::forward(pass, weights, {}, x, y, &saved);
  }
};

}  // namespace gradient_cases
