#include <guild/io/pretokenizer.hpp>

#include <gtest/gtest.h>

#include <charconv>
#include <vector>

#include "io_fixture.hpp"

namespace pretokenizer_test {

TEST(PreTokenizer, SplitsAsDeepSeekV2DoesWithDigitsOneByOne) {
  const auto tokenizer = guild::Tokenizer::parse(guild_test::fixture("tokenizer/digits.json"));
  const std::string lines = guild_test::fixture("tokenizer/digits.txt");
  int checked = 0;
  for (std::size_t begin = 0; begin < lines.size();) {
    const std::size_t end = lines.find('\n', begin);
    const std::string_view line = std::string_view(lines).substr(begin, end - begin);
    begin = end + 1;
    const std::size_t tab = line.find('\t');
    const guild::Json text = guild::Json::parse(line.substr(0, tab), {});
    std::vector<int> expected;
    for (const char* at = line.data() + tab + 1; at < line.data() + line.size(); ++at) {
      int id = 0;
      at = std::from_chars(at, line.data() + line.size(), id).ptr;
      expected.push_back(id);
    }
    EXPECT_EQ(tokenizer.encode(text.string()), expected) << line.substr(0, tab);
    ++checked;
  }
  EXPECT_EQ(checked, 400);
}

}  // namespace pretokenizer_test
