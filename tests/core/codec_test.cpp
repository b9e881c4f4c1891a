// Every codec against what gguf, compressed-tensors and torch make of the same bytes
// (tests/oracle/make_codec_fixture.py), through the loader and every operation that reads weights.
#include <guild/core/codec.hpp>
#include <guild/cpu.hpp>
#include <guild/models/name_rule.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include <guild/checkpoint/load_dense.hpp>
#include <guild/checkpoint/load_weights.hpp>
#include <guild/ops/head/embedding.hpp>
#include <guild/ops/linear/linear.hpp>

namespace codec_test {

using guild::Buffer;
using guild::DType;
using guild::Format;
using guild::Index;
using guild::View;

struct AsWritten {  // each case is a tensor of its own name
  static constexpr guild::NameRule rules[] = {
      {"mxfp4", "mxfp4"},
      {"gguf", "gguf"},
      {"ue8m0_wide", "ue8m0_wide"},
      {"ue8m0_tall", "ue8m0_tall"},
      {"bytes_ue8m0_wide", "bytes_ue8m0_wide"},
      {"bytes_ue8m0_tall", "bytes_ue8m0_tall"},
      {"bf16_wide", "bf16_wide"},
      {"bf16_tall", "bf16_tall"},
      {"f16_wide", "f16_wide"},
      {"f16_tall", "f16_tall"},
      {"f32_wide", "f32_wide"},
      {"f32_tall", "f32_tall"},
  };
  static constexpr std::string_view scale_suffix = "_scale_inv";
};

struct Case {
  const char* name;
  Format format;
};
const Case cases[] = {{"mxfp4", guild::mxfp4},
                      {"gguf", guild::mxfp4},
                      {"ue8m0_wide", guild::fp8_ue8m0},
                      {"ue8m0_tall", guild::fp8_ue8m0},
                      {"bytes_ue8m0_wide", guild::fp8_ue8m0},
                      {"bytes_ue8m0_tall", guild::fp8_ue8m0},
                      {"bf16_wide", {DType::f8_e4m3, DType::bf16, 128, 128}},
                      {"bf16_tall", {DType::f8_e4m3, DType::bf16, 128, 128}},
                      {"f16_wide", {DType::f8_e4m3, DType::f16, 128, 128}},
                      {"f16_tall", {DType::f8_e4m3, DType::f16, 128, 128}},
                      {"f32_wide", DType::f8_e4m3},
                      {"f32_tall", DType::f8_e4m3}};

class Codec : public testing::TestWithParam<Case> {
 protected:
  guild::Checkpoint checkpoint = guild::Checkpoint::open(GUILD_SOURCE_DIR "/tests/fixtures/codecs");

  std::vector<float> expected(const std::string& name, Index& rows, Index& cols) const {
    const guild::TensorInfo* info = checkpoint.find(name + ".expected");
    rows = info->shape[0], cols = info->shape.size() > 1 ? info->shape[1] : 1;
    std::vector<float> values(static_cast<std::size_t>(rows * cols));
    checkpoint.read(*info, 0, info->bytes, reinterpret_cast<std::byte*>(values.data()));
    return values;
  }
  guild::StoredMatrix load(const std::string& name, Index rows, Index cols, guild::LoadOptions options = {}) const {
    guild::StoredMatrix matrix;
    const guild::Path root, owner = root / name.c_str();
    guild::detail::WeightReader<AsWritten>(checkpoint, options, 1)(owner / "weight", guild::MatrixShape{rows, cols},
                                                                   matrix);
    return matrix;
  }
};

TEST_P(Codec, LoadedElementsAreThoseOfTheReferenceBitForBit) {
  Index rows = 0, cols = 0;
  const std::vector<float> want = expected(GetParam().name, rows, cols);
  for (const auto residence : {guild::Residence::owned, guild::Residence::mapped}) {
    const guild::StoredMatrix matrix =
        load(GetParam().name, rows, cols, {.residence = residence, .check_finite = false});
    EXPECT_EQ(matrix.format, GetParam().format) << describe(matrix.format);
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < cols; ++c) {
        const float got = matrix.view().at(r, c), other = want[static_cast<std::size_t>(r * cols + c)];
        ASSERT_TRUE(got == other || (std::isnan(got) && std::isnan(other)))
            << r << ", " << c << ": " << got << ' ' << other;
      }
  }
}

TEST_P(Codec, ProductsAndRowsReadTheSameElements) {
  Index rows = 0, cols = 0;
  std::vector<float> want = expected(GetParam().name, rows, cols);
  guild::StoredMatrix matrix = load(GetParam().name, rows, cols);
  for (float& value : want)
    if (std::isnan(value)) GTEST_SKIP() << "holds a NaN";
  const auto at = [&](Index r, Index c) { return static_cast<double>(want[static_cast<std::size_t>(r * cols + c)]); };
  for (const int threads : {1, 3}) {
    guild::Cpu device({.threads = threads});
    for (const Index tokens : {Index{1}, Index{3}, Index{20}, Index{230}})
      for (const auto product : {guild::Product::x_wt, guild::Product::x_w})
        for (const auto update : {guild::Update::overwrite, guild::Update::add}) {
          // The lower rows as a matrix of their own: its blocks of scales begin elsewhere.
          const Index skipped = rows > 128 ? 127 : 1, left = rows - skipped;
          const bool transposed = product == guild::Product::x_wt;
          const Index inputs = transposed ? cols : left, outputs = transposed ? left : cols;
          Buffer<float> x(tokens * inputs), y(tokens * outputs);
          for (Index i = 0; i < x.size(); ++i) x[i] = static_cast<float>((i * 37 + 11) % 29 - 14) / 16.0f;
          for (float& value : y.view()) value = 3.0f;
          const guild::LinearJob job{matrix.view().middle_rows(skipped, left),
                                     x.view(tokens, inputs),
                                     y.view(tokens, outputs),
                                     nullptr,
                                     product,
                                     update};
          guild::linear(device, std::span(&job, 1));
          for (Index t = 0; t < tokens; ++t)
            for (Index o = 0; o < outputs; ++o) {
              double sum = update == guild::Update::add ? 3.0 : 0.0, size = std::fabs(sum);
              for (Index i = 0; i < inputs; ++i) {
                const double term = x[t * inputs + i] * (transposed ? at(skipped + o, i) : at(skipped + i, o));
                sum += term, size += std::fabs(term);
              }
              ASSERT_NEAR(y[t * outputs + o], sum, 2e-6 * size) << tokens << " tokens, row " << t << ", output " << o;
            }
        }
    std::vector<std::int32_t> ids = {static_cast<std::int32_t>(rows - 1), 0};
    Buffer<float> embedded(2 * cols);
    guild::embed(device, matrix.view(), {ids.data(), 2}, embedded.view(2, cols));
    for (Index c = 0; c < cols; ++c) {
      EXPECT_EQ(embedded[c], static_cast<float>(at(rows - 1, c)));
      EXPECT_EQ(embedded[cols + c], static_cast<float>(at(0, c)));
    }
  }
  guild::DenseMatrix<float> dense;
  const guild::Path root, owner = root / GetParam().name;
  guild::detail::DenseReader<AsWritten>(checkpoint, {}, 1)(owner / "weight", guild::MatrixShape{rows, cols}, dense);
  EXPECT_EQ(std::memcmp(dense.data.data(), want.data(), want.size() * 4), 0);
}

INSTANTIATE_TEST_SUITE_P(Formats, Codec, testing::ValuesIn(cases),
                         [](const auto& row) { return std::string(row.param.name); });

TEST_F(Codec, EveryE8m0CodeIsWhatTorchSays) {
  Index rows = 0, cols = 0;
  const std::vector<float> want = expected("e8m0", rows, cols);
  ASSERT_EQ(want.size(), 256U);
  for (std::size_t code = 0; code < 256; ++code) {
    const auto got = static_cast<float>(guild::fp8_e8m0{static_cast<std::uint8_t>(code)});
    EXPECT_TRUE(got == want[code] || (std::isnan(got) && std::isnan(want[code]))) << code << ": " << got;
  }
}

/// The code of the error and its text.
template <class F>
std::pair<guild::ErrorCode, std::string> failure(F&& f) {
  try {
    f();
  } catch (const guild::Error& error) { return {error.code(), error.what()}; }
  return {guild::ErrorCode::io_open, "nothing was thrown"};
}

TEST_F(Codec, AMatrixThatDoesNotFitItsPackingIsRefusedInOneSentence) {
  const auto narrow = failure([&] { (void)load("mxfp4", 5, 80); });
  EXPECT_EQ(narrow.first, guild::ErrorCode::wt_shape);
  EXPECT_NE(narrow.second.find("whole blocks of 32"), std::string::npos) << narrow.second;
  const auto wide = failure([&] { (void)load("mxfp4", 5, 128); });
  EXPECT_EQ(wide.first, guild::ErrorCode::wt_shape);
  EXPECT_NE(wide.second.find("[5, 64]"), std::string::npos) << wide.second;
}

TEST_F(Codec, OperationsRefuseAFormatThatNoCodecReads) {
  guild::Cpu device({.threads = 1});
  float x = 0, y = 0;
  guild::WeightView weight;
  weight.format = Format(DType::i8, DType::f32, 1, 32, true);
  weight.data = &x, weight.rows = 1, weight.cols = 1;
  const auto got =
      failure([&] { guild::linear(device, weight, View<const float, 2>(&x, 1, 1), View<float, 2>(&y, 1, 1)); });
  EXPECT_EQ(got.first, guild::ErrorCode::op_shape);
  EXPECT_NE(got.second.find("I8, scales F32 of 1 x 32, with zero points"), std::string::npos) << got.second;
}

static_assert(std::is_trivially_copyable_v<guild::WeightView> && std::is_trivially_copyable_v<Format>);

}  // namespace codec_test
