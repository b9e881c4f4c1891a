#include <guild/cpu.hpp>
#include <guild/inference/load.hpp>

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include <guild/inference/generation.hpp>
#include <guild/models/presets.hpp>

#include "../io/test_files.hpp"

namespace load_test {

/// A copy of the shipped folder in which `from` is replaced by `to` in one file.
class ChangedFolder {
 public:
  ChangedFolder(const std::string& file, const std::string& from, const std::string& to, const char* source) {
    for (const auto& entry :
         std::filesystem::directory_iterator(std::string(GUILD_SOURCE_DIR "/checkpoints/") + source))
      std::filesystem::copy_file(entry.path(), folder_.path(entry.path().filename().string()));
    std::string text = guild::read_text(folder_.path(file), 1U << 20);
    const std::size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    if (at != std::string::npos) text.replace(at, from.size(), to);
    folder_.write(file, text);
  }
  [[nodiscard]] auto load() const { return guild::load<guild::MiniR1>(guild::Cpu({.threads = 1}), folder_.path()); }

 private:
  guild::test::TempFolder folder_;
};

TEST(Load, AFolderWithoutAChatTemplateCompletesTextsButDoesNotChat) {
  const auto model = ChangedFolder("tokenizer_config.json", "\"chat_template\"", "\"no_template\"", "mini-r1").load();
  auto text = guild::complete(model, "1 + 1", {.temperature = 0.0f, .max_tokens = 3});
  while (text.next()) {}
  EXPECT_EQ(text.stats().generated_tokens, 3);
  const auto error = guild::test::error_of([&] { (void)guild::generate(model, "1 + 1"); });
  ASSERT_TRUE(error);
  EXPECT_EQ(name(error->code()), "tpl_unsupported");
}

TEST(Load, ABrokenChatTemplateIsAnErrorAndNotTakenForAMissingOne) {
  const ChangedFolder folder("tokenizer_config.json", "\"chat_template\": \"", "\"chat_template\": \"{% nonsense %}",
                             "mini-r1");
  const auto error = guild::test::error_of([&] { (void)folder.load(); });
  ASSERT_TRUE(error);
  EXPECT_EQ(name(error->code()), "tpl_unsupported");
}

TEST(Load, RefusesScaleBlocksOfAnotherSize) {
  const ChangedFolder folder("config.json", "\"weight_block_size\": [", "\"weight_block_size\": [64, 128], \"was\": [",
                             "mini-r1-fp8");
  const auto error = guild::test::error_of([&] { (void)folder.load(); });
  ASSERT_TRUE(error);
  EXPECT_EQ(name(error->code()), "cf_quant");
  EXPECT_EQ(error->key(), "quantization_config.weight_block_size");
}

TEST(Load, TheSuggestedNumberOfTokensHoldsUntilAnotherIsAskedFor) {
  const auto model = ChangedFolder("generation_config.json", "{", "{\"max_new_tokens\": 2,", "mini-r1").load();
  const auto drawn = [&](int asked) {
    auto text = guild::complete(model, "What is", {.temperature = 0.0f, .max_tokens = asked});
    while (text.next()) {}
    return text.stats().generated_tokens;
  };
  EXPECT_EQ(drawn(0), 2);
  EXPECT_EQ(drawn(3), 3);
}

}  // namespace load_test
