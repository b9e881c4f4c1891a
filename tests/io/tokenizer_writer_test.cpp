#include <guild/io/tokenizer_writer.hpp>

#include <gtest/gtest.h>

#include "io_fixture.hpp"
#include "test_files.hpp"

namespace tokenizer_writer_test {

using guild::BpeVocabulary;
using guild::ErrorCode;
using guild::Tokenizer;
using guild_test::code_of;

TEST(TokenizerWriter, WritesAFolderThatTokenizerReads) {
  const guild::test::TempFolder folder;
  BpeVocabulary vocabulary = guild::byte_vocabulary({{"<s>"}, {"</s>"}}, {{"<think>", false}});
  vocabulary.tokens.push_back("ab");
  const auto id_of = [&](char c) {
    for (std::size_t i = 0; i < 256; ++i)
      if (vocabulary.tokens[i][0] == c) return static_cast<int>(i) + 2;
    return -1;
  };
  vocabulary.merges = {{id_of('a'), id_of('b')}};
  const guild::TokenizerConfig config{.bos_token = "<s>",
                                      .eos_token = "</s>",
                                      .pad_token = "</s>",
                                      .chat_template = "{{ bos_token }}\n{{ messages[0]['content'] + \"\\t\u20ac\" }}"};
  const Tokenizer given = guild::write_tokenizer(folder.path(), vocabulary, config);
  const Tokenizer read = Tokenizer::read(folder.path());
  for (const Tokenizer* tokenizer : {&given, &read}) {
    EXPECT_EQ(tokenizer->size(), 260);
    EXPECT_EQ(tokenizer->bos_id(), 0);
    EXPECT_EQ(tokenizer->eos_id(), 1);
    EXPECT_EQ(tokenizer->pad_id(), 1);
    EXPECT_EQ(tokenizer->config().chat_template, config.chat_template);
    EXPECT_EQ(tokenizer->encode("<s>abc<think>"), (std::vector<int>{0, 258, id_of('c'), 259}));
    EXPECT_TRUE(tokenizer->is_special(0) && !tokenizer->is_special(259));
  }
}

TEST(TokenizerWriter, GivesOneTokenAByteWithoutTraining) {
  const guild::test::TempFolder folder;
  const Tokenizer tokenizer = guild::write_tokenizer(folder.path(), guild::byte_vocabulary({{"<|end|>"}}),
                                                     {.bos_token = "<|end|>", .eos_token = "<|end|>"});
  EXPECT_EQ(tokenizer.size(), 257);
  EXPECT_EQ(tokenizer.encode("to be 12").size(), 8U);
  EXPECT_EQ(tokenizer.encode("\u20ac").size(), 3U);
  std::string all;
  for (char c = 1; c < 127; ++c) all += c;
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(all)), all);
  EXPECT_FALSE(tokenizer.pad_id());
}

TEST(TokenizerWriter, WritesNothingIfItCouldNotBeReadAgain) {
  const guild::test::TempFolder folder;
  folder.write("tokenizer.json", "old");
  const auto refused = [&](const BpeVocabulary& vocabulary, const guild::TokenizerConfig& config) {
    return code_of([&] { guild::write_tokenizer(folder.path(), vocabulary, config); });
  };
  const BpeVocabulary good = guild::byte_vocabulary({{"<s>"}});
  EXPECT_EQ(refused(good, {.bos_token = "<s>", .eos_token = "</s>"}), ErrorCode::tk_special);
  EXPECT_EQ(refused(good, {.bos_token = "<s>"}), ErrorCode::tk_special);
  EXPECT_EQ(refused(good, {.bos_token = "<s>", .eos_token = "<s>", .chat_template = "\xff"}), ErrorCode::in_utf8);
  BpeVocabulary bad = good;
  bad.merges = {{1, 2}};  // what they make is no token
  EXPECT_EQ(refused(bad, {.bos_token = "<s>", .eos_token = "<s>"}), ErrorCode::tk_merge);
  bad = good;
  bad.tokens.erase(bad.tokens.begin() + 7);
  EXPECT_EQ(refused(bad, {.bos_token = "<s>", .eos_token = "<s>"}), ErrorCode::tk_alphabet);
  bad = good;
  bad.merges = {{1, 5000}};
  EXPECT_EQ(refused(bad, {.bos_token = "<s>", .eos_token = "<s>"}), ErrorCode::tk_merge);
  EXPECT_EQ(guild::test::bytes_of(folder.path("tokenizer.json")), "old");
  EXPECT_FALSE(std::filesystem::exists(folder.path("tokenizer_config.json")));
  EXPECT_EQ(
      code_of([&] { guild::write_tokenizer(folder.path("none"), good, {.bos_token = "<s>", .eos_token = "<s>"}); }),
      ErrorCode::io_write);
}

}  // namespace tokenizer_writer_test
