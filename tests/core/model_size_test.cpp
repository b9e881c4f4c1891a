// Parameter counts and bytes against a table made by listing every published tensor (tests/oracle/parameter_table.py).
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include <guild/core/config_check.hpp>
#include <guild/core/model_size.hpp>
#include <guild/models/deepseek_r1.hpp>
#include <guild/models/deepseek_v2_lite.hpp>
#include <guild/models/kimi_k2.hpp>
#include <guild/models/moonlight.hpp>

namespace model_size_test {

using guild::DType;

struct Row {
  guild::DeepSeekFamily::Config config;
  std::int64_t total, active, mtp, stored, bf16, fp8, f32, mtp_fp8, stored_fp8;
};

const Row table[] = {
#include "../fixtures/parameter_table.inc"
};

TEST(Memory, CountsEveryPublishedTensor) {
  for (const Row& row : table) {
    const auto n = guild::parameter_count(row.config);
    EXPECT_EQ(n.total, row.total);
    EXPECT_EQ(n.active, row.active);
    EXPECT_EQ(n.mtp, row.mtp);
    EXPECT_EQ(n.stored, row.stored);
  }
}

TEST(Memory, KnowsTheBytesOfEveryStoredForm) {
  for (const Row& row : table) {
    EXPECT_EQ(guild::weight_bytes(row.config, DType::bf16), row.bf16);
    EXPECT_EQ(guild::weight_bytes(row.config, DType::f8_e4m3), row.fp8);
    EXPECT_EQ(guild::weight_bytes(row.config, DType::f32), row.f32);
    EXPECT_EQ(guild::mtp_weight_bytes(row.config, DType::f8_e4m3), row.mtp_fp8);
  }
}

constexpr auto r1 = guild::config_of<guild::DeepSeekR1Spec>;
constexpr auto v2_lite = guild::config_of<guild::DeepSeekV2LiteSpec>;

TEST(Memory, AgreesWithThePublishedSizes) {
  EXPECT_EQ(std::llround(double(guild::parameter_count(r1).total) / 1e9), 671);
  EXPECT_EQ(std::llround(double(guild::parameter_count(r1).active) / 1e9), 37);
  EXPECT_EQ(std::llround(double(guild::parameter_count(r1).stored) / 1e9), 684);
  EXPECT_EQ(std::llround(double(guild::parameter_count(v2_lite).total) / 1e8), 157);
  EXPECT_GE(guild::parameter_count(v2_lite).active, 2'400'000'000);
  EXPECT_LE(guild::parameter_count(v2_lite).active, 2'660'000'000);
  EXPECT_EQ(std::llround(double(guild::parameter_count(guild::config_of<guild::KimiK2Spec>).active) / 1e9), 32);
  // The 163 published files of DeepSeek-V3 have 688586727753 bytes; what is more than the tensors are their headers,
  // about 130 bytes for each of some 91 thousand tensors.
  const std::int64_t headers = 688'586'727'753 - table[0].stored_fp8;
  EXPECT_GT(headers, 8'000'000);
  EXPECT_LT(headers, 16'000'000);
}

TEST(Memory, TheLatentCacheOfR1IsSeventyOneTimesSmaller) {
  EXPECT_EQ(guild::cache_bytes_per_token(r1, 2), 70'272);              // 68.6 KiB
  EXPECT_EQ(guild::expanded_cache_bytes_per_token(r1, 2), 4'997'120);  // 4880 KiB
  EXPECT_EQ(guild::cache_bytes_per_token(r1, 1), 35'136);
  EXPECT_NEAR(guild::cache_ratio(r1), 71.1, 0.05);
}

TEST(Memory, IsKnownAtCompileTime) {
  static_assert(guild::parameter_count(r1).total == 671'026'419'200);
  static_assert(guild::cache_bytes_per_token(r1) == 70'272);
  static_assert(guild::estimate_memory(r1, DType::bf16, 4096).cache == 70'272LL * 4096);
}

TEST(Memory, CountsDenseAndTiedModels) {
  guild::DeepSeekFamily::Config c = v2_lite;
  std::get<guild::TrunkConfig>(c).tied_embeddings = true;
  EXPECT_EQ(guild::parameter_count(c).total, guild::parameter_count(v2_lite).total - 102400 * 2048);
  EXPECT_EQ(guild::parameter_count(c).active, guild::parameter_count(v2_lite).active);
  // Without experts every layer has the dense MLP, whatever `dense.layers` says.
  std::get<guild::TopKConfig>(c).experts = 0;
  const auto dense = guild::parameter_count(c);
  EXPECT_EQ(dense.total, dense.active);
  std::get<guild::DenseConfig>(c).layers = std::get<guild::TrunkConfig>(c).layers;
  EXPECT_EQ(guild::parameter_count(c), dense);
}

TEST(Memory, CountsNetworksWithoutGates) {
  auto ungated = guild::config_of<guild::DeepSeekV2LiteSpec>;
  const auto trunk = std::get<guild::TrunkConfig>(ungated);
  auto& dense = std::get<guild::DenseConfig>(ungated);
  auto& experts = std::get<guild::ExpertConfig>(ungated);
  const auto before = guild::parameter_count(ungated).total;
  dense.activation.gated = experts.activation.gated = false;
  const std::int64_t count = std::get<guild::TopKConfig>(ungated).experts + experts.shared;
  EXPECT_EQ(before - guild::parameter_count(ungated).total,
            trunk.hidden * (std::int64_t{dense.hidden} + (trunk.layers - 1) * count * experts.hidden));
  experts.shared_gate = true;
  const auto gated = guild::parameter_count(ungated).total;
  experts.shared_gate = false;
  EXPECT_EQ(gated - guild::parameter_count(ungated).total, std::int64_t{trunk.hidden} * (trunk.layers - 1));
}

TEST(Memory, SaturatesInsteadOfWrapping) {
  const auto estimate = guild::estimate_memory(r1, DType::f32, std::numeric_limits<std::int64_t>::max(), 4);
  EXPECT_EQ(estimate.cache, std::numeric_limits<std::int64_t>::max());
  EXPECT_EQ(estimate.total(), std::numeric_limits<std::int64_t>::max());
}

// The largest numbers that config_check.hpp lets through must not overflow; constant evaluation would refuse to.
constexpr guild::DeepSeekFamily::Config largest() {
  return {{.vocab = 1 << 27, .hidden = 1 << 20, .layers = 1 << 10, .mtp_layers = 16, .context = 1 << 28},
          {1 << 12, 1 << 16, 1 << 16, 1 << 12, 1 << 12, 1 << 12},
          {.hidden = 1 << 20, .layers = 1 << 10},
          {.experts = 1 << 10, .top_k = 1 << 10},
          {.hidden = 256, .shared = 1}};
}
static_assert(guild::config_problem(largest()) == nullptr);
static_assert(guild::parameter_count(largest()).stored > 0 && guild::weight_bytes(largest(), DType::f32) > 0 &&
              guild::mtp_weight_bytes(largest(), DType::f64) > 0 &&
              guild::expanded_cache_bytes_per_token(largest(), 8) > 0);

TEST(Memory, RefusesAModelThatIsLargerThanTheBudget) {  // C22
  const auto estimate = guild::estimate_memory(r1, DType::f8_e4m3, 4096);
  EXPECT_NO_THROW(guild::check_memory(estimate, estimate.total()));
  try {
    guild::check_memory(estimate, estimate.total() - 1);
    ADD_FAILURE() << "nothing was refused";
  } catch (const guild::Error& error) {
    EXPECT_EQ(error.code(), guild::ErrorCode::cf_memory);
    EXPECT_NE(error.message().find("673150611808 for weights"), std::string::npos) << error.what();
    EXPECT_NE(error.message().find(std::to_string(estimate.total() - 1)), std::string::npos) << error.what();
  }
}

}  // namespace model_size_test
