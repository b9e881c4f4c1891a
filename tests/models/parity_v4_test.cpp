// DeepSeek-V4 against transformers: logits, chosen experts, greedy tokens, split anywhere.
// tests/fixtures/models/README.md says what each folder proves.
#include <set>
#include <string>

#include <guild/io/checkpoint.hpp>
#include <guild/models/name_rule.hpp>

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

}  // namespace parity_v4_test
