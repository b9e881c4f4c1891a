// DeepSeek-V4 against transformers: logits, chosen experts, greedy tokens, split anywhere.
// tests/fixtures/models/README.md says what each folder proves.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include <guild/io/checkpoint.hpp>
#include <guild/io/safetensors.hpp>
#include <guild/models/name_rule.hpp>

#include "../io/test_files.hpp"
#include "../support/family_specs.hpp"
#include "parity.hpp"

namespace parity_v4_test {

using parity::expect_any_split;
using parity::expect_both;
using parity::expect_same_bits_of_any_split;
using namespace guild_test;

TEST(Parity, DeepSeekV4OfWindowsAlone) { expect_both<DeepSeekV4Sliding>("v4_sliding"); }
TEST(Parity, DeepSeekV4OfWindowsAloneMayBeSplitAnywhere) { expect_any_split<DeepSeekV4Sliding>("v4_sliding"); }
TEST(Parity, DeepSeekV4OfWindowsAloneIsTheSameToTheBitHoweverItIsSplit) {
  expect_same_bits_of_any_split<DeepSeekV4Sliding>("v4_sliding");
}
TEST(Parity, DeepSeekV4AsTransformersSavesIt) { expect_both<DeepSeekV4Sliding>("v4_sliding_v5"); }

TEST(Parity, DeepSeekV4WithTheNumbersOfPublishedFiles) { expect_both<DeepSeekV4Fp4>("v4_fp4"); }

/// Weights of 4 and 8 bits whose scales are not as they should be.
TEST(Parity, DeepSeekV4NamesTheScalesThatAreWrong) {
  using guild::DType;
  using guild::ErrorCode;
  struct Tensor {
    DType type;
    std::vector<std::int64_t> shape;
    std::string bytes;
  };
  using Tensors = std::map<std::string, Tensor>;
  const std::string expert = "layers.1.ffn.experts.2.w3", query = "layers.0.attn.wq_b", norm = "layers.0.attn.q_norm";
  const struct {
    ErrorCode code;
    std::string key;
    const char* text;
    std::function<void(Tensors&)> change;
  } cases[] = {
      {ErrorCode::wt_scale_missing, query + ".weight", "layers.0.attn.wq_b.scale",
       [&](Tensors& t) { t.erase(query + ".scale"); }},
      {ErrorCode::wt_scale_missing, expert + ".weight", "layers.1.ffn.experts.2.w3.scale",
       [&](Tensors& t) { t.erase(expert + ".scale"); }},
      {ErrorCode::wt_scale_shape, query + ".scale", "has shape [1, 2], expected [2, 1]",
       [&](Tensors& t) {
         t[query + ".scale"].shape = {1, 2};
       }},
      {ErrorCode::wt_scale_shape, expert + ".scale", "one scale for each block of 1 x 32",
       [&](Tensors& t) {
         t[expert + ".scale"].shape = {16, 2};
       }},
      {ErrorCode::wt_shape, expert + ".weight", "two MXFP4 values in a byte",
       [&](Tensors& t) {
         t[expert + ".weight"].shape = {16, 32};
       }},
      {ErrorCode::wt_scale_orphan, norm + ".scale", "only F8_E4M3 has scales",
       [&](Tensors& t) { t[norm + ".scale"] = t[expert + ".scale"]; }},
      {ErrorCode::wt_unexpected, "layers.0.lost.scale", "not in the model",
       [&](Tensors& t) { t["layers.0.lost.scale"] = t[expert + ".scale"]; }},
  };
  const std::string source = std::string(GUILD_SOURCE_DIR) + "/tests/fixtures/models/v4_fp4";
  const auto published = guild::Checkpoint::open(source);
  for (const auto& c : cases) {
    Tensors tensors;
    for (const guild::TensorInfo& info : published.tensors()) {
      std::string bytes(static_cast<std::size_t>(info.bytes), '\0');
      published.read(info, bytes.data());
      tensors[info.name] = {info.dtype, info.shape, std::move(bytes)};
    }
    c.change(tensors);
    const guild::test::TempFolder folder;
    std::filesystem::copy_file(source + "/config.json", folder.path("config.json"));
    std::vector<guild::TensorSource> sources;
    for (const auto& [name, tensor] : tensors)
      sources.push_back({name, tensor.type, tensor.shape, tensor.bytes.data()});
    guild::write_safetensors(folder.path("model.safetensors"), sources);
    try {
      (void)guild::load_weights<guild::Transformer<DeepSeekV4Fp4>>(guild::Checkpoint::open(folder.path(".")));
      ADD_FAILURE() << "accepted: " << c.key;
    } catch (const guild::Error& error) {
      EXPECT_EQ(guild::name(error.code()), guild::name(c.code)) << error.what();
      EXPECT_EQ(error.key(), c.key) << error.what();
      EXPECT_NE(error.message().find(c.text), std::string::npos) << error.what();
    }
  }
}

/// Each tensor of a folder has a path, in any spelling of names; a fused one has those of its parts.
template <class Spec>
void expect_paths(const std::string& name) {
  SCOPED_TRACE(name);
  const std::string folder = std::string(GUILD_SOURCE_DIR) + "/tests/fixtures/models/" + name;
  guild::check_config<Spec>(guild::read_config<guild::DeepSeekV4Family>(folder));
  std::set<std::string> paths;
  for (const guild::TensorInfo& tensor : guild::Checkpoint::open(folder).tensors()) {
    if (tensor.name.starts_with("mtp.")) continue;
    const auto found = guild::our_paths<guild::DeepSeekV4Names>(tensor.name);
    EXPECT_EQ(found.size(), tensor.name.ends_with("gate_up_proj") ? 2u : 1u) << tensor.name;
    for (const std::string& path : found) EXPECT_TRUE(paths.insert(path).second) << path;
  }
  for (int layer = 0; layer < Spec::config.layers; ++layer) {
    const std::string mixer = "layers." + std::to_string(layer) + ".mixer.";
    const bool sparse = Spec::windows.types[layer] == guild::LayerType::compressed_sparse_attention;
    const bool slides = Spec::windows.types[layer] == guild::LayerType::sliding_attention;
    for (const char* of_row : {"key_value.weight", "gate.weight", "position_bias", "norm.weight"}) {
      EXPECT_EQ(paths.contains(mixer + "compressor." + of_row), !slides) << layer << of_row;
      EXPECT_EQ(paths.contains(mixer + "indexer.compressor." + of_row), sparse) << layer << of_row;
    }
    EXPECT_EQ(paths.contains(mixer + "indexer.query.weight"), sparse) << layer;
    EXPECT_EQ(paths.contains(mixer + "indexer.head_weights.weight"), sparse) << layer;
  }
}
TEST(Parity, DeepSeekV4HasAPathForEachTensor) {
  expect_paths<DeepSeekV4Sliding>("v4_sliding");
  expect_paths<DeepSeekV4Sliding>("v4_sliding_v5");
  expect_paths<DeepSeekV4>("v4");
  expect_paths<DeepSeekV4Published>("v4_published");
}
TEST(Parity, DeepSeekV4OfAllKindsOfLayers) { expect_both<DeepSeekV4>("v4"); }
TEST(Parity, DeepSeekV4OfAllKindsOfLayersMayBeSplitAnywhere) { expect_any_split<DeepSeekV4>("v4"); }
TEST(Parity, DeepSeekV4OfAllKindsOfLayersIsTheSameToTheBitHoweverItIsSplit) {
  expect_same_bits_of_any_split<DeepSeekV4>("v4");
}
TEST(Parity, DeepSeekV4AsPublished) { expect_both<DeepSeekV4Published>("v4_published"); }

}  // namespace parity_v4_test
