// The extended model beside the one that it extends: equal to the bit where nothing is merged and no key is left out.
#include <guild/models/deepseek_r1_extended.hpp>

#include <guild/checkpoint/load_dense.hpp>
#include <guild/checkpoint/save_model.hpp>
#include <guild/cpu.hpp>
#include <guild/inference/load.hpp>
#include <guild/inference/session.hpp>
#include <guild/models/presets.hpp>
#include <guild/training/trainer.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "../core/code_of.hpp"
#include "../io/test_files.hpp"
#include "../support/checkpoint_tensors.hpp"
#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"

namespace deepseek_r1_extended_test {

using guild::ErrorCode;
using guild::Index;
using guild::test::TempFolder;
using namespace guild_test;

const std::string mini = GUILD_SOURCE_DIR "/checkpoints/mini-r1";

struct Small : guild::DefaultMerging {
  using Novelty = guild::CosineNovelty<16>;
};
/// Nothing is merged, by the code that merges.
struct Whole : Small {
  using Budget = guild::TokenBucket<1, 1, 4, 8>;
  static constexpr float threshold = 0.0f;
};
struct SmallInflation : guild::DefaultInflation {
  static constexpr Index gate_rank = 16, detail_rank = 16;
};

struct HalfSpec : guild::DeepSeekR1ExtendedDefaults<guild::MiniR1Spec> {
  static constexpr guild::WindowConfig windows = {.window = 24};
  static constexpr Index near = 8;
  template <class S>
  using Merging = guild::SoftTokenMerging<S, Small>;
  template <class S>
  using Inflation = guild::TokenInflation<S, SmallInflation>;
};
struct WindowSpec : HalfSpec {
  template <class S>
  using Merging = guild::SoftTokenMerging<S, Whole>;
};
struct GlobalSpec : WindowSpec {
  static constexpr guild::WindowConfig windows = {.types = guild::LayerTypes("ffff")};
};
using Half = guild::Transformer<HalfSpec>;
using Window = guild::Transformer<WindowSpec>;
using Global = guild::Transformer<GlobalSpec>;

// The first and the last layer see a window; of the span the first sees all.
static_assert(HalfSpec::span == guild::LayerSpan{1, 3});
static_assert(guild::inner_layers(61) == guild::LayerSpan{4, 57} && guild::inner_layers(1) == guild::LayerSpan{0, 1} &&
              guild::inner_layers(2) == guild::LayerSpan{0, 2} && guild::inner_layers(3) == guild::LayerSpan{1, 2});
static_assert(guild::hybrid_layers(4, {1, 3}, 6) == guild::LayerTypes("sfss"));
static_assert(guild::hybrid_layers(61, {4, 57}, 6).count(guild::LayerType::full_attention) == 9);
static_assert(guild::config_of<guild::DeepSeekR1ExtendedSpec> == guild::config_of<guild::DeepSeekR1Spec>);

TEST(DeepSeekR1Extended, TakesTheBytesThatItsLayersSay) {
  // Rows of 576 bf16. Windows of 1024 with 4 pinned: rings of 1043 rows; slots have a float more.
  constexpr Index tokens = 131072, slots = 16 + (tokens - 1) / 2, row = 1152, ring = 4 + 1024 - 1 + 16;
  constexpr Index outside = 8 * ring * row, inside = 9 * slots * (row + 4) + 44 * ring * (row + 4);
  constexpr Index of_span = (8 - 1 + 16) * (7168 + 128 + 2) * 4 + (2 - 1 + 16) * (2 * 7168 * 4 + 6 * 8);
  EXPECT_EQ(guild::DeepSeekR1Extended::Cache::bytes(tokens), outside + inside + of_span);
  EXPECT_EQ(guild::DeepSeekR1::Cache::bytes(tokens), 61 * tokens * row);
}

/// A folder that a model loads, and what it says of it.
template <class Model>
struct Loaded {
  guild::LanguageModel<Model, guild::Cpu> language =
      guild::load<Model>(guild::Cpu({.threads = 2}), mini, {.memory_budget = -1});
  guild::Cpu device{{.threads = 2}};

  Matrix logits(const Tokens& tokens, Index begin, Index end, typename Model::Cache* cache) {
    const Flat flat({{0, &tokens, begin, end}});
    Matrix states(end - begin, Model::config.hidden), logits(end - begin, Model::config.vocab);
    std::vector<typename Model::Cache*> caches;
    if (cache != nullptr) caches.push_back(cache);
    Model::forward(guild::Pass{.device = device, .batch = flat.batch()}, language.weights(), caches, states.view());
    Model::logits(device, language.weights(), states.view(), logits.view());
    return logits;
  }
  /// By chunks over a cache that end so.
  Matrix decoded(const Tokens& tokens, const std::vector<Index>& ends) {
    typename Model::Cache cache;
    Matrix all;
    Index begin = 0;
    for (const Index end : ends) all.append(logits(tokens, std::exchange(begin, end), end, &cache));
    return all;
  }
};
guild_test::Tokens tokens_of(Index count) { return random_tokens(count, guild::MiniR1::config.vocab, 3); }

/// Equal logits in every bit, whole and decoded.
template <class Model>
void expect_bits_of_the_plain_model(Index length) {
  Loaded<guild::MiniR1> plain;
  Loaded<Model> extended;
  const Tokens tokens = tokens_of(length);
  EXPECT_TRUE(same_bits(extended.logits(tokens, 0, length, nullptr), plain.logits(tokens, 0, length, nullptr)));
  std::vector<Index> single;
  for (Index end = 1; end <= length; ++end) single.push_back(end);
  for (const auto& ends : {std::vector<Index>{length}, {length / 3, length / 3 + 1, length}, single})
    EXPECT_TRUE(same_bits(extended.decoded(tokens, ends), plain.decoded(tokens, ends))) << ends.size() << " chunks";
}
TEST(DeepSeekR1Extended, WithoutMergingAndWindowsHasTheBitsOfThePlainModel) {
  for (const Index length : {Index{2}, Index{7}, Index{90}}) expect_bits_of_the_plain_model<Global>(length);
}
TEST(DeepSeekR1Extended, OfNoMoreTokensThanAWindowHasTheBitsOfThePlainModel) {
  expect_bits_of_the_plain_model<Window>(HalfSpec::windows.window);
  Loaded<guild::MiniR1> plain;
  Loaded<Window> extended;
  const Tokens tokens = tokens_of(60);
  const Matrix a = extended.logits(tokens, 0, 60, nullptr), b = plain.logits(tokens, 0, 60, nullptr);
  EXPECT_LE(relative_error(a.middle_rows(0, 24), b.middle_rows(0, 24)), 1e-5);  // experts get other numbers of rows
  EXPECT_GT(relative_error(a.middle_rows(40, 20), b.middle_rows(40, 20)), 1e-3) << "the windows do nothing";
}

TEST(DeepSeekR1Extended, MergedDecodingInAnySplitEqualsOneForward) {
  Loaded<Half> half;
  const Index length = 70;
  const Tokens tokens = tokens_of(length);
  const Matrix expected = half.logits(tokens, 0, length, nullptr);
  Half::Cache cache;
  (void)half.logits(tokens, 0, length, &cache);
  const auto& of_span = std::get<1>(cache.layers.parts);
  EXPECT_EQ(of_span.length(), length);
  EXPECT_LT(of_span.inner.length(), 60);
  EXPECT_LE(of_span.inner.length(), Small::Budget::max_slots(length));
  for (const auto& ends : {std::vector<Index>{70}, {1, 2, 3, 40, 41, 70}, {33, 34, 35, 36, 37, 70}})
    EXPECT_LE(relative_error(half.decoded(tokens, ends), expected), 1e-4) << ends.size() << " chunks";
  Loaded<guild::MiniR1> plain;
  EXPECT_GT(relative_error(expected, plain.logits(tokens, 0, length, nullptr)), 0.01) << "nothing was merged";
}

TEST(DeepSeekR1Extended, APlainFolderLoadsWithOneSentenceAndNeutralTensors) {
  const Loaded<Half> half;
  ASSERT_EQ(half.language.warnings().size(), 1U);
  EXPECT_EQ(half.language.warnings()[0],
            "11 tensors of extensions are not in " + mini +
                " and begin as those of a fresh model: model.layers.1.inflation, model.layers.1.merging, "
                "model.layers.1.self_attn.far_bias");
  const auto& span = std::get<1>(half.language.weights().layers.parts);
  for (const auto* zero : {&span.merging.shift.weight, &span.merging.score.weight, &span.inflation.gate_up.weight,
                           &span.inflation.detail_up.weight})
    for (Index r = 0; r < zero->rows; ++r)
      for (Index c = 0; c < zero->cols; ++c) ASSERT_EQ(zero->view().at(r, c), 0.0f);
  EXPECT_EQ(span.merging.novelty_score.data[0], 0.0f);
  // The random ones are the same whenever they are made, of any residence, and as floats.
  const auto project = [](const auto& weights) {
    std::vector<float> values(std::size_t(16 * 144));
    const auto& matrix = std::get<1>(weights.layers.parts).merging.project.weight;
    for (Index r = 0; r < 16; ++r) expand_row(matrix.view(), r, 0, 144, values.data() + r * 144);
    return values;
  };
  const auto values = project(half.language.weights());
  for (std::size_t a = 0; a < 16; ++a)
    for (std::size_t b = 0; b < 16; ++b) {
      double dot = 0.0;
      for (std::size_t i = 0; i < 144; ++i) dot += double(values[a * 144 + i]) * double(values[b * 144 + i]);
      ASSERT_NEAR(dot, a == b ? 1.0 : 0.0, 1e-6);
    }
  std::string told;
  guild::LoadOptions options;
  options.residence = guild::Residence::mapped;
  options.warn = [&](const std::string& what) { told += what; };
  EXPECT_EQ(project(guild::load_weights<Half>(guild::Checkpoint::open(mini), options)), values);
  EXPECT_EQ(told, half.language.warnings()[0]);
  EXPECT_EQ(project(guild::load_dense<Half>(mini)), values);
}

struct TinyExtended : guild::DeepSeekR1ExtendedDefaults<TinySpec> {
  template <class S>
  using Inflation = guild::TokenInflation<S, SmallInflation>;
};
TEST(DeepSeekR1Extended, ExtensionsAreThereAsAWholeOrNotAtAll) {
  using Tiny = guild::Transformer<TinyExtended>;
  const auto code_without = [](const std::vector<std::string>& names) {
    const TempFolder folder;
    CheckpointTensors<Tiny> tensors;
    for (const std::string& name : names) {
      std::erase_if(tensors.all(), [&](const auto& tensor) { return tensor.first.starts_with(name); });
    }
    tensors.write(folder);
    return code_of([&] { (void)guild::load_weights<Tiny>(guild::Checkpoint::open(folder.path())); });
  };
  EXPECT_EQ(code_without({}), ErrorCode::count_);
  EXPECT_EQ(code_without({"model.layers.1.merging."}), ErrorCode::count_);
  EXPECT_EQ(
      code_without({"model.layers.1.merging.", "model.layers.1.inflation.", "model.layers.1.self_attn.far_bias."}),
      ErrorCode::count_);
  EXPECT_EQ(code_without({"model.layers.1.merging.shift."}), ErrorCode::wt_missing);
  EXPECT_EQ(code_without({"model.layers.1.self_attn.far_bias.bias"}), ErrorCode::wt_missing);
  EXPECT_EQ(code_without({"model.layers.1.self_attn.o_proj."}), ErrorCode::wt_missing);
  EXPECT_EQ(code_without({"model.layers.1.self_attn."}), ErrorCode::wt_missing);
}

/// The tensors of extensions by their paths.
template <class Model>
std::map<std::string, std::vector<float>> extensions(typename Model::template Weights<guild::Dense<float>>& weights) {
  std::map<std::string, std::vector<float>> all;
  guild::for_each_tensor<Model>(
      [&](const guild::Path& path, const auto&, guild::TensorRole, const guild::Buffer<float>& data) {
        if (!guild::extension_of<HalfSpec::Names>(path).empty())
          all[path.str()] = std::vector<float>(data.data(), data.data() + data.size());
      },
      weights);
  return all;
}
/// After three steps on a sequence each.
template <class Model>
guild::Trainer<Model> trained(typename Model::template Weights<guild::Dense<float>> weights) {
  guild::Trainer<Model> trainer(guild::Cpu({.threads = 2}), std::move(weights),
                                {.optimizer = guild::AdamW{.lr = 1e-3, .weight_decay = 0.0}});
  guild::TrainingBatch batch;
  for (int step = 0; step < 3; ++step) {
    batch.clear();
    const Tokens tokens = random_tokens(60, Model::config.vocab, static_cast<std::uint64_t>(step));
    batch.append(tokens, Tokens(tokens.rbegin(), tokens.rend()));
    (void)trainer.step(batch);
  }
  return trainer;
}
struct RecomputedSpec : HalfSpec {
  template <class LayerStack>
  using Activations = guild::Recompute<LayerStack>;
};
TEST(DeepSeekR1Extended, RecomputedTrainsToTheSameBits) {
  using Recomputed = guild::Transformer<RecomputedSpec>;
  auto kept = trained<Half>(guild::load_dense<Half>(mini));
  auto again = trained<Recomputed>(guild::load_dense<Recomputed>(mini));
  EXPECT_EQ(extensions<Half>(kept.weights()), extensions<Recomputed>(again.weights()));
}
TEST(DeepSeekR1Extended, TrainsAllOfItAndSavesAndLoadsAgain) {
  auto weights = guild::load_dense<Half>(mini);
  const auto before = extensions<Half>(weights);
  EXPECT_EQ(before.size(), 11U);
  auto trainer = trained<Half>(std::move(weights));
  auto after = extensions<Half>(trainer.weights());
  for (const auto& [path, values] : before) EXPECT_NE(after[path], values) << path << " has no gradient";

  const TempFolder home;
  const std::string folder = home.path("m");
  guild::save_model<Half>(folder, trainer.weights(), {.dtype = guild::DType::f32, .companions = mini});
  guild::LoadOptions options;
  options.warn = [](const std::string& what) { ADD_FAILURE() << what; };
  auto again = guild::load_dense<Half>(folder, options);
  EXPECT_EQ(extensions<Half>(again), after);
  const auto checkpoint = guild::Checkpoint::open(folder);
  for (const char* name :
       {"model.layers.1.merging.project.weight", "model.layers.1.merging.novelty_score",
        "model.layers.1.inflation.detail_up.weight", "model.layers.1.self_attn.far_bias.length_bias"})
    EXPECT_NE(checkpoint.find(name), nullptr) << name;
  // Its config.json has the numbers of the plain model under a type of its own, which the plain model refuses.
  const auto config = guild::read_config<HalfSpec::Family>(folder);
  EXPECT_EQ(config.model_type, "deepseek_r1_extended");
  EXPECT_EQ(config.model, canonical(guild::config_of<guild::MiniR1Spec>));
  EXPECT_NO_THROW(guild::check_config<HalfSpec>(config));
  EXPECT_EQ(code_of([&] { (void)guild::read_config<guild::DeepSeekFamily>(folder); }), ErrorCode::cf_model_type);
}

/// Rings do not go back over several parts of a prompt: what is left is an empty session and the error itself.
TEST(DeepSeekR1Extended, AFailureInALaterPartOfALongPromptLeavesAnEmptySession) {
  guild::Cpu device({.threads = 2});
  const auto model = guild::load<guild::Transformer<HalfSpec>>(device, mini);
  // The weights are shared and constant; only this test knows that the memory behind them is not. Token 7 is spoilt.
  auto* embedding =
      reinterpret_cast<guild::bf16*>(const_cast<std::byte*>(model.weights().embedding.weight.data.data()));
  embedding[7 * HalfSpec::config.hidden] = guild::bf16(std::numeric_limits<float>::quiet_NaN());
  Tokens first = random_tokens(20, 7, 2), tokens = random_tokens(1000, 7, 3);  // none of these is token 7
  guild::Session session(model), fresh(model);
  session.append(first);
  tokens[700] = 7;
  EXPECT_THROW(session.append(tokens), guild::Error);
  EXPECT_EQ(session.length(), 0);
  EXPECT_TRUE(session.tokens().empty());
  tokens[700] = 5;
  session.append(tokens);
  fresh.append(tokens);
  EXPECT_TRUE(std::equal(fresh.logits().begin(), fresh.logits().end(), session.logits().begin()));
}

}  // namespace deepseek_r1_extended_test
