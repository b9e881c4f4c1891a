// Experts in files: a tensor for each matrix, or all of a layer in one. Both are the same model, bit for bit.
#include <guild/checkpoint/stored_stack.hpp>
#include <guild/cpu.hpp>

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <optional>
#include <ostream>
#include <string>
#include <tuple>
#include <vector>

#include <guild/checkpoint/load_dense.hpp>
#include <guild/checkpoint/load_weights.hpp>
#include <guild/models/mixtral_family.hpp>
#include <guild/modules/parameters.hpp>

#include "../support/checkpoint_tensors.hpp"
#include "../support/ragged.hpp"

namespace stored_stack_test {

using guild::DType;
using guild::ErrorCode;
using guild::Index;
using guild::LoadOptions;
using guild::Residence;
using guild::test::TempFolder;
using namespace guild_test;

/// Experts wider than a block of fp8 scales, which their rows do not fill.
struct WideSpec : SmallSpec {
  using CacheElement = float;
  static constexpr guild::ExpertConfig experts =
      with(SmallSpec::experts, [](guild::ExpertConfig& c) { c.hidden = 160; });
};
using Model = guild::Transformer<WideSpec>;
using Tensors = CheckpointTensors<Model>;
constexpr auto routing = WideSpec::routing;

/// Gate and up with their rows in turns, as GPT-OSS has them.
struct InTurnNames : guild::DeepSeekNames {
  static constexpr auto rules = [] {
    auto changed = DeepSeekNames::rules;
    for (guild::NameRule& rule : changed) rule.rows.in_turn = rule.rows.parts == 2;
    return changed;
  }();
};
struct InTurnSpec : WideSpec {
  using Names = InTurnNames;
};

/// The same, and every fused tensor [inputs, outputs] of an expert.
struct TransposedNames : InTurnNames {
  static constexpr auto rules = [] {
    auto changed = InTurnNames::rules;
    for (guild::NameRule& rule : changed)
      if (rule.ours.ends_with("experts.gate.weight") || rule.ours.ends_with("experts.up.weight") ||
          rule.ours.ends_with("experts.down.weight"))
        rule.rows.transposed = true;
    return changed;
  }();
};
struct TransposedSpec : WideSpec {
  using Names = TransposedNames;
};

/// Takes the tensors of all experts `kinds` of a layer out and puts their bytes together: expert after expert, for each
/// of them kind after kind, or row after row.
template <class M>
Stored fuse(CheckpointTensors<M>& tensors, const std::string& experts, const std::vector<std::string>& kinds,
            const std::string& suffix, bool rows_in_turn) {
  Stored fused;
  for (int e = 0; e < routing.experts; ++e) {
    std::vector<Stored> parts;
    for (const std::string& kind : kinds)
      parts.push_back(tensors.take(experts + std::to_string(e) + "." + kind + ".weight" + suffix));
    const auto rows = static_cast<std::size_t>(parts[0].shape[0]), row = parts[0].bytes.size() / rows;
    fused.type = parts[0].type;
    fused.shape = {routing.experts, static_cast<std::int64_t>(kinds.size()) * parts[0].shape[0], parts[0].shape[1]};
    if (rows_in_turn)
      for (std::size_t r = 0; r < rows; ++r)
        for (const Stored& part : parts) fused.bytes += part.bytes.substr(r * row, row);
    else
      for (const Stored& part : parts) fused.bytes += part.bytes;
  }
  return fused;
}

/// The checkpoint as transformers 5 writes it with save_original_format=False.
Tensors fused_checkpoint(DType type = DType::f32, int mtp_layers = 0, bool rows_in_turn = false) {
  Tensors tensors(type, mtp_layers);
  for (int layer = WideSpec::dense.layers; layer < WideSpec::config.layers + mtp_layers; ++layer) {
    const std::string experts = "model.layers." + std::to_string(layer) + ".mlp.experts.";
    for (const std::string suffix : {"", "_scale_inv"}) {
      if (!suffix.empty() && type != DType::f8_e4m3) continue;
      tensors.add(experts + "gate_up_proj" + suffix,
                  fuse(tensors, experts, {"gate_proj", "up_proj"}, suffix, rows_in_turn));
      tensors.add(experts + "down_proj" + suffix, fuse(tensors, experts, {"down_proj"}, suffix, false));
    }
  }
  return tensors;
}

template <class M = Model>
auto load(const TempFolder& folder, const LoadOptions& options = {}) {
  return guild::load_weights<M>(guild::Checkpoint::open(folder.path(), options.checkpoint), options);
}

template <class Weights>
Matrix logits_of(const Weights& weights) {
  guild::Cpu device({.threads = 2});
  const Tokens tokens = random_tokens(13, WideSpec::config.vocab, 1);
  const Flat flat({{0, &tokens, 0, 13}});
  typename Model::Cache cache;
  typename Model::Cache* caches[] = {&cache};
  Matrix states(13, WideSpec::config.hidden), logits(13, WideSpec::config.vocab);
  Model::forward(guild::Pass{.device = device, .batch = flat.batch()}, weights, caches, states.view());
  Model::logits(device, weights, states.view(), logits.view());
  return logits;
}

TEST(StoredStack, FusedAndSeparateTensorsAreTheSameModel) {
  for (const DType type : {DType::f32, DType::bf16, DType::f16, DType::f8_e4m3}) {
    const TempFolder fused, separate;
    fused_checkpoint(type).write(fused);
    Tensors(type).write(separate);
    const Matrix expected = logits_of(load(separate));
    for (const auto residence : {Residence::owned, Residence::mapped}) {
      const LoadOptions options{.residence = residence, .check_finite = true};
      const auto weights = load(fused, options), apart = load(separate, options);
      EXPECT_TRUE((same_weights<Model>(weights, apart))) << name(type);
      EXPECT_TRUE(same_bits(logits_of(weights), expected)) << name(type);
      EXPECT_TRUE(same_bits(logits_of(apart), expected)) << name(type);
    }
  }
}

TEST(StoredStack, OwnedStacksAreOnePieceAndMappedOnesStayInTheFile) {
  const TempFolder fused, separate;
  fused_checkpoint(DType::bf16).write(fused);
  Tensors(DType::bf16).write(separate);
  for (const auto& [folder, residence, pieces] :
       {std::tuple{&fused, Residence::owned, 1}, std::tuple{&separate, Residence::owned, 1},
        std::tuple{&fused, Residence::mapped, 1}, std::tuple{&separate, Residence::mapped, routing.experts}}) {
    const auto weights = load(*folder, {.residence = residence});
    const auto& up = std::get<1>(weights.layers.parts).layers[0].feed_forward.experts.up;
    EXPECT_EQ(up.pieces.size(), static_cast<std::size_t>(pieces));
    EXPECT_EQ(up.view().table != nullptr, pieces > 1);
    for (const auto& piece : up.pieces) EXPECT_EQ(piece.data.is_shared(), residence == Residence::mapped);
  }
}

TEST(StoredStack, PredictionLayersHaveExpertsToo) {
  const TempFolder fused, separate;
  fused_checkpoint(DType::f32, 1).write(fused);
  Tensors(DType::f32, 1).write(separate);
  EXPECT_TRUE((same_weights<Model>(load(fused, {.mtp = true}), load(separate, {.mtp = true}))));
  EXPECT_TRUE((same_weights<Model>(load(fused), load(separate)))) << "skipped unless asked for";
}

TEST(StoredStack, RowsMayTakeTurns) {
  const TempFolder fused, separate;
  fused_checkpoint(DType::bf16, 0, true).write(fused);
  Tensors(DType::bf16).write(separate);
  using InTurn = guild::Transformer<InTurnSpec>;
  for (const auto residence : {Residence::owned, Residence::mapped}) {
    std::int64_t last = 0, total = 0;
    const auto weights = load<InTurn>(fused, {.residence = residence, .progress = [&](const guild::Progress& now) {
                                                return last = now.bytes, total = now.total, true;
                                              }});
    const auto expected = load(separate);
    const auto& found = std::get<1>(weights.layers.parts).layers[1].feed_forward.experts;
    const auto& wanted = std::get<1>(expected.layers.parts).layers[1].feed_forward.experts;
    for (Index e = 0; e < routing.experts; ++e)
      for (const auto& [a, b] :
           {std::pair{found.gate.view()[e], wanted.gate.view()[e]}, std::pair{found.up.view()[e], wanted.up.view()[e]},
            std::pair{found.down.view()[e], wanted.down.view()[e]}})
        EXPECT_EQ(std::memcmp(a.data, b.data, static_cast<std::size_t>(a.rows * a.row_bytes())), 0) << e;
    EXPECT_FALSE(found.gate.pieces[0].data.is_shared()) << "rows apart are copied";
    EXPECT_EQ(found.down.pieces[0].data.is_shared(), residence == Residence::mapped);
    EXPECT_EQ(last, total) << "progress ends at the whole";
  }
}

/// [E, rows, cols] as [E, cols, rows].
Stored transposed(const Stored& from) {
  Stored to{from.type, {from.shape[0], from.shape[2], from.shape[1]}, from.bytes};
  const auto rows = static_cast<std::size_t>(from.shape[1]), cols = static_cast<std::size_t>(from.shape[2]),
             size = from.bytes.size() / (static_cast<std::size_t>(from.shape[0]) * rows * cols);
  for (std::size_t e = 0; e < static_cast<std::size_t>(from.shape[0]); ++e)
    for (std::size_t r = 0; r < rows; ++r)
      for (std::size_t c = 0; c < cols; ++c)
        std::memcpy(to.bytes.data() + ((e * cols + c) * rows + r) * size,
                    from.bytes.data() + ((e * rows + r) * cols + c) * size, size);
  return to;
}
Tensors transposed_checkpoint(DType type) {
  Tensors tensors = fused_checkpoint(type, 0, true);
  for (int layer = WideSpec::dense.layers; layer < WideSpec::config.layers; ++layer)
    for (const char* name : {"gate_up_proj", "down_proj"}) {
      const std::string full = "model.layers." + std::to_string(layer) + ".mlp.experts." + name;
      tensors[full] = transposed(tensors[full]);
    }
  return tensors;
}

TEST(StoredStack, TensorsMayBeTransposed) {
  using Transposed = guild::Transformer<TransposedSpec>;
  for (const DType type : {DType::f32, DType::bf16, DType::f16}) {
    const TempFolder folder, separate;
    Tensors tensors = transposed_checkpoint(type);
    tensors.write(folder);
    Tensors(type).write(separate);
    for (const auto residence : {Residence::owned, Residence::mapped}) {
      std::int64_t last = 0, total = 0;
      const auto weights = load<Transposed>(
          folder, {.residence = residence,
                   .progress = [&](const guild::Progress& now) { return last = now.bytes, total = now.total, true; }});
      EXPECT_TRUE((same_weights<Transposed>(weights, load<Transposed>(separate)))) << name(type);
      EXPECT_EQ(last, total) << "progress ends at the whole";
      EXPECT_EQ(total, tensors.bytes());
    }
    const auto a = guild::load_dense<Transposed>(guild::Checkpoint::open(folder.path()));
    const auto b = guild::load_dense<Transposed>(guild::Checkpoint::open(separate.path()));
    guild::for_each_tensor<Transposed>(
        [&](const guild::Path& path, const guild::TensorShape&, guild::TensorRole, const guild::Buffer<float>& x,
            const guild::Buffer<float>& y) {
          ASSERT_EQ(x.size(), y.size());
          EXPECT_EQ(std::memcmp(x.data(), y.data(), static_cast<std::size_t>(x.size()) * 4), 0) << path.str();
        },
        a, b);
  }
  const auto refusal = [](Tensors tensors) {
    const TempFolder folder;
    tensors.write(folder);
    return guild::test::error_of([&] { (void)load<Transposed>(folder, {.check_finite = true}); });
  };
  const auto shape = refusal(fused_checkpoint(DType::f32, 0, true));
  ASSERT_TRUE(shape);
  EXPECT_EQ(name(shape->code()), "wt_shape");
  EXPECT_NE(std::string(shape->what()).find("has shape [8, 320, 48], the model needs [8, 48, 320]"), std::string::npos)
      << shape->what();
  Tensors spoilt = transposed_checkpoint(DType::f32);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(spoilt["model.layers.2.mlp.experts.gate_up_proj"].bytes.data() + ((3 * 48 + 2) * 320 + 171) * 4, &nan, 4);
  const auto value = refusal(std::move(spoilt));
  ASSERT_TRUE(value);
  EXPECT_EQ(name(value->code()), "wt_nonfinite");
  EXPECT_NE(std::string(value->what()).find("element [3, 2, 171] is NaN"), std::string::npos) << value->what();
}

TEST(StoredStack, TrainingReadsBothToo) {
  for (const DType type : {DType::bf16, DType::f8_e4m3}) {
    const TempFolder fused, separate;
    fused_checkpoint(type).write(fused);
    Tensors(type).write(separate);
    const auto a = guild::load_dense<Model>(guild::Checkpoint::open(fused.path()));
    const auto b = guild::load_dense<Model>(guild::Checkpoint::open(separate.path()));
    int compared = 0;
    guild::for_each_tensor<Model>(
        [&](const guild::Path& path, const guild::TensorShape& shape, guild::TensorRole, const guild::Buffer<float>& x,
            const guild::Buffer<float>& y) {
          ASSERT_EQ(x.size(), shape.size());
          EXPECT_EQ(std::memcmp(x.data(), y.data(), static_cast<std::size_t>(x.size()) * 4), 0) << path.str();
          ++compared;
        },
        a, b);
    EXPECT_GT(compared, 2 * 3 * routing.experts);
  }
}

TEST(StoredStack, BytesAreCountedOnceAndMappedOnesAreNotOwned) {
  const TempFolder fused, separate;
  Tensors tensors = fused_checkpoint(DType::f8_e4m3);
  tensors.write(fused);
  Tensors(DType::f8_e4m3).write(separate);
  for (const TempFolder* folder : {&fused, &separate})
    for (const auto residence : {Residence::owned, Residence::mapped}) {
      std::int64_t last = 0, total = 0;
      (void)load(*folder, {.residence = residence, .progress = [&](const guild::Progress& now) {
                             return last = now.bytes, total = now.total, true;
                           }});
      EXPECT_EQ(total, tensors.bytes());
      EXPECT_EQ(last, total);
    }
  const LoadOptions small{.residence = Residence::mapped, .memory_budget = tensors.bytes() / 4};
  EXPECT_NO_THROW((void)load(fused, small));
  const auto error = guild::test::error_of([&] { (void)load(fused, {.memory_budget = small.memory_budget}); });
  ASSERT_TRUE(error);
  EXPECT_EQ(name(error->code()), "cf_memory");
}

/// One row of the table of bad stacks.
struct BadStack {
  std::string id;
  ErrorCode code;
  std::string key;   ///< the tensor that the message names
  std::string says;  ///< a piece of the message
  std::function<void(Tensors&)> spoil;
  DType type = DType::f32;
  bool fused = true;
};
void PrintTo(const BadStack& row, std::ostream* out) { *out << row.id; }

class BadStacks : public ::testing::TestWithParam<BadStack> {};

TEST_P(BadStacks, AreRefusedWithTheTensorItsShapeAndTheWantedOne) {
  const BadStack& row = GetParam();
  Tensors tensors = row.fused ? fused_checkpoint(row.type) : Tensors(row.type);
  row.spoil(tensors);
  const TempFolder folder;
  tensors.write(folder);
  for (const auto residence : {Residence::owned, Residence::mapped}) {
    const auto error =
        guild::test::error_of([&] { (void)load(folder, {.residence = residence, .check_finite = true}); });
    ASSERT_TRUE(error);
    EXPECT_EQ(name(error->code()), name(row.code)) << error->what();
    EXPECT_EQ(error->key(), row.key) << error->what();
    EXPECT_NE(std::string(error->what()).find(row.says), std::string::npos) << error->what();
  }
}

std::vector<BadStack> rows() {
  const std::string experts = "model.layers.2.mlp.experts.", both = experts + "gate_up_proj",
                    down = experts + "down_proj", scale = both + "_scale_inv", one = experts + "5.up_proj.weight";
  const auto poke = [](Stored& stored, std::size_t element, float value) {
    std::memcpy(stored.bytes.data() + 4 * element, &value, 4);
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  return {
      {"rows", ErrorCode::wt_shape, both, "has shape [8, 160, 96], the model needs [8, 320, 48]",
       [=](Tensors& t) {
         t[both].shape = {8, 160, 96};
       }},
      {"transposed", ErrorCode::wt_shape, both,
       "has shape [8, 48, 320], the model needs [8, 320, 48]: it is transposed",
       [=](Tensors& t) {
         t[both].shape = {8, 48, 320};
       }},
      {"rank", ErrorCode::wt_shape, down, "has shape [384, 160], the model needs [8, 48, 160]",
       [=](Tensors& t) {
         t[down].shape = {384, 160};
       }},
      {"type", ErrorCode::wt_dtype, down, "is stored as I32, expected F32, BF16, F16 or F8_E4M3",
       [=](Tensors& t) { t[down].type = DType::i32; }},
      {"missing", ErrorCode::wt_missing, down, "1 tensors of the model are not in the checkpoint",
       [=](Tensors& t) { t.take(down); }},
      {"missing_both", ErrorCode::wt_missing, both, "1 tensors of the model are not in the checkpoint",
       [=](Tensors& t) { t.take(both); }},
      {"twice", ErrorCode::wt_unexpected, one, "1 tensors of the checkpoint are not in the model",
       [=](Tensors& t) {
         t.add(one, {DType::f32, {160, 48}, std::string(160 * 48 * 4, '\0')});
       }},
      {"scale_missing", ErrorCode::wt_scale_missing, both, "\"" + scale + "\" is not in the checkpoint",
       [=](Tensors& t) { t.take(scale); }, DType::f8_e4m3},
      {"scale_shape", ErrorCode::wt_scale_shape, scale, "has shape [8, 2, 2], expected [8, 4, 1]",
       [=](Tensors& t) {
         t[scale].shape = {8, 2, 2};
       },
       DType::f8_e4m3},
      {"scale_value", ErrorCode::wt_scale_value, scale, "scale 23 is nan", [=](Tensors& t) { poke(t[scale], 23, nan); },
       DType::f8_e4m3},
      {"value", ErrorCode::wt_nonfinite, both, "element [3, 170, 2] is NaN or infinite",
       [=](Tensors& t) { poke(t[both], (3 * 320 + 170) * 48 + 2, nan); }},
      {"format", ErrorCode::wt_dtype, one, "is stored as BF16, but \"" + experts + "0.up_proj.weight\" as F32",
       [=](Tensors& t) { t[one].type = DType::bf16, t[one].bytes.resize(160 * 48 * 2); }, DType::f32, false},
      {"separate", ErrorCode::wt_shape, one, "has shape [48, 160], the model needs [160, 48]: it is transposed",
       [=](Tensors& t) {
         t[one].shape = {48, 160};
       },
       DType::f32, false},
  };
}
INSTANTIATE_TEST_SUITE_P(Table, BadStacks, ::testing::ValuesIn(rows()), [](const auto& row) { return row.param.id; });

/// Experts in all layers, named as Mixtral's.
struct MixtralNamedSpec : WideSpec {
  static constexpr guild::DenseConfig dense = {.hidden = 272, .layers = 0};
  using Names = guild::MixtralNames;
};

TEST(StoredStack, FilesSpellARouterAsTheyHoldItsExperts) {
  using Mixtral = guild::Transformer<MixtralNamedSpec>;
  CheckpointTensors<Mixtral> tensors;
  const TempFolder separate, fused;
  tensors.write(separate);
  for (int layer = 0; layer < MixtralNamedSpec::config.layers; ++layer) {
    const std::string of = "model.layers." + std::to_string(layer), moe_of = of + ".block_sparse_moe.";
    tensors.add(of + ".mlp.gate.weight", tensors.take(moe_of + "gate.weight"));
    tensors.add(of + ".mlp.experts.gate_up_proj", fuse(tensors, moe_of + "experts.", {"w1", "w3"}, "", false));
    tensors.add(of + ".mlp.experts.down_proj", fuse(tensors, moe_of + "experts.", {"w2"}, "", false));
  }
  tensors.write(fused);
  EXPECT_TRUE((same_weights<Mixtral>(load<Mixtral>(fused), load<Mixtral>(separate))));
  tensors.take("model.layers.1.mlp.gate.weight");
  const TempFolder spoilt;
  tensors.write(spoilt);
  const auto error = guild::test::error_of([&] { (void)load<Mixtral>(spoilt); });
  ASSERT_TRUE(error);
  EXPECT_EQ(name(error->code()), "wt_missing");
  EXPECT_EQ(error->key(), "model.layers.1.block_sparse_moe.gate.weight");
}

TEST(StoredStack, PackedExpertsAreOnePieceToo) {
  // Two experts [3, 64] in MXFP4: rows of 32 bytes and 2 scales. Every element of expert e is 1.0 * 2^(r + e).
  const TempFolder folder;
  std::vector<std::string> bytes;
  std::vector<guild::TensorSource> sources;
  bytes.reserve(4);
  for (int e = 0; e < 2; ++e) {
    const std::string name = "model.layers.1.mlp.experts." + std::to_string(e) + ".up_proj.weight";
    bytes.push_back(std::string(3 * 32, '\x22'));
    sources.push_back({name + "_packed", DType::u8, {3, 32}, bytes.back().data()});
    bytes.emplace_back();
    for (int r = 0; r < 3; ++r) bytes.back().append(2, static_cast<char>(127 + r + e));
    sources.push_back({name + "_scale", DType::u8, {3, 2}, bytes.back().data()});
  }
  guild::write_safetensors(folder.path("model.safetensors"), sources);
  const auto checkpoint = guild::Checkpoint::open(folder.path());
  const guild::Path root, layers = root / "layers", layer = layers / 1, feed = layer / "feed_forward",
                          experts = feed / "experts", up = experts / "up";
  for (const auto residence : {Residence::owned, Residence::mapped}) {
    const LoadOptions options{.residence = residence};
    guild::StoredStack stack;
    guild::detail::WeightReader<guild::DeepSeekNames>(checkpoint, options, 1)(up / "weight",
                                                                              guild::StackShape{2, 3, 64}, stack);
    EXPECT_EQ(stack.pieces.size(), residence == Residence::owned ? 1U : 2U);
    for (Index e = 0; e < 2; ++e)
      for (Index r = 0; r < 3; ++r) EXPECT_EQ(stack.view()[e].at(r, 63), std::ldexp(1.0f, static_cast<int>(r + e)));
  }
}

TEST(StoredStack, BlocksOfScalesDoNotTakeTurns) {
  const TempFolder folder;
  fused_checkpoint(DType::f8_e4m3).write(folder);
  const auto error = guild::test::error_of([&] { (void)load<guild::Transformer<InTurnSpec>>(folder); });
  ASSERT_TRUE(error);
  EXPECT_EQ(name(error->code()), "wt_dtype");
  EXPECT_NE(std::string(error->what()).find("would belong to several matrices"), std::string::npos) << error->what();
}

}  // namespace stored_stack_test
