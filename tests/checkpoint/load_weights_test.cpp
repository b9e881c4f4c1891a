// Weights that do not fit their model, and loads that fail half-way.
#include <guild/checkpoint/load_weights.hpp>
#include <guild/cpu.hpp>

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "../core/code_of.hpp"
#include "../io/test_files.hpp"
#include "../support/checkpoint_tensors.hpp"
#include "../support/ragged.hpp"
#include "../support/random_weights.hpp"

namespace load_weights_test {

using guild::DType;
using guild::ErrorCode;
using guild::Index;
using guild::LoadOptions;
using guild::test::TempFolder;
using namespace guild_test;
using Model = guild::Transformer<TinySpec>;
using Tensors = CheckpointTensors<Model>;

auto load(const TempFolder& folder, const LoadOptions& options = {}) {
  return guild::load_weights<Model>(guild::Checkpoint::open(folder.path(), options.checkpoint), options);
}

TEST(LoadWeights, ReadsWhatWasStoredInEveryType) {
  for (const DType type : {DType::f32, DType::bf16, DType::f16, DType::f8_e4m3}) {
    const TempFolder folder;
    Tensors(type).write(folder);
    auto expected = random_model<Model>(type);
    for (const auto residence : {guild::Residence::owned, guild::Residence::mapped}) {
      auto found = load(folder, {.residence = residence, .check_finite = true});
      EXPECT_TRUE(same_weights<Model>(found, expected)) << name(type);
      EXPECT_EQ(found.embedding.weight.data.is_shared(), residence == guild::Residence::mapped);
    }
  }
}

TEST(LoadWeights, ReadsTablesOfWholeNumbersAndNothingElseInTheirPlace) {
  using Hashed = guild::Transformer<HashSpec>;
  const std::string name = "model.layers.1.mlp.gate.table";
  CheckpointTensors<Hashed> tensors;
  ASSERT_EQ(tensors[name].type, DType::i64);
  ASSERT_EQ(tensors[name].shape, (std::vector<std::int64_t>{97, 3}));
  const auto code_with = [&](const Stored& table) {
    const TempFolder folder;
    CheckpointTensors<Hashed> changed = tensors;
    changed[name] = table;
    changed.write(folder);
    const auto open = guild::Checkpoint::open(folder.path());
    return code_of([&] {
      auto expected = random_model<Hashed>();
      for (const auto residence : {guild::Residence::owned, guild::Residence::mapped}) {
        auto found = guild::load_weights<Hashed>(open, {.residence = residence});
        EXPECT_TRUE(same_weights<Hashed>(found, expected));
      }
    });
  };
  EXPECT_EQ(code_with(tensors[name]), ErrorCode::count_);
  std::vector<std::int64_t> wide(97 * 3);
  std::memcpy(wide.data(), tensors[name].bytes.data(), wide.size() * 8);
  const std::vector<std::int32_t> narrow(wide.begin(), wide.end());
  const std::vector<float> floats(wide.begin(), wide.end());
  const auto bytes = [](const auto& of) {
    return std::string(reinterpret_cast<const char*>(of.data()), of.size() * sizeof(of[0]));
  };
  EXPECT_EQ(code_with({DType::i32, {97, 3}, bytes(narrow)}), ErrorCode::count_);
  EXPECT_EQ(code_with({DType::f32, {97, 3}, bytes(floats)}), ErrorCode::wt_dtype);
  EXPECT_EQ(code_with({DType::i64, {3, 97}, bytes(wide)}), ErrorCode::wt_shape);
  for (const std::int64_t bad : {std::int64_t{-1}, std::int64_t{1} << 24, std::int64_t{1} << 40}) {
    wide[17] = bad;
    EXPECT_EQ(code_with({DType::i64, {97, 3}, bytes(wide)}), ErrorCode::wt_dtype) << bad;
  }
}

TEST(LoadWeights, MappedWeightsOutliveTheCheckpointAndComputeTheSame) {
  const TempFolder folder;
  Tensors(DType::bf16).write(folder);
  auto owned = load(folder), mapped = load(folder, {.residence = guild::Residence::mapped});
  const Tokens tokens = random_tokens(20, 97, 1);
  const Flat flat({{0, &tokens, 0, 20}});
  const auto run = [&](const auto& weights) {
    guild::Cpu device({.threads = 2});
    Model::Cache cache;
    Model::Cache* caches[] = {&cache};
    Matrix states(20, 48), logits(20, 97);
    Model::forward(guild::Pass{.device = device, .batch = flat.batch()}, weights, caches, states.view());
    Model::logits(device, weights, states.view(), logits.view());
    return logits;
  };
  EXPECT_TRUE(same_bits(run(owned), run(mapped)));
}

TEST(LoadWeights, Fp8ScalesOfEveryTypeAreReadAsTheyAre) {
  const std::string name = "model.layers.0.mlp.gate_proj.weight_scale_inv";
  for (const auto& [type, bytes, value] : {std::tuple{DType::f8_e8m0, std::string("\x7d", 1), 0.25f},
                                           std::tuple{DType::bf16, std::string("\x80\x3e", 2), 0.25f},
                                           std::tuple{DType::f16, std::string("\x00\x34", 2), 0.25f},
                                           std::tuple{DType::u8, std::string("\x7d", 1), 0.25f}}) {
    const TempFolder folder;
    Tensors tensors(DType::f8_e4m3);
    const std::string elements = tensors["model.layers.0.mlp.gate_proj.weight"].bytes;
    tensors[name].type = type;
    tensors[name].bytes = bytes;
    tensors.write(folder);
    const auto weights = load(folder);
    const auto& gate = std::get<0>(weights.layers.parts).layers[0].feed_forward.gate.weight;
    EXPECT_EQ(gate.format.scale, type == DType::u8 ? DType::f8_e8m0 : type);
    guild::fp8_e4m3 first;
    std::memcpy(&first, elements.data(), 1);
    EXPECT_EQ(gate.view().at(0, 0), static_cast<float>(first) * value) << guild::name(type);
  }
}

TEST(LoadWeights, ANaNAmongE8m0ScalesIsRefused) {
  const TempFolder folder;
  Tensors tensors(DType::f8_e4m3);
  auto& scale = tensors["model.layers.0.mlp.gate_proj.weight_scale_inv"];
  scale.type = DType::f8_e8m0;
  scale.bytes = "\xff";
  tensors.write(folder);
  try {
    (void)load(folder);
    FAIL() << "it was loaded";
  } catch (const guild::Error& error) { EXPECT_EQ(error.code(), ErrorCode::wt_scale_value); }
}

/// A router with a tensor of its own, which no rule of the names is for.
template <class S>
struct TemperedRouter : guild::TopKRouter<S> {
  using Base = guild::TopKRouter<S>;
  template <class Store>
  struct Weights : Base::template Weights<Store> {
    typename Store::Vector temperature;
  };
  template <class Visitor, class... W>
  static void visit(Visitor&& visitor, const guild::Path& path, W&... weights) {
    Base::visit(visitor, path, weights...);
    visitor(path / "temperature", guild::VectorShape{3}, weights.temperature...);
  }
};
struct TemperedSpec : TinySpec {
  template <class S>
  using Router = TemperedRouter<S>;
};

TEST(LoadWeights, TensorsOfACustomModuleKeepTheirNameBehindItsPlace) {
  using Tempered = guild::Transformer<TemperedSpec>;
  CheckpointTensors<Tempered> tensors;
  EXPECT_EQ(tensors["model.layers.2.mlp.gate.temperature"].shape, std::vector<std::int64_t>{3});
  const TempFolder folder;
  tensors.write(folder);
  const auto weights = guild::load_weights<Tempered>(guild::Checkpoint::open(folder.path()));
  const auto& temperature = std::get<1>(weights.layers.parts).layers[1].feed_forward.router.temperature.data;
  ASSERT_EQ(temperature.size(), 3);
  EXPECT_EQ(std::memcmp(temperature.data(), tensors["model.layers.2.mlp.gate.temperature"].bytes.data(), 12), 0);
}

TEST(LoadWeights, ConvertsVectorsToFloat) {
  const TempFolder folder;
  Tensors tensors;
  Stored& norm = tensors["model.norm.weight"];
  norm.type = DType::bf16;
  norm.bytes.clear();
  for (int i = 0; i < 48; ++i) {
    const guild::bf16 value(static_cast<float>(i) / 4);
    norm.bytes.append(reinterpret_cast<const char*>(&value), 2);
  }
  tensors.write(folder);
  const auto weights = load(folder);
  for (int i = 0; i < 48; ++i) EXPECT_EQ(weights.final_norm.weight.data[i], static_cast<float>(i) / 4);
}

/// One row of the table of bad inputs: W1 to W11.
struct BadWeights {
  std::string id;
  ErrorCode code;
  std::string key;   ///< the tensor that the message names
  std::string says;  ///< a piece of the message
  std::function<void(Tensors&)> spoil;
  LoadOptions options{};
  DType type = DType::f32;
};
void PrintTo(const BadWeights& row, std::ostream* out) { *out << row.id; }

class BadWeightsTable : public ::testing::TestWithParam<BadWeights> {};

TEST_P(BadWeightsTable, AreRefusedWithCodeFileAndTensor) {
  const BadWeights& row = GetParam();
  Tensors tensors(row.type);
  row.spoil(tensors);
  const TempFolder folder;
  tensors.write(folder);
  for (const auto residence : {guild::Residence::owned, guild::Residence::mapped}) {
    LoadOptions options = row.options;
    options.residence = residence;
    std::int64_t read = 0;
    options.progress = [&](const guild::Progress& progress) { return read = progress.bytes, true; };
    const auto error = guild::test::error_of([&] { (void)load(folder, options); });
    ASSERT_TRUE(error);
    EXPECT_EQ(name(error->code()), name(row.code)) << error->what();
    EXPECT_EQ(error->key(), row.key) << error->what();
    EXPECT_NE(error->path().find(folder.path()), std::string::npos) << error->what();
    EXPECT_NE(std::string(error->what()).find(row.says), std::string::npos) << error->what();
    // Values can only be judged once read; everything else is refused before the first byte.
    EXPECT_TRUE(read == 0 || row.code == ErrorCode::wt_scale_value || row.code == ErrorCode::wt_nonfinite)
        << error->what();
  }
}

const std::string expert = "model.layers.2.mlp.experts.7.up_proj.weight", gate = "model.layers.1.mlp.gate.weight";

Stored resized(Stored stored, std::vector<std::int64_t> shape) {
  std::size_t elements = 1;
  for (const auto n : shape) elements *= static_cast<std::size_t>(n);
  stored.shape = std::move(shape);
  stored.bytes.resize(elements * static_cast<std::size_t>(guild::bits(stored.type)) / 8);
  return stored;
}
void poke(Stored& stored, std::size_t element, float value) {
  std::memcpy(stored.bytes.data() + 4 * element, &value, 4);
}

std::vector<BadWeights> rows() {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  const std::string scale = expert + "_scale_inv";
  const auto fp8 = DType::f8_e4m3;
  const auto scale_of = [=](std::string id, float value) {
    return BadWeights{std::move(id),
                      ErrorCode::wt_scale_value,
                      scale,
                      "expected a finite number, not negative",
                      [=](Tensors& t) { poke(t[scale], 0, value); },
                      {},
                      fp8};
  };
  return {
      {"W1", ErrorCode::wt_shape, gate, "has shape [8, 49], the model needs [8, 48]",
       [](Tensors& t) {
         t[gate] = resized(t[gate], {8, 49});
       }},
      {"W1_rank", ErrorCode::wt_shape, gate, "has shape [384]", [](Tensors& t) { t[gate].shape = {384}; }},
      {"W1_vector", ErrorCode::wt_shape, "model.norm.weight", "has shape [1, 48], the model needs [48]",
       [](Tensors& t) {
         t["model.norm.weight"].shape = {1, 48};
       }},
      {"W1_empty", ErrorCode::wt_shape, gate, "has shape [0, 48]",
       [](Tensors& t) {
         t[gate] = resized(t[gate], {0, 48});
       }},
      {"W2", ErrorCode::wt_shape, expert, "it is transposed; weights are stored [outputs, inputs]",
       [](Tensors& t) {
         t[expert].shape = {48, 28};
       }},
      {"W3", ErrorCode::wt_missing, gate, "1 tensors of the model are not in the checkpoint",
       [](Tensors& t) { t.take(gate); }},
      {"W4", ErrorCode::wt_unexpected, "model.layers.1.mlp.gate.bias",
       "1 tensors of the checkpoint are not in the model: model.layers.1.mlp.gate.bias; "
       "\"model.layers.1.mlp.gate.bias\" would be layers.1.feed_forward.router.bias of the model; the folder holds",
       [](Tensors& t) { t.add("model.layers.1.mlp.gate.bias", t["model.norm.weight"]); }},
      {"W4_layer", ErrorCode::wt_unexpected, "model.layers.4.input_layernorm.weight", "not in the model",
       [](Tensors& t) { t.add("model.layers.4.input_layernorm.weight", t["model.norm.weight"]); }},
      {"W5",
       ErrorCode::wt_scale_missing,
       expert,
       "\"" + scale + "\" is not in the checkpoint",
       [=](Tensors& t) { t.take(scale); },
       {},
       fp8},
      {"W6",
       ErrorCode::wt_scale_shape,
       scale,
       "has shape [2, 1], expected [1, 1]",
       [=](Tensors& t) {
         t[scale] = resized(t[scale], {2, 1});
       },
       {},
       fp8},
      {"W6_rank",
       ErrorCode::wt_scale_shape,
       scale,
       "has shape [1], expected [1, 1]",
       [=](Tensors& t) { t[scale].shape = {1}; },
       {},
       fp8},
      {"W6_type",
       ErrorCode::wt_dtype,
       scale,
       "is stored as I8, expected F32, BF16, F16 or F8_E8M0",
       [=](Tensors& t) { t[scale].type = DType::i8, t[scale].bytes.resize(1); },
       {},
       fp8},
      scale_of("W7_nan", nan),
      scale_of("W7_infinity", infinity),
      scale_of("W7_negative", -1.0f),
      {"W8", ErrorCode::wt_scale_orphan, scale, "only F8_E4M3 has scales",
       [=](Tensors& t) {
         t.add(scale, resized(t["model.norm.weight"], {1, 1}));
       }},
      {"W8_no_weight", ErrorCode::wt_unexpected, "model.lost.weight_scale_inv", "not in the model",
       [](Tensors& t) {
         t.add("model.lost.weight_scale_inv", resized(t["model.norm.weight"], {1, 1}));
       }},
      {"W9", ErrorCode::wt_dtype, gate, "is stored as I8, expected F32, BF16, F16 or F8_E4M3",
       [](Tensors& t) { t[gate].type = DType::i8, t[gate].bytes.resize(8 * 48); }},
      {"W9_f64", ErrorCode::wt_dtype, gate, "is stored as F64",
       [](Tensors& t) { t[gate].type = DType::f64, t[gate].bytes.resize(8 * 48 * 8); }},
      {"W9_vector", ErrorCode::wt_dtype, "model.norm.weight", "is stored as F8_E4M3, expected F32, BF16 or F16",
       [](Tensors& t) { t["model.norm.weight"].type = DType::f8_e4m3, t["model.norm.weight"].bytes.resize(48); }},
      {"W10", ErrorCode::wt_unexpected, "model.layers.2.mlp.experts.8.up_proj.weight", "not in the model",
       [](Tensors& t) { t.add("model.layers.2.mlp.experts.8.up_proj.weight", t[expert]); }},
      {"W11",
       ErrorCode::wt_nonfinite,
       expert,
       "element [1, 2] is NaN or infinite",
       [=](Tensors& t) { poke(t[expert], 50, nan); },
       {.check_finite = true}},
      {"W11_infinity",
       ErrorCode::wt_nonfinite,
       expert,
       "element [0, 3] is NaN or infinite",
       [=](Tensors& t) { poke(t[expert], 3, infinity); },
       {.check_finite = true}},
      {"W11_vector", ErrorCode::wt_nonfinite, "model.norm.weight", "is NaN or infinite",
       [=](Tensors& t) { poke(t["model.norm.weight"], 3, -infinity); }},  // vectors are always looked at
      {"W11_bias", ErrorCode::wt_nonfinite, "model.layers.2.mlp.gate.e_score_correction_bias", "is NaN or infinite",
       [=](Tensors& t) { poke(t["model.layers.2.mlp.gate.e_score_correction_bias"], 3, nan); }},
      {"W11_fp8",
       ErrorCode::wt_nonfinite,
       expert,
       "element [0, 5] is NaN or infinite",
       [](Tensors& t) { t[expert].bytes[5] = '\x7f'; },
       {.check_finite = true},
       fp8},
      {"mtp_missing",
       ErrorCode::wt_missing,
       "model.layers.3.embed_tokens.weight",
       "tensors of the model are not in the checkpoint",
       [](Tensors&) {},
       {.mtp = true}},
  };
}
INSTANTIATE_TEST_SUITE_P(Table, BadWeightsTable, ::testing::ValuesIn(rows()),
                         [](const auto& row) { return row.param.id; });

TEST(LoadWeights, DoesNotLookAtValuesUnlessAsked) {
  Tensors tensors;
  poke(tensors[expert], 50, std::numeric_limits<float>::quiet_NaN());
  const TempFolder folder;
  tensors.write(folder);
  const auto weights = load(folder);
  EXPECT_TRUE(std::isnan(std::get<1>(weights.layers.parts).layers[1].feed_forward.experts.up.view()[7].at(1, 2)));
}

TEST(LoadWeights, ListsTwentyMissingTensorsAndTheirNumber) {
  Tensors tensors;
  const std::size_t all = tensors.size();
  const Stored embedding = tensors["model.embed_tokens.weight"];
  tensors.all().clear();
  tensors.add("model.embed_tokens.weight", embedding);
  const TempFolder folder;
  tensors.write(folder);
  const auto error = guild::test::error_of([&] { (void)load(folder); });
  ASSERT_TRUE(error);
  const std::string text = error->what();
  EXPECT_EQ(name(error->code()), "wt_missing");
  EXPECT_NE(text.find(std::to_string(all - 1) + " tensors of the model are not in the checkpoint"), std::string::npos)
      << text;
  std::size_t names = 0;
  for (std::size_t at = text.find("model.layers"); at != std::string::npos; at = text.find("model.layers", at + 1))
    ++names;
  EXPECT_EQ(names, 20U + 1U) << text;  // the first is the key of the error too
  EXPECT_NE(text.find("..."), std::string::npos);
}

TEST(LoadWeights, ListsTwentyUnexpectedTensorsAndTheirNumber) {
  Tensors tensors;
  for (int i = 0; i < 30; ++i) tensors.add("zebra." + std::to_string(100 + i), tensors["model.norm.weight"]);
  const TempFolder folder;
  tensors.write(folder);
  const auto error = guild::test::error_of([&] { (void)load(folder); });
  ASSERT_TRUE(error);
  EXPECT_NE(std::string(error->what()).find("30 tensors of the checkpoint are not in the model"), std::string::npos)
      << error->what();
  EXPECT_NE(std::string(error->what()).find("zebra.119, ...; no part of the model has names like \"zebra.100\""),
            std::string::npos)
      << error->what();
}

TEST(LoadWeights, SkipsPredictionLayersUnlessAskedForThem) {
  Tensors tensors(DType::bf16, 1);
  const TempFolder folder;
  tensors.write(folder);
  const std::int64_t without = Tensors(DType::bf16, 0).bytes();
  std::int64_t total = 0;
  const auto progress = [&](const guild::Progress& p) { return total = p.total, true; };
  EXPECT_EQ(load(folder, {.progress = progress}).mtp.size(), 0U);
  EXPECT_EQ(total, without);  // nothing of them is read
  auto found = load(folder, {.mtp = true, .progress = progress});
  EXPECT_EQ(total, tensors.bytes());
  auto expected = random_model<Model>(DType::bf16, 1, 1);
  ASSERT_EQ(found.mtp.size(), 1U);
  EXPECT_TRUE(same_weights<Model>(found, expected));
}

TEST(LoadWeights, ReportsEveryByteInOrder) {
  for (const DType type : {DType::f32, DType::f8_e4m3}) {
    const Tensors tensors(type);
    const TempFolder folder;
    tensors.write(folder);
    for (const auto residence : {guild::Residence::owned, guild::Residence::mapped}) {
      std::vector<guild::Progress> seen;
      (void)load(folder, {.residence = residence,
                          .progress = [&](const guild::Progress& p) { return seen.push_back(p), true; }});
      ASSERT_FALSE(seen.empty());
      for (std::size_t i = 0; i < seen.size(); ++i) {
        EXPECT_EQ(seen[i].total, tensors.bytes());
        EXPECT_GT(seen[i].bytes, i > 0 ? seen[i - 1].bytes : 0);
        EXPECT_GE(seen[i].seconds_left, 0.0);
      }
      EXPECT_EQ(seen.back().bytes, tensors.bytes());
      EXPECT_EQ(seen.back().seconds_left, 0.0);
    }
  }
}

int open_files() {
  int count = 0;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) count += entry.exists() ? 1 : 0;
  return count;
}

TEST(LoadWeights, StopsWheneverTheCallbackSaysSoAndLeavesNothingBehind) {
  const TempFolder folder;
  Tensors(DType::f8_e4m3).write(folder);
  int calls = 0;
  (void)load(folder, {.progress = [&](const guild::Progress&) { return ++calls, true; }});
  const int files = open_files();
  for (int stop = 1; stop <= calls; ++stop) {
    int call = 0;
    const auto error = guild::test::error_of(
        [&] { (void)load(folder, {.progress = [&](const guild::Progress&) { return ++call < stop; }}); });
    ASSERT_TRUE(error);
    EXPECT_EQ(name(error->code()), "io_cancelled");
    EXPECT_EQ(call, stop);
  }
  EXPECT_EQ(open_files(), files);
  struct Own {};  // what the callback throws comes through as it is
  EXPECT_THROW((void)load(folder, {.progress = [](const guild::Progress&) -> bool { throw Own{}; }}), Own);
  (void)load(folder);
}

TEST(LoadWeights, NamesTheTensorWhenTheFileShrinksAfterItsHeaderWasRead) {
  Tensors tensors;
  const TempFolder folder;
  tensors.write(folder);
  const std::string file = folder.path("model.safetensors");
  const auto size = static_cast<std::int64_t>(std::filesystem::file_size(file));
  for (const std::int64_t cut : {std::int64_t{1}, size / 2, size - 1}) {
    tensors.write(folder);
    const auto checkpoint = guild::Checkpoint::open(folder.path());
    ASSERT_EQ(::truncate(file.c_str(), size - cut), 0);
    for (const auto residence : {guild::Residence::owned, guild::Residence::mapped}) {
      const auto error =
          guild::test::error_of([&] { (void)guild::load_weights<Model>(checkpoint, {.residence = residence}); });
      ASSERT_TRUE(error);
      EXPECT_EQ(name(error->code()), "io_short_read") << error->what();
      EXPECT_EQ(error->path(), file);
      EXPECT_TRUE(residence == guild::Residence::mapped || !error->key().empty()) << error->what();
    }
  }
}

TEST(LoadWeights, KeepsToItsMemoryBudget) {
  const Tensors tensors;
  const TempFolder folder;
  tensors.write(folder);
  EXPECT_NO_THROW((void)load(folder, {.memory_budget = tensors.bytes()}));
  std::int64_t read = 0;
  const auto error = guild::test::error_of([&] {
    (void)load(folder, {.memory_budget = tensors.bytes() - 1,
                        .progress = [&](const guild::Progress& p) { return read = p.bytes, true; }});
  });
  ASSERT_TRUE(error);
  EXPECT_EQ(name(error->code()), "cf_memory");
  EXPECT_NE(std::string(error->what()).find(std::to_string(tensors.bytes())), std::string::npos) << error->what();
  EXPECT_NE(std::string(error->what()).find(std::to_string(tensors.bytes() - 1)), std::string::npos) << error->what();
  EXPECT_EQ(read, 0);
  EXPECT_NO_THROW((void)load(
      folder, {.residence = guild::Residence::mapped, .memory_budget = 64 << 10}));  // vectors are always copied
}

TEST(LoadWeights, CountsMappedTensorsThatMustBeCopiedAgainstTheBudget) {
  const Tensors tensors;
  const TempFolder folder;
  tensors.write(folder);
  std::string file = guild::test::bytes_of(folder.path("model.safetensors"));
  std::uint64_t header = 0;
  std::memcpy(&header, file.data(), sizeof header);
  file.insert(8 + static_cast<std::size_t>(header), 1, ' ');  // every tensor now begins at an odd byte
  ++header;
  std::memcpy(file.data(), &header, sizeof header);
  std::ofstream(folder.path("model.safetensors"), std::ios::binary) << file;

  const auto mapped = [&](std::int64_t budget) {
    return load(folder, {.residence = guild::Residence::mapped, .memory_budget = budget});
  };
  std::int64_t read = 0;
  const auto error = guild::test::error_of([&] {
    (void)load(folder, {.residence = guild::Residence::mapped,
                        .memory_budget = tensors.bytes() - 1,
                        .progress = [&](const guild::Progress& p) { return read = p.bytes, true; }});
  });
  ASSERT_TRUE(error);
  EXPECT_EQ(name(error->code()), "cf_memory");
  EXPECT_NE(std::string(error->what()).find("must be owned all the same"), std::string::npos) << error->what();
  EXPECT_EQ(read, 0) << "before the first byte";
  auto found = mapped(tensors.bytes()), expected = random_model<Model>(DType::f32);
  EXPECT_TRUE(same_weights<Model>(found, expected));
}

}  // namespace load_weights_test
