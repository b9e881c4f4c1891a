#include <guild/core/refuse.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

namespace refuse_test {

using guild::detail::At;
using guild::detail::ErrorText;

template <class... Place>
guild::Error caught(ErrorText text, const Place&... place) {
  try {
    guild::detail::refuse(guild::ErrorCode::op_shape, text, place...);
  } catch (const guild::Error& error) { return error; }
}

TEST(Refuse, TheMessageIsThePartsInTheirOrder) {
  const std::string name = "gate";
  const guild::Error error =
      caught({name, " has ", std::int64_t{-3}, " rows of ", std::size_t{7}, std::string_view(), "; ", 'x' + 0}, "here");
  EXPECT_EQ(error.code(), guild::ErrorCode::op_shape);
  EXPECT_EQ(error.message(), "gate has -3 rows of 7; 120");
  EXPECT_EQ(error.key(), "here");
  EXPECT_STREQ(error.what(), "\"here\": gate has -3 rows of 7; 120 [op_shape]");
}

// A function that refuses in its own words hands on what it was given.
[[noreturn]] void refuse_file(ErrorText what) {
  guild::detail::refuse(guild::ErrorCode::io_read, {"cannot be read: ", what, "."}, At{"a/b", "key", 7});
}

TEST(Refuse, TextsAndListsNest) {
  EXPECT_EQ(caught("alone").message(), "alone");
  EXPECT_EQ(caught(std::string("text")).message(), "text");
  try {
    refuse_file({"line ", 3, std::string(" of ") + "many"});
    FAIL() << "no error";
  } catch (const guild::Error& error) {
    EXPECT_STREQ(error.what(), "a/b: \"key\": cannot be read: line 3 of many. (byte 7) [io_read]");
  }
}

TEST(Refuse, ATextCanBeHadWithoutAnError) {
  EXPECT_EQ(guild::detail::text_of({"[", std::size_t{7}, "]"}), "[7]");
  EXPECT_EQ(guild::detail::text_of(""), "");
}

TEST(Refuse, IntegersKeepTheirSign) {
  EXPECT_EQ(caught({std::numeric_limits<std::uint64_t>::max(), " ", std::numeric_limits<std::int64_t>::min(), " ",
                    std::uint8_t{200}, " ", std::int8_t{-3}})
                .message(),
            "18446744073709551615 -9223372036854775808 200 -3");
}

TEST(Refuse, RealNumbersAreTheShortestThatReadBack) {
  EXPECT_EQ(caught({0.1f, " ", 0.1, " ", 1e-9, " ", 3.0, " ", -2.5f}).message(), "0.1 0.1 1e-09 3 -2.5");
  constexpr double infinite = std::numeric_limits<double>::infinity();
  EXPECT_EQ(caught({infinite, " ", -infinite, " ", std::numeric_limits<float>::quiet_NaN()}).message(), "inf -inf nan");
}

TEST(Refuse, WhereIsAKeyAPlaceOrTheWhereOfAnotherError) {
  EXPECT_EQ(caught("m").offset(), -1);
  EXPECT_EQ(caught("m", std::string("k")).key(), "k");
  EXPECT_EQ(caught("m", At{.path = "p"}).path(), "p");
  const guild::Error copied = caught("m", guild::Where{"p", "k", 4});
  EXPECT_EQ(copied.path() + copied.key(), "pk");
  EXPECT_EQ(copied.offset(), 4);
}

}  // namespace refuse_test
