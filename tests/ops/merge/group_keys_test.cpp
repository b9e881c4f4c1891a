#include <guild/ops/merge/group_keys.hpp>

#include <gtest/gtest.h>

#include "merge_test_support.hpp"

namespace group_keys_test {
using namespace guild_test;

/// The groups of a sequence of 70 tokens: the last token of the groups before its own, and itself.
std::vector<std::int32_t> seen_by(const std::vector<std::int32_t>& counts, std::int32_t token) {
  std::vector<std::int32_t> seen;
  for (std::int32_t i = 0; i <= token; ++i)
    if (i == token || counts[std::size_t(i) + 1] == 1) seen.push_back(i);
  return seen;
}

TEST(GroupKeys, AreMarkedAsBits) {
  const std::vector<std::int32_t> counts = counts_of({1, 1, 30, 1, 3, 28, 1, 5});
  const auto tokens = static_cast<Index>(counts.size()), words = guild::chosen_words(tokens);
  std::vector<std::uint32_t> bits(std::size_t(tokens * words), 0xffffffffu);
  const guild::View<std::uint32_t, 2> to(bits.data(), tokens, words);
  guild::Cpu device({.threads = 2});
  const auto mark = [&](const guild::MarkGroupKeysJob& job) {
    run_one(device, job, [](auto&&... all) { guild::mark_group_keys(all...); });
  };
  mark({.counts = view_of(counts), .bits = to});
  for (std::int32_t t = 0; t < tokens; ++t) {
    std::vector<std::int32_t> seen;
    for (std::int32_t i = 0; i < words * 32; ++i)
      if ((to(t, i / 32) >> (i % 32) & 1u) != 0) seen.push_back(i);
    ASSERT_EQ(seen, seen_by(counts, t)) << t;
  }
  EXPECT_EQ(code_of([&] { mark({.counts = view_of(counts), .bits = to.middle_cols(0, 2)}); }),
            guild::ErrorCode::op_shape);
  EXPECT_EQ(code_of([&] { mark({.counts = view_of(counts).slice(0, 9), .bits = to}); }), guild::ErrorCode::op_shape);
}

/// The same as lists, over the rows of the groups that ended before a chunk and of the chunk's tokens.
TEST(GroupKeys, AreListedBehindTheGroupsBefore) {
  const std::vector<std::int32_t> counts = counts_of({1, 2, 1, 3, 2, 1, 1, 2});
  const auto tokens = static_cast<std::int32_t>(counts.size());
  guild::Cpu device({.threads = 2});
  for (std::int32_t first = 0; first < tokens; ++first) {
    std::vector<std::int32_t> ends, sees, row_of(std::size_t(tokens), -1);
    const auto before = static_cast<std::int32_t>(seen_by(counts, first).size()) - 1;
    std::int32_t group = 0;
    for (std::int32_t i = 0; i < tokens; ++i) {
      const bool last = i + 1 == tokens || counts[std::size_t(i) + 1] == 1;
      row_of[std::size_t(i)] = i < first ? group : before + i - first;
      group += last ? 1 : 0;
      if (i < first) continue;
      if (last) ends.push_back(i - first);
      sees.push_back(static_cast<std::int32_t>(seen_by(counts, i).size()));
    }
    const Index count = tokens - first, most = sees.back() + 1;
    std::vector<std::int32_t> lists(std::size_t(count * most), -7), found(std::size_t(count), -1);
    const guild::View<std::int32_t, 2> chosen(lists.data(), count, most);
    run_one(device,
            guild::ListGroupKeysJob{.before = before,
                                    .ends = view_of(ends),
                                    .sees = view_of(sees),
                                    .chosen = chosen,
                                    .counts = {found.data(), count}},
            [](auto&&... all) { guild::list_group_keys(all...); });
    EXPECT_EQ(found, sees);
    for (std::int32_t t = first; t < tokens; ++t) {
      std::vector<std::int32_t> expected;
      for (const std::int32_t i : seen_by(counts, t)) expected.push_back(row_of[std::size_t(i)]);
      const auto list = chosen.row(t - first);
      ASSERT_EQ(std::vector<std::int32_t>(list.begin(), list.begin() + sees[std::size_t(t - first)]), expected);
      ASSERT_EQ(list[sees[std::size_t(t - first)]], -7) << "behind the list";
    }
  }
}

}  // namespace group_keys_test
