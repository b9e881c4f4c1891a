// The Specs in the box against the config.json files published with the models.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <type_traits>

#include <guild/core/model_size.hpp>
#include <guild/cpu.hpp>
#include <guild/io/config.hpp>
#include <guild/models/deepseek_r1.hpp>
#include <guild/models/deepseek_v2_lite.hpp>
#include <guild/models/deepseek_v32.hpp>
#include <guild/models/deepseek_v4.hpp>
#include <guild/models/dots1.hpp>
#include <guild/models/gemma3.hpp>
#include <guild/models/glm4_moe.hpp>
#include <guild/models/glm5.hpp>
#include <guild/models/gpt_oss.hpp>
#include <guild/models/kimi_k2.hpp>
#include <guild/models/llama.hpp>
#include <guild/models/mixtral.hpp>
#include <guild/models/moonlight.hpp>
#include <guild/models/olmoe.hpp>
#include <guild/models/qwen2_moe.hpp>
#include <guild/models/qwen3_moe.hpp>

namespace specs_test {

template <class Family = guild::DeepSeekFamily>
guild::PublishedModel<Family> fixture(const std::string& name) {
  const std::string path = std::string(GUILD_SOURCE_DIR) + "/tests/fixtures/configs/" + name + ".json";
  return guild::parse_config<Family>(guild::read_text(path, 1 << 20), path);
}

/// The Spec has the numbers of the published file, and as many parameters as the model is known to have.
template <class Spec>
void expect_published(const std::string& name, std::int64_t parameters) {
  SCOPED_TRACE(name);
  const auto file = fixture<typename Spec::Family>(name);
  EXPECT_EQ(guild::differences(canonical(guild::config_of<Spec>), canonical(file.model)), "");
  EXPECT_NO_THROW(guild::check_config<Spec>(file));
  EXPECT_EQ(guild::parameter_count(guild::config_of<Spec>).total, parameters);
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

TEST(Specs, AProgramWithManyFindsTheOneOfAFile) {
  const auto r1 = fixture("deepseek_r1");
  EXPECT_TRUE(guild::matches<guild::DeepSeekR1Spec>(r1));
  EXPECT_FALSE(guild::matches<guild::KimiK2Spec>(r1));
  EXPECT_FALSE(guild::matches<guild::Llama31_8BSpec>(r1));
  const auto llama = fixture<guild::LlamaFamily>("llama_3_1_8b");
  EXPECT_TRUE(guild::matches<guild::Llama31_8BSpec>(llama));
  EXPECT_FALSE(guild::matches<guild::DeepSeekR1Spec>(llama));
  // Numbers that mean nothing for a model make no difference: scaling of positions that are not scaled.
  auto same = llama, other = llama;
  std::get<guild::GqaConfig>(same.model).rope.beta_fast = 7;
  EXPECT_TRUE(guild::matches<guild::Llama31_8BSpec>(same));
  std::get<guild::GqaConfig>(other.model).heads = 16;
  EXPECT_FALSE(guild::matches<guild::Llama31_8BSpec>(other));
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

TEST(Specs, OtherFamiliesAreThePublishedConfigs) {
  expect_published<guild::Llama31_8BSpec>("llama_3_1_8b", 8'030'261'248);
  expect_published<guild::R1DistillLlama8BSpec>("deepseek_r1_distill_llama_8b", 8'030'261'248);
  expect_published<guild::R1DistillQwen1_5BSpec>("deepseek_r1_distill_qwen_1_5b", 1'777'088'000);
  expect_published<guild::R1DistillQwen7BSpec>("deepseek_r1_distill_qwen_7b", 7'615'616'512);
  expect_published<guild::Qwen3_8BSpec>("qwen3_8b", 8'190'735'360);
  expect_published<guild::Mixtral8x7BSpec>("mixtral_8x7b", 46'702'792'704);
  expect_published<guild::GptOss20BSpec>("gpt_oss_20b", 20'914'757'184);
  expect_published<guild::GptOss120BSpec>("gpt_oss_120b", 116'829'156'672);
  expect_published<guild::Qwen3_30B_A3BSpec>("qwen3_30b_a3b", 30'532'122'624);
  expect_published<guild::Qwen3_235B_A22BSpec>("qwen3_235b_a22b", 235'093'634'560);
  expect_published<guild::Qwen1_5Moe_A2_7BSpec>("qwen1_5_moe_a2_7b", 14'315'784'192);
  expect_published<guild::Qwen2_57B_A14BSpec>("qwen2_57b_a14b", 57'408'658'944);
  expect_published<guild::Olmoe1B_7BSpec>("olmoe_1b_7b", 6'919'161'856);
  expect_published<guild::Glm45Spec>("glm_4_5", 352'797'829'024);
  expect_published<guild::Glm45AirSpec>("glm_4_5_air", 106'852'251'264);
  expect_published<guild::DotsLlm1Spec>("dots_llm1", 142'774'381'696);
  expect_published<guild::Gemma3_1BSpec>("gemma_3_1b", 999'885'952);
  expect_published<guild::DeepSeekV32Spec>("deepseek_v32", 671'877'944'064);
  expect_published<guild::Glm5Spec>("glm_5", 743'911'218'432);
  expect_published<guild::DeepSeekV4FlashSpec>("deepseek_v4_flash", 284'332'240'471);
  expect_published<guild::DeepSeekV4ProSpec>("deepseek_v4_pro", 1'572'997'201'763);
}

TEST(Specs, FilesOfNewerVersionsOfTransformersAreTheSameModels) {
  const auto expect_same = []<class Family>(std::type_identity<Family>, const std::string& name,
                                            const std::string& saved = {}) {
    const std::string folder = std::string(GUILD_SOURCE_DIR) + "/tests/fixtures/models/" + name;
    EXPECT_EQ(fixture<Family>((saved.empty() ? name : saved) + "_v5").model, guild::read_config<Family>(folder).model)
        << name;
  };
  for (const char* name : {"llama", "qwen2", "qwen3"}) expect_same(std::type_identity<guild::LlamaFamily>{}, name);
  expect_same(std::type_identity<guild::MixtralFamily>{}, "mixtral");
  expect_same(std::type_identity<guild::Qwen3MoeFamily>{}, "qwen3_moe");
  expect_same(std::type_identity<guild::Qwen2MoeFamily>{}, "qwen2_moe");
  expect_same(std::type_identity<guild::OlmoeFamily>{}, "olmoe");
  expect_same(std::type_identity<guild::Glm4MoeFamily>{}, "glm4_moe");
  expect_same(std::type_identity<guild::Dots1Family>{}, "dots1");
  expect_same(std::type_identity<guild::Gemma3Family>{}, "gemma3");
  expect_same(std::type_identity<guild::GptOssFamily>{}, "gpt_oss");
  expect_same(std::type_identity<guild::DeepSeekV32Family>{}, "v32", "deepseek_v32");
  expect_same(std::type_identity<guild::GlmMoeDsaFamily>{}, "glm5_full", "glm_moe_dsa");
  expect_same(std::type_identity<guild::DeepSeekV4Family>{}, "v4_published", "deepseek_v4");
}

}  // namespace specs_test
