// Streaming: whole characters only, stop strings across pieces.
#include <guild/io/text_stream.hpp>

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "io_fixture.hpp"
#include "tiny_tokenizer.hpp"

namespace text_stream_test {

using guild::ErrorCode;
using guild::StopStrings;
using guild::TextStream;
using guild::Utf8Stream;
using guild_test::code_of;
using guild_test::mini_tokenizer;

bool is_utf8(const std::string& text) { return guild::utf8_fault(text) == std::string::npos; }

std::uint32_t next(std::uint32_t& state) { return (state = state * 1664525U + 1013904223U) >> 8; }

TEST(Utf8Stream, GivesACharacterOnlyWhenItsLastByteIsThere) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xF0"), "a");
  EXPECT_EQ(stream.push("\x9F"), "");
  EXPECT_EQ(stream.push("\x98"), "");
  EXPECT_EQ(stream.push("\x80z"), "😀z");
  EXPECT_EQ(stream.flush(), "");
}

TEST(Utf8Stream, EndsACutCharacterWithOneReplacement) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("\xF0\x9F\x98"), "");
  EXPECT_EQ(stream.flush(), "\uFFFD");
  EXPECT_EQ(stream.flush(), "");
}

TEST(Utf8Stream, EqualsTheReplacementOfTheWholeHoweverTheBytesAreCut) {
  std::uint32_t random = 5;
  const std::string alphabet = "a\xC3\xA9\xE5\xAD\x97\xF0\x9F\x98\x80\xED\xA0\xC0\xFF\xF4\x90";
  for (int round = 0; round < 3000; ++round) {
    std::string bytes;
    for (std::uint32_t n = next(random) % 20; n > 0; --n) bytes += alphabet[next(random) % alphabet.size()];
    Utf8Stream stream;
    std::string out;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t n = 1 + next(random) % 3;
      const std::string piece = stream.push(std::string_view(bytes).substr(at, n));
      EXPECT_TRUE(is_utf8(piece));
      out += piece;
      at += n;
    }
    out += stream.flush();
    ASSERT_EQ(out, guild::utf8_lossy(bytes));
  }
}

TEST(TextStream, GivesWholeCharactersForEveryIdAndForRandomIds) {
  for (int id = 0; id < mini_tokenizer().size(); ++id) {
    if (!mini_tokenizer().has_token(id)) continue;
    TextStream stream(mini_tokenizer());
    const std::string first = stream.push(id);
    EXPECT_TRUE(is_utf8(first));
    EXPECT_EQ(first + stream.flush(), mini_tokenizer().decode(std::vector<int>{id}));
  }
  std::uint32_t random = 9;
  for (int round = 0; round < 300; ++round) {
    std::vector<int> ids;
    for (int n = 0; n < 40; ++n) ids.push_back(static_cast<int>(next(random) % 400));
    TextStream stream(mini_tokenizer());
    std::string out;
    for (const int id : ids) {
      const std::string piece = stream.push(id);
      EXPECT_TRUE(is_utf8(piece));
      out += piece;
    }
    ASSERT_EQ(out + stream.flush(), mini_tokenizer().decode(ids));
  }
}

TEST(TextStream, LeavesSpecialTokensOutOnRequest) {
  TextStream keep(mini_tokenizer()), skip(mini_tokenizer(), {}, {.special_tokens = guild::SpecialTokens::skip});
  EXPECT_EQ(keep.push(mini_tokenizer().eos_id()), "<｜end▁of▁sentence｜>");
  EXPECT_EQ(skip.push(mini_tokenizer().eos_id()), "");
}

TEST(TextStream, RefusesAnIdWithoutAToken) {
  TextStream stream(mini_tokenizer());
  EXPECT_EQ(code_of([&] { (void)stream.push(mini_tokenizer().size()); }), ErrorCode::tk_id);
}

TEST(TextStream, FindsAStopStringAcrossTokensAndGivesNothingOfIt) {
  TextStream stream(mini_tokenizer(), {"字END"});
  std::string out;
  for (const int id : mini_tokenizer().encode("text 字EN 字字END more")) out += stream.push(id);
  out += stream.flush();
  EXPECT_EQ(out, "text 字EN 字");
  EXPECT_TRUE(stream.stopped());
  EXPECT_EQ(stream.stop_string(), "字END");
}

TEST(StopStrings, HoldsBackOnlyWhatCouldBeginOne) {
  StopStrings stops({"\n\nUser:", "STOP"});
  EXPECT_EQ(stops.push("Hello\n"), "Hello");
  EXPECT_EQ(stops.push("\nU"), "");
  EXPECT_EQ(stops.push("S"), "\n\nU");
  EXPECT_EQ(stops.push("TO"), "");
  EXPECT_EQ(stops.flush(), "STO");
  EXPECT_FALSE(stops.stopped());
}

TEST(StopStrings, GivesTheSameTextHoweverItIsCut) {
  // The second kind ends as it begins, so that a failed match can be the beginning of the next.
  const std::vector<std::vector<std::string>> kinds = {{"abab", "aba", "bb", "cabac"}, {"aabaac", "ccc", "bcbcbb"}};
  const std::vector<std::string> chunks = {"a", "aab", "c", "bcb"};
  std::uint32_t random = 3;
  for (int round = 0; round < 8000; ++round) {
    const std::vector<std::string>& stops = kinds[static_cast<std::size_t>(round) % 2];
    std::string text;
    for (std::uint32_t n = next(random) % 14; n > 0; --n)
      text += round % 2 == 0 ? std::string(1, "abc"[next(random) % 3]) : chunks[next(random) % 4];
    // By hand: the shortest beginning that ends in a stop string, and the longest of those it ends in.
    std::string expected = text, found;
    for (std::size_t end = 1; end <= text.size() && found.empty(); ++end)
      for (const std::string& stop : stops)
        if (std::string_view(text).substr(0, end).ends_with(stop) && stop.size() > found.size()) {
          found = stop;
          expected = text.substr(0, end - stop.size());
        }
    StopStrings stream(stops);
    std::string out;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t n = 1 + next(random) % 4;
      out += stream.push(std::string_view(text).substr(at, n));
      at += n;
    }
    out += stream.flush();
    ASSERT_EQ(out, expected) << text;
    ASSERT_EQ(stream.found(), found) << text;
  }
}

TEST(StopStrings, RefusesEmptyAndBrokenOnes) {
  EXPECT_EQ(code_of([] { StopStrings stops({""}); }), ErrorCode::in_param);
  EXPECT_EQ(code_of([] { StopStrings stops({"a\xFF"}); }), ErrorCode::in_utf8);
}

}  // namespace text_stream_test
