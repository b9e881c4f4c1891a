#include <guild/io/json_writer.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>

#include <guild/io/json.hpp>

#include "io_fixture.hpp"

namespace json_writer_test {

using guild::ErrorCode;
using guild::JsonWriter;
using guild_test::code_of;

JsonWriter compact() { return JsonWriter({.indent = -1}); }

TEST(JsonWriter, WritesEveryKindOfValueInOrder) {
  JsonWriter w = compact();
  w.begin_object().member("b", true).member("a", nullptr).member("n", -7).member("t", "x");
  w.key("list").begin_array().value(1.5).value(false).begin_array().end_array().begin_object().end_object().end_array();
  w.end_object();
  EXPECT_EQ(w.take(), R"({"b":true,"a":null,"n":-7,"t":"x","list":[1.5,false,[],{}]})");
}

TEST(JsonWriter, IndentsAsJsonDumpsDoes) {
  JsonWriter w;
  w.begin_object().member("a", 1).key("b").begin_array().value("x").value("y").end_array();
  w.key("c").begin_object().end_object().end_object();
  EXPECT_EQ(w.take(), "{\n  \"a\": 1,\n  \"b\": [\n    \"x\",\n    \"y\"\n  ],\n  \"c\": {}\n}\n");
}

TEST(JsonWriter, EscapesOnlyWhatJsonDemands) {
  EXPECT_EQ(compact().value("\"\\/\b\f\n\r\t\x01\x1f\x7f\u00e9\u2028\U0001F600").take(),
            "\"\\\"\\\\/\\u0008\\u000c\\n\\r\\t\\u0001\\u001f\x7f\u00e9\u2028\U0001F600\"");
}

TEST(JsonWriter, WritesTheFewestDigitsThatReadBackTheSame) {
  const auto text = [](auto number) { return compact().value(number).take(); };
  EXPECT_EQ(text(0.1), "0.1");
  EXPECT_EQ(text(0.1F), "0.1");
  EXPECT_EQ(text(1.0), "1.0");
  EXPECT_EQ(text(-0.0), "-0.0");
  EXPECT_EQ(text(1e-6), "1e-06");
  EXPECT_EQ(text(1e300), "1e+300");
  EXPECT_EQ(text(std::numeric_limits<std::int64_t>::min()), "-9223372036854775808");
  EXPECT_EQ(text(std::uint8_t{200}), "200");
  EXPECT_EQ(text(std::numeric_limits<std::int64_t>::max()), "9223372036854775807");
  std::mt19937_64 bits(3);
  for (int i = 0; i < 20000; ++i) {
    const std::uint64_t raw = bits();
    double number = 0;
    std::memcpy(&number, &raw, sizeof number);
    if (!std::isfinite(number)) continue;
    const guild::Json json = guild::Json::parse(text(number), {});
    ASSERT_FALSE(json.is_integer()) << text(number);
    ASSERT_EQ(json.number(), number);
  }
}

TEST(JsonWriter, ReadsBackAnyText) {
  std::mt19937 random(5);
  for (int i = 0; i < 2000; ++i) {
    std::string text;
    for (auto n = random() % 20; n > 0; --n) {
      const auto code = static_cast<char32_t>(1 + random() % (i % 2 == 0 ? 0x80U : 0x10FFFFU));
      guild::append_utf8(text, code >= 0xD800 && code < 0xE000 ? U'x' : code);
    }
    JsonWriter w({.indent = i % 3 - 1});
    w.begin_object().member(text, text).end_object();
    const std::string written = w.take();
    const guild::Json json = guild::Json::parse(written, {});
    ASSERT_EQ(json[text].string(), text) << written;
  }
}

TEST(JsonWriter, RefusesWhatJsonCannotHold) {
  const auto in_list = [](auto value) { return [value] { compact().begin_array().value(value); }; };
  EXPECT_EQ(code_of(in_list(std::numeric_limits<double>::quiet_NaN())), ErrorCode::in_param);
  EXPECT_EQ(code_of(in_list(std::numeric_limits<float>::infinity())), ErrorCode::in_param);
  EXPECT_EQ(code_of(in_list(std::uint64_t{1} << 63)), ErrorCode::in_param);
  EXPECT_EQ(code_of(in_list(std::string("a\0b", 3))), ErrorCode::in_param);
  EXPECT_EQ(code_of(in_list(std::string("\xC3("))), ErrorCode::in_utf8);
  EXPECT_EQ(code_of(in_list(std::string("\xED\xA0\x80"))), ErrorCode::in_utf8);
  std::string message;
  EXPECT_EQ(code_of([] { compact().begin_object().member("lr", std::numeric_limits<double>::quiet_NaN()); }, &message),
            ErrorCode::in_param);
  EXPECT_NE(message.find("\"lr\""), std::string::npos) << message;
}

TEST(JsonWriter, RefusesCallsOutOfOrder) {
  const auto broken = [](auto&& f) {
    return code_of([&] {
      JsonWriter w;
      f(w);
    });
  };
  EXPECT_EQ(broken([](JsonWriter& w) { w.key("a"); }), ErrorCode::in_param);
  EXPECT_EQ(broken([](JsonWriter& w) { w.begin_array().key("a"); }), ErrorCode::in_param);
  EXPECT_EQ(broken([](JsonWriter& w) { w.begin_object().value(1); }), ErrorCode::in_param);
  EXPECT_EQ(broken([](JsonWriter& w) { w.begin_object().key("a").key("b"); }), ErrorCode::in_param);
  EXPECT_EQ(broken([](JsonWriter& w) { w.begin_object().key("a").end_object(); }), ErrorCode::in_param);
  EXPECT_EQ(broken([](JsonWriter& w) { w.begin_object().member("a", 1).member("a", 2); }), ErrorCode::in_param);
  EXPECT_EQ(broken([](JsonWriter& w) { w.begin_object().end_array(); }), ErrorCode::in_param);
  EXPECT_EQ(broken([](JsonWriter& w) { w.end_array(); }), ErrorCode::in_param);
  EXPECT_EQ(broken([](JsonWriter& w) { w.value(1).value(2); }), ErrorCode::in_param);
  EXPECT_EQ(broken([](JsonWriter& w) { (void)w.take(); }), ErrorCode::in_param);
  EXPECT_EQ(broken([](JsonWriter& w) { (void)w.begin_object().take(); }), ErrorCode::in_param);
}

TEST(JsonWriter, BeginsAnewAfterTake) {
  JsonWriter w = compact();
  EXPECT_EQ(w.value(1).take(), "1");
  EXPECT_EQ(w.begin_array().end_array().take(), "[]");
}

}  // namespace json_writer_test
