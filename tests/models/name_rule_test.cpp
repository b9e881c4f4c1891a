// Rules of translation for whole paths.
#include <guild/models/name_rule.hpp>

#include <gtest/gtest.h>

#include <guild/models/published_names.hpp>
#include <guild/modules/module.hpp>

namespace name_rule_test {

using guild::FusedRows;
using guild::NameRule;
using guild::Path;
using guild::translate;

TEST(NameRule, CarriesNumbersFromOneSideToTheOther) {
  constexpr NameRule rule{"layers.*.experts.*.gate.weight", "model.layers.*.block_sparse_moe.experts.*.w1.weight"};
  EXPECT_EQ(translate(rule, "layers.12.experts.7.gate.weight"), "model.layers.12.block_sparse_moe.experts.7.w1.weight");
}

TEST(NameRule, IsForWholePathsAlone) {
  constexpr NameRule rule{"layers.*.up.weight", "l.*.w3"};
  for (const char* other : {"layers.3.up", "layers.3.up.weight.x", "layers.up.weight", "layers.x.up.weight",
                            "layers..up.weight", "layers.3.down.weight", "x.layers.3.up.weight", ""})
    EXPECT_FALSE(translate(rule, other)) << other;
  EXPECT_EQ(translate(rule, "layers.3.up.weight"), "l.3.w3");
}

TEST(NameRule, RowsStandOneUnderTheOtherOrTakeTurns) {
  constexpr FusedRows up{.parts = 2, .part = 1}, turns{.parts = 2, .part = 1, .in_turn = true}, alone;
  static_assert(up.first(48) == 48 && up.step() == 1);
  static_assert(turns.first(48) == 1 && turns.step() == 2);
  static_assert(alone.first(48) == 0 && alone.step() == 1);
}

TEST(PublishedNames, StacksHaveAFusedNameAndTheirMatricesOneEach) {
  const Path root, layers = root / "layers", layer = layers / 3, feed = layer / "feed_forward",
                   experts = feed / "experts", up = experts / "up", down = experts / "down", weight = up / "weight";
  const auto fused = guild::PublishedNames::fused(weight);
  ASSERT_TRUE(fused);
  EXPECT_EQ(fused->name, "model.layers.3.mlp.experts.gate_up_proj");
  EXPECT_EQ(fused->rows.part, 1);
  EXPECT_EQ(guild::PublishedNames::fused(down / "weight")->name, "model.layers.3.mlp.experts.down_proj");
  EXPECT_EQ(guild::with_matrix_path(weight, 12, [](const Path& one) { return guild::PublishedNames::name(one); }),
            "model.layers.3.mlp.experts.12.up_proj.weight");
  EXPECT_FALSE(guild::PublishedNames::fused(layer / "mixer_norm"));
}

}  // namespace name_rule_test
