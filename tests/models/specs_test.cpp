// The Specs in the box against the config.json files published with the models.
#include <gtest/gtest.h>

#include <string>

#include <guild/io/config.hpp>
#include <guild/models/deepseek_r1_spec.hpp>
#include <guild/models/deepseek_v2_lite_spec.hpp>
#include <guild/models/kimi_k2_spec.hpp>
#include <guild/models/moonlight_spec.hpp>

namespace specs_test {

guild::PublishedConfig fixture(const std::string& name) {
  const std::string path = std::string(GUILD_SOURCE_DIR) + "/tests/fixtures/configs/" + name + ".json";
  return guild::parse_config(guild::read_text(path, 1 << 20), path);
}

static_assert(guild::config_problem(guild::DeepSeekR1Spec::config) == nullptr);
static_assert(guild::config_problem(guild::DeepSeekV2LiteSpec::config) == nullptr);
static_assert(guild::config_problem(guild::MoonlightSpec::config) == nullptr);
static_assert(guild::config_problem(guild::KimiK2Spec::config) == nullptr);

TEST(Specs, DeepSeekR1IsThePublishedConfig) {
  const auto file = fixture("deepseek_r1");
  EXPECT_EQ(guild::differences(guild::DeepSeekR1Spec::config, file.model), "");
  EXPECT_EQ(guild::DeepSeekR1Spec::config, file.model);
  EXPECT_EQ(file.quantization, guild::QuantizationConfig{});
  EXPECT_EQ(file.bos, 0);
  EXPECT_EQ(file.eos, std::vector<int>{1});
  EXPECT_EQ(file.dtype, guild::DType::bf16);
  EXPECT_NO_THROW(guild::check_config<guild::DeepSeekR1Spec>(file));
}

TEST(Specs, DeepSeekV2LiteIsThePublishedConfig) {
  const auto file = fixture("deepseek_v2_lite");
  EXPECT_EQ(guild::differences(guild::DeepSeekV2LiteSpec::config, file.model), "");
  EXPECT_EQ(guild::DeepSeekV2LiteSpec::config, file.model);
  EXPECT_EQ(file.quantization, std::nullopt);
  EXPECT_EQ(file.eos, std::vector<int>{100001});
}

TEST(Specs, MoonlightIsThePublishedConfig) {
  const auto file = fixture("moonlight");
  EXPECT_EQ(guild::differences(guild::MoonlightSpec::config, file.model), "");
  EXPECT_EQ(guild::MoonlightSpec::config, file.model);
  EXPECT_EQ(file.quantization, std::nullopt);
}

TEST(Specs, KimiK2IsThePublishedConfig) {
  const auto file = fixture("kimi_k2");
  EXPECT_EQ(guild::differences(guild::KimiK2Spec::config, file.model), "");
  EXPECT_EQ(guild::KimiK2Spec::config, file.model);
  EXPECT_EQ(file.model_type, "kimi_k2");
}

}  // namespace specs_test
