#include <guild/io/printable.hpp>

#include <gtest/gtest.h>

#include <string>
#include <string_view>

namespace guild::test {
namespace printable_test {

TEST(Printable, KeepsWhatCanBePrinted) {
  EXPECT_EQ(printable("model.norm.weight \xE6\xB3\xA8"), "model.norm.weight \xE6\xB3\xA8");
  EXPECT_EQ(unprintable("model.norm.weight \xE6\xB3\xA8"), std::string_view::npos);
}

TEST(Printable, ReplacesControlDirectionAndFaults) {
  EXPECT_EQ(printable("a\x1b[2Jb"), "a?[2Jb");
  EXPECT_EQ(printable("a\xE2\x80\xAE""b"), "a?b");  // U+202E turns the text around
  EXPECT_EQ(printable("a\xC2\x85""b"), "a?b");      // a C1 control
  EXPECT_EQ(printable("a\xFF\xE6\xB3"), "a??");
  EXPECT_EQ(unprintable("ab\n"), 2U);
  EXPECT_EQ(unprintable("ab\xE6"), 2U);
}

TEST(Printable, CutsLongTextBetweenCharacters) {
  EXPECT_EQ(printable("abcdef", 3), "abc...");
  EXPECT_EQ(printable("abcdef", 6), "abcdef");
  EXPECT_EQ(printable("a\xE6\xB3\xA8\xE6\xB3\xA8", 5), "a\xE6\xB3\xA8...");
}

}  // namespace printable_test
}  // namespace guild::test
