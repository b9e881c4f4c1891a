// Data and devices of the tests that a row has the same bits in every batch.
#pragma once

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstring>
#include <guild/core/weight.hpp>
#include <guild/device/cpu.hpp>
#include <memory>
#include <string>

#include "ops_test_support.hpp"

namespace guild_test {

inline constexpr Index most = 70;           ///< rows of the largest batch
inline constexpr double epsilon = 0x1p-23;  ///< of float

inline const guild::Format formats[] = {guild::DType::f32,     guild::DType::bf16, guild::DType::f16,
                                        guild::DType::f8_e4m3, guild::fp8_ue8m0,   guild::mxfp4};

template <class Real>
bool same_bits(const Real* a, const Real* b, Index count) {
  return std::memcmp(a, b, static_cast<std::size_t>(count) * sizeof(Real)) == 0;
}

/// A random stored matrix; its grid of scales begins 50 rows before it.
struct StoredWeight {
  std::vector<std::uint8_t> data, scales;
  guild::WeightView view;

  StoredWeight(const guild::Format& format, Index rows, Index cols, unsigned seed) {
    using guild::DType;
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    const auto put = [](std::vector<std::uint8_t>& to, auto value) {
      const auto bytes = std::bit_cast<std::array<std::uint8_t, sizeof value>>(value);
      to.insert(to.end(), bytes.begin(), bytes.end());
    };
    const auto bytes = static_cast<std::size_t>(rows * cols * bits(format.element) / 8);
    while (data.size() < bytes) {
      const float value = normal(random);
      switch (format.element) {
        case DType::f32:
          put(data, value);
          break;
        case DType::bf16:
          put(data, guild::bf16(value));
          break;
        case DType::f16:
          put(data, guild::f16(value));
          break;
        case DType::f8_e4m3:
          put(data, guild::fp8_e4m3(40.0f * value));
          break;
        default:  // two values of fp4
          put(data, static_cast<std::uint8_t>(random() & 0xff));
      }
    }
    view = {format, data.data(), rows, cols};
    if (!format.scaled()) return;
    view.first_row = 50;
    view.scale_pitch = (cols + format.block_cols - 1) / format.block_cols;
    for (Index i = 0; i < ((50 + rows) / format.block_rows + 1) * view.scale_pitch; ++i) {
      if (format.scale == DType::f32)
        put(scales, 0.01f + 0.02f * static_cast<float>(random() % 100));
      else
        put(scales, static_cast<std::uint8_t>(120 + random() % 6));  // powers of two
    }
    view.scales = scales.data();
  }
};

/// Devices of one and of three threads that run the variant of the test.
class BatchInvariance : public testing::TestWithParam<guild::Isa> {
 protected:
  void SetUp() override {
    if (!guild::runs_here(GetParam())) GTEST_SKIP() << "this machine has no " << guild::name(GetParam());
    one = std::make_unique<guild::Cpu>(guild::CpuOptions{.threads = 1, .isa = GetParam()});
    three = std::make_unique<guild::Cpu>(guild::CpuOptions{.threads = 3, .isa = GetParam()});
  }
  std::unique_ptr<guild::Cpu> one, three;
};

inline auto all_variants() {
  using guild::Isa;
  return testing::Values(Isa::baseline, Isa::avx2, Isa::avx512, Isa::avx512_bf16);
}
inline std::string variant_name(const testing::TestParamInfo<guild::Isa>& variant) {
  return std::string(guild::name(variant.param));
}

}  // namespace guild_test
