// Token streams: every token is a target once, pieces give the tokens of the whole, parts do not overlap.
#include <guild/cpu.hpp>
#include <guild/training/token_stream.hpp>

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include <guild/core/random.hpp>

#include "../io/io_fixture.hpp"
#include "../io/test_files.hpp"
#include "../io/tiny_tokenizer.hpp"

namespace token_stream_test {

using guild::ErrorCode;
using guild::Index;
using guild::Sample;
using guild::TokenArray;
using guild::Tokenizer;
using guild::TokenStream;
using guild::test::TempFolder;
using guild_test::code_of;
using guild_test::mini_tokenizer;

std::vector<std::int32_t> counted(Index n, std::int32_t from = 0) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(n));
  std::iota(tokens.begin(), tokens.end(), from);
  return tokens;
}
std::vector<std::int32_t> tokens_of(const TokenStream& stream) {
  std::vector<std::int32_t> out;
  for (Index i = 0; i < stream.tokens(); ++i) out.push_back(stream.token(i));
  return out;
}

TEST(TokenStream, MakesEveryTokenButTheFirstATargetOnce) {
  for (const Index length : {1, 2, 7, 64, 1000})
    for (const Index n : {2, 3, 7, 8, 9, 64, 65, 66, 200}) {
      const TokenStream stream(counted(n, 100), length);
      std::vector<std::int32_t> targets;
      Sample sample;
      for (Index i = 0; i < stream.size(); ++i) {
        stream.get(i, sample);
        ASSERT_EQ(sample.tokens.size(), sample.targets.size());
        EXPECT_TRUE(i + 1 == stream.size() || static_cast<Index>(sample.tokens.size()) == length);
        for (std::size_t p = 0; p < sample.tokens.size(); ++p) EXPECT_EQ(sample.targets[p], sample.tokens[p] + 1);
        targets.insert(targets.end(), sample.targets.begin(), sample.targets.end());
      }
      EXPECT_EQ(targets, counted(n - 1, 101)) << length << " " << n;
    }
}

TEST(TokenStream, KeepsTokensBeyondTwoBytes) {
  std::vector<std::int32_t> tokens = {1, 65535, 2, 65536, 128814, 2147483647, 0};
  const TokenStream stream(tokens, 3);
  EXPECT_EQ(tokens_of(stream), tokens);
  Sample sample;
  stream.get(1, sample);
  EXPECT_EQ(sample.tokens, (std::vector<std::int32_t>{65536, 128814, 2147483647}));
  EXPECT_EQ(sample.targets, (std::vector<std::int32_t>{128814, 2147483647, 0}));
  TokenArray narrow;
  narrow.append(counted(1000));
  narrow.shrink_to_fit();
  EXPECT_EQ(narrow.bytes(), 2000U);
  EXPECT_EQ(code_of([&] { narrow.append(-1); }), ErrorCode::in_token);
}

TEST(TokenStream, PartsShareNothingAndLoseNothing) {
  const TokenStream stream(counted(1003), 16);
  const TokenStream train = stream.train_part(0.1), validation = stream.validation_part(0.1);
  EXPECT_EQ(validation.tokens(), 100);
  std::vector<std::int32_t> joined = tokens_of(train);
  for (const std::int32_t token : tokens_of(validation)) joined.push_back(token);
  EXPECT_EQ(joined, counted(1003));
  Sample sample;
  train.get(train.size() - 1, sample);
  EXPECT_EQ(sample.targets.back(), 902);  // the last training target is no validation token
  validation.get(0, sample);
  EXPECT_EQ(sample.tokens.front(), 903);
  for (const double share : {0.0, 1.0, -0.5, std::nan("")})
    EXPECT_EQ(code_of([&] { (void)stream.train_part(share); }), ErrorCode::in_param);
  EXPECT_EQ(code_of([&] { (void)stream.validation_part(0.0001); }), ErrorCode::dt_empty);
  EXPECT_EQ(code_of([&] { (void)stream.train_part(0.9999); }), ErrorCode::dt_empty);
}

TEST(TokenStream, RefusesWhatHoldsNoWindow) {
  EXPECT_EQ(code_of([] { TokenStream(counted(1), 4); }), ErrorCode::dt_empty);
  EXPECT_EQ(code_of([] { TokenStream(counted(10), 0); }), ErrorCode::in_param);
  Sample sample;
  const TokenStream stream(counted(10), 4);
  for (const Index i : {-1, 3}) EXPECT_EQ(code_of([&] { stream.get(i, sample); }), ErrorCode::in_param);
  const TempFolder folder;
  EXPECT_EQ(code_of([&] { (void)TokenStream::read(mini_tokenizer(), folder.write("empty.txt", "")); }),
            ErrorCode::dt_empty);
  EXPECT_EQ(code_of([&] { (void)TokenStream::read(mini_tokenizer(), folder.path("none.txt")); }), ErrorCode::io_open);
  std::string message;
  const std::string bad = folder.write("bad.txt", std::string(100, 'a') + "\nword\n" + std::string(30, 'b') + "\xff!");
  EXPECT_EQ(code_of([&] { (void)TokenStream::read(mini_tokenizer(), bad, {.text = {.piece = 16}}); }, &message),
            ErrorCode::in_utf8);
  EXPECT_EQ(message.find(bad), 0U) << message;
  EXPECT_NE(message.find("byte 136"), std::string::npos) << message;
}

TEST(TokenStream, PutsTheSeparatorAfterEachDocument) {
  const TempFolder folder;
  const std::vector<std::string> documents = {"One.\n", "Two words.", "三"};
  std::vector<std::string> paths;
  std::vector<std::int32_t> expected;
  for (const std::string& document : documents) {
    paths.push_back(folder.write(std::to_string(paths.size()) + ".txt", document));
    for (const int token : mini_tokenizer().encode(document)) expected.push_back(token);
    expected.push_back(1);
  }
  EXPECT_EQ(tokens_of(TokenStream::read(mini_tokenizer(), paths, {.separator = 1})), expected);
  EXPECT_EQ(tokens_of(TokenStream::encode(mini_tokenizer(), documents, {.separator = 1})), expected);
  EXPECT_EQ(tokens_of(TokenStream::encode(mini_tokenizer(), documents)).size(), expected.size() - 3);
}

TEST(TokenStream, ReadsControlTokensOnlyIfAsked) {
  const std::vector<std::string> text = {"a<｜end▁of▁sentence｜>b"};
  const auto ends = [&](const guild::TokenStreamOptions& options) {
    const auto tokens = tokens_of(TokenStream::encode(mini_tokenizer(), text, options));
    return std::count(tokens.begin(), tokens.end(), 1);
  };
  EXPECT_EQ(ends({}), 0);
  EXPECT_EQ(ends({.text = {.encode = {.added_tokens = guild::AddedTokens::parse}}}), 1);
}

/// Every kind of line end and blank, between words of several scripts.
std::string mixed_text() {
  std::string text;
  guild::Random random(5);
  const char* words[] = {"word", "12345",  "foo.", "(x)",     "你好", "é",     "。",
                         "a",    "\u3000", "-->",  "\u00a0b", "'s",   "\u0301"};
  const char* blanks[] = {" ", "\n", "  ", "\n\n", " \n", "\n ", "\r\n", "\t", "", "\n\n\n", "\n"};
  for (int i = 0; i < 4000; ++i) {
    text += words[random.bits() % std::size(words)];
    text += blanks[random.bits() % std::size(blanks)];
  }
  return text;
}

TEST(TextEncoder, GivesTheTokensOfTheWholeHoweverItIsCut) {
  guild_test::TinyTokenizer gpt2;  // GPT-2's pattern keeps the last of several line ends apart, if a word follows
  gpt2.pre_tokenizer = R"({"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true})";
  gpt2.vocab.push_back("\"\u010a\u010a\":259");  // two line ends are one token
  gpt2.merges.insert(gpt2.merges.size() - 1, ",[\"\u010a\",\"\u010a\"]");
  const Tokenizer tiny = Tokenizer::parse(gpt2.json());
  const std::string text = mixed_text();
  const TempFolder folder;
  const std::string path = folder.write("mixed.txt", text);
  for (const Tokenizer* tokenizer : {&mini_tokenizer(), &tiny}) {
    const std::vector<int> whole = tokenizer->encode(text, {.added_tokens = guild::AddedTokens::text});
    for (const std::size_t piece : {64U, 300U, 1000U, 5000U, 1U << 20}) {
      EXPECT_EQ(tokens_of(TokenStream::read(*tokenizer, path, {.text = {.piece = piece}})), whole) << piece;
      EXPECT_EQ(tokens_of(TokenStream::encode(*tokenizer, std::vector{text}, {.text = {.piece = piece}})), whole);
    }
  }
}

TEST(TextEncoder, CutsOneEndlessLineBetweenCharacters) {
  std::string text;
  for (int i = 0; i < 3000; ++i) text += i % 3 == 0 ? "界" : "é";
  const auto tokens = tokens_of(TokenStream::encode(mini_tokenizer(), std::vector{text}, {.text = {.piece = 16}}));
  EXPECT_EQ(mini_tokenizer().decode(tokens), text);
}

TEST(TextEncoder, ReportsProgressAndStopsWhenTold) {
  const TempFolder folder;
  const std::string text = mixed_text(), path = folder.write("mixed.txt", text);
  std::int64_t last = 0;
  guild::TextOptions options{.piece = 1000};
  options.progress = [&](std::int64_t done, std::int64_t total) {
    EXPECT_GT(done, last);
    EXPECT_EQ(total, static_cast<std::int64_t>(text.size()));
    last = done;
    return true;
  };
  (void)TokenStream::read(mini_tokenizer(), path, {.text = options});
  EXPECT_EQ(last, static_cast<std::int64_t>(text.size()));
  options.progress = [](std::int64_t done, std::int64_t) { return done < 3000; };
  EXPECT_EQ(code_of([&] { (void)TokenStream::read(mini_tokenizer(), path, {.text = options}); }),
            ErrorCode::io_cancelled);
}

TEST(SafeCut, LiesAfterASingleLineEndBetweenVisibleCharacters) {
  using guild::detail::last_safe_cut;
  EXPECT_EQ(last_safe_cut("ab\ncd"), 3U);
  EXPECT_EQ(last_safe_cut("ab\ncd\n"), 3U);
  EXPECT_EQ(last_safe_cut("ab\ncd\n\nef"), 3U);
  for (const char* text : {"", "\n", "ab", "ab\n", "\nab", "ab\n\ncd", "ab \ncd", "ab\n cd", "ab\r\ncd", "ab\n\u3000c",
                           "ab\u00a0\ncd", "ab\n\xe4"})
    EXPECT_EQ(last_safe_cut(text), 0U) << text;
  EXPECT_EQ(last_safe_cut("界\n界"), 4U);
}

}  // namespace token_stream_test
