// A choice of experts is made once: recomputation and later passes take the experts of the first.
#include <gtest/gtest.h>
#include <guild/cpu.hpp>

#include <algorithm>
#include <array>
#include <string>
#include <vector>

#include "trainer_support.hpp"

namespace replay_test {

using guild::Choice;
using guild::DeviceView;
using guild::Index;
using guild::View;
using guild_test::batch_of;
using guild_test::first_weights;
using guild_test::Second;

/// Chooses other experts with every call, as a router with noise would: a layer that is computed again with a choice of
/// its own would have the gradient of another model.
template <class S>
struct Restless : guild::TopKRouter<S> {
  using Base = guild::TopKRouter<S>;
  static inline int calls = 0;
  template <class Device, class Weights, class Real, class Saved>
  static void forward(const guild::Pass<Device>& pass, const Weights& weights, DeviceView<const Real, 2> x,
                      const guild::Routing<Real>& routing, Saved* keep) {
    Base::forward(pass, weights, x, routing, keep);
    if (routing.choice == Choice::given) return;
    ++calls;
    const auto experts = host_view(pass.device, routing.experts);
    for (Index t = 0; t < x.rows; ++t)
      for (std::int32_t& e : experts.row(t)) e = (e + calls) % S::routing.experts;
    Base::forward(pass, weights, x, {routing.experts, routing.weights, Choice::given}, keep);
  }
};
struct RestlessSpec : guild_test::KeptSpec {
  template <class S>
  using Router = Restless<S>;
};
struct RestlessRecomputedSpec : RestlessSpec {
  template <class LayerStack>
  using Activations = guild::Recompute<LayerStack>;
};
using Kept = guild::Transformer<RestlessSpec>;
using Recomputed = guild::Transformer<RestlessRecomputedSpec>;

template <class Model>
std::vector<float> gradients_of(int& calls) {
  using Router = Restless<typename Model::Spec>;
  Router::calls = 0;
  guild::Cpu device({.threads = 2});
  auto weights = first_weights<Model>(3, Second::without);
  typename Model::template Weights<guild::Dense<float>> gradients;
  guild::allocate_trained<Model>(gradients);
  const guild::TrainingBatch batch = batch_of({9, 5}, 1);
  guild::StepSize size;
  size.add(batch);
  guild::Objective<Model> objective(guild_test::all_terms());
  (void)objective.learn(device, weights, batch, size, gradients, {});
  calls = Router::calls;
  return guild_test::values_of<Model>(gradients);
}

TEST(Replay, ARecomputedLayerTakesTheExpertsItChoseTheFirstTime) {
  int kept = 0, recomputed = 0;
  const auto expected = gradients_of<Kept>(kept), found = gradients_of<Recomputed>(recomputed);
  EXPECT_EQ(kept, 2);
  EXPECT_EQ(recomputed, 2) << "each of the two expert layers chooses once";
  EXPECT_TRUE(guild_test::equal_bits(expected, found));
}

/// A forward of the plain model and the experts its layers chose.
struct Pass {
  guild::Arena arena;
  guild_test::Kept::Saved<float> saved;
  std::vector<float> states;
  std::array<std::vector<std::int32_t>, 3> experts;

  void run(const guild_test::Kept::Weights<guild::Dense<float>>& weights, const guild::TrainingBatch& batch,
           std::span<const DeviceView<std::int32_t, 2>> choices = {}) {
    guild::Cpu device({.threads = 2});
    guild::Arena::Frame memory(arena);
    const guild::Pass pass{.device = device, .batch = batch.batch(), .memory = &memory, .choices = choices};
    states.resize(static_cast<std::size_t>(batch.size() * 8));
    guild_test::Kept::forward(pass, weights, {}, View<float, 2>(states.data(), batch.size(), 8), &saved);
    for (std::size_t i = 0; i < 2; ++i) {
      const auto chosen = std::get<1>(saved.layers.parts).layers[i].feed_forward.chosen;
      experts[i + 1].assign(chosen.data, chosen.data + chosen.rows * chosen.cols);
    }
  }
};

TEST(Replay, APassTakesTheChoicesOfAnEarlierOneWhateverTheWeightsSayNow) {
  const guild::TrainingBatch batch = batch_of({7, 6}, 4);
  auto weights = first_weights<guild_test::Kept>(5, Second::without);
  Pass first, same, other, replayed;
  first.run(weights, batch);
  std::array<DeviceView<std::int32_t, 2>, 3> choices;
  for (std::size_t i = 1; i < 3; ++i) choices[i] = {first.experts[i].data(), batch.size(), 2};

  same.run(weights, batch, choices);
  EXPECT_EQ(same.experts, first.experts);
  EXPECT_TRUE(guild_test::equal_bits(same.states, first.states))
      << "the weights of given experts are those of chosen ones";

  for (auto& block : std::get<1>(weights.layers.parts).layers)
    for (Index e = 0; e < 6; ++e) block.feed_forward.router.selection_bias.data[e] = e % 2 == 0 ? 3.0f : -3.0f;
  other.run(weights, batch);
  EXPECT_NE(other.experts, first.experts) << "otherwise this test shows nothing";
  replayed.run(weights, batch, choices);
  EXPECT_EQ(replayed.experts, first.experts);
  EXPECT_TRUE(guild_test::equal_bits(replayed.states, first.states)) << "the bias matters for the choice alone";
}

TEST(Replay, ChoicesThatDoNotFitAreRefused) {
  const guild::TrainingBatch batch = batch_of({7}, 4);
  const auto weights = first_weights<guild_test::Kept>(5, Second::without);
  Pass pass;
  std::vector<std::int32_t> some(14, 1);
  std::array<DeviceView<std::int32_t, 2>, 3> choices;
  const auto code = [&]() -> std::string {
    try {
      pass.run(weights, batch, choices);
    } catch (const guild::Error& error) { return error.what(); }
    return {};
  };
  choices[1] = {some.data(), 6, 2};
  EXPECT_NE(code().find("the experts given for layer 1 are [6, 2], expected [7, 2]"), std::string::npos) << code();
  choices[1] = {some.data(), 7, 2};
  some[3] = 6;
  EXPECT_NE(code().find("expert 6 was given for token 1, expected from 0 to 5"), std::string::npos) << code();
}

}  // namespace replay_test
