// How chosen experts become slots, whoever chose them.
#include <gtest/gtest.h>

#include <array>
#include <guild/models/spec.hpp>
#include <guild/modules/moe.hpp>

namespace {

struct Spec : guild::SpecDefaults {
  static constexpr guild::ModelConfig config = {.hidden = 8, .moe = {.experts = 4, .top_k = 2, .hidden = 8}};
};

struct Slots {
  std::array<std::int32_t, 5> offsets{};
  std::array<std::int32_t, 4> token{};
  std::array<std::int32_t, 4> slot{};
};

Slots assign(std::array<std::int32_t, 4> chosen) {
  Slots out;
  guild::Moe<Spec>::assign(guild::View<const std::int32_t, 2>(chosen.data(), 2, 2), {out.offsets.data(), 5},
                           {out.token.data(), 4}, {out.slot.data(), 2, 2});
  return out;
}

TEST(Assignment, GroupsTokensByExpertInTheirOrder) {
  const Slots slots = assign({3, 1, 1, 0});
  EXPECT_EQ(slots.offsets, (std::array<std::int32_t, 5>{0, 1, 3, 3, 4}));
  EXPECT_EQ(slots.token, (std::array<std::int32_t, 4>{1, 0, 1, 0}));
  EXPECT_EQ(slots.slot, (std::array<std::int32_t, 4>{3, 1, 2, 0}));
}

TEST(Assignment, RefusesAnExpertThatDoesNotExist) {
  for (const std::int32_t wrong : {-1, 4, 1 << 30}) {
    try {
      (void)assign({0, 1, 2, wrong});
      ADD_FAILURE() << wrong;
    } catch (const guild::Error& error) {
      EXPECT_EQ(error.code(), guild::ErrorCode::op_argument);
      EXPECT_NE(error.message().find("expert " + std::to_string(wrong) + " for token 1"), std::string::npos);
    }
  }
}

}  // namespace
