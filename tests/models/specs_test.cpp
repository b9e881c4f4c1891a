// The Specs in the box against the config.json files published with the models.
#include <gtest/gtest.h>

#include <string>

#include <guild/io/config.hpp>
#include <guild/models/deepseek_r1_spec.hpp>
#include <guild/models/deepseek_v2_lite_spec.hpp>
#include <guild/models/kimi_k2_spec.hpp>
#include <guild/models/moonlight_spec.hpp>

namespace specs_test {

using Family = guild::DeepSeekFamily;

guild::PublishedModel<Family> fixture(const std::string& name) {
  const std::string path = std::string(GUILD_SOURCE_DIR) + "/tests/fixtures/configs/" + name + ".json";
  return guild::parse_config<Family>(guild::read_text(path, 1 << 20), path);
}

static_assert(guild::config_problem(guild::config_of<guild::DeepSeekR1Spec>) == nullptr);
static_assert(guild::config_problem(guild::config_of<guild::DeepSeekV2LiteSpec>) == nullptr);
static_assert(guild::config_problem(guild::config_of<guild::MoonlightSpec>) == nullptr);
static_assert(guild::config_problem(guild::config_of<guild::KimiK2Spec>) == nullptr);

TEST(Specs, DeepSeekR1IsThePublishedConfig) {
  const auto file = fixture("deepseek_r1");
  EXPECT_EQ(guild::differences(guild::config_of<guild::DeepSeekR1Spec>, canonical(file.model)), "");
  EXPECT_EQ(guild::config_of<guild::DeepSeekR1Spec>, canonical(file.model));
  EXPECT_EQ(file.quantization, guild::QuantizationConfig{});
  EXPECT_EQ(file.bos, 0);
  EXPECT_EQ(file.eos, std::vector<int>{1});
  EXPECT_EQ(file.dtype, guild::DType::bf16);
  EXPECT_NO_THROW(guild::check_config<guild::DeepSeekR1Spec>(file));
}

TEST(Specs, DeepSeekV2LiteIsThePublishedConfig) {
  const auto file = fixture("deepseek_v2_lite");
  EXPECT_EQ(guild::differences(guild::config_of<guild::DeepSeekV2LiteSpec>, canonical(file.model)), "");
  EXPECT_EQ(guild::config_of<guild::DeepSeekV2LiteSpec>, canonical(file.model));
  EXPECT_EQ(file.quantization, std::nullopt);
  EXPECT_EQ(file.eos, std::vector<int>{100001});
}

TEST(Specs, MoonlightIsThePublishedConfig) {
  const auto file = fixture("moonlight");
  EXPECT_EQ(guild::differences(guild::config_of<guild::MoonlightSpec>, canonical(file.model)), "");
  EXPECT_EQ(guild::config_of<guild::MoonlightSpec>, canonical(file.model));
  EXPECT_EQ(file.quantization, std::nullopt);
}

TEST(Specs, KimiK2IsThePublishedConfig) {
  const auto file = fixture("kimi_k2");
  EXPECT_EQ(guild::differences(guild::config_of<guild::KimiK2Spec>, canonical(file.model)), "");
  EXPECT_EQ(guild::config_of<guild::KimiK2Spec>, canonical(file.model));
  EXPECT_EQ(file.model_type, "kimi_k2");
}

}  // namespace specs_test
