// Models that are saved and loaded again.
#include <guild/checkpoint/save_model.hpp>
#include <guild/cpu.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <guild/checkpoint/load_dense.hpp>
#include <guild/checkpoint/load_weights.hpp>
#include <guild/core/random.hpp>
#include <guild/device/cpu.hpp>
#include <guild/inference/load.hpp>
#include <guild/models/deepseek_v4.hpp>
#include <guild/models/presets.hpp>
#include <guild/modules/streams.hpp>
#include <guild/training/allocate.hpp>

#include "../io/faulty_file_system.hpp"
#include "../io/test_files.hpp"
#include "../support/random_weights.hpp"

namespace save_model_test {

using guild::Buffer;
using guild::DType;
using guild::ErrorCode;
using guild::Index;
using guild::Path;
using guild::SaveOptions;
using guild::TensorRole;
using guild::TensorShape;
using guild::test::TempFolder;
using Model = guild::Transformer<guild_test::TinySpec>;
struct TiedSpec : guild_test::SmallSpec {
  static constexpr guild::TrunkConfig config =
      guild_test::with(guild_test::SmallSpec::config, [](guild::TrunkConfig& c) { c.tied_embeddings = true; });
};
using TiedModel = guild::Transformer<TiedSpec>;

template <class M>
using Masters = typename M::template Weights<guild::Dense<float>>;

/// Masters with other numbers in every tensor, the shared ones too.
template <class M = Model>
Masters<M> random_masters(int mtp_layers, std::uint64_t seed = 1) {
  Masters<M> weights;
  weights.mtp.resize(static_cast<std::size_t>(mtp_layers));
  guild::allocate<M>(weights);
  std::uint64_t stream = 0;
  guild::for_each_tensor<M>(
      [&](const Path&, const TensorShape&, TensorRole role, Buffer<float>& data) {
        guild::Random random(seed, ++stream);
        for (float& value : data.view())
          value = role == TensorRole::table ? static_cast<float>(std::floor(1000.0 * random.uniform()))
                                            : static_cast<float>(2.0 * random.uniform() - 1.0);
      },
      weights);
  return weights;
}

/// Calls f(path, role, a, b) for each pair of tensors of two Dense models.
template <class M = Model, class F>
void compare(Masters<M>& a, Masters<M>& b, const F& f) {
  int tensors = 0;
  guild::for_each_tensor<M>(
      [&](const Path& path, const TensorShape& shape, TensorRole role, const Buffer<float>& x, const Buffer<float>& y) {
        ++tensors;
        ASSERT_EQ(x.size(), y.size()) << path.str();
        f(path, shape, role, x, y);
      },
      a, b);
  EXPECT_GT(tensors, 30);
}
bool same_bits(const Buffer<float>& a, const Buffer<float>& b) {
  return a.size() == b.size() &&
         std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(float)) == 0;
}

TEST(SaveModel, GivesBackEqualBitsInFloat) {
  for (const int mtp_layers : {0, 1}) {
    for (const std::uint64_t shard : {std::uint64_t{5'000'000'000}, std::uint64_t{40'000}}) {
      const TempFolder home;
      Masters<Model> weights = random_masters(mtp_layers);
      guild::save_model<Model>(home.path("m"), weights, {.dtype = DType::f32, .max_shard_bytes = shard});
      guild::verify_manifest(home.path("m"));
      const auto checkpoint = guild::Checkpoint::open(home.path("m"), {.strict_index = true});
      EXPECT_EQ(checkpoint.file_count() > 1, shard == 40'000);
      Masters<Model> loaded = guild::load_dense<Model>(home.path("m"), {.mtp = mtp_layers > 0});
      compare(weights, loaded,
              [&](const Path& path, const TensorShape&, TensorRole role, const auto& a, const auto& b) {
                EXPECT_TRUE(role == TensorRole::shared || same_bits(a, b)) << path.str();
              });
      // And what inference loads.
      const auto published = guild::load_weights<Model>(checkpoint, {.mtp = mtp_layers > 0});
      EXPECT_EQ(published.embedding.weight.format.element, DType::f32);
      EXPECT_EQ(std::memcmp(published.head.weight.data.data(), weights.head.weight.data.data(),
                            static_cast<std::size_t>(published.head.weight.data.size())),
                0);
    }
  }
}

TEST(SaveModel, WritesTablesAsWholeNumbersWhateverTheTypeOfMatrices) {
  using Hashed = guild::Transformer<guild_test::HashSpec>;
  const TempFolder home;
  Masters<Hashed> weights = random_masters<Hashed>(0);
  auto& table = std::get<1>(weights.layers.parts).layers[0].feed_forward.router.table;
  for (Index i = 0; i < table.data.size(); ++i) table.data[i] = static_cast<float>((1 << 24) - 1 - i);
  guild::save_model<Hashed>(home.path("m"), weights, {.dtype = DType::bf16});
  const auto checkpoint = guild::Checkpoint::open(home.path("m"));
  const guild::TensorInfo* stored = checkpoint.find("model.layers.1.mlp.gate.table");
  ASSERT_NE(stored, nullptr);
  EXPECT_EQ(stored->dtype, DType::i64);
  EXPECT_EQ(stored->shape, (std::vector<std::int64_t>{97, 3}));
  auto loaded = guild::load_dense<Hashed>(home.path("m"));
  EXPECT_TRUE(same_bits(std::get<1>(loaded.layers.parts).layers[0].feed_forward.router.table.data, table.data));
}

struct StreamSpec : guild_test::TinySpec {
  static constexpr guild::HyperConfig hyper = {};
  template <class S>
  using ExpertLayer = guild::Block<S, guild::Mla<S>, guild::Moe<S>, guild::HyperConnections<S>>;
  template <class S>
  using DenseLayer = guild::Block<S, guild::Mla<S>, guild::DenseFeedForward<S>, guild::HyperConnections<S>>;
  template <class S>
  using Layers = guild::Streams<S, guild::DenseThenExperts<S>>;
};
TEST(SaveModel, KeepsWhatMixesResidualStreams) {
  using Streamed = guild::Transformer<StreamSpec>;
  const TempFolder home;
  Masters<Streamed> weights = random_masters<Streamed>(0);
  guild::save_model<Streamed>(home.path("m"), weights, {.dtype = DType::f32});
  const auto checkpoint = guild::Checkpoint::open(home.path("m"));
  for (const char* name : {"model.stream_head.weight", "model.stream_head.scale",
                           "model.layers.2.feed_forward_residual.weight", "model.layers.0.mixer_residual.bias"})
    EXPECT_NE(checkpoint.find(name), nullptr) << name;
  Masters<Streamed> loaded = guild::load_dense<Streamed>(home.path("m"));
  compare<Streamed>(weights, loaded,
                    [&](const Path& path, const TensorShape&, TensorRole, const auto& a, const auto& b) {
                      EXPECT_TRUE(same_bits(a, b)) << path.str();
                    });
}

TEST(SaveModel, NeverWritesStaleCopiesOfEmbeddingAndHead) {
  {
    const TempFolder home;
    Masters<Model> weights = random_masters(1);
    ASSERT_FALSE(same_bits(weights.mtp[0].embedding.weight.data, weights.embedding.weight.data));
    guild::save_model<Model>(home.path("m"), weights, {.dtype = DType::f32});
    const Masters<Model> loaded = guild::load_dense<Model>(home.path("m"), {.mtp = true});
    EXPECT_TRUE(same_bits(loaded.mtp[0].embedding.weight.data, weights.embedding.weight.data));
    EXPECT_TRUE(same_bits(loaded.mtp[0].head.weight.data, weights.head.weight.data));
  }
  const TempFolder home;
  Masters<TiedModel> weights = random_masters<TiedModel>(1);
  weights.mtp[0].head.weight.data = {};  // never allocated
  guild::save_model<TiedModel>(home.path("m"), weights, {.dtype = DType::f32});
  const Masters<TiedModel> loaded = guild::load_dense<TiedModel>(home.path("m"), {.mtp = true});
  EXPECT_TRUE(same_bits(loaded.mtp[0].head.weight.data, weights.embedding.weight.data));
  const auto checkpoint = guild::Checkpoint::open(home.path("m"));
  EXPECT_EQ(checkpoint.find("lm_head.weight"), nullptr);
}

TEST(SaveModel, RoundsMatricesAndKeepsVectors) {
  const auto rounded = []<class T>(T, float value) { return static_cast<float>(T(value)); };
  for (const DType dtype : {DType::bf16, DType::f16}) {
    const TempFolder home;
    Masters<Model> weights = random_masters(1);
    guild::save_model<Model>(home.path("m"), weights, {.dtype = dtype});
    EXPECT_EQ(guild::read_config<guild::DeepSeekFamily>(home.path("m")).dtype, dtype);
    Masters<Model> loaded = guild::load_dense<Model>(home.path("m"), {.mtp = true});
    compare(weights, loaded,
            [&](const Path& path, const TensorShape& shape, TensorRole role, const auto& a, const auto& b) {
              if (role == TensorRole::shared) return;
              if (shape.dimensions == 1) {
                EXPECT_TRUE(same_bits(a, b)) << path.str();
                return;
              }
              for (Index i = 0; i < a.size(); ++i)
                ASSERT_EQ(b[i], dtype == DType::bf16 ? rounded(guild::bf16(), a[i]) : rounded(guild::f16(), a[i]))
                    << path.str();
            });
    const auto checkpoint = guild::Checkpoint::open(home.path("m"));
    EXPECT_EQ(checkpoint.find("model.layers.1.mlp.gate.e_score_correction_bias")->dtype, DType::f32);
    EXPECT_EQ(checkpoint.find("model.layers.1.input_layernorm.weight")->dtype, DType::f32);
    EXPECT_EQ(checkpoint.find("model.layers.1.mlp.gate.weight")->dtype, dtype);
    EXPECT_NE(checkpoint.find("model.layers.3.eh_proj.weight"), nullptr);
  }
}

struct Qwen2Spec : guild::LlamaDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 97, .hidden = 48, .layers = 2, .context = 192};
  static constexpr guild::GqaConfig attention = {.heads = 6, .key_heads = 2, .head_dim = 10, .bias = true};
  static constexpr guild::DenseConfig dense = {.hidden = 70};
};
struct MixtralSpec : guild::MixtralDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 97, .hidden = 48, .layers = 2, .context = 192};
  static constexpr guild::GqaConfig attention = {.heads = 6, .key_heads = 2, .head_dim = 10};
  static constexpr guild::ExpertConfig experts = {.hidden = 28, .shared = 0};
};

struct GptOssSpec : guild::GptOssDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 97, .hidden = 48, .layers = 2, .context = 192};
  static constexpr guild::GqaConfig attention = [] {
    auto changed = guild::GptOssDefaults::attention;
    changed.heads = 4, changed.key_heads = 2, changed.head_dim = 10;
    return changed;
  }();
  static constexpr guild::WindowConfig windows = {.window = 9, .types = guild::LayerTypes("sf")};
  static constexpr guild::TopKConfig routing = [] {
    auto changed = guild::GptOssDefaults::routing;
    changed.experts = 5;
    return changed;
  }();
  static constexpr guild::ExpertConfig experts = [] {
    auto changed = guild::GptOssDefaults::experts;
    changed.hidden = 28;
    return changed;
  }();
};

struct SparseSpec : guild::DeepSeekV32Defaults {
  static constexpr guild::TrunkConfig config = {.vocab = 97, .hidden = 48, .layers = 2, .context = 192};
  static constexpr guild::MlaConfig attention = {
      .heads = 3, .query_rank = 20, .latent_rank = 16, .nope_dim = 10, .rope_dim = 8, .value_dim = 9};
  static constexpr guild::IndexerConfig indexer = {.heads = 8, .dim = 12, .top_k = 6};
  static constexpr guild::DenseConfig dense = {.hidden = 70, .layers = 1};
  static constexpr guild::TopKConfig routing = {.experts = 5, .top_k = 2};
  static constexpr guild::ExpertConfig experts = {.hidden = 28, .shared = 1};
};

struct DeepSeekV4Spec : guild::DeepSeekV4Defaults {
  static constexpr guild::TrunkConfig config = {.vocab = 97, .hidden = 48, .layers = 2, .context = 192};
  static constexpr guild::SharedKvConfig attention = {.heads = 4,
                                                      .head_dim = 12,
                                                      .rope_dim = 8,
                                                      .query_rank = 20,
                                                      .output_groups = 2,
                                                      .output_rank = 10,
                                                      .rope = guild::DeepSeekV4Defaults::attention.rope};
  static constexpr guild::WindowConfig windows = {.window = 9, .types = guild::LayerTypes("ss"), .rope_base = 1e4};
  static constexpr guild::HashConfig hashed = {.layers = 1};
  static constexpr guild::TopKConfig routing = {
      .experts = 5, .top_k = 2, .scoring = guild::Scoring::sqrt_softplus, .scale = 1.5};
  static constexpr guild::ExpertConfig experts = {.hidden = 28, .shared = 1, .activation = {.limit = 10.0}};
};

template <class Spec>
void expect_saved_as(const std::string& type, const std::vector<std::string>& names) {
  using M = guild::Transformer<Spec>;
  const TempFolder home;
  Masters<M> weights = random_masters<M>(0);
  guild::save_model<M>(home.path("m"), weights, {.dtype = DType::f32});
  const auto config = guild::read_config<typename Spec::Family>(home.path("m"));
  EXPECT_EQ(config.model_type, type);
  EXPECT_EQ(config.model, canonical(guild::config_of<Spec>));
  const auto checkpoint = guild::Checkpoint::open(home.path("m"));
  for (const std::string& name : names) EXPECT_NE(checkpoint.find(name), nullptr) << name;
  Masters<M> loaded = guild::load_dense<M>(home.path("m"));
  guild::for_each_tensor<M>([](const Path& path, const TensorShape&, TensorRole, const auto& a,
                               const auto& b) { EXPECT_TRUE(same_bits(a, b)) << path.str(); },
                            weights, loaded);
}
TEST(SaveModel, WritesOtherFamiliesAsPublished) {
  expect_saved_as<Qwen2Spec>("qwen2", {"model.layers.1.self_attn.q_proj.bias", "model.layers.1.self_attn.k_proj.weight",
                                       "model.layers.1.mlp.gate_proj.weight", "lm_head.weight"});
  expect_saved_as<MixtralSpec>("mixtral", {"model.layers.0.block_sparse_moe.gate.weight",
                                           "model.layers.1.block_sparse_moe.experts.7.w3.weight"});
  expect_saved_as<GptOssSpec>("gpt_oss",
                              {"model.layers.0.mlp.experts.gate_up_proj", "model.layers.1.mlp.experts.down_proj",
                               "model.layers.1.mlp.experts.gate_up_proj_bias", "model.layers.1.self_attn.sinks"});
  expect_saved_as<SparseSpec>(
      "deepseek_v32",
      {"model.layers.0.self_attn.indexer.wq_b.weight", "model.layers.0.self_attn.indexer.wk.weight",
       "model.layers.1.self_attn.indexer.k_norm.weight", "model.layers.1.self_attn.indexer.k_norm.bias",
       "model.layers.1.self_attn.indexer.weights_proj.weight", "model.layers.1.mlp.gate.e_score_correction_bias"});
  expect_saved_as<DeepSeekV4Spec>(
      "deepseek_v4", {"embed.weight", "head.weight", "norm.weight", "hc_head_fn", "layers.0.hc_attn_scale",
                      "layers.0.ffn.gate.tid2eid", "layers.1.ffn.gate.bias", "layers.1.ffn.experts.4.w3.weight",
                      "layers.1.ffn.shared_experts.w2.weight", "layers.1.attn.attn_sink", "layers.1.attn.wo_a.weight"});
}

TEST(SaveModel, SavesTheShippedModelSoThatItLoadsAsPublished) {
  const std::string source = GUILD_SOURCE_DIR "/checkpoints/mini-r1";
  const TempFolder home;
  const auto weights = guild::load_dense<guild::MiniR1>(source, {.mtp = true});
  guild::save_model<guild::MiniR1>(home.path("m"), weights, {.max_shard_bytes = 2'000'000, .companions = source});
  using Family = guild::DeepSeekFamily;
  const auto config = guild::read_config<Family>(home.path("m")), original = guild::read_config<Family>(source);
  EXPECT_EQ(config.model, original.model);
  EXPECT_EQ(config.model_type, original.model_type);
  EXPECT_EQ(config.bos, original.bos);
  EXPECT_EQ(config.eos, original.eos);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"})
    EXPECT_EQ(guild::test::bytes_of(home.path("m/") + name), guild::test::bytes_of(source + "/" + name)) << name;

  const auto saved = guild::Checkpoint::open(home.path("m")), published = guild::Checkpoint::open(source);
  ASSERT_EQ(saved.tensors().size(), published.tensors().size());
  EXPECT_GT(saved.file_count(), 1);
  for (const guild::TensorInfo& info : published.tensors()) {
    const guild::TensorInfo* ours = saved.find(info.name);
    ASSERT_NE(ours, nullptr) << info.name;
    EXPECT_EQ(ours->shape, info.shape) << info.name;
    if (ours->dtype != info.dtype) continue;  // norms, which are kept in float
    std::vector<char> a(static_cast<std::size_t>(info.bytes)), b(a.size());
    published.read(info, a.data());
    saved.read(*ours, b.data());
    EXPECT_EQ(a, b) << info.name;
  }
  guild::Cpu device;
  const auto model = guild::load<guild::MiniR1>(device, home.path("m"), {.mtp = true});
  // Saving over the folder that the companions come from.
  guild::save_model<guild::MiniR1>(home.path("m"), weights, {.companions = home.path("m")});
  guild::verify_manifest(home.path("m"));
  EXPECT_TRUE(std::filesystem::exists(home.path("m/tokenizer.json")));
  EXPECT_FALSE(std::filesystem::exists(home.path("m/model.safetensors.index.json")));
}

TEST(SaveModel, FailsWithoutHarmToTheOldState) {
  const TempFolder home;
  Masters<Model> old = random_masters(1), next = random_masters(1, 2);
  const SaveOptions options{.dtype = DType::f32, .max_shard_bytes = 100'000};
  guild::save_model<Model>(home.path("m"), old, options);
  const auto expect_old = [&] {
    guild::verify_manifest(home.path("m"));
    const Masters<Model> loaded = guild::load_dense<Model>(home.path("m"));
    EXPECT_TRUE(same_bits(loaded.embedding.weight.data, old.embedding.weight.data));
    EXPECT_EQ(guild::detail::names_in(home.path()), std::vector<std::string>{"m"});
  };
  int calls = 0;
  for (int n = 0;; n += 9) {  // any call of the system
    const auto system = std::make_shared<guild::test::FaultyFileSystem>();
    system->fail_at = n;
    system->error = ENOSPC;
    try {
      guild::AtomicFolder folder(home.path("m"), system);
      guild::save_model<Model>(folder, next, options);  // and no commit
      calls = system->calls;
      break;
    } catch (const guild::Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::io_no_space) << error.what();
      expect_old();
    }
  }
  EXPECT_GT(calls, 50);
  expect_old();

  SaveOptions cancelled = options;
  std::int64_t last = 0;
  cancelled.progress = [&](const guild::Progress& progress) {
    EXPECT_GT(progress.bytes, last);
    last = progress.bytes;
    return progress.bytes < progress.total / 2;
  };
  EXPECT_GUILD_ERROR(ErrorCode::io_cancelled, (guild::save_model<Model>(home.path("m"), next, cancelled), 0));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, (guild::save_model<Model>(home.path("m"), next, {.dtype = DType::i8}), 0));
  next.final_norm.weight.data = {};
  EXPECT_GUILD_ERROR(ErrorCode::op_shape, (guild::save_model<Model>(home.path("m"), next, options), 0));
  EXPECT_GUILD_ERROR(ErrorCode::io_open,
                     (guild::save_model<Model>(home.path("m"), old, {.companions = home.path("none")}), 0));
  expect_old();
}

TEST(LoadDense, GivesTheValuesOfEveryStoredType) {
  for (const std::string name : {"mini-r1", "mini-r1-fp8"}) {
    const std::string folder = GUILD_SOURCE_DIR "/checkpoints/" + name;
    const Masters<guild::MiniR1> dense = guild::load_dense<guild::MiniR1>(folder);
    const auto stored = guild::load_weights<guild::MiniR1>(guild::Checkpoint::open(folder));
    struct Compare {
      int* tensors;
      void operator()(const Path& path, guild::MatrixShape shape, const guild::DenseMatrix<float>& a,
                      const guild::StoredMatrix& b) const {
        ASSERT_EQ(a.rows, shape.rows);
        ASSERT_EQ(a.cols, shape.cols);
        compare(path, a.matrix(), b.view());
      }
      void operator()(const Path& path, guild::StackShape shape, const guild::DenseStack<float>& a,
                      const guild::StoredStack& b) const {
        ASSERT_EQ(a.count, shape.count);
        ASSERT_EQ(b.view().count, shape.count);
        for (Index e = 0; e < shape.count; ++e) compare(path, a.matrices()[e], b.view()[e]);
      }
      void compare(const Path& path, guild::View<const float, 2> a, const guild::WeightView& b) const {
        ++*tensors;
        ASSERT_EQ(a.rows, b.rows);
        ASSERT_EQ(a.cols, b.cols);
        for (Index r = 0; r < a.rows; ++r)
          for (Index c = 0; c < a.cols; ++c) ASSERT_EQ(a(r, c), b.at(r, c)) << path.str();
      }
      void operator()(const Path& path, guild::VectorShape, const guild::DenseVector<float>& a,
                      const guild::StoredVector& b) const {
        EXPECT_TRUE(same_bits(a.data, b.data)) << path.str();
      }
    };
    int tensors = 0;
    guild::MiniR1::visit(Compare{&tensors}, Path(), dense, stored);
    EXPECT_GT(tensors, 100);
  }
}

TEST(LoadDense, RefusesAnotherModelAndTooLittleMemory) {
  EXPECT_GUILD_ERROR(ErrorCode::cf_static_mismatch, guild::load_dense<Model>(GUILD_SOURCE_DIR "/checkpoints/mini-r1"));
  EXPECT_GUILD_ERROR(ErrorCode::cf_memory, guild::load_dense<guild::MiniR1>(GUILD_SOURCE_DIR "/checkpoints/mini-r1",
                                                                            {.memory_budget = 6'000'000}));
}

}  // namespace save_model_test
