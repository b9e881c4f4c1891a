// Backward of every module against central differences in double. A new module joins by a line in `Cases`.
#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <utility>

#include <guild/models/transformer.hpp>

#include "../support/gradient_check.hpp"

namespace gradients_test {

using guild::Index;
using guild::View;
using guild_test::gradient_check;

struct TinySpec : guild::SpecDefaults {
  static constexpr guild::ModelConfig config = {
      .vocab = 19,
      .hidden = 12,
      .layers = 2,
      .dense_layers = 1,
      .dense_hidden = 14,
      .context = 64,
      .attention = {.heads = 2, .query_rank = 6, .latent_rank = 5, .nope_dim = 4, .rope_dim = 4, .value_dim = 3},
      .moe = {.experts = 8, .top_k = 3, .hidden = 5, .shared_experts = 1, .groups = 4, .top_groups = 2, .scale = 2.5},
      .rope = {.factor = 4.0, .mscale = 1.0, .mscale_all_dim = 1.0, .original_context = 16},
  };
};
struct PlainQuerySpec : TinySpec {
  static constexpr guild::ModelConfig config = [] {
    auto c = TinySpec::config;
    c.attention.query_rank = 0;
    c.moe.shared_experts = 0;
    c.moe.scoring = guild::Scoring::softmax;
    c.moe.selection = guild::Selection::greedy;
    c.moe.groups = c.moe.top_groups = 1;
    c.moe.normalize = false;
    return c;
  }();
};

/// What most modules share: hidden in, hidden out, and a pass.
template <class M, class S>
struct LayerCase {
  using Module = M;
  static constexpr Index inputs = S::config.hidden, outputs = S::config.hidden;
  static constexpr std::int32_t vocab = S::config.vocab;
  template <class Real>
  using Saved = typename M::template Saved<Real>;
  static guild::RopeTable rope() { return {S::config.rope, S::config.attention.rope_dim}; }
  template <class... A>
  static void forward(A&&... a) {
    M::forward(std::forward<A>(a)...);
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
  template <class D, class W, class P, class X, class Y, class S, class Memory>
  static void forward(D& device, const W& weights, const P&, X x, Y y, S&, Memory&) {
    Module::forward(device, weights, x, y);
  }
  template <class D, class W, class P, class X, class S, class DY, class DX, class G>
  static void backward(D& device, const W& weights, const P&, X x, const S&, DY dy, DX dx, G& gradients) {
    Module::backward(device, weights, x, dy, dx, gradients);
  }
};
struct NormCase : LayerCase<guild::RmsNorm<12>, TinySpec> {
  template <class D, class W, class P, class X, class Y, class S, class Memory>
  static void forward(D& device, const W& weights, const P&, X x, Y y, S&, Memory&) {
    Module::forward(device, weights, x, y, 1e-6);
  }
  template <class D, class W, class P, class X, class S, class DY, class DX, class G>
  static void backward(D& device, const W& weights, const P&, X x, const S&, DY dy, DX dx, G& gradients) {
    Module::backward(device, weights, x, dy, dx, gradients, 1e-6);
  }
};
struct EmbeddingCase : LayerCase<guild::Embedding<19, 12>, TinySpec> {
  static constexpr Index inputs = 0;
  template <class D, class W, class P, class X, class Y, class S, class Memory>
  static void forward(D& device, const W& weights, const P& pass, X, Y y, S&, Memory&) {
    Module::forward(device, weights, pass.batch.tokens, y);
  }
  template <class D, class W, class P, class X, class S, class DY, class DX, class G>
  static void backward(D& device, const W&, const P& pass, X, const S&, DY dy, DX, G& gradients) {
    Module::backward(device, pass.batch.tokens, View<const double, 2>(dy), gradients);
  }
};
using DenseCase = LayerCase<guild::DenseFeedForward<TinySpec>, TinySpec>;
using MlaCase = LayerCase<guild::Mla<TinySpec>, TinySpec>;
using MlaPlainQueryCase = LayerCase<guild::Mla<PlainQuerySpec>, PlainQuerySpec>;
using MoeCase = LayerCase<guild::Moe<TinySpec>, TinySpec>;
using MoeSoftmaxCase = LayerCase<guild::Moe<PlainQuerySpec>, PlainQuerySpec>;
using BlockCase = LayerCase<guild::Transformer<TinySpec>::MoeBlock, TinySpec>;

/// Stacks and models take their memory in backward too.
template <class S>
struct StackCase : LayerCase<typename guild::Transformer<S>::Layers, S> {
  using Module = typename guild::Transformer<S>::Layers;
  template <class Real>
  using Saved = typename Module::template Saved<Real>;
  template <class D, class W, class P, class X, class SavedHere, class DY, class DX, class G>
  static void backward(D& device, const W& weights, const P& pass, X, SavedHere& saved, DY dy, DX dx, G& gradients) {
    for (Index t = 0; t < dx.rows; ++t)
      for (Index i = 0; i < dx.cols; ++i) dx(t, i) = dy(t, i);
    guild::Arena arena;
    guild::Arena::Frame memory(arena);
    Module::backward(device, weights, pass, saved, dx, gradients, memory);
  }
};
struct RecomputeSpec : TinySpec {
  template <class SegmentType>
  using Training = guild::Recompute<SegmentType>;
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
  template <class D, class W, class P, class X, class Y, class SavedHere, class Memory>
  static void forward(D& device, const W& weights, const P& pass, X, Y y, SavedHere& saved, Memory& memory) {
    saved.states = memory.template take<double>(y.rows, S::config.hidden);
    Module::forward(device, weights, pass, saved.states, saved.model, memory);
    guild::linear(device, Module::head_of(weights).view(), saved.states, y);
  }
  template <class D, class W, class P, class X, class SavedHere, class DY, class DX, class G>
  static void backward(D& device, const W& weights, const P& pass, X, SavedHere& saved, DY dy, DX, G& gradients) {
    guild::Arena arena;
    guild::Arena::Frame memory(arena);
    const auto dstates = memory.template take<double>(dy.rows, S::config.hidden);
    const guild::WeightGradientJob<double> job{dy.rows, dy, saved.states, Module::head_of(gradients).matrix()};
    guild::weight_gradient(device, std::span<const guild::WeightGradientJob<double>>(&job, 1));
    guild::input_gradient(device, Module::head_of(weights).view(), dy, dstates);
    Module::backward(device, weights, pass, saved.model, dstates, gradients, memory);
  }
};
struct TiedSpec : TinySpec {
  static constexpr guild::ModelConfig config = [] {
    auto c = TinySpec::config;
    c.tied_embeddings = true;
    return c;
  }();
};

/// One prediction layer on the states of a model: x are the states, the tokens stand for the next ones.
struct MtpCase : LayerCase<guild::Transformer<TinySpec>::Mtp, TinySpec> {
  template <class D, class W, class P, class X, class Y, class S, class Memory>
  static void forward(D& device, const W& weights, const P& pass, X x, Y y, S& saved, Memory& memory) {
    Module::forward(device, weights, weights.embedding.weight.view(), pass, pass.batch.tokens, x, y, saved, memory);
  }
  template <class D, class W, class P, class X, class S, class DY, class DX, class G>
  static void backward(D& device, const W& weights, const P& pass, X x, const S& saved, DY dy, DX dx, G& gradients) {
    guild::Buffer<double> used_up(dy.rows * dy.cols);
    std::copy(dy.data, dy.data + used_up.size(), used_up.data());
    Module::backward(device, weights, pass, pass.batch.tokens, x, saved, used_up.view(dy.rows, dy.cols), dx,
                     gradients.embedding.weight.matrix(), gradients);
  }
};

template <class Case>
class Gradients : public testing::Test {};

using Cases = testing::Types<LinearCase, NormCase, EmbeddingCase, DenseCase, MlaCase, MlaPlainQueryCase, MoeCase,
                             MoeSoftmaxCase, BlockCase, StackCase<TinySpec>, StackCase<RecomputeSpec>,
                             ModelCase<TinySpec>, ModelCase<TiedSpec>, MtpCase>;
TYPED_TEST_SUITE(Gradients, Cases);

TYPED_TEST(Gradients, AgreeWithCentralDifferencesInARaggedBatch) { gradient_check<TypeParam>({4, 1, 6}, 3); }

}  // namespace gradients_test
