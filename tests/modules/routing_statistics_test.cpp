#include <guild/cpu.hpp>
#include <guild/modules/routing_statistics.hpp>

#include <gtest/gtest.h>

#include <string>
#include <utility>

namespace routing_statistics_test {

std::string refusal(auto&& f) {
  try {
    f();
  } catch (const guild::Error& error) { return error.what(); }
  return {};
}

TEST(RoutingStatistics, CountsTheChoicesOfEachLayerApart) {
  guild::RoutingStatistics statistics(2, 3);
  guild::Cpu device({.threads = 1});
  std::int32_t first[] = {0, 1, 2, 4}, second[] = {0, 1, 1, 2};  // slots of 0, 2, 2, 1 and of 0, 2
  const guild::RoutingCounts view = statistics.view();
  guild::add_slot_counts(device, guild::View<const std::int32_t>(first, 4), view.experts(1));
  guild::add_slot_counts(device, guild::View<const std::int32_t>(second, 4), view.experts(1));
  guild::host_view(device, view.terms(1))[0] += {.auxiliary = 3.0};
  const auto counts = std::as_const(statistics).counts(1);
  EXPECT_EQ(counts[0], 2.0);
  EXPECT_EQ(counts[1], 1.0);
  EXPECT_EQ(counts[2], 3.0);
  EXPECT_EQ(statistics.counts(0)[0] + statistics.counts(0)[1] + statistics.counts(0)[2], 0.0);
  EXPECT_EQ(statistics.terms(1).auxiliary, 3.0);
  EXPECT_EQ(statistics.max_over_mean(1), 1.5);
  EXPECT_EQ(statistics.max_over_mean(0), 0.0);
  statistics.clear();
  EXPECT_EQ(statistics.counts(1)[2], 0.0);
}

TEST(RoutingStatistics, ALayerThatThereIsNotIsRefusedByEveryFunction) {
  guild::RoutingStatistics statistics(2, 3);
  const auto& constant = statistics;
  for (const int layer : {-1, 2, 1 << 30}) {
    const std::string sentence =
        "layer " + std::to_string(layer) + " was asked for, but routing is counted for 2 layers";
    for (const std::string& text :
         {refusal([&] { (void)statistics.counts(layer); }), refusal([&] { (void)constant.counts(layer); }),
          refusal([&] { (void)constant.terms(layer); }), refusal([&] { (void)constant.max_over_mean(layer); }),
          refusal([&] { (void)statistics.view().experts(layer); }),
          refusal([&] { (void)statistics.view().terms(layer); })})
      EXPECT_NE(text.find(sentence), std::string::npos) << text;
  }
}

TEST(RoutingStatistics, APassThatCountsNothingHasNowhereToCount) {
  const guild::RoutingCounts none;
  EXPECT_EQ(none.experts(5).data, nullptr);
  EXPECT_EQ(none.terms(5).data, nullptr);
}

}  // namespace routing_statistics_test
