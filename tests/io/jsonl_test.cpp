// JSON Lines: lines cut right whatever the pieces, and errors that name the line.
#include <guild/io/jsonl.hpp>

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "io_fixture.hpp"
#include "test_files.hpp"

namespace jsonl_test {

using guild::ErrorCode;
using guild::Json;
using guild::JsonLines;
using guild::LinePlace;
using guild::test::TempFolder;
using guild_test::code_of;

std::string read(const JsonLines& lines, const std::string& path) {
  std::string out;
  lines.read(path, {}, [&](const Json& json, const LinePlace& place) {
    out += std::to_string(place.number) + "@" + std::to_string(place.byte) + "=" + guild_test::dump(json) + " ";
  });
  return out;
}

TEST(JsonLines, AreTheSameHoweverTheFileIsRead) {
  const TempFolder folder;
  const std::string path = folder.write("a.jsonl", "\xEF\xBB\xBF{\"a\":1}\n\n  \r\n[2, \"\xc3\xa9\"]\r\n3\n\"end\"");
  for (const std::size_t bytes : {1U, 2U, 3U, 5U, 7U, 1000U})
    EXPECT_EQ(read({.read_bytes = bytes}, path), "1@0={\"a\":1} 4@16=[2,\"\xc3\xa9\"] 5@27=3 6@29=\"end\" ") << bytes;
  EXPECT_EQ(read({}, folder.write("empty.jsonl", "")), "");
  EXPECT_EQ(read({}, folder.write("blank.jsonl", "\n\n")), "");
  EXPECT_EQ(read({}, folder.write("one.jsonl", "1\n")), "1@0=1 ");
}

TEST(JsonLines, NameTheFileTheLineAndTheByteOfAFault) {
  const TempFolder folder;
  const std::string path = folder.write("bad.jsonl", "{}\n{}\n{\"a\":}\n{}");
  std::string message;
  guild::JsonRules rules;
  rules.syntax = ErrorCode::dt_json;
  EXPECT_EQ(code_of([&] { JsonLines{}.read(path, rules, [](const Json&, const LinePlace&) {}); }, &message),
            ErrorCode::dt_json);
  EXPECT_TRUE(message.starts_with(path + ":3: not valid JSON")) << message;
  EXPECT_NE(message.find("line 3"), std::string::npos) << message;
  EXPECT_NE(message.find("(byte 1"), std::string::npos) << message;  // 11 or 12, as the parser has it
  rules.missing = ErrorCode::dt_missing;
  EXPECT_EQ(code_of(
                [&] {
                  JsonLines{}.parse("{\"a\":1}\n{}", "text", rules,
                                    [](const Json& json, const LinePlace&) { (void)json["a"]; });
                },
                &message),
            ErrorCode::dt_missing);
  EXPECT_TRUE(message.starts_with("text:2: \"a\"")) << message;
}

TEST(JsonLines, StopAtALineThatIsTooLong) {
  const TempFolder folder;
  const std::string path = folder.write("long.jsonl", "1\n\"" + std::string(100, 'x') + "\"\n2\n");
  std::string message;
  for (const std::size_t bytes : {8U, 1000U})
    EXPECT_EQ(code_of([&] { read({.max_line = 50, .read_bytes = bytes}, path); }, &message), ErrorCode::io_too_large);
  EXPECT_TRUE(message.starts_with(path + ":2: ")) << message;
  EXPECT_EQ(read({.max_line = 102, .read_bytes = 8}, path).find("2@2=\"xxx"), 6U);
}

}  // namespace jsonl_test
