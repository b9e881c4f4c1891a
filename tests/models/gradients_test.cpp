// Backward of whole models, from tokens to logits, against central differences in double.
#include <gtest/gtest.h>

#include <algorithm>
#include <span>

#include "../support/gradient_cases.hpp"

namespace model_gradients_test {

using namespace gradient_cases;

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
template <class Spec>
struct MtpCase : LayerCase<typename guild::Transformer<Spec>::Mtp, Spec> {
  using Module = typename guild::Transformer<Spec>::Mtp;
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
class ModelGradients : public testing::Test {};

using Cases = testing::Types<ModelCase<TinySpec>, ModelCase<TiedSpec>, ModelCase<GqaSpec>, ModelCase<MixtralSpec>,
                             ModelCase<GemmaSpec>, ModelCase<GptOssSpec>, ModelCase<HyperSpec>, ModelCase<HashSpec>,
                             ModelCase<DeepSeekV4Spec>, MtpCase<TinySpec>, MtpCase<HyperSpec>>;
TYPED_TEST_SUITE(ModelGradients, Cases);

TYPED_TEST(ModelGradients, AgreeWithCentralDifferencesInARaggedBatch) { gradient_check<TypeParam>({4, 1, 6}, 3); }

}  // namespace model_gradients_test
