#include <guild/modules/gates.hpp>

#include <guild/modules/gqa.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/mla.hpp>
#include <guild/training/initialize.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "../support/one_attention.hpp"

namespace gates_test {

using guild::Index;
using namespace guild;
using namespace guild_test;

template <class A>
using Far = Gated<A, FarBiasGate<20, 2>>;
template <class A>
using Branches = Gated<A, BranchGate<20, 2>>;
template <class A>
using Heads = Gated<A, HeadGate<20, 2>>;

TEST(Gates, ExtendingInAnySplitEqualsOneForward) {
  expect_any_split<Far<Gqa<Grouped>>>(2e-6);
  expect_any_split<Far<Local<Gqa<Grouped>, 70, 3>>>(2e-6);
  expect_any_split<Branches<Gqa<Grouped>>>(2e-6);
  expect_any_split<Heads<Local<Gqa<Grouped>, 64, 4>>>(2e-6);
  for (const LatentForm form : {LatentForm::absorbed, LatentForm::expanded, LatentForm::automatic}) {
    expect_any_split<Far<Mla<Latent>>>(3e-6, form);
    expect_any_split<Branches<Local<Mla<Latent>, 70, 3>>>(3e-6, form);
  }
}

/// Gates with their first weights, the rest random: outputs of whole sequences and of one from a cache.
template <class A>
struct Fresh {
  typename A::template Weights<Published> weights = random_weights<A>(DType::f32);
  Cpu device{{.threads = 2}};

  Fresh() {
    A::visit(
        [](const Path& path, const auto& shape, auto& tensor) {
          if constexpr (requires { shape.size; }) {
            if (path.parent()->name() == "far_bias") fill(tensor.data.view(), 0.0f);
            if (path.parent()->name() == "head_gate") fill(tensor.data.view(), 1.0f);
          } else if (path.parent()->name() == "far_bias") {
            std::fill(tensor.data.view().begin(), tensor.data.view().end(), std::byte{0});
          }
        },
        Path{}, weights);
  }
  static void fill(View<float> values, float value) { std::fill(values.begin(), values.end(), value); }

  Matrix run(Index length, bool cached) {
    const Tokens none(static_cast<std::size_t>(length));
    const Flat flat({{0, &none, 0, length}});
    const Buffer<float> x = random_values(length * A::hidden, 7);
    Matrix y(length, A::hidden);
    typename A::Cache cache;
    cache.reserve(length);
    const auto of = [&](int) -> auto& { return cache; };
    const Caches<typename A::Cache> caches = cached ? Caches<typename A::Cache>(of) : Caches<typename A::Cache>();
    A::forward(Pass{.device = device, .batch = flat.batch()}, weights, caches,
               DeviceView<const float, 2>{x.data(), length, A::hidden}, y.view());
    return y;
  }
};
template <class Plain, class WithGate>
void expect_bits_of_none() {
  for (const bool cached : {false, true})
    EXPECT_TRUE(same_bits(Fresh<WithGate>().run(150, cached), Fresh<Plain>().run(150, cached))) << cached;
}
TEST(Gates, ThatAreNotTrainedYetChangeNoBit) {
  expect_bits_of_none<Gqa<Grouped>, Far<Gqa<Grouped>>>();
  expect_bits_of_none<Mla<Latent>, Far<Mla<Latent>>>();
  expect_bits_of_none<Gqa<Grouped>, Heads<Gqa<Grouped>>>();
  expect_bits_of_none<Mla<Latent>, Heads<Mla<Latent>>>();
}

struct GatedSpec : SmallSpec {
  template <class S>
  using Mixer = Far<Mla<S>>;
};
struct BranchSpec : SmallSpec {
  template <class S>
  using Mixer = Branches<Mla<S>>;
};
/// The values of all tensors of a step of this name.
template <class Model>
std::vector<float> first_values(std::string_view gate) {
  typename Model::template Weights<Dense<float>> weights;
  initialize<Model>(weights, {.seed = 3});
  std::vector<float> found;
  for_each_tensor<Model>(
      [&](const Path& path, const auto&, TensorRole, const Buffer<float>& data) {
        if (passes_through(path, gate)) found.insert(found.end(), data.data(), data.data() + data.size());
      },
      weights);
  return found;
}
TEST(Gates, BeginAtZero) {
  const auto far = first_values<Transformer<GatedSpec>>("far_bias");
  const auto branches = first_values<Transformer<BranchSpec>>("branch_gate");
  constexpr std::size_t a_layer = SmallSpec::attention.heads * (SmallSpec::config.hidden + 2);
  EXPECT_EQ(far, std::vector<float>(SmallSpec::config.layers * a_layer));
  EXPECT_EQ(branches, std::vector<float>(SmallSpec::config.layers * 2 * SmallSpec::attention.heads *
                                         (SmallSpec::config.hidden + 1)));
}

}  // namespace gates_test
