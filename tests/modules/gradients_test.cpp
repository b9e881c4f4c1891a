// Backward of every module against central differences in double. A new module joins by a line in `Cases`.
#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <utility>

#include <guild/cpu.hpp>
#include <guild/models/gemma3.hpp>
#include <guild/models/gpt_oss.hpp>
#include <guild/models/llama.hpp>
#include <guild/models/mixtral.hpp>
#include <guild/models/transformer.hpp>

#include "../support/gradient_check.hpp"
#include "../support/whole_stack.hpp"

namespace gradients_test {

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

/// Networks of other activations; limits that some values exceed.
struct GeluSpec : TinySpec {
  static constexpr guild::DenseConfig dense = {
      .hidden = 14, .layers = 1, .activation = {.kind = guild::Activation::gelu_tanh}};
  static constexpr guild::ExpertConfig experts = {
      .hidden = 5, .shared = 1, .activation = {.alpha = 1.702, .limit = 0.7, .up_offset = 1.0}};
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
struct PlainGqaSpec : GqaSpec {
  static constexpr guild::GqaConfig attention = {.heads = 2, .key_heads = 2, .head_dim = 6};
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

struct LinearCase : LayerCase<guild::Linear<7, 12>, TinySpec> {
  static constexpr Index outputs = 7;
  template <class P, class W, class X, class Y, class S>
  static void forward(const P& pass, const W& weights, X x, Y y, S&) {
    Module::forward(pass.device, weights, x, y);
  }
  template <class P, class W, class X, class S, class DY, class DX, class G>
  static void backward(const P& pass, const W& weights, X x, const S&, DY dy, DX dx, G& gradients) {
    Module::backward(pass.device, weights, x, dy, dx, gradients);
  }
};
template <guild::NormGain Gain>
struct NormCase : LayerCase<guild::RmsNorm<12, Gain>, TinySpec> {
  using Module = guild::RmsNorm<12, Gain>;
  template <class P, class W, class X, class Y, class S>
  static void forward(const P& pass, const W& weights, X x, Y y, S&) {
    Module::forward(pass.device, weights, x, y, 1e-6);
  }
  template <class P, class W, class X, class S, class DY, class DX, class G>
  static void backward(const P& pass, const W& weights, X x, const S&, DY dy, DX dx, G& gradients) {
    Module::backward(pass.device, weights, x, dy, dx, gradients, 1e-6);
  }
};
template <guild::EmbeddingScale Scale>
struct EmbeddingCase : LayerCase<guild::Embedding<19, 12, Scale>, TinySpec> {
  using Module = guild::Embedding<19, 12, Scale>;
  static constexpr Index inputs = 0;
  template <class P, class W, class X, class Y, class S>
  static void forward(const P& pass, const W& weights, X, Y y, S&) {
    Module::forward(pass.device, weights, pass.batch.tokens, y);
  }
  template <class P, class W, class X, class S, class DY, class DX, class G>
  static void backward(const P& pass, const W& weights, X, const S&, DY dy, DX, G& gradients) {
    Module::backward(pass.device, weights, pass.batch.tokens, View<const double, 2>(dy), gradients);
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
using DenseCase = LayerCase<guild::DenseFeedForward<TinySpec>, TinySpec>;
using GeluCase = LayerCase<guild::DenseFeedForward<GeluSpec>, TinySpec>;
using LimitedMoeCase = LayerCase<guild::Moe<GeluSpec>, TinySpec>;
using BiasedMoeCase = LayerCase<guild::Moe<BiasedSpec>, TinySpec>;
using MlaCase = UncachedCase<guild::Mla<TinySpec>, TinySpec>;
using MlaPlainQueryCase = UncachedCase<guild::Mla<PlainQuerySpec>, PlainQuerySpec>;
using GqaCase = UncachedCase<guild::Gqa<GqaSpec>, GqaSpec>;
using PlainGqaCase = UncachedCase<guild::Gqa<PlainGqaSpec>, PlainGqaSpec>;
using LocalGqaCase = UncachedCase<guild::Local<guild::Gqa<GqaSpec>, 3, 1>, GqaSpec>;
using LocalMlaCase = UncachedCase<guild::Local<guild::Mla<TinySpec>, 2>, TinySpec>;
using MoeCase = LayerCase<guild::Moe<TinySpec>, TinySpec>;
using MoeSoftmaxCase = LayerCase<guild::Moe<PlainQuerySpec>, PlainQuerySpec>;
using BlockCase = UncachedCase<TinySpec::ExpertLayer<TinySpec>, TinySpec>;
/// Norms before and after, their gains 1 + weight.
struct FourNormsSpec : TinySpec {
  static constexpr guild::TrunkConfig config = [] {
    auto c = TinySpec::config;
    c.norm = {.gain = guild::NormGain::one_plus_weight, .place = guild::NormPlace::before_and_after};
    return c;
  }();
};
using FourNormsCase = UncachedCase<FourNormsSpec::ExpertLayer<FourNormsSpec>, FourNormsSpec>;

template <class S>
struct StackCase : UncachedCase<guild_test::WholeStack<typename guild::Transformer<S>::Layers>, S> {
  using Module = guild_test::WholeStack<typename guild::Transformer<S>::Layers>;
  template <class Real>
  using Saved = typename Module::template Saved<Real>;
  template <class P, class W, class X, class SavedHere, class DY, class DX, class G>
  static void backward(const P& pass, const W& weights, X, SavedHere& saved, DY dy, DX dx, G& gradients) {
    for (Index t = 0; t < dx.rows; ++t)
      for (Index i = 0; i < dx.cols; ++i) dx(t, i) = dy(t, i);
    Module::backward(pass, weights, saved, dx, gradients);
  }
};
struct RecomputeSpec : TinySpec {
  template <class LayerStack>
  using Activations = guild::Recompute<LayerStack>;
};
/// The whole model, from tokens to logits.
template <class S>
struct ModelCase : LayerCase<guild::Transformer<S>, S> {
  using Module = guild::Transformer<S>;
  static constexpr Index inputs = 0, outputs = S::config.vocab;
  template <class Real>
  struct Saved {
    typename Module::template Saved<Real> model;
    View<Real, 2> states;
  };
  template <class P, class W, class X, class Y, class SavedHere>
  static void forward(const P& pass, const W& weights, X, Y y, SavedHere& saved) {
    saved.states = pass.memory->template take<double>(y.rows, S::config.hidden);
    Module::forward(pass, weights, {}, saved.states, &saved.model);
    guild::linear(pass.device, Module::head_of(weights).view(), saved.states, y);
  }
  template <class P, class W, class X, class SavedHere, class DY, class DX, class G>
  static void backward(const P& pass, const W& weights, X, SavedHere& saved, DY dy, DX, G& gradients) {
    auto& device = pass.device;
    const auto dstates = pass.memory->template take<double>(dy.rows, S::config.hidden);
    const guild::WeightGradientJob<double> job{dy.rows, dy, saved.states, Module::head_of(gradients).matrix()};
    guild::weight_gradient(device, std::span<const guild::WeightGradientJob<double>>(&job, 1));
    guild::input_gradient(device, Module::head_of(weights).view(), dy, dstates);
    Module::backward(pass, weights, saved.model, dstates, gradients);
  }
};
struct TiedSpec : TinySpec {
  static constexpr guild::TrunkConfig config = [] {
    auto c = TinySpec::config;
    c.tied_embeddings = true;
    return c;
  }();
};

/// One prediction layer on the states of a model: x are the states, the tokens stand for the next ones.
struct MtpCase : LayerCase<guild::Transformer<TinySpec>::Mtp, TinySpec> {
  template <class P, class W, class X, class Y, class S>
  static void forward(const P& pass, const W& weights, X x, Y y, S& saved) {
    Module::forward(pass, weights, weights.embedding.weight.view(), {}, x, y, &saved);
  }
  template <class P, class W, class X, class S, class DY, class DX, class G>
  static void backward(const P& pass, const W& weights, X x, const S& saved, DY dy, DX dx, G& gradients) {
    guild::Buffer<double> used_up(dy.rows * dy.cols);
    std::copy(dy.data, dy.data + used_up.size(), used_up.data());
    Module::backward(pass, weights, x, saved, used_up.view(dy.rows, dy.cols), dx, gradients.embedding.weight.matrix(),
                     gradients);
  }
};

template <class Case>
class Gradients : public testing::Test {};

using Cases =
    testing::Types<LinearCase, NormCase<guild::NormGain::weight>, NormCase<guild::NormGain::one_plus_weight>,
                   EmbeddingCase<guild::EmbeddingScale::one>, EmbeddingCase<guild::EmbeddingScale::root_of_hidden>,
                   DenseCase, MlaCase, MlaPlainQueryCase, GqaCase, PlainGqaCase, LocalGqaCase, LocalMlaCase, GeluCase,
                   LimitedMoeCase, BiasedMoeCase, MoeCase, MoeSoftmaxCase, BlockCase, FourNormsCase,
                   StackCase<TinySpec>, StackCase<RecomputeSpec>, ModelCase<TinySpec>, ModelCase<TiedSpec>,
                   ModelCase<GqaSpec>, ModelCase<MixtralSpec>, ModelCase<GptOssSpec>, ModelCase<GemmaSpec>, MtpCase>;
TYPED_TEST_SUITE(Gradients, Cases);

TYPED_TEST(Gradients, AgreeWithCentralDifferencesInARaggedBatch) { gradient_check<TypeParam>({4, 1, 6}, 3); }

}  // namespace gradients_test
