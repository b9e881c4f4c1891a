// Layers whose activations are computed a second time: the same bits from less memory; and what layers keep otherwise.
#include <gtest/gtest.h>
#include <guild/cpu.hpp>

#include <cstdio>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "trainer_support.hpp"

namespace recompute_test {

using guild_test::batch_of;
using guild_test::first_weights;
using guild_test::Index;
using guild_test::Kept;
using guild_test::Recomputed;
using guild_test::Second;

guild::TrainerOptions options_with_everything() {
  guild::TrainerOptions options;
  options.optimizer = guild::AdamW{.lr = 1e-2};
  options.average = 0.9;
  options.objective = guild_test::all_terms();
  return options;
}

TEST(Recompute, ChangesNoBitOfGradientsCountsTermsAndSteps) {
  guild::Trainer<Kept> kept(guild::Cpu({.threads = 2}), first_weights<Kept>(3, Second::with),
                            options_with_everything());
  guild::Trainer<Recomputed> again(guild::Cpu({.threads = 2}), first_weights<Recomputed>(3, Second::with),
                                   options_with_everything());
  for (std::uint64_t i = 0; i < 6; ++i) {
    const guild::TrainingBatch batches[] = {batch_of({9, 1, 14}, 2 * i), batch_of({5, 7}, 2 * i + 1)};
    const auto a = kept.step(std::span(batches)), b = again.step(std::span(batches));
    ASSERT_EQ(a.outcome, guild::StepOutcome::applied);
    ASSERT_TRUE(guild_test::equal_numbers(guild_test::numbers_of(a), guild_test::numbers_of(b))) << i;
    ASSERT_TRUE(guild_test::equal_bits(guild_test::values_of<Kept>(kept.gradients()),
                                       guild_test::values_of<Recomputed>(again.gradients())))
        << i;
    ASSERT_EQ(guild_test::difference(state_of(kept), state_of(again)), "") << i;
    for (int layer = 0; layer < 4; ++layer) {
      double tokens = 0.0;
      for (Index e = 0; e < 6; ++e) {
        EXPECT_EQ(kept.routing().load(layer)[e], again.routing().load(layer)[e]);
        EXPECT_EQ(kept.routing().importance(layer)[e], again.routing().importance(layer)[e]);
        tokens += again.routing().load(layer)[e];
      }
      EXPECT_EQ(tokens, layer == 0 ? 0.0 : 2.0 * 36.0) << "each token is counted once";  // top_k of 36 tokens
      EXPECT_EQ(again.routing().tokens(layer), layer == 0 ? 0.0 : 36.0);
      EXPECT_EQ(kept.routing().entropy(layer), again.routing().entropy(layer));
      EXPECT_EQ(kept.routing().terms(layer).sum(), again.routing().terms(layer).sum());
      EXPECT_EQ(again.routing().terms(layer).sum() > 0.0, layer > 0);
    }
  }
  EXPECT_GT(guild_test::state_of(kept).moments.size(), 1000U);
}

/// Of views, and of the memory that an arena takes for them: it rounds each up to 64 bytes.
struct Bytes {
  Index exact = 0, taken = 0;
  explicit Bytes(Index bytes) : exact(bytes), taken((bytes + 63) / 64 * 64) {}
  Bytes operator+(const Bytes& more) const {
    Bytes sum = *this;
    sum.exact += more.exact, sum.taken += more.taken;
    return sum;
  }
};
template <class T>
Bytes bytes_of(guild::DeviceView<T> view) {
  return Bytes(view.size * Index{sizeof(T)});
}
template <class T>
Bytes bytes_of(guild::DeviceView<T, 2> view) {
  return Bytes(view.rows * view.cols * Index{sizeof(T)});
}

/// One row of docs/training.md's table: bytes of a module for T tokens, measured and by the formula there.
struct Row {
  const char* module;
  Bytes measured;
  Index formula;
};

TEST(Recompute, LayersKeepWhatTheManualSays) {
  using S = Kept::Spec;
  constexpr guild::TrunkConfig c = S::config;
  constexpr guild::TopKConfig routing = S::routing;
  constexpr guild::ExpertConfig experts = S::experts;
  constexpr Index tokens = 200, real = sizeof(float), integer = sizeof(std::int32_t);
  guild::Cpu device({.threads = 1});
  const auto weights = first_weights<Kept>(1, Second::without);
  const guild::TrainingBatch batch = batch_of({50, 50, 50, 50}, 1);
  guild::Arena arena;
  Kept::Saved<float> saved;
  guild::Buffer<float> states(tokens * c.hidden);
  Index all = 0;
  {
    guild::Arena::Frame memory(arena);
    const guild::Pass pass{.device = device, .batch = batch.batch(), .memory = &memory};
    Kept::forward(pass, weights, {}, guild::View<float, 2>(states.data(), tokens, c.hidden), &saved);
    all = arena.taken();
  }
  const auto& dense = std::get<0>(saved.layers.parts).layers[0];
  const auto& block = std::get<1>(saved.layers.parts).layers[1];
  const auto& mla = block.mixer;
  const auto& moe = block.feed_forward;
  constexpr guild::MlaConfig a = S::attention;
  const std::vector<Row> rows = {
      {"layer's input", bytes_of(std::get<1>(saved.layers.parts).inputs[1]), tokens * c.hidden * real},
      {"Mla",
       bytes_of(mla.compressed) + bytes_of(mla.query) + bytes_of(mla.latents) + bytes_of(mla.keys_values) +
           bytes_of(mla.attended) + bytes_of(mla.branches.lse[0]),
       tokens * real *
           (a.query_rank + a.heads * (a.nope_dim + a.rope_dim) + a.latent_rank + a.rope_dim +
            a.heads * (a.nope_dim + a.value_dim) + a.heads * a.value_dim + a.heads)},
      {"between the two", bytes_of(block.middle), tokens * c.hidden * real},
      {"TopKRouter", bytes_of(moe.router.logits), tokens * routing.experts * real},
      {"Moe",
       bytes_of(moe.chosen) + bytes_of(moe.weights_tk) + bytes_of(moe.assignment.offsets) +
           bytes_of(moe.assignment.token) + bytes_of(moe.assignment.slot_tk),
       tokens * routing.top_k * (real + 3 * integer) + (routing.experts + 1) * integer},
      {"ExpertPool", bytes_of(moe.experts.gate) + bytes_of(moe.experts.up),
       2 * tokens * routing.top_k * experts.hidden * real},
      {"shared experts", bytes_of(moe.shared.network.gate) + bytes_of(moe.shared.network.up),
       2 * tokens * experts.shared * experts.hidden * real},
      {"dense Mlp", bytes_of(dense.feed_forward.gate) + bytes_of(dense.feed_forward.up),
       2 * tokens * S::dense.hidden * real}};
  std::printf("bytes kept for each token:\n");
  Index moe_layer = 0;
  for (const Row& row : rows) {
    EXPECT_EQ(row.measured.exact, row.formula) << row.module;
    std::printf("  %-16s %6.1f\n", row.module, static_cast<double>(row.measured.exact) / static_cast<double>(tokens));
    RecordProperty(row.module, std::to_string(row.measured.exact));
    if (std::string(row.module) != "dense Mlp") moe_layer += row.measured.taken;
  }
  // Nothing else is kept: a dense layer, two of experts, and the stream before the final norm.
  const Bytes dense_layer = rows[0].measured + rows[1].measured + rows[2].measured + rows[7].measured;
  EXPECT_EQ(all, dense_layer.taken + 2 * moe_layer + Bytes(tokens * c.hidden * real).taken);
}

TEST(Recompute, KeepsInputsAndOneLayerAlone) {
  constexpr Index tokens = 800, stream = tokens * Kept::config.hidden * Index{sizeof(float)};
  std::vector<Index> lengths(16, 50);
  const guild::TrainingBatch batch = batch_of(lengths, 1);
  const auto peak_of = [&]<class Model>(std::type_identity<Model>) {
    guild::Cpu device({.threads = 1});
    const auto weights = first_weights<Model>(1, Second::without);
    auto gradients = first_weights<Model>(1, Second::without);
    guild::Arena arena;
    guild::Arena::Frame memory(arena);
    const guild::Pass pass{.device = device, .batch = batch.batch(), .memory = &memory};
    typename Model::template Saved<float> saved;
    guild::Buffer<float> states(tokens * Kept::config.hidden);
    const guild::View<float, 2> rows(states.data(), tokens, Kept::config.hidden);
    Model::forward(pass, weights, {}, rows, &saved);
    const Index kept = arena.taken();
    Model::backward(pass, weights, saved, rows, gradients);
    EXPECT_EQ(arena.taken(), kept) << "what backward takes is given back";
    return std::pair(kept, arena.most_taken());
  };
  const auto [all, most_with_all] = peak_of(std::type_identity<Kept>{});
  const auto [inputs, most] = peak_of(std::type_identity<Recomputed>{});
  std::printf("activations: %lld bytes, recomputed %lld at most\n", static_cast<long long>(most_with_all),
              static_cast<long long>(most));
  EXPECT_EQ(most_with_all, all) << "nothing more in backward";
  constexpr Index choices = 2 * tokens * Kept::Spec::routing.top_k * Index{sizeof(std::int32_t)};
  EXPECT_EQ(inputs, 4 * stream + choices) << "three layers' inputs, the last output, the experts of two layers";
  EXPECT_GT(most, inputs);
  // One layer at a time: its output, and what an expert layer keeps beside its input.
  EXPECT_LE(most - inputs, stream + (all - 4 * stream) / 2);

  // The same in a trainer's objective, after it has grown.
  const auto held_of = [&]<class Model>(std::type_identity<Model>) {
    guild::Cpu device({.threads = 1});
    const auto weights = first_weights<Model>(1, Second::without);
    auto gradients = first_weights<Model>(1, Second::without);
    guild::Objective<Model> objective;
    guild::StepSize size;
    size.add(batch);
    for (int i = 0; i < 3; ++i) objective.learn(device, weights, batch, size, gradients, {});
    return objective.activation_bytes();
  };
  const Index held = held_of(std::type_identity<Kept>{}), less = held_of(std::type_identity<Recomputed>{});
  std::printf("an objective holds %lld bytes, recomputing %lld\n", static_cast<long long>(held),
              static_cast<long long>(less));
  EXPECT_GE(held, most_with_all);
  EXPECT_GE(less, most);
  EXPECT_LT(less, held);
}

}  // namespace recompute_test
