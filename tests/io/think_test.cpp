// Thinking and answer, told apart however the text is cut.
#include <guild/io/think.hpp>

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace think_test {

using guild::ThinkParser;
using guild::ThinkPiece;

/// Thinking and answer of a text that comes in pieces of the given size.
std::pair<std::string, std::string> parse(ThinkParser parser, const std::string& text, std::size_t piece) {
  std::pair<std::string, std::string> out;
  const auto take = [&](const std::vector<ThinkPiece>& pieces) {
    for (const ThinkPiece& p : pieces) {
      EXPECT_FALSE(p.text.empty());
      (p.kind == ThinkPiece::Kind::thinking ? out.first : out.second) += p.text;
    }
  };
  for (std::size_t at = 0; at < text.size(); at += piece) take(parser.push(std::string_view(text).substr(at, piece)));
  take(parser.flush());
  return out;
}

struct Case {
  const char* prompt;
  const char* text;
  const char* thinking;
  const char* answer;
};

const Case cases[] = {
    {"<｜Assistant｜><think>\n", "17*20=340\n</think>\n\n391", "17*20=340\n", "\n\n391"},
    {"<｜Assistant｜><think>\n", "never ends", "never ends", ""},
    {"<｜Assistant｜><think>\n", "almost </thin", "almost </thin", ""},
    {"<｜Assistant｜><think>\n", "a </thinking> b </ </think>c", "a </thinking> b </ ", "c"},
    {"<｜Assistant｜><think>\n", "a<</think></think><think>x", "a<", "</think><think>x"},
    {"<｜Assistant｜><think>\n", "</think>", "", ""},
    {"<｜Assistant｜><think>\n", "", "", ""},
    {"<｜Assistant｜><think>\n", "<think>\nsaid twice</think>ok", "\nsaid twice", "ok"},
    {"<｜Assistant｜>", "<think>own</think>ok", "own", "ok"},
    {"<｜Assistant｜>", "\n <think>own", "own", ""},
    {"<｜Assistant｜>", "plain <think>not this</think>", "", "plain <think>not this</think>"},
    {"<｜Assistant｜>", "<thin air", "", "<thin air"},
    {"<｜Assistant｜>", " \n", "", " \n"},
    {"<｜Assistant｜><think></think>", "direct", "", "direct"},
};

TEST(ThinkParser, TellsThinkingFromAnswerInPiecesOfEverySize) {
  for (const Case& c : cases)
    for (std::size_t piece = 1; piece < 12; ++piece)
      EXPECT_EQ(parse(ThinkParser::after(c.prompt), c.text, piece),
                (std::pair<std::string, std::string>(c.thinking, c.answer)))
          << c.text << " in pieces of " << piece;
}

TEST(ThinkParser, GivesThinkingAtOnceAndHoldsBackOnlyAPossibleTag) {
  ThinkParser parser(ThinkParser::Start::thinking);
  EXPECT_EQ(parser.push("one </"), (std::vector<ThinkPiece>{{ThinkPiece::Kind::thinking, "one "}}));
  EXPECT_EQ(parser.push("two"), (std::vector<ThinkPiece>{{ThinkPiece::Kind::thinking, "</two"}}));
  EXPECT_EQ(parser.kind(), ThinkPiece::Kind::thinking);
  EXPECT_EQ(parser.push(" end</think>answer"),
            (std::vector<ThinkPiece>{{ThinkPiece::Kind::thinking, " end"}, {ThinkPiece::Kind::answer, "answer"}}));
  EXPECT_EQ(parser.kind(), ThinkPiece::Kind::answer);
}

}  // namespace think_test
