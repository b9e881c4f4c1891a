// The first weights: their distribution, what they depend on, and the copies of prediction layers.
#include <guild/cpu.hpp>
#include <guild/training/initialize.hpp>

#include <gtest/gtest.h>

#include <guild/models/llama.hpp>
#include <guild/models/transformer.hpp>
#include <guild/modules/token_novelty.hpp>

#include "../support/random_weights.hpp"
#include "optimizer_support.hpp"

namespace initialize_test {

using guild::ErrorCode;
using namespace guild_test;

using Large = guild::Linear<501, 1001>;

struct TinySpec : SmallSpec {};
struct Tied : SmallSpec {
  static constexpr guild::TrunkConfig config =
      with(SmallSpec::config, [](guild::TrunkConfig& c) { c.tied_embeddings = true; });
};
using Model = guild::Transformer<TinySpec>;

TEST(Initialize, MatricesAreNormal) {
  Large::Weights<guild::Dense<float>> weights;
  guild::Cpu device({.threads = 2});
  guild::initialize<Large>(device, weights, {.seed = 7, .deviation = 0.5});
  const auto& data = weights.weight.data;
  const auto n = static_cast<double>(data.size());
  double moment[5] = {}, neighbours = 0.0, inside = 0.0;
  for (Index i = 0; i < data.size(); ++i) {
    const double z = double(data[i]) / 0.5;
    for (int k = 1; k <= 4; ++k) moment[k] += std::pow(z, k) / n;
    inside += std::fabs(z) < 1.0 ? 1.0 / n : 0.0;
    if (i > 0) neighbours += z * double(data[i - 1]) / 0.5 / n;
  }
  // Five standard errors each of n = 501,501 independent normal numbers.
  const double error = 5.0 / std::sqrt(n);
  EXPECT_NEAR(moment[1], 0.0, error);
  EXPECT_NEAR(moment[2], 1.0, error * std::sqrt(2.0));
  EXPECT_NEAR(moment[3], 0.0, error * std::sqrt(15.0));
  EXPECT_NEAR(moment[4], 3.0, error * std::sqrt(96.0));
  EXPECT_NEAR(inside, 0.682689492, error * 0.47);
  EXPECT_NEAR(neighbours, 0.0, error);
}

TEST(Initialize, ProjectionsForCosinesAreOrthonormalWhereThereIsRoom) {
  using Low = guild::CosineNovelty<12>::Of<30>;
  Low::Weights<guild::Dense<float>> low, other;
  guild::Cpu device({.threads = 2});
  guild::initialize<Low>(device, low, {.seed = 3});
  const auto w = low.project.weight.data.view();
  double cross = 0.0;
  for (Index a = 0; a < 12; ++a)
    for (Index b = 0; b < 12; ++b) {
      double dot = 0.0;
      for (Index i = 0; i < 30; ++i) dot += double(w[a * 30 + i]) * double(w[b * 30 + i]);
      EXPECT_NEAR(dot, a == b ? 1.0 : 0.0, 1e-6) << a << ", " << b;
    }
  guild::initialize<Low>(device, other, {.seed = 4});
  for (Index i = 0; i < w.size; ++i) cross += double(w[i]) * double(other.project.weight.data[i]);
  EXPECT_LT(std::fabs(cross), 6.0) << "another seed's rows";  // 12 if they were the same
  using High = guild::CosineNovelty<30>::Of<12>;
  High::Weights<guild::Dense<float>> high;
  guild::initialize<High>(device, high, {.seed = 3, .deviation = 0.5});
  double squares = 0.0;
  for (const float value : high.project.weight.data.view()) squares += double(value) * double(value);
  EXPECT_NEAR(squares / 360.0, 0.25, 0.1) << "normal numbers";
}

TEST(Initialize, DependsOnSeedAndTensorAlone) {
  NetWeights expected;
  guild::InitializeOptions options;
  options.seed = 3;
  guild::initialize<Net>(expected, options);
  const std::vector<float> bits = elements<Net>(expected);
  for (const int threads : {1, 2, 4}) {
    guild::Cpu device({.threads = threads});
    NetWeights weights = filled_net(9.0f);
    guild::initialize<Net>(device, weights, {.seed = 3});
    EXPECT_TRUE(same_bits(elements<Net>(weights), bits));
    guild::initialize<Net>(device, weights, {.seed = 4});
    EXPECT_FALSE(same_bits(elements<Net>(weights), bits));
  }
  // No two tensors begin alike.
  EXPECT_NE(expected.wide.weight.data[0], expected.tall.weight.data[0]);
  EXPECT_NE(expected.embedding.weight.data[0], expected.wide.weight.data[0]);
}

TEST(Initialize, NormsAreOneAndStateIsZero) {
  NetWeights weights = filled_net(9.0f);
  guild::initialize<Net>(weights, {.seed = 3});
  for (const float value : weights.norm.weight.data.view()) EXPECT_EQ(value, 1.0f);
  for (const float value : weights.bias.data.view()) EXPECT_EQ(value, 0.0f);
}

TEST(Initialize, ShrinksWhatWritesToTheResidualStream) {
  guild::Cpu device({.threads = 1});
  Model::Weights<guild::Dense<float>> plain, scaled;
  guild::initialize<Model>(device, plain, {.seed = 1});
  guild::initialize<Model>(device, scaled, {.seed = 1, .residual_layers = 8});
  int shrunk = 0;
  guild::for_each_parameter<Model>(
      [&](const Path& path, const TensorShape&, const Buffer& a, const Buffer& b) {
        const bool residual = path.parent()->name() == "output" || path.parent()->name() == "down";
        shrunk += residual ? 1 : 0;
        EXPECT_NEAR(b[1], residual ? a[1] / 4.0f : a[1], 1e-9f) << path.str();
      },
      plain, scaled);
  EXPECT_EQ(shrunk, 3 + 1 + 2 * (8 + 1));  // attention, the dense layer, and the experts with the shared one
}

TEST(Initialize, ExpertsKeepTheNumbersThatTheyHadOneByOne) {
  guild::Cpu device({.threads = 1});
  Model::Weights<guild::Dense<float>> weights;
  guild::initialize<Model>(device, weights, {.seed = 6, .deviation = 0.5});
  std::uint64_t before = 0;  // tensors before the experts of the first expert layer
  bool reached = false;
  guild::for_each_tensor<Model>(
      [&](const Path& path, const TensorShape&, guild::TensorRole, const Buffer&) {
        reached = reached || guild::passes_through(path, "experts");
        before += reached ? 0 : 1;
      },
      weights);
  const auto& experts = std::get<1>(weights.layers.parts).layers[0].feed_forward.experts;
  for (Index e = 0; e < experts.up.count; ++e) {
    std::uint64_t number = before + 3 * static_cast<std::uint64_t>(e);
    for (const auto* stack : {&experts.gate, &experts.up, &experts.down}) {
      const auto found = stack->matrices()[e];
      Buffer expected(found.rows * found.cols);
      const guild::NormalJob job{expected.view(), 6, std::uint64_t{0x696e6974} << 32 | number++, 0.5};
      guild::for_each_piece(device, std::span<const guild::NormalJob>(&job, 1));
      EXPECT_EQ(std::memcmp(found.data, expected.data(), static_cast<std::size_t>(expected.size()) * 4), 0) << e;
    }
  }
}

TEST(Initialize, PredictionLayersShareEmbeddingAndHead) {
  guild::Cpu device({.threads = 2});
  Model::Weights<guild::Dense<float>> weights;
  weights.mtp.resize(2);
  guild::initialize<Model>(device, weights, {.seed = 1});
  weights.embedding.weight.data[5] = 42.0f;
  weights.head.weight.data[6] = 43.0f;
  EXPECT_NE(weights.mtp[1].embedding.weight.data[5], 42.0f);
  guild::refresh_shared<Model>(weights);
  for (const auto& layer : weights.mtp) {
    for (Index i = 0; i < weights.embedding.weight.data.size(); ++i) {
      ASSERT_EQ(layer.embedding.weight.data[i], weights.embedding.weight.data[i]);
      ASSERT_EQ(layer.head.weight.data[i], weights.head.weight.data[i]);
    }
    EXPECT_EQ(layer.head.weight.rows, 97);
    EXPECT_EQ(layer.head.weight.cols, 48);
  }
  EXPECT_NE(weights.mtp[0].projection.weight.data[0], weights.mtp[1].projection.weight.data[0]);
}

TEST(RefreshShared, GivesMemoryAndCopiesATiedEmbeddingTwice) {
  using TiedModel = guild::Transformer<Tied>;
  TiedModel::Weights<guild::Dense<float>> weights;
  guild::initialize<TiedModel>(weights, {.seed = 1});
  weights.mtp.resize(1);
  guild::refresh_shared<TiedModel>(weights);
  EXPECT_EQ(weights.mtp[0].head.weight.data[7], weights.embedding.weight.data[7]);
  EXPECT_EQ(weights.mtp[0].embedding.weight.data[7], weights.embedding.weight.data[7]);
}

struct Qwen2Spec : guild::LlamaDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 19, .hidden = 12, .layers = 1, .context = 64};
  static constexpr guild::GqaConfig attention = {.heads = 2, .key_heads = 1, .head_dim = 6, .bias = true};
  static constexpr guild::DenseConfig dense = {.hidden = 14};
};

TEST(Initialize, BiasesAreZeroAndNormsOne) {
  guild::Transformer<Qwen2Spec>::Weights<guild::Dense<float>> weights;
  guild::initialize<guild::Transformer<Qwen2Spec>>(weights, {.seed = 1});
  const auto& layer = weights.layers.layers[0];
  ASSERT_EQ(layer.mixer.query_bias.data.size(), 12);
  for (const auto* bias : {&layer.mixer.query_bias, &layer.mixer.key_bias, &layer.mixer.value_bias})
    for (const float value : bias->data.view()) EXPECT_EQ(value, 0.0f);
  for (const float value : layer.mixer_norm.weight.data.view()) EXPECT_EQ(value, 1.0f);
}

struct ZeroCentredSpec : Qwen2Spec {
  static constexpr guild::TrunkConfig config = {
      .vocab = 19, .hidden = 12, .layers = 1, .context = 64, .norm = {.gain = guild::NormGain::one_plus_weight}};
  static constexpr guild::GqaConfig attention = {.heads = 2, .key_heads = 1, .head_dim = 6, .query_key_norm = true};
};

TEST(Initialize, NormsOfOnePlusTheirWeightAreZero) {
  guild::Transformer<ZeroCentredSpec>::Weights<guild::Dense<float>> weights;
  guild::initialize<guild::Transformer<ZeroCentredSpec>>(weights, {.seed = 1});
  auto& layer = weights.layers.layers[0];
  for (const auto* norm : {&layer.mixer_norm, &layer.feed_forward_norm, &weights.final_norm}) {
    ASSERT_EQ(norm->weight.data.size(), 12);
    for (const float value : norm->weight.data.view()) EXPECT_EQ(value, 0.0f);
  }
  for (const float value : layer.mixer.norms.query.weight.data.view()) EXPECT_EQ(value, 0.0f);
}

TEST(Initialize, RefusesBadOptionsAndOtherMemory) {
  NetWeights weights;
  EXPECT_EQ(code_of([&] { guild::initialize<Net>(weights, {.deviation = -1.0}); }), ErrorCode::op_argument);
  EXPECT_EQ(code_of([&] { guild::initialize<Net>(weights, {.deviation = NAN}); }), ErrorCode::op_argument);
  EXPECT_EQ(code_of([&] { guild::initialize<Net>(weights, {.residual_layers = -1}); }), ErrorCode::op_argument);
  EXPECT_TRUE(weights.wide.weight.data.empty());
  weights.head.weight.data = Buffer(3);
  EXPECT_EQ(code_of([&] { guild::initialize<Net>(weights); }), ErrorCode::op_shape);
  EXPECT_TRUE(weights.wide.weight.data.empty());
}

}  // namespace initialize_test
