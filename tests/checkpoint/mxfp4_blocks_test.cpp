// Experts in blocks of MXFP4, as GPT-OSS is published: what they are worth is held to transformers by the parity tests;
// here, that they are found, left in the file or owned, and refused with the right words.
#include <guild/checkpoint/load_weights.hpp>
#include <guild/cpu.hpp>

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include <guild/checkpoint/load_dense.hpp>
#include <guild/io/file.hpp>
#include <guild/models/transformer.hpp>

#include "../support/checkpoint_tensors.hpp"
#include "../support/family_specs.hpp"

namespace mxfp4_blocks_test {

using guild::Index;
using guild::Residence;
using Model = guild::Transformer<guild_test::GptOssMxfp4>;

const std::string fixture = std::string(GUILD_SOURCE_DIR) + "/tests/fixtures/models/gpt_oss_mxfp4";

auto load(const std::string& folder, const guild::LoadOptions& options = {}) {
  return guild::load_weights<Model>(guild::Checkpoint::open(folder), options);
}
const auto& experts_of(const Model::Weights<guild::Published>& weights) {
  return std::get<0>(weights.layers.parts).layers[0].feed_forward.experts;
}

TEST(Mxfp4Blocks, StayBlocksOwnedOrInTheFile) {
  const auto owned = load(fixture), mapped = load(fixture, {.residence = Residence::mapped, .check_finite = true});
  const auto dense = guild::load_dense<Model>(fixture);
  const auto& wanted = std::get<0>(dense.layers.parts).layers[0].feed_forward.experts;
  EXPECT_EQ(experts_of(owned).gate.view().first.format, guild::mxfp4);
  EXPECT_FALSE(experts_of(mapped).gate.pieces[0].data.is_shared()) << "rows apart are copied";
  EXPECT_TRUE(experts_of(mapped).down.pieces[0].data.is_shared());
  const auto expect_same = [](const guild::StackView& found, const guild::DenseStack<float>& floats) {
    for (Index e = 0; e < floats.count; ++e)
      for (Index r = 0; r < floats.rows; ++r)
        for (Index c = 0; c < floats.cols; ++c)
          ASSERT_EQ(found[e].at(r, c), floats.data[(e * floats.rows + r) * floats.cols + c]);
  };
  for (const auto* weights : {&owned, &mapped}) {
    expect_same(experts_of(*weights).gate.view(), wanted.gate);
    expect_same(experts_of(*weights).up.view(), wanted.up);
    expect_same(experts_of(*weights).down.view(), wanted.down);
  }
}

TEST(Mxfp4Blocks, BytesAreCountedOnce) {
  std::int64_t last = 0, total = 0, stored = 0;
  (void)load(fixture,
             {.progress = [&](const guild::Progress& now) { return last = now.bytes, total = now.total, true; }});
  const auto checkpoint = guild::Checkpoint::open(fixture);
  for (const guild::TensorInfo& tensor : checkpoint.tensors()) stored += static_cast<std::int64_t>(tensor.bytes);
  EXPECT_EQ(total, stored);
  EXPECT_EQ(last, total);
}

/// The fixture with one word of its header replaced by another as long, or one byte of a tensor.
std::string message_of(const std::string& word, const std::string& other, const std::string& tensor = {},
                       Index byte = 0) {
  const guild::test::TempFolder folder;
  std::filesystem::copy(fixture + "/config.json", folder.path("config.json"));
  std::string data = guild::read_text(fixture + "/model.safetensors", 1 << 24);
  const auto at = data.find(word);
  EXPECT_NE(at, std::string::npos);
  if (at != std::string::npos) data.replace(at, other.size(), other);
  if (!tensor.empty()) {
    const auto checkpoint = guild::Checkpoint::open(fixture);
    data[checkpoint.find(tensor)->begin + static_cast<std::size_t>(byte)] = static_cast<char>(0xff);
  }
  folder.write("model.safetensors", data);
  const auto error = guild::test::error_of([&] { (void)load(folder.path()); });
  return error ? std::string(name(error->code())) + " " + error->what() : "nothing";
}

TEST(Mxfp4Blocks, AreRefusedWithTheTensorAndWhatWasExpected) {
  const std::string down = "model.layers.1.mlp.experts.down_proj", both = "model.layers.1.mlp.experts.gate_up_proj";
  const auto expect = [](const std::string& message, const std::string& code, const std::string& part) {
    EXPECT_EQ(message.substr(0, code.size()), code) << message;
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  expect(message_of(down + "_scales", down + "_scalex"), "wt_scale_missing",
         down + "_scales\" is not in the checkpoint");
  expect(message_of("[4,32,2,16]", "[4,32,1,32]"), "wt_shape", "expected [4, 32, 2, 16]");
  expect(message_of("[4,128,1]", "[4,1,128]"), "wt_scale_shape", "expected [4, 128, 1]");
  // Row 2 * 7 + 1 of expert 3 is row 7 of up.
  expect(message_of(both, both, both + "_scales", 3 * 128 + 15), "wt_scale_value", "scale 399 is nan");
  expect(message_of(both + "_bias", both + "_bios"), "wt_missing", both + "_bias");
}

}  // namespace mxfp4_blocks_test
