#include <guild/io/bpe_trainer.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "io_fixture.hpp"
#include "test_files.hpp"

namespace bpe_trainer_test {

using guild::BpeProgress;
using guild::BpeTrainer;
using guild::BpeTrainerOptions;
using guild::BpeVocabulary;
using guild::ErrorCode;
using guild::SplitRules;
using guild::Tokenizer;
using guild_test::code_of;

const std::vector<std::string>& fixture_texts() {
  static const std::vector<std::string> texts = [] {
    std::vector<std::string> out;
    guild::Json::parse(guild_test::fixture("tokenizer/bpe_texts.json"), {}).for_each_element([&](const guild::Json& t) {
      out.emplace_back(t.string());
    });
    return out;
  }();
  return texts;
}

BpeTrainerOptions fixture_options(const std::string& name) {
  BpeTrainerOptions options;
  options.first = {{"<s>"}, {"</s>"}, {"<pad>"}};
  options.last = {{"<think>", false}, {"</think>", false}, {"<|user|>"}};
  if (name == "v3") {
    options.vocab_size = 900;
  } else if (name == "digits") {
    options.vocab_size = 800, options.min_frequency = 12, options.splits = SplitRules::single_digits();
  } else if (name == "gpt2") {
    options.vocab_size = 700, options.max_token_bytes = 5, options.splits = SplitRules::gpt2();
    options.splits.digits = SplitRules::Digits::one_by_one;
  } else {
    options.vocab_size = 420, options.splits = SplitRules::none();
  }
  return options;
}

BpeTrainerOptions plain(int vocab_size) {
  BpeTrainerOptions options;
  options.vocab_size = vocab_size;
  options.splits = SplitRules::none();
  return options;
}

std::vector<std::string> spelled_merges(const BpeVocabulary& vocabulary) {
  std::vector<std::string> out;
  const auto token = [&](int id) {
    return vocabulary.tokens.at(static_cast<std::size_t>(id) - vocabulary.first.size());
  };
  for (const BpeVocabulary::Merge& merge : vocabulary.merges)
    out.push_back(token(merge.left) + "|" + token(merge.right));
  return out;
}

// The definition, counting everything anew for every merge.
std::vector<std::string> counted_anew(const std::vector<std::string>& texts, std::size_t merges, int min_frequency) {
  std::vector<std::string> made;  // ids are places in it
  for (const std::string& token : guild::byte_vocabulary().tokens) made.push_back(token);
  std::vector<std::vector<int>> ids;
  for (const std::string& text : texts) {
    auto& word = ids.emplace_back();
    for (const char c : text)
      word.push_back(static_cast<int>(std::find(made.begin(), made.end(), std::string(1, c)) - made.begin()));
  }
  std::vector<std::string> out;
  while (out.size() < merges) {
    std::map<std::pair<int, int>, int> counts;
    for (const auto& word : ids)
      for (std::size_t i = 0; i + 1 < word.size(); ++i) ++counts[{word[i], word[i + 1]}];
    const auto best = std::max_element(counts.begin(), counts.end(),
                                       [](const auto& a, const auto& b) { return a.second < b.second; });
    if (best == counts.end() || best->second < min_frequency) break;
    const auto [left, right] = best->first;
    const std::string a = made[static_cast<std::size_t>(left)], b = made[static_cast<std::size_t>(right)];
    out.push_back(a + "|" + b);
    made.push_back(a + b);
    for (auto& word : ids)
      for (std::size_t i = 0; i + 1 < word.size(); ++i)
        if (word[i] == left && word[i + 1] == right) {
          word[i] = static_cast<int>(made.size()) - 1;
          word.erase(word.begin() + static_cast<std::ptrdiff_t>(i) + 1);
        }
  }
  return out;
}

class BpeTrainerOracle : public ::testing::TestWithParam<std::string> {};

TEST_P(BpeTrainerOracle, WritesTheFileThatHuggingFaceTokenizersWrites) {
  const BpeVocabulary vocabulary = guild::train_bpe(fixture_options(GetParam()), fixture_texts());
  const std::string written = guild::tokenizer_json(vocabulary);
  const std::string expected = guild_test::fixture("tokenizer/bpe_" + GetParam() + ".json") + "\n";
  const auto [ours, theirs] = std::mismatch(written.begin(), written.end(), expected.begin(), expected.end());
  EXPECT_TRUE(written == expected) << "first difference at byte " << ours - written.begin();
}

TEST_P(BpeTrainerOracle, EncodesAsHuggingFaceTokenizersDoesAndDecodesToTheSameText) {
  const Tokenizer tokenizer =
      Tokenizer::parse(guild::tokenizer_json(guild::train_bpe(fixture_options(GetParam()), fixture_texts())));
  const guild::Json json = guild::Json::parse(guild_test::fixture("tokenizer/bpe_encoded.json"), {});
  for (std::size_t i = 0; i < json["strings"].size(); ++i) {
    const std::string_view text = json["strings"][i].string();
    std::vector<int> expected;
    json[GetParam()][i].for_each_element(
        [&](const guild::Json& id) { expected.push_back(static_cast<int>(id.integer())); });
    EXPECT_EQ(tokenizer.encode(text), expected) << text;
    EXPECT_EQ(tokenizer.decode(expected), text);
  }
}

INSTANTIATE_TEST_SUITE_P(Variants, BpeTrainerOracle, ::testing::Values("v3", "digits", "gpt2", "whole"),
                         [](const auto& variant) { return variant.param; });

TEST(BpeTrainer, MergesWhatCountingAnewFindsMostFrequent) {
  std::mt19937 random(17);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random()) % n; };
  for (int round = 0; round < 150; ++round) {
    const std::size_t letters = 1 + below(3);
    std::vector<std::string> texts(1 + below(12));
    for (std::string& text : texts)
      for (std::size_t n = 1 + below(30); n > 0; --n) text += static_cast<char>('a' + below(letters));
    const std::size_t merges = below(40);
    const int min_frequency = static_cast<int>(below(4));
    BpeTrainerOptions options = plain(256 + static_cast<int>(merges));
    options.min_frequency = min_frequency;
    ASSERT_EQ(spelled_merges(guild::train_bpe(options, texts)), counted_anew(texts, merges, min_frequency))
        << "round " << round;
  }
}

TEST(BpeTrainer, DependsOnCountsAloneNotOnTheOrderOfTexts) {
  std::vector<std::string> texts = fixture_texts();
  const std::string expected = guild::tokenizer_json(guild::train_bpe(fixture_options("v3"), texts));
  std::mt19937 random(1);
  for (int i = 0; i < 3; ++i) {
    std::shuffle(texts.begin(), texts.end(), random);
    EXPECT_TRUE(guild::tokenizer_json(guild::train_bpe(fixture_options("v3"), texts)) == expected);
  }
  texts.push_back("zzz zzz zzz zzz zzz zzz zzz zzz zzz");
  EXPECT_FALSE(guild::tokenizer_json(guild::train_bpe(fixture_options("v3"), texts)) == expected);
}

TEST(BpeTrainer, TrainsAgainAfterMoreText) {
  BpeTrainer trainer(plain(258));
  trainer.add("abab");
  EXPECT_EQ(spelled_merges(trainer.train()), (std::vector<std::string>{"a|b", "ab|ab"}));
  trainer.add("cdcdcd");
  EXPECT_EQ(spelled_merges(trainer.train()), (std::vector<std::string>{"c|d", "a|b"}));
}

TEST(BpeTrainer, ReadsFilesInPartsAsIfWhole) {
  std::mt19937 random(3);
  std::string text;
  while (text.size() < (std::size_t{9} << 20)) text += fixture_texts()[random() % fixture_texts().size()];
  const guild::test::TempFolder folder;
  const std::vector<std::string> files = {folder.write("long.txt", text), folder.write("empty.txt", ""),
                                          folder.write("short.txt", "ab\n")};
  const std::vector<std::string> whole = {text, "ab\n"};
  EXPECT_EQ(spelled_merges(guild::train_bpe_from_files(fixture_options("v3"), files)),
            spelled_merges(guild::train_bpe(fixture_options("v3"), whole)));
}

TEST(BpeTrainer, CutsNoFileInsideOfAPieceOfTheDeepSeekRules) {
  std::string text = "x";
  BpeTrainerOptions options = plain(300);
  options.splits = SplitRules::deepseek_v3();
  for (options.min_frequency = 0; options.min_frequency < 2'000'000; ++options.min_frequency) text += "ab\n\n";
  ASSERT_EQ(text.substr((std::size_t{4} << 20) - 1, 2), "\n\n");  // where a part of the file would end
  const guild::test::TempFolder folder;                           // with one pair less, one merge less
  EXPECT_EQ(spelled_merges(guild::train_bpe_from_files(options, {folder.write("a.txt", text)})),
            (std::vector<std::string>{"a|b", "\n|\n"}));
}

TEST(BpeTrainer, CutsAFileWithoutLinesBetweenCharacters) {
  std::string text = "xx";
  for (int i = 0; i < 1'500'000; ++i) text += "\u20ac";  // three bytes: 4 MiB is inside of one
  const guild::test::TempFolder folder;
  BpeTrainerOptions options = plain(258);
  options.splits = {{R"(\p{Sc})"}, SplitRules::Digits::as_patterns_leave_them, SplitRules::Last::nothing};
  EXPECT_EQ(spelled_merges(guild::train_bpe_from_files(options, {folder.write("a.txt", text)})),
            (std::vector<std::string>{"\xe2|\x82", "\xe2\x82|\xac"}));
}

TEST(BpeTrainer, NeverMergesTextIntoANamedToken) {
  BpeTrainerOptions options = plain(400);
  options.first = {{"the"}};
  options.last = {{"cat", false}};
  const std::vector<std::string> texts = {"the cat", "the cat", "then cats"};
  const BpeVocabulary vocabulary = guild::train_bpe(options, texts);
  for (const std::string& token : vocabulary.tokens) EXPECT_TRUE(token != "the" && token != "cat") << token;
  const Tokenizer tokenizer = Tokenizer::parse(guild::tokenizer_json(vocabulary));
  const std::vector<int> ids = tokenizer.encode("the cat", {.added_tokens = guild::AddedTokens::text});
  EXPECT_EQ(std::count_if(ids.begin(), ids.end(), [&](int id) { return tokenizer.is_added(id); }), 0);
  EXPECT_EQ(tokenizer.decode(ids), "the cat");
}

TEST(BpeTrainer, MakesNoTokenThatATokenizerFileMayNotHold) {
  const std::vector<std::string> texts = {std::string(300'000, ' '), std::string(300'000, '-')};
  const BpeVocabulary vocabulary = guild::train_bpe(plain(400), texts);
  std::size_t longest = 0;
  for (const std::string& token : vocabulary.tokens) longest = std::max(longest, token.size());
  EXPECT_EQ(longest, 32768U);
  const Tokenizer tokenizer = Tokenizer::parse(guild::tokenizer_json(vocabulary));
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(texts[0] + texts[1])), texts[0] + texts[1]);
}

TEST(BpeTrainer, StopsWhenTheTextHasNoMorePairs) {
  const BpeVocabulary vocabulary = guild::train_bpe(plain(5000), std::vector<std::string>{"abc"});
  EXPECT_EQ(vocabulary.size(), 258);
  EXPECT_EQ(guild::train_bpe(plain(5000), std::vector<std::string>{"a"}).size(), 256);
}

TEST(BpeTrainer, DecodesWhatItEncodesWhateverTheText) {
  const BpeVocabulary vocabulary = guild::train_bpe(fixture_options("v3"), fixture_texts());
  const Tokenizer tokenizer = Tokenizer::parse(guild::tokenizer_json(vocabulary));
  std::mt19937 random(23);
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (auto n = random() % 40; n > 0; --n) {
      const auto range = std::array<std::uint32_t, 5>{0x20U, 0x80U, 0x300U, 0xFFFFU, 0x110000U}[random() % 5];
      const auto code = static_cast<char32_t>(random() % range);
      if (code < 0xD800 || code > 0xDFFF) guild::append_utf8(text, code);
      if (random() % 20 == 0) text += tokenizer.bytes(static_cast<int>(random() % 3));
    }
    const std::vector<int> ids = tokenizer.encode(text);
    ASSERT_EQ(tokenizer.decode(ids), text);
    std::string bytes;
    for (const int id : ids) bytes += tokenizer.bytes(id);
    ASSERT_EQ(bytes, text);
  }
  for (int byte = 0; byte < 256; ++byte)  // every single byte has its token, those of no character too
    EXPECT_TRUE(tokenizer.id_of(std::string(1, static_cast<char>(byte)))) << byte;
}

TEST(BpeTrainer, RefusesOrReplacesBytesThatAreNotUtf8) {
  BpeTrainer strict(plain(300));
  std::string message;
  EXPECT_EQ(code_of([&] { strict.add("ab\xff"); }, &message), ErrorCode::in_utf8);
  EXPECT_NE(message.find("(byte 2)"), std::string::npos) << message;
  EXPECT_EQ(code_of([&] { (void)strict.train(); }), ErrorCode::in_empty) << "the faulty text was counted in part";
  BpeTrainerOptions options = plain(300);
  options.invalid_utf8 = guild::InvalidUtf8::replace;
  EXPECT_EQ(spelled_merges(guild::train_bpe(options, std::vector<std::string>{"\xff"})),
            (std::vector<std::string>{"\xbf|\xbd", "\xef|\xbf\xbd"}));
  const guild::test::TempFolder folder;
  const std::string path = folder.write("bad.txt", "abc\xc3(");
  EXPECT_EQ(code_of([&] { (void)guild::train_bpe_from_files(plain(300), {path}); }, &message), ErrorCode::in_utf8);
  EXPECT_NE(message.find("bad.txt"), std::string::npos) << message;
  EXPECT_NE(message.find("(byte 3)"), std::string::npos) << message;
}

TEST(BpeTrainer, RefusesOptionsThatCannotWork) {
  const auto refused = [](auto&& change) {
    return code_of([&] {
      BpeTrainerOptions options = plain(300);
      change(options);
      BpeTrainer trainer(std::move(options));
    });
  };
  EXPECT_EQ(refused([](BpeTrainerOptions&) {}), ErrorCode::count_);
  EXPECT_EQ(refused([](BpeTrainerOptions& o) { o.vocab_size = 255; }), ErrorCode::tk_vocab_size);
  EXPECT_EQ(refused([](BpeTrainerOptions& o) { o.vocab_size = 257, o.first = {{"<a>"}}, o.last = {{"<b>"}}; }),
            ErrorCode::tk_vocab_size);
  EXPECT_EQ(refused([](BpeTrainerOptions& o) { o.vocab_size = 1 << 30; }), ErrorCode::tk_vocab_size);
  EXPECT_EQ(refused([](BpeTrainerOptions& o) { o.first = {{"<a>"}, {"<a>"}}; }), ErrorCode::tk_added);
  EXPECT_EQ(refused([](BpeTrainerOptions& o) { o.first = {{"<a>"}}, o.last = {{"<a>"}}; }), ErrorCode::tk_added);
  EXPECT_EQ(refused([](BpeTrainerOptions& o) { o.first = {{"\u0120"}}; }), ErrorCode::tk_added);
  EXPECT_EQ(refused([](BpeTrainerOptions& o) { o.last = {{"a"}}; }), ErrorCode::tk_added);
  EXPECT_EQ(refused([](BpeTrainerOptions& o) { o.last = {{""}}; }), ErrorCode::tk_added);
  EXPECT_EQ(refused([](BpeTrainerOptions& o) { o.first = {{"<\xff>"}}; }), ErrorCode::in_utf8);
  EXPECT_EQ(refused([](BpeTrainerOptions& o) { o.splits.patterns = {"a*"}; }), ErrorCode::tk_unsupported);
  EXPECT_EQ(refused([](BpeTrainerOptions& o) { o.splits.patterns = {"(a"}; }), ErrorCode::tk_regex);
  EXPECT_EQ(refused([](BpeTrainerOptions& o) { o.min_frequency = -1; }), ErrorCode::in_param);
  EXPECT_EQ(refused([](BpeTrainerOptions& o) { o.max_token_bytes = 1; }), ErrorCode::in_param);
}

TEST(BpeTrainer, RefusesToTrainOnNothing) {
  EXPECT_EQ(code_of([] { (void)guild::train_bpe(plain(300), std::vector<std::string>{}); }), ErrorCode::in_empty);
  EXPECT_EQ(code_of([] { (void)guild::train_bpe(plain(300), std::vector<std::string>{"", ""}); }), ErrorCode::in_empty);
  EXPECT_EQ(code_of([] { (void)guild::train_bpe_from_files(plain(300), {"/no/such/file"}); }), ErrorCode::io_open);
}

TEST(BpeTrainer, ReportsProgressAndCanBeStopped) {
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += "word" + std::to_string(i) + "\n";
  const std::vector<std::string> texts(3, text);
  std::vector<BpeProgress> reports;
  BpeTrainerOptions options = fixture_options("v3");
  options.progress = [&](const BpeProgress& p) { return reports.push_back(p), true; };
  const BpeVocabulary vocabulary = guild::train_bpe(options, texts);
  ASSERT_GT(reports.size(), 3U);
  EXPECT_EQ(reports.front().stage, BpeProgress::Stage::counting);
  EXPECT_EQ(reports.back().stage, BpeProgress::Stage::merging);
  EXPECT_EQ(reports.back().done, vocabulary.size());
  EXPECT_EQ(reports.back().total, 900);
  for (std::size_t stop = 0; stop < 3; ++stop) {
    std::size_t calls = 0;
    options.progress = [&](const BpeProgress&) { return calls++ < stop; };
    EXPECT_EQ(code_of([&] { (void)guild::train_bpe(options, texts); }), ErrorCode::io_cancelled);
    EXPECT_EQ(calls, stop + 1);
  }
}

}  // namespace bpe_trainer_test
