// Normalization form C before the split, and the tokenizers of DeepSeek-R1-Distill folders: equal to Hugging Face's.
#include <guild/io/normalizer.hpp>

#include <gtest/gtest.h>

#include <array>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <guild/io/chat_template.hpp>
#include <guild/io/tokenizer.hpp>

#include "golden_lines.hpp"
#include "io_fixture.hpp"
#include "tiny_tokenizer.hpp"

namespace normalizer_test {

using guild::AddedTokens;
using guild::InvalidUtf8;
using guild::Json;
using guild::Normalizer;
using guild::TextPart;
using guild::TextRange;
using guild::Tokenizer;
using guild_test::for_each_line;
using guild_test::ids;
using guild_test::TinyTokenizer;
using guild_test::unescaped;
using Ids = std::vector<int>;

std::string folder(const std::string& name) { return GUILD_SOURCE_DIR "/tests/fixtures/tokenizer/distill_" + name; }
const Tokenizer& qwen() {
  static const Tokenizer tokenizer = Tokenizer::read(folder("qwen"));
  return tokenizer;
}
const Tokenizer& llama() {
  static const Tokenizer tokenizer = Tokenizer::read(folder("llama"));
  return tokenizer;
}
Normalizer normalizer(const char* json) { return Normalizer::parse(Json::parse(json, {})); }
const Normalizer& nfc() {
  static const Normalizer form_c = normalizer(R"({"type":"NFC"})");
  return form_c;
}
std::string utf8proc_nfc(const std::string& text) {
  utf8proc_uint8_t* composed = nullptr;
  utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
               &composed, static_cast<utf8proc_option_t>(UTF8PROC_COMPOSE | UTF8PROC_STABLE));
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(composed, std::free);
  return reinterpret_cast<const char*>(composed);
}
std::string utf8(char32_t c) {
  std::string out;
  guild::append_utf8(out, c);
  return out;
}

// --- the folders ---

TEST(DistillFolders, EncodeEveryTextAsHuggingFaceDoes) {
  int in_both = 0;
  const int count = for_each_line("distill.txt", [&](const std::vector<std::string_view>& line) {
    const std::string text = unescaped(line[0]);
    EXPECT_EQ(qwen().encode(text), ids(line[1])) << line[0];
    if (line.size() < 3) return;
    EXPECT_EQ(llama().encode(text), ids(line[2])) << line[0];
    ++in_both;
  });
  EXPECT_GE(count, 4'000);
  EXPECT_GE(in_both, 500);
}

TEST(DistillFolders, DecodeToTheNormalizedTextWhichEncodesToTheSameIds) {
  for_each_line("distill.txt", [&](const std::vector<std::string_view>& line) {
    const std::string text = unescaped(line[0]);
    EXPECT_EQ(llama().decode(llama().encode(text)), text);
    const Ids plain = qwen().encode(text, {.added_tokens = AddedTokens::text});
    EXPECT_EQ(qwen().decode(plain), nfc().normalize(text)) << line[0];
    EXPECT_EQ(qwen().encode(nfc().normalize(text), {.added_tokens = AddedTokens::text}), plain) << line[0];
  });
}

TEST(DistillFolders, RenderAndEncodeConversationsAsTransformersDoes) {
  const std::string text = guild_test::fixture("tokenizer/distill_chat.json");
  const Json file = Json::parse(text, {});
  for (const char* name : {"qwen", "llama"}) {
    const Tokenizer& tokenizer = name[0] == 'q' ? qwen() : llama();
    const auto chat_template = guild::ChatTemplate::read(folder(name));
    EXPECT_EQ(tokenizer.bytes(tokenizer.bos_id()), "<｜begin▁of▁sentence｜>");
    EXPECT_EQ(tokenizer.bytes(tokenizer.eos_id()), "<｜end▁of▁sentence｜>");
    file[std::string("distill_") + name].for_each_element([&](const Json& talk) {
      const std::string json = guild_test::dump(talk["messages"]);
      const std::vector<guild::Message> messages = guild::parse_messages(json);
      Ids expected;
      talk["ids"].for_each_element([&](const Json& id) { expected.push_back(static_cast<int>(id.integer())); });
      const bool asks = messages.back().role == "user";
      EXPECT_EQ(guild::encode_chat(tokenizer, chat_template, messages, {.add_generation_prompt = asks}), expected)
          << json;
    });
  }
}

// --- the form ---

TEST(Normalizer, ComposesEveryCharacterAmongOthersAsUtf8procDoes) {
  for (char32_t c = 1; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    if (c == 0x11A7) continue;  // see below
    const std::string own = utf8(c);
    std::vector<std::string> texts = {"e\u0301" + own + "\u0334\u0323"};
    if (c < 0x40000) texts.insert(texts.end(), {own, "\u1100" + own, "\uac00" + own, "\u09c7\u0301" + own + own});
    for (const std::string& text : texts)
      ASSERT_EQ(nfc().normalize(text), utf8proc_nfc(text)) << std::hex << static_cast<std::uint32_t>(c);
  }
}

TEST(Normalizer, KeepsTheVowelThatUtf8procBefore2112Drops) {
  EXPECT_EQ(nfc().normalize("\uac00\u11a7"), "\uac00\u11a7");  // U+11A7 is just below the final consonants
  EXPECT_EQ(nfc().normalize("\u1100\u1161\u11a7\u11a8"), "\uac00\u11a7\u11a8");
}

TEST(Normalizer, CopiesNoTextThatIsInTheFormAlready) {
  for (const std::string text : {"", "plain ASCII text", "é ü Việt Nam", "한국어", "你好，世界", "नमस्ते", "שלום",
                                 "e\u0334", "q\u0323\u0301", "\u0301", "👩‍👩‍👧‍👦"}) {
    std::string storage = "unused";
    EXPECT_EQ(nfc().normalize(text, {}, storage).data(), text.data()) << text;
    EXPECT_TRUE(storage.empty());
  }
}

TEST(Normalizer, ReadsNullNfcAndSequencesOfThem) {
  const std::string text = "e\u0301";
  EXPECT_EQ(normalizer("null").normalize(text), text);
  EXPECT_EQ(normalizer(R"({"type":"Sequence","normalizers":[]})").normalize(text), text);
  EXPECT_EQ(normalizer(R"({"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"NFC"}]})").normalize(text), "é");
  for (const char* type : {"NFD", "NFKC", "NFKD", "Lowercase", "Replace", "BertNormalizer", "Nmt", "Precompiled"}) {
    std::string message;
    const std::string json = std::string(R"({"type":")") + type + "\"}";
    EXPECT_EQ(guild_test::code_of([&] { (void)normalizer(json.c_str()); }, &message), guild::ErrorCode::tk_unsupported);
    EXPECT_NE(message.find(type), std::string::npos) << message;
  }
}

TEST(Normalizer, MovesRangesAlong) {
  //                       0123 4 5     6
  const std::string text = "abe\u0301c>\u0338d";
  const auto moved = [&](std::size_t begin, std::size_t end) {
    std::array<TextRange, 1> ranges{{{begin, end}}};
    std::string storage;
    const std::string_view out = nfc().normalize(text, ranges, storage);
    return std::string(out.substr(ranges[0].begin, ranges[0].end - ranges[0].begin));
  };
  EXPECT_EQ(moved(0, text.size()), "abéc\u226fd");
  EXPECT_EQ(moved(0, 2), "ab");
  EXPECT_EQ(moved(1, 3), "b");  // the mark that follows takes the e away
  EXPECT_EQ(moved(2, 5), "é");
  EXPECT_EQ(moved(3, 6), "c");
  EXPECT_EQ(moved(3, 5), "");
  EXPECT_EQ(moved(5, 7), "c");
  EXPECT_EQ(moved(5, 9), "c\u226f");
  EXPECT_EQ(moved(7, 10), "d");
}

TEST(Normalizer, TakesLinearTimeOnRowsOfMarksAndJamo) {
  for (const char* unit : {"\u0301\u0323", "\u0334\u0323\u0301\u031b", "\u1161", "\u0344", "\u0f73\u0f71"}) {
    std::string text = "e";
    while (text.size() < 1'000'000) text += unit;
    const std::string once = nfc().normalize(text);
    EXPECT_EQ(nfc().normalize(once), once);
  }
}

// --- what a tokenizer makes of it ---

Tokenizer tiny(const char* added) {
  TinyTokenizer parts;
  parts.normalizer = R"({"type":"NFC"})";
  parts.added = added;
  parts.vocab = {R"("Ã©":256)", R"("âī¯":257)", R"("âī":258)"};  // é and U+226F, which is > struck through
  parts.merges = R"(["Ã ©","â ī","âī ¯"])";
  return Tokenizer::parse(parts.json());
}

TEST(TokenizerWithNormalizer, FindsTokensBeforeOrAfterNormalizingAsTheyAsk) {
  const Tokenizer t = tiny(R"([{"id":300,"content":"<a>"},{"id":301,"content":"<b>","normalized":true},)"
                           R"({"id":302,"content":"[e\u0301]","normalized":true},{"id":303,"content":"/e\u0301/"}])");
  EXPECT_EQ(t.encode("e\u0301<a>\u0301"), (Ids{256, 300, 0xCC, 0x81}));
  EXPECT_EQ(t.encode("<a>\u0338"), (Ids{300, 0xCC, 0xB8}));
  EXPECT_EQ(t.encode("<b>\u0338"), (Ids{'<', 'b', 257}));
  EXPECT_EQ(t.encode("e\u0301<b>e\u0301"), (Ids{256, 301, 256}));
  EXPECT_EQ(t.encode("[é][e\u0301]"), (Ids{302, 302}));
  EXPECT_EQ(t.encode("/é/ /e\u0301/"), (Ids{'/', 256, '/', ' ', 303}));
}

TEST(TokenizerWithNormalizer, ReadsPartsAsOneTextButNoTokenInOrAcrossContent) {
  const Tokenizer t = tiny(R"([{"id":300,"content":"<a>"},{"id":301,"content":"<b>","normalized":true}])");
  const auto marker = TextPart::Origin::marker;
  const auto content = TextPart::Origin::content;
  const auto encode = [&](std::vector<TextPart> parts) { return t.encode(parts); };
  EXPECT_EQ(encode({{"e", marker}, {"\u0301", content}}), (Ids{256}));
  EXPECT_EQ(encode({{"e", content}, {"\u0301<b>", marker}}), (Ids{256, 301}));
  EXPECT_EQ(encode({{"<b>", marker}, {"\u0338", content}}), (Ids{'<', 'b', 257}));
  EXPECT_EQ(encode({{"<a>", marker}, {"\u0338", content}}), (Ids{300, 0xCC, 0xB8}));
  EXPECT_EQ(encode({{"e\u0301<b>", content}, {"e\u0301<b>", marker}, {"<b>e\u0301", content}}),
            (Ids{256, '<', 'b', '>', 256, 301, '<', 'b', '>', 256}));
  EXPECT_EQ(encode({{"<a>e\u0301<b>", marker}, {"e\u0301<a>", content}, {"<a><b>", marker}}),
            (Ids{300, 256, 301, 256, '<', 'a', '>', 300, 301}));
}

TEST(TokenizerWithNormalizer, NormalizesEachCallForItself) {
  EXPECT_NE(qwen().encode("e\u0301"), qwen().encode("e"));
  Ids pieces = qwen().encode("e");
  for (const int id : qwen().encode("\u0301")) pieces.push_back(id);
  EXPECT_NE(pieces, qwen().encode("e\u0301"));
  EXPECT_EQ(qwen().decode(pieces), "e\u0301");  // decoding normalizes nothing
}

TEST(TokenizerWithNormalizer, NormalizesAfterReplacingFaultsAndKeepsNul) {
  const Tokenizer t = tiny("[]");
  EXPECT_EQ(t.encode("e\xCC", {.invalid_utf8 = InvalidUtf8::replace}), (Ids{'e', 0xEF, 0xBF, 0xBD}));
  EXPECT_EQ(t.encode("\xFF"
                     "e\u0301",
                     {.invalid_utf8 = InvalidUtf8::replace}),
            (Ids{0xEF, 0xBF, 0xBD, 256}));
  EXPECT_EQ(guild_test::code_of([&] { (void)t.encode("e\u0301\xFF"); }), guild::ErrorCode::in_utf8);
  EXPECT_EQ(t.encode(std::string_view("e\0\u0301e\u0301", 7)), (Ids{'e', 0, 0xCC, 0x81, 256}));
}

}  // namespace normalizer_test
