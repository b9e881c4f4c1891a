// Layers whose activations are computed a second time: the same bits from less memory; and what layers keep otherwise.
#include <gtest/gtest.h>

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
        EXPECT_EQ(kept.routing().counts(layer)[e], again.routing().counts(layer)[e]);
        tokens += again.routing().counts(layer)[e];
      }
      EXPECT_EQ(tokens, layer == 0 ? 0.0 : 2.0 * 36.0) << "each token is counted once";  // top_k of 36 tokens
      EXPECT_EQ(kept.routing().terms(layer).sum(), again.routing().terms(layer).sum());
      EXPECT_EQ(again.routing().terms(layer).sum() > 0.0, layer > 0);
    }
  }
  EXPECT_GT(guild_test::state_of(kept).moments.size(), 1000U);
}

/// Counts what is taken of an arena: all in all, and at most at a time.
class Meter {
 public:
  struct Bytes {
    Index now = 0, most = 0;
  };
  Meter(guild::Arena& arena, Bytes& bytes) : frame_(arena), bytes_(&bytes) {}
  Meter(const Meter& outer, int) : frame_(outer.frame_.nested()), bytes_(outer.bytes_) {}
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;
  ~Meter() { bytes_->now -= mine_; }
  [[nodiscard]] Meter nested() const { return Meter(*this, 0); }
  template <class T>
  guild::View<T> take(Index count) {
    note(count * Index{sizeof(T)});
    return frame_.template take<T>(count);
  }
  template <class T>
  guild::View<T, 2> take(Index rows, Index cols) {
    note(rows * cols * Index{sizeof(T)});
    return frame_.template take<T>(rows, cols);
  }

 private:
  void note(Index bytes) {
    mine_ += bytes;
    bytes_->now += bytes;
    bytes_->most = std::max(bytes_->most, bytes_->now);
  }
  guild::Arena::Frame frame_;
  Bytes* bytes_;
  Index mine_ = 0;
};

template <class T>
Index bytes_of(guild::View<T> view) {
  return view.size * Index{sizeof(T)};
}
template <class T>
Index bytes_of(guild::View<T, 2> view) {
  return view.rows * view.cols * Index{sizeof(T)};
}

/// One row of docs/training.md's table: bytes of a module for T tokens, measured and by the formula there.
struct Row {
  const char* module;
  Index measured, formula;
};

TEST(Recompute, LayersKeepWhatTheManualSays) {
  constexpr guild::ModelConfig c = Kept::config;
  constexpr Index tokens = 200, real = sizeof(float), integer = sizeof(std::int32_t);
  guild::Cpu device({.threads = 1});
  const auto weights = first_weights<Kept>(1, Second::without);
  const guild::TrainingBatch batch = batch_of({50, 50, 50, 50}, 1);
  guild::Arena arena;
  Meter::Bytes bytes;
  guild::TrainingPass pass;
  pass.batch = batch.batch();
  pass.rope = weights.rope.view();
  Kept::Saved<float> saved;
  guild::Buffer<float> states(tokens * c.hidden);
  Index all = 0;
  {
    Meter memory(arena, bytes);
    Kept::forward(device, weights, pass, guild::View<float, 2>(states.data(), tokens, c.hidden), saved, memory);
    all = bytes.now;
  }
  const auto& dense = std::get<0>(saved.layers.segments).blocks[0];
  const auto& block = std::get<1>(saved.layers.segments).blocks[1];
  const auto& mla = block.mixer;
  const auto& moe = block.feed_forward;
  const auto& a = c.attention;
  const std::vector<Row> rows = {
      {"layer's input", bytes_of(std::get<1>(saved.layers.segments).inputs[1]), tokens * c.hidden * real},
      {"Mla",
       bytes_of(mla.compressed) + bytes_of(mla.query) + bytes_of(mla.latents) + bytes_of(mla.keys_values) +
           bytes_of(mla.attended) + bytes_of(mla.lse),
       tokens * real *
           (a.query_rank + a.heads * (a.nope_dim + a.rope_dim) + a.latent_rank + a.rope_dim +
            a.heads * (a.nope_dim + a.value_dim) + a.heads * a.value_dim + a.heads)},
      {"between the two", bytes_of(block.middle), tokens * c.hidden * real},
      {"TopKRouter", bytes_of(moe.router.logits), tokens * c.moe.experts * real},
      {"Moe",
       bytes_of(moe.chosen) + bytes_of(moe.weights_tk) + bytes_of(moe.assignment.offsets) +
           bytes_of(moe.assignment.token) + bytes_of(moe.assignment.slot_tk),
       tokens * c.moe.top_k * (real + 3 * integer) + (c.moe.experts + 1) * integer},
      {"ExpertPool", bytes_of(moe.experts.gate) + bytes_of(moe.experts.up),
       2 * tokens * c.moe.top_k * c.moe.hidden * real},
      {"shared experts", bytes_of(moe.shared.gate) + bytes_of(moe.shared.up),
       2 * tokens * c.moe.shared_experts * c.moe.hidden * real},
      {"dense Mlp", bytes_of(dense.feed_forward.gate) + bytes_of(dense.feed_forward.up),
       2 * tokens * c.dense_hidden * real}};
  std::printf("bytes kept for each token:\n");
  Index moe_layer = 0;
  for (const Row& row : rows) {
    EXPECT_EQ(row.measured, row.formula) << row.module;
    std::printf("  %-16s %6.1f\n", row.module, static_cast<double>(row.measured) / static_cast<double>(tokens));
    RecordProperty(row.module, std::to_string(row.measured));
    if (std::string(row.module) != "dense Mlp") moe_layer += row.measured;
  }
  // Nothing else is kept: a dense layer, two of experts, and the stream before the final norm.
  const Index dense_layer = rows[0].measured + rows[1].measured + rows[2].measured + rows[7].measured;
  EXPECT_EQ(all, dense_layer + 2 * moe_layer + tokens * c.hidden * real);
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
    Meter::Bytes bytes;
    Meter memory(arena, bytes);
    guild::TrainingPass pass;
    pass.batch = batch.batch();
    pass.rope = weights.rope.view();
    typename Model::template Saved<float> saved;
    guild::Buffer<float> states(tokens * Kept::config.hidden);
    const guild::View<float, 2> rows(states.data(), tokens, Kept::config.hidden);
    Model::forward(device, weights, pass, rows, saved, memory);
    const Index kept = bytes.now;
    Model::backward(device, weights, pass, saved, rows, gradients, memory);
    EXPECT_EQ(bytes.now, kept) << "what backward takes is given back";
    return std::pair(kept, bytes.most);
  };
  const auto [all, most_with_all] = peak_of(std::type_identity<Kept>{});
  const auto [inputs, most] = peak_of(std::type_identity<Recomputed>{});
  std::printf("activations: %lld bytes, recomputed %lld at most\n", static_cast<long long>(most_with_all),
              static_cast<long long>(most));
  EXPECT_EQ(most_with_all, all) << "nothing more in backward";
  constexpr Index choices = 2 * tokens * Kept::config.moe.top_k * Index{sizeof(std::int32_t)};
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
    for (int i = 0; i < 3; ++i) objective.learn(device, weights, batch, size, gradients, nullptr);
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
