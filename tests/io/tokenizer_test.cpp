// The tokenizer: equal to Hugging Face tokenizers, exact about bad files, fast on hostile text.
#include <guild/io/tokenizer.hpp>

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "golden_lines.hpp"
#include "io_fixture.hpp"
#include "tiny_tokenizer.hpp"

namespace tokenizer_test {

using guild::AddedTokens;
using guild::ErrorCode;
using guild::InvalidUtf8;
using guild::SpecialTokens;
using guild::TextPart;
using guild::Tokenizer;
using guild_test::code_of;
using guild_test::fixture;
using guild_test::for_each_line;
using guild_test::ids;
using guild_test::mini_tokenizer;
using guild_test::TinyTokenizer;
using guild_test::unescaped;
using Ids = std::vector<int>;

Tokenizer tiny(const TinyTokenizer& parts = {}) { return Tokenizer::parse(parts.json(), guild_test::tiny_config); }

// --- the frozen goldens ---

TEST(Tokenizer, EncodesEveryGoldenTextAsHuggingFaceDoes) {
  const Tokenizer crossing = Tokenizer::parse(fixture("tokenizer/crossing.json"));
  const int count = for_each_line("encode.txt", [&](const std::vector<std::string_view>& line) {
    const std::string text = unescaped(line[0]);
    ASSERT_EQ(mini_tokenizer().encode(text), ids(line[1])) << line[0];
    ASSERT_EQ(crossing.encode(text), ids(line[2])) << line[0];
  });
  EXPECT_GE(count, 10'000);
}

TEST(Tokenizer, DecodesWhatItEncodedToTheSameText) {
  for_each_line("encode.txt", [&](const std::vector<std::string_view>& line) {
    ASSERT_EQ(mini_tokenizer().decode(ids(line[1])), unescaped(line[0]));
  });
}

TEST(Tokenizer, LeavesSpecialTokensTextAsSplitSpecialTokensDoes) {
  for_each_line("encode_plain.txt", [&](const std::vector<std::string_view>& line) {
    ASSERT_EQ(mini_tokenizer().encode(unescaped(line[0]), {.added_tokens = AddedTokens::not_special}), ids(line[1]))
        << line[0];
  });
}

TEST(Tokenizer, DecodesRandomIdsAsHuggingFaceDoes) {
  for_each_line("decode.txt", [&](const std::vector<std::string_view>& line) {
    const auto special = line[0] == "1" ? SpecialTokens::skip : SpecialTokens::keep;
    ASSERT_EQ(mini_tokenizer().decode(ids(line[1]), {.special_tokens = special}), unescaped(line[2])) << line[1];
  });
}

TEST(Tokenizer, KnowsTheSpecialTokensOfTheShippedFolder) {
  const Tokenizer& t = mini_tokenizer();
  EXPECT_EQ(t.bos_id(), 0);
  EXPECT_EQ(t.eos_id(), 1);
  EXPECT_EQ(t.id_of("<｜begin▁of▁sentence｜>"), 0);
  EXPECT_TRUE(t.is_special(0));
  ASSERT_TRUE(t.id_of("<think>").has_value());
  EXPECT_FALSE(t.is_special(*t.id_of("<think>")));
  EXPECT_TRUE(t.is_added(*t.id_of("<think>")));
  EXPECT_EQ(t.bytes(*t.id_of(" the")), " the");
  EXPECT_FALSE(t.id_of("no such token").has_value());
}

TEST(Tokenizer, MakesNoAddedTokenOfTextThatIsToStayText) {
  for (int id = 0; id < mini_tokenizer().size(); ++id) {
    if (!mini_tokenizer().is_added(id)) continue;
    const std::string text(mini_tokenizer().bytes(id));
    EXPECT_EQ(mini_tokenizer().encode(text), Ids{id});
    const Ids plain = mini_tokenizer().encode(text + text, {.added_tokens = AddedTokens::text});
    for (const int p : plain) EXPECT_FALSE(mini_tokenizer().is_added(p)) << text;
    EXPECT_EQ(mini_tokenizer().decode(plain), text + text);
  }
}

TEST(Tokenizer, FindsAddedTokensInMarkersButNeverInOrAcrossContent) {
  const Tokenizer t = tiny();
  const auto marker = TextPart::Origin::marker;
  const auto content = TextPart::Origin::content;
  const auto encode = [&](std::vector<TextPart> parts) { return t.encode(parts); };
  EXPECT_EQ(encode({{"<s>", marker}, {"<s>", content}}), (Ids{300, '<', 's', '>'}));
  EXPECT_EQ(encode({{"<", marker}, {"s>", content}}), (Ids{'<', 's', '>'}));
  EXPECT_EQ(encode({{"<", content}, {"s>", marker}}), (Ids{'<', 's', '>'}));
  EXPECT_EQ(encode({{"<", marker}, {"s", content}, {">", marker}}), (Ids{'<', 's', '>'}));
  EXPECT_EQ(encode({{"<", marker}, {"s>", marker}}), (Ids{300}));  // written by the template in two steps
  EXPECT_EQ(encode({{"a", marker}, {"b", content}}), (Ids{256}));  // merges do cross the edge, as in one text
  EXPECT_EQ(encode({{"<s>x", marker}, {"", content}, {"<think>", marker}}), (Ids{300, 'x', 302}));
}

TEST(Tokenizer, TakesTheLongestOfTheLeftmostAddedTokens) {
  TinyTokenizer parts;
  parts.added =
      R"([{"id":300,"content":"<s>","special":true},{"id":301,"content":"</s>","special":true},{"id":303,"content":"<s>a","special":true},)"
      R"({"id":304,"content":"x<s","special":true}])";
  EXPECT_EQ(tiny(parts).encode("<s><s>ab x<s>"), (Ids{300, 303, 'b', ' ', 304, '>'}));
}

TEST(Tokenizer, FindsTokensThatAreNotNormalizedFirst) {
  TinyTokenizer parts;
  parts.added = R"([{"id":300,"content":"<s>","special":true},{"id":301,"content":"</s>","special":true},)"
                R"({"id":303,"content":"aXb","normalized":true},{"id":304,"content":"Xbc","normalized":false}])";
  EXPECT_EQ(tiny(parts).encode("aXbc aXb"), (Ids{'a', 304, ' ', 303}));
}

TEST(Tokenizer, StripsWhiteSpaceAroundAddedTokensThatAskForIt) {
  TinyTokenizer parts;
  parts.added = R"([{"id":300,"content":"<s>","special":true},{"id":301,"content":"</s>","special":true},)"
                R"({"id":303,"content":"<l>","lstrip":true},{"id":304,"content":"<r>","rstrip":true}])";
  EXPECT_EQ(tiny(parts).encode("a \n\u00a0<l> b <r>\t c"), (Ids{'a', 303, ' ', 'b', ' ', 304, 'c'}));
}

TEST(Tokenizer, AllowsGapsInTheIdsAndMarksThem) {
  const Tokenizer t = tiny();
  EXPECT_EQ(t.size(), 303);
  EXPECT_TRUE(t.has_token(258));
  EXPECT_FALSE(t.has_token(259));
  EXPECT_FALSE(t.has_token(-1));
  EXPECT_FALSE(t.has_token(303));
  EXPECT_EQ(code_of([&] { (void)t.bytes(259); }), ErrorCode::tk_id);
}

TEST(Tokenizer, ReadsMergesInBothSpellings) { EXPECT_EQ(tiny().encode("abc bc ab"), (Ids{258, ' ', 257, ' ', 256})); }

TEST(Tokenizer, TakesAWholePieceAsATokenOnlyWithIgnoreMerges) {
  TinyTokenizer parts;
  parts.vocab.push_back(R"("zzz":259)");  // no merge leads there
  EXPECT_EQ(tiny(parts).encode("zzz"), (Ids{'z', 'z', 'z'}));
  parts.model_extra = R"("ignore_merges":true,)";
  EXPECT_EQ(tiny(parts).encode("zzz"), (Ids{259}));
  EXPECT_EQ(tiny(parts).encode("zzzz1zzz"), (Ids{'z', 'z', 'z', 'z', '1', 259}));
}

TEST(Tokenizer, MergesLongPiecesLikeShortOnes) {
  // The same pieces through the array (up to 48 bytes) and the heap (beyond).
  TinyTokenizer parts;
  parts.vocab = {R"("aa":256)", R"("aaa":257)", R"("ba":258)", R"("baa":259)", R"("ab":260)", R"("aaab":261)"};
  parts.merges = R"(["b a","a a","ba a","aa a","a b","aaa b"])";
  const Tokenizer t = tiny(parts);
  std::uint32_t random = 1;
  for (int round = 0; round < 300; ++round) {
    std::string shorts;
    for (std::size_t n = 1 + static_cast<std::size_t>(round) % 48; n > 0; --n) {
      random = random * 1664525U + 1013904223U;
      shorts += (random >> 28) < 6 ? 'b' : 'a';
    }
    // A byte that merges with nothing keeps the halves of the long piece apart.
    const std::string filler(60, '.');
    Ids expected = t.encode(shorts);
    expected.insert(expected.end(), 60, '.');
    EXPECT_EQ(t.encode(shorts + filler), expected) << shorts;
  }
}

TEST(Tokenizer, EncodesMegabytesOfOneCharacter) {
  for (const char* unit : {"a", " ", "\n", "7", "!", "字", "\u200b", "<｜", "ab ", "\r\n"}) {
    std::string text;
    while (text.size() < 1'000'000) text += unit;
    const Ids encoded = mini_tokenizer().encode(text);
    EXPECT_EQ(mini_tokenizer().decode(encoded), text);
  }
}

TEST(Tokenizer, GivesTheSameIdsOnManyThreads) {
  std::string text;
  for_each_line("encode.txt", [&](const std::vector<std::string_view>& line) {
    if (text.size() < 60'000) text += unescaped(line[0]) + " ";
  });
  const Ids expected = mini_tokenizer().encode(text);
  std::vector<std::thread> threads;
  std::vector<int> same(8, 0);
  for (std::size_t i = 0; i < 8; ++i)
    threads.emplace_back([&, i] {
      for (int n = 0; n < 5; ++n) same[i] += mini_tokenizer().encode(text) == expected ? 1 : 0;
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(same, std::vector<int>(8, 5));
}

TEST(Tokenizer, CutsWhiteSpaceRunsAtTheEndOfTheirPiece) {
  // \s+(?!\S) looks ahead to the end of the piece, which a number ends: "ab", two blanks, "12", but "ab", " ", " cd".
  TinyTokenizer parts;
  parts.pre_tokenizer =
      R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"\\p{N}{1,3}"},"behavior":"Isolated"},)"
      R"({"type":"Split","pattern":{"Regex":" ?\\p{L}+|\\s+(?!\\S)|\\s+"},"behavior":"Isolated"},)"
      R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]})";
  parts.vocab = {R"("ĠĠ":256)", R"("Ġc":257)"};
  parts.merges = R"(["Ġ Ġ","Ġ c"])";
  EXPECT_EQ(tiny(parts).encode("ab  12"), (Ids{'a', 'b', 256, '1', '2'}));
  EXPECT_EQ(tiny(parts).encode("ab  cd"), (Ids{'a', 'b', ' ', 257, 'd'}));
}

// --- text that is not UTF-8 ---

struct BadUtf8 {
  const char* name;
  std::string bytes;
  std::int64_t offset;
  std::string replaced;
};

TEST(Tokenizer, RefusesInvalidUtf8OrReplacesItOnRequest) {
  const std::string r = "\uFFFD";
  const std::vector<BadUtf8> cases = {
      {"overlong", "ab\xC0\x80", 2, "ab" + r + r},
      {"surrogate", "\xED\xA0\x80", 0, r + r + r},
      {"beyond the last plane", "x\xF5\x80", 1, "x" + r + r},
      {"above U+10FFFF", "\xF4\x90\x80\x80", 0, r + r + r + r},
      {"cut", "字\xE5\xAD", 3, "字" + r},
      {"cut inside", "\xF0\x9F\x98 a", 0, r + " a"},
      {"lone continuation", "a\x80z", 1, "a" + r + "z"},
      {"late, after eight plain bytes", "12345678\xFF", 8, "12345678" + r},
  };
  for (const BadUtf8& c : cases) {
    try {
      (void)mini_tokenizer().encode(c.bytes);
      ADD_FAILURE() << c.name;
    } catch (const guild::Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::in_utf8) << c.name;
      EXPECT_EQ(error.offset(), c.offset) << c.name;
    }
    EXPECT_EQ(guild::utf8_lossy(c.bytes), c.replaced) << c.name;
    EXPECT_EQ(mini_tokenizer().encode(c.bytes, {.invalid_utf8 = InvalidUtf8::replace}),
              mini_tokenizer().encode(c.replaced))
        << c.name;
  }
}

// --- bad files ---

struct BadFile {
  const char* name;
  ErrorCode code;
  void (*spoil)(TinyTokenizer&);
  const char* says;  // the message names it
};

const BadFile bad_files[] = {
    {"K1 version 2.0", ErrorCode::tk_version, [](TinyTokenizer& t) { t.version = R"("2.0")"; }, "2.0"},
    {"K1 version missing", ErrorCode::tk_version, [](TinyTokenizer& t) { t.version = "null"; }, "version"},
    {"K2 WordPiece", ErrorCode::tk_unsupported, [](TinyTokenizer& t) { t.model_type = R"("WordPiece")"; }, "WordPiece"},
    {"K2 dropout", ErrorCode::tk_unsupported, [](TinyTokenizer& t) { t.model_extra = R"("dropout":0.1,)"; }, "dropout"},
    {"K2 word suffix", ErrorCode::tk_unsupported,
     [](TinyTokenizer& t) { t.model_extra = R"("end_of_word_suffix":"</w>",)"; }, "end_of_word_suffix"},
    {"K3 no pre-tokenizer", ErrorCode::tk_unsupported, [](TinyTokenizer& t) { t.pre_tokenizer = "null"; },
     "pre_tokenizer"},
    {"K3 other pre-tokenizer", ErrorCode::tk_unsupported,
     [](TinyTokenizer& t) { t.pre_tokenizer = R"({"type":"Metaspace"})"; }, "Metaspace"},
    {"K3 no ByteLevel", ErrorCode::tk_unsupported,
     [](TinyTokenizer& t) { t.pre_tokenizer = R"({"type":"Sequence","pretokenizers":[]})"; }, "ByteLevel"},
    {"K3 prefix space", ErrorCode::tk_unsupported,
     [](TinyTokenizer& t) { t.pre_tokenizer = R"({"type":"ByteLevel","add_prefix_space":true,"use_regex":false})"; },
     "add_prefix_space"},
    {"K3 behavior", ErrorCode::tk_unsupported,
     [](TinyTokenizer& t) { t.pre_tokenizer.replace(t.pre_tokenizer.find("Isolated"), 8, "Removed"); }, "Removed"},
    {"K3 invert", ErrorCode::tk_unsupported,
     [](TinyTokenizer& t) { t.pre_tokenizer.replace(t.pre_tokenizer.find("\"invert\":false"), 14, "\"invert\":true"); },
     "invert"},
    {"K3 normalizer", ErrorCode::tk_unsupported, [](TinyTokenizer& t) { t.normalizer = R"({"type":"NFKC"})"; }, "NFKC"},
    {"K3 normalizer inside", ErrorCode::tk_unsupported,
     [](TinyTokenizer& t) {
       t.normalizer = R"({"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Lowercase"}]})";
     },
     "Lowercase"},
    {"K3 decoder", ErrorCode::tk_unsupported, [](TinyTokenizer& t) { t.decoder = R"({"type":"WordPiece"})"; },
     "WordPiece"},
    {"K4 regex", ErrorCode::tk_regex,
     [](TinyTokenizer& t) { t.pre_tokenizer.replace(t.pre_tokenizer.find("\\\\p{N}"), 6, "(a"); }, "pattern"},
    {"K5 merge of nothing", ErrorCode::tk_merge, [](TinyTokenizer& t) { t.merges = R"(["a qq"])"; }, "qq"},
    {"K5 merge to nothing", ErrorCode::tk_merge, [](TinyTokenizer& t) { t.merges = R"(["a z"])"; }, "az"},
    {"K6 one part", ErrorCode::tk_merge, [](TinyTokenizer& t) { t.merges = R"(["ab"])"; }, "merges[0]"},
    {"K6 three parts", ErrorCode::tk_merge, [](TinyTokenizer& t) { t.merges = R"(["a b","a b c"])"; }, "merges[1]"},
    {"K6 one in a list", ErrorCode::tk_merge, [](TinyTokenizer& t) { t.merges = R"([["ab"]])"; }, "merges[0]"},
    {"K6 three in a list", ErrorCode::tk_merge, [](TinyTokenizer& t) { t.merges = R"([["a","b","c"]])"; }, "3 parts"},
    {"K7 id twice", ErrorCode::tk_duplicate_id, [](TinyTokenizer& t) { t.vocab.push_back(R"("zz":258)"); }, "258"},
    {"K7 added id twice", ErrorCode::tk_duplicate_id,
     [](TinyTokenizer& t) { t.added = R"([{"id":300,"content":"<s>"},{"id":300,"content":"</s>"}])"; }, "300"},
    {"K8 id -1", ErrorCode::tk_id, [](TinyTokenizer& t) { t.vocab.push_back(R"("zz":-1)"); }, "-1"},
    {"K8 id 2^32", ErrorCode::tk_id, [](TinyTokenizer& t) { t.vocab.push_back(R"("zz":4294967296)"); }, "4294967296"},
    {"K8 id 2^64", ErrorCode::tk_id, [](TinyTokenizer& t) { t.vocab.push_back(R"("zz":18446744073709551616)"); },
     "tokenizer.json"},
    {"K8 id too large to hold", ErrorCode::tk_id, [](TinyTokenizer& t) { t.vocab.push_back(R"("zz":2147483647)"); },
     "2147483647"},
    {"K8 added id", ErrorCode::tk_id, [](TinyTokenizer& t) { t.added = R"([{"id":-1,"content":"<s>"}])"; }, "-1"},
    {"K10 byte missing", ErrorCode::tk_alphabet, [](TinyTokenizer& t) { t.left_out = 0x20; }, "Ġ"},
    {"K11 same text, other id", ErrorCode::tk_added,
     [](TinyTokenizer& t) { t.added = R"([{"id":300,"content":"abc"}])"; }, "abc"},
    {"K11 same id, other text", ErrorCode::tk_added,
     [](TinyTokenizer& t) { t.added = R"([{"id":258,"content":"<s>"}])"; }, "258"},
    {"K11 twice", ErrorCode::tk_added,
     [](TinyTokenizer& t) { t.added = R"([{"id":300,"content":"<s>"},{"id":301,"content":"<s>"}])"; }, "<s>"},
    {"K11 twice in form C", ErrorCode::tk_added,
     [](TinyTokenizer& t) {
       t.normalizer = R"({"type":"NFC"})";
       t.added =
           R"([{"id":300,"content":"x\u00e9","normalized":true},{"id":301,"content":"xe\u0301","normalized":true}])";
     },
     "normalized"},
    {"K12 empty", ErrorCode::tk_added, [](TinyTokenizer& t) { t.added = R"([{"id":300,"content":""}])"; },
     "added_tokens[0]"},
    {"K14 long token", ErrorCode::tk_limit,
     [](TinyTokenizer& t) { t.vocab.push_back("\"" + std::string(65537, 'z') + "\":259"); }, "65537"},
    {"K14 long added token", ErrorCode::tk_limit,
     [](TinyTokenizer& t) { t.added = "[{\"id\":300,\"content\":\"" + std::string(65537, 'z') + "\"}]"; }, "65537"},
    {"K16 bos is no token", ErrorCode::tk_special,
     [](TinyTokenizer& t) { t.added = R"([{"id":301,"content":"</s>"}])"; }, "<s>"},
    {"single_word", ErrorCode::tk_unsupported,
     [](TinyTokenizer& t) { t.added = R"([{"id":300,"content":"x","single_word":true}])"; }, "single_word"},
    {"merge makes a special token", ErrorCode::tk_merge,
     [](TinyTokenizer& t) { t.added = R"([{"id":258,"content":"abc","special":true}])"; }, "abc"},
    {"broken JSON", ErrorCode::tk_json, [](TinyTokenizer& t) { t.merges = "["; }, "tokenizer.json"},
    {"token twice", ErrorCode::tk_json, [](TinyTokenizer& t) { t.vocab.push_back(R"("abc":400)"); }, "tokenizer.json"},
    {"vocab of another type", ErrorCode::tk_type, [](TinyTokenizer& t) { t.vocab.push_back(R"("zz":"259")"); }, "zz"},
    {"merge of another type", ErrorCode::tk_type, [](TinyTokenizer& t) { t.merges = "[7]"; }, "merges[0]"},
    {"no merges", ErrorCode::tk_type, [](TinyTokenizer& t) { t.merges = "null"; }, "merges"},
};

TEST(Tokenizer, RefusesEveryBadFileWithItsCode) {
  ASSERT_EQ(code_of([] { (void)tiny(); }), ErrorCode::count_) << "the unspoilt file is good";
  for (const BadFile& bad : bad_files) {
    TinyTokenizer parts;
    bad.spoil(parts);
    std::string message;
    EXPECT_EQ(guild::name(code_of([&] { (void)tiny(parts); }, &message)), guild::name(bad.code))
        << bad.name << ": " << message;
    EXPECT_NE(message.find(bad.says), std::string::npos) << bad.name << ": " << message;
  }
}

TEST(Tokenizer, RefusesIdsBeyondTheVocabularyOfTheModel) {
  EXPECT_EQ(code_of([] { tiny().require_vocab_size(303); }), ErrorCode::count_);
  EXPECT_EQ(code_of([] { tiny().require_vocab_size(302); }), ErrorCode::tk_vocab_size);  // K13
}

TEST(Tokenizer, RefusesToDecodeIdsWithoutAToken) {
  for (const int id : {-1, 259, 303, 2'000'000'000})
    EXPECT_EQ(code_of([&] { (void)tiny().decode(Ids{65, id}); }), ErrorCode::tk_id) << id;  // K15
}

TEST(Tokenizer, RefusesAConfigThatNamesNoBosOrNoEos) {
  const std::string json = TinyTokenizer{}.json();
  for (const char* config :
       {"{}", R"({"bos_token":"<s>"})", R"({"eos_token":"</s>"})", R"({"bos_token":null,"eos_token":"</s>"})"})
    EXPECT_EQ(code_of([&] { (void)Tokenizer::parse(json, config); }), ErrorCode::tk_special) << config;  // K16
  const Tokenizer without = Tokenizer::parse(json);
  EXPECT_EQ(code_of([&] { (void)without.bos_id(); }), ErrorCode::tk_special);
  EXPECT_EQ(code_of([&] { (void)without.eos_id(); }), ErrorCode::tk_special);
  EXPECT_EQ(without.encode("abc"), Ids{258});
  EXPECT_FALSE(tiny().pad_id().has_value());
}

TEST(Tokenizer, NamesTheMissingFile) {
  std::string message;
  EXPECT_EQ(code_of([] { (void)Tokenizer::read("/nonexistent"); }, &message), ErrorCode::io_open);
  EXPECT_NE(message.find("/nonexistent/tokenizer.json"), std::string::npos) << message;
}

TEST(Tokenizer, RefusesPatternsThatPcre2ReadsDifferently) {
  struct Pattern {
    const char* text;
    ErrorCode code;
  };
  const Pattern patterns[] = {
      {R"(\\w+)", ErrorCode::tk_unsupported},
      {R"([a[b]])", ErrorCode::tk_unsupported},
      {R"([a&&b])", ErrorCode::tk_unsupported},
      {R"(\\p{Han}+)", ErrorCode::tk_unsupported},
      {R"(^a)", ErrorCode::tk_unsupported},
      {R"(a.b)", ErrorCode::tk_unsupported},
      {R"((*UTF)a)", ErrorCode::tk_unsupported},
      {R"(a{,3})", ErrorCode::tk_unsupported},
      {R"(a{1,3}+)", ErrorCode::tk_unsupported},
      {R"(\\h)", ErrorCode::tk_unsupported},
      {R"((?<n>a))", ErrorCode::tk_unsupported},
      {R"([^\\S])", ErrorCode::tk_unsupported},
      {R"(a*)", ErrorCode::tk_unsupported},
      {R"(a|)", ErrorCode::tk_unsupported},
      {R"(\\xE9)", ErrorCode::tk_unsupported},
      {R"([a-)", ErrorCode::tk_regex},
      {R"(a)b)", ErrorCode::tk_regex},
      {R"(\\)", ErrorCode::tk_regex},
      {R"(\\p{Qq})", ErrorCode::tk_regex},
      {"", ErrorCode::tk_regex},
      {R"(\\u4e00|\\x{1F600}|\\x41)", ErrorCode::count_},
      {R"((?i:'S)|[\\s\\p{L}\\v]++|(?<!a)b|\\S)", ErrorCode::count_},
  };
  for (const Pattern& pattern : patterns) {
    TinyTokenizer parts;
    parts.pre_tokenizer =
        R"({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":")" + std::string(pattern.text) +
        R"("},"behavior":"Isolated"},{"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]})";
    std::string message;
    EXPECT_EQ(guild::name(code_of([&] { (void)tiny(parts); }, &message)), guild::name(pattern.code))
        << pattern.text << ": " << message;
  }
}

TEST(Tokenizer, StopsAPatternThatBacktracksWithoutEnd) {
  TinyTokenizer parts;
  parts.pre_tokenizer =
      R"x({"type":"Sequence","pretokenizers":[{"type":"Split","pattern":{"Regex":"(?:a|aa|a)+(?=[bc])"},"behavior":"Isolated"},)x"
      R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":false}]})";
  EXPECT_EQ(code_of([&] { (void)tiny(parts).encode(std::string(2000, 'a')); }), ErrorCode::tk_limit);
}

}  // namespace tokenizer_test
