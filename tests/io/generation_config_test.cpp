// generation_config.json: suggestions are read, nonsense is refused, a missing file suggests nothing.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <guild/io/generation_config.hpp>

namespace generation_config_test {

using guild::ErrorCode;
using guild::parse_generation_config;

TEST(GenerationConfig, ReadsEveryKeyItKnowsAndIgnoresTheRest) {
  const auto g = parse_generation_config(R"({
    "_from_model_config": true, "bos_token_id": 0, "eos_token_id": 1, "do_sample": true, "temperature": 0.6,
    "top_p": 0.95, "top_k": 50, "max_new_tokens": 32768, "repetition_penalty": 1, "transformers_version": "4.39.3"})");
  EXPECT_EQ(g.bos, 0);
  EXPECT_EQ(g.eos, std::vector<int>{1});
  EXPECT_TRUE(g.do_sample);
  EXPECT_EQ(g.temperature, 0.6f);
  EXPECT_EQ(g.top_p, 0.95f);
  EXPECT_EQ(g.top_k, 50);
  EXPECT_EQ(g.max_new_tokens, 32768);
  EXPECT_EQ(g.repetition_penalty, 1.0f);
}

TEST(GenerationConfig, LeavesEmptyWhatIsMissingOrNull) {
  for (const char* text : {"{}", R"({"temperature": null, "eos_token_id": null, "top_k": null, "do_sample": null})"}) {
    const auto g = parse_generation_config(text);
    EXPECT_FALSE(g.bos || g.temperature || g.top_p || g.top_k || g.repetition_penalty || g.max_new_tokens);
    EXPECT_TRUE(g.eos.empty());
    EXPECT_FALSE(g.do_sample);
  }
}

TEST(GenerationConfig, ReadsSeveralEndTokens) {
  EXPECT_EQ(parse_generation_config(R"({"eos_token_id": [163585, 163586]})").eos, (std::vector<int>{163585, 163586}));
}

TEST(GenerationConfig, RefusesNonsenseWithTheKeyAndWhatItFound) {
  const struct {
    const char *text, *key, *found;
    ErrorCode code;
  } cases[] = {
      {R"({"temperature": -0.1})", "temperature", "-0.1", ErrorCode::cf_range},
      {R"({"temperature": "hot"})", "temperature", "\"hot\"", ErrorCode::cf_type},
      {R"({"temperature": 1e300})", "temperature", "1e+300", ErrorCode::cf_range},
      {R"({"top_p": 0})", "top_p", "0", ErrorCode::cf_range},
      {R"({"top_p": 1e-60})", "top_p", "1e-60", ErrorCode::cf_range},
      {R"({"top_p": 1.5})", "top_p", "1.5", ErrorCode::cf_range},
      {R"({"top_k": -1})", "top_k", "-1", ErrorCode::cf_range},
      {R"({"top_k": 2.5})", "top_k", "2.5", ErrorCode::cf_type},
      {R"({"top_k": 4294967296})", "top_k", "4294967296", ErrorCode::cf_limit},
      {R"({"max_new_tokens": 0})", "max_new_tokens", "0", ErrorCode::cf_range},
      {R"({"repetition_penalty": 0})", "repetition_penalty", "0", ErrorCode::cf_range},
      {R"({"do_sample": 1})", "do_sample", "1", ErrorCode::cf_type},
      {R"({"eos_token_id": -2})", "eos_token_id", "-2", ErrorCode::cf_range},
      {R"({"eos_token_id": [1, "x"]})", "eos_token_id[1]", "\"x\"", ErrorCode::cf_type},
      {R"({"bos_token_id": 3000000000})", "bos_token_id", "3000000000", ErrorCode::cf_limit},
      {R"({"top_p": 0.5, "top_p": 0.6})", "", "", ErrorCode::cf_duplicate},
      {R"({"top_p": NaN})", "", "", ErrorCode::cf_json},
      {"[]", "", "array", ErrorCode::cf_type},
  };
  for (const auto& c : cases) {
    try {
      (void)parse_generation_config(c.text, "m/generation_config.json");
      ADD_FAILURE() << c.text << " was accepted";
    } catch (const guild::Error& error) {
      EXPECT_EQ(guild::name(error.code()), guild::name(c.code)) << c.text << ": " << error.what();
      EXPECT_EQ(error.key(), c.key);
      EXPECT_EQ(error.path(), "m/generation_config.json");
      EXPECT_NE(error.message().find(c.found), std::string::npos) << error.what();
    }
  }
}

TEST(GenerationConfig, AMissingFileSuggestsNothing) {
  const std::string folder = testing::TempDir() + "guild_generation_config_test";
  std::filesystem::create_directories(folder);
  std::filesystem::remove_all(folder + "/generation_config.json");
  EXPECT_FALSE(guild::read_generation_config(folder).temperature);
  std::ofstream(folder + "/generation_config.json") << R"({"temperature": 0.6})";
  EXPECT_EQ(guild::read_generation_config(folder).temperature, 0.6f);
  std::filesystem::remove(folder + "/generation_config.json");
  std::filesystem::create_directories(folder + "/generation_config.json");
  EXPECT_THROW((void)guild::read_generation_config(folder), guild::Error);
  std::filesystem::remove_all(folder);
}

}  // namespace generation_config_test
