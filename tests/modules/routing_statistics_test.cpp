#include <guild/cpu.hpp>
#include <guild/modules/routing_statistics.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include <guild/core/random.hpp>
#include <guild/modules/routing_counter.hpp>
#include <guild/ops/experts/assignment.hpp>

#include "../support/far_device.hpp"

namespace routing_statistics_test {

using guild::Index;
using Numbers = std::vector<double>;

std::string refusal(auto&& f) {
  try {
    f();
  } catch (const guild::Error& error) { return error.what(); }
  return {};
}
Numbers list(guild::View<const double> view) { return {view.begin(), view.end()}; }

/// Choices and weights of tokens, with spare columns.
template <class Real>
struct Routed {
  Index tokens, choices, pitch;
  std::vector<std::int32_t> chosen = std::vector<std::int32_t>(static_cast<std::size_t>(tokens * pitch), 0);
  std::vector<Real> weights = std::vector<Real>(static_cast<std::size_t>(tokens * pitch), Real(1000));
  void count(auto&& device, guild::RoutingCounts counts, int layer, Index experts) {
    guild::count_routing(device, experts, {chosen.data(), tokens, choices, pitch},
                         guild::DeviceView<const Real, 2>{weights.data(), tokens, choices, pitch},
                         counts.sums_of(layer));
  }
};

/// The sums by their definition in long double, token by token; p log p of probabilities.
template <class Real>
void expect_sums_of_definition(Index pitch) {
  constexpr Index tokens = 61, choices = 3, experts = 5;
  guild::Random random(3);
  Routed<Real> routed{tokens, choices, pitch};
  std::vector<long double> load(experts), importance(experts), drops(experts);
  long double entropy = 0;
  for (Index t = 0; t < tokens; ++t) {
    std::vector<long double> served;
    for (Index k = 0; k < choices; ++k) {
      const auto i = static_cast<std::size_t>(t * pitch + k);
      const auto e = static_cast<std::int32_t>(random.uniform() * experts);
      const double fate = random.uniform();
      routed.chosen[i] = fate < 0.2 ? ~e : fate < 0.3 ? guild::no_expert : e;
      routed.weights[i] = static_cast<Real>(fate > 0.95 ? 0.0 : random.uniform());
      if (fate < 0.2) ++drops[static_cast<std::size_t>(e)];
      if (fate < 0.3) continue;
      ++load[static_cast<std::size_t>(e)];
      importance[static_cast<std::size_t>(e)] += static_cast<long double>(routed.weights[i]);
      served.push_back(static_cast<long double>(routed.weights[i]));
    }
    const long double sum = std::accumulate(served.begin(), served.end(), 0.0L);
    for (const long double weight : served)
      if (weight > 0) entropy -= weight / sum * (std::log(weight) - std::log(sum)) / tokens;
  }
  guild::RoutingStatistics statistics(2, experts);
  for (int round = 0; round < 2; ++round) routed.count(guild::Cpu({.threads = 2}), statistics.view(), 1, experts);
  for (Index e = 0; e < experts; ++e) {
    const auto i = static_cast<std::size_t>(e);
    EXPECT_EQ(statistics.load(1)[e], 2 * load[i]);
    EXPECT_EQ(statistics.drops(1)[e], 2 * drops[i]);
    EXPECT_NEAR(statistics.importance(1)[e], static_cast<double>(2 * importance[i]), 1e-12);
  }
  EXPECT_EQ(statistics.tokens(1), 2.0 * tokens);
  EXPECT_NEAR(statistics.entropy(1), static_cast<double>(entropy), 1e-13);
  EXPECT_GT(statistics.dropped(1), 10.0);
  EXPECT_EQ(statistics.tokens(0) + statistics.load(0)[0] + statistics.entropy(0), 0.0);
}

TEST(RoutingStatistics, AreTheSumsOfTheirDefinition) {
  expect_sums_of_definition<float>(3);
  expect_sums_of_definition<double>(7);
}

/// Four tokens with two choices each, of experts whose loads are 4, 2, 1, 0 with one dropped; weights 3 and 1, or 1.
Routed<float> four_tokens() {
  Routed<float> routed{4, 2, 2};
  routed.chosen = {0, 1, 1, 0, 0, ~3, 2, 0};
  routed.weights = {3, 1, 1, 1, 1, 1, 3, 1};
  return routed;
}

TEST(RoutingStatistics, SayWhatTheyAreWorth) {
  guild::RoutingStatistics statistics(2, 4);
  guild::Cpu device({.threads = 1});
  four_tokens().count(device, statistics.view(), 1, 4);
  guild::host_view(device, statistics.view().terms(1))[0] += {.auxiliary = 3.0};
  EXPECT_EQ(list(statistics.load(1)), (Numbers{4, 2, 1, 0}));
  EXPECT_EQ(list(statistics.importance(1)), (Numbers{6, 2, 3, 0}));
  EXPECT_EQ(list(statistics.drops(1)), (Numbers{0, 0, 0, 1}));
  EXPECT_EQ(statistics.dropped(1), 1.0);
  EXPECT_EQ(statistics.tokens(1), 4.0);
  const double uneven = std::log(4.0) - 0.75 * std::log(3.0);  // of shares 3/4 and 1/4
  EXPECT_NEAR(statistics.entropy(1), (2 * uneven + std::log(2.0)) / 4, 1e-15);
  const double of_load = std::log(7.0) - (4 * std::log(4.0) + 2 * std::log(2.0)) / 7;
  EXPECT_NEAR(statistics.load_entropy(1), of_load, 1e-15);
  EXPECT_NEAR(statistics.effective_experts(1), std::exp(of_load), 1e-14);
  EXPECT_EQ(statistics.max_over_mean(1), 4 / 1.75);
  EXPECT_EQ(statistics.dead_experts(1), std::vector<int>{3});
  EXPECT_EQ(statistics.dead_experts(1, 0.6), (std::vector<int>{2, 3})) << "1 of a mean of 1.75";
  EXPECT_EQ(statistics.dead_experts(1, 0.0), std::vector<int>{});
  EXPECT_EQ(statistics.terms(1).auxiliary, 3.0);
  // A layer without experts.
  EXPECT_EQ(statistics.max_over_mean(0) + statistics.effective_experts(0) + statistics.load_entropy(0), 0.0);
  EXPECT_EQ(statistics.dead_experts(0), std::vector<int>{});

  guild::RoutingStatistics sum;
  sum += statistics;
  sum += statistics;
  EXPECT_EQ(list(sum.importance(1)), (Numbers{12, 4, 6, 0}));
  EXPECT_EQ(sum.entropy(1), statistics.entropy(1));
  EXPECT_EQ(sum.terms(1).auxiliary, 6.0);
  EXPECT_NE(
      refusal([&] { sum += guild::RoutingStatistics(2, 5); }).find("2 layers and 5 experts is added to that of 2 "),
      std::string::npos);
  statistics.clear();
  EXPECT_EQ(list(statistics.load(1)), Numbers(4));
  EXPECT_EQ(statistics.terms(1).auxiliary, 0.0);
}

TEST(RoutingStatistics, AreReadFromAnotherMemoryWhenAsked) {
  guild_test::FarDevice device(guild::CpuOptions{.threads = 1});
  guild::RoutingCounter<guild_test::FarDevice> counter;
  EXPECT_FALSE(counter.counts());
  EXPECT_EQ(counter.view().sums_of(5).data, nullptr);
  counter = {device, 3, 4};
  EXPECT_TRUE(counter.counts());
  four_tokens().count(device, counter.view(), 2, 4);
  four_tokens().count(device, counter.view(), 2, 4);
  EXPECT_EQ(device.to_host, 0);
  const guild::RoutingStatistics read = counter.read(device);
  EXPECT_EQ(device.to_host, 2);
  EXPECT_EQ(read.layers(), 3);
  EXPECT_EQ(list(read.importance(2)), (Numbers{12, 4, 6, 0}));
  EXPECT_EQ(list(read.importance(1)), Numbers(4));
  counter.clear(device);
  EXPECT_EQ(counter.read(device).tokens(2), 0.0);
}

TEST(RoutingStatistics, OtherShapesAreRefused) {
  guild::Cpu device({.threads = 1});
  guild::RoutingStatistics statistics(1, 3);
  EXPECT_NE(refusal([&] { four_tokens().count(device, statistics.view(), 0, 4); }).find("count_routing: sums"),
            std::string::npos);
  std::int32_t chosen[4]{};
  float weights[4]{};
  EXPECT_NE(refusal([&] {
              guild::count_routing(device, 3, {chosen, 2, 2}, guild::DeviceView<const float, 2>{weights, 4, 1},
                                   statistics.view().sums_of(0));
            }).find("count_routing: chosen"),
            std::string::npos);
}

TEST(RoutingStatistics, ALayerThatThereIsNotIsRefusedByEveryFunction) {
  guild::RoutingStatistics statistics(2, 3);
  const auto& constant = statistics;
  for (const int layer : {-1, 2, 1 << 30}) {
    const std::string sentence =
        "layer " + std::to_string(layer) + " was asked for, but routing is counted for 2 layers";
    for (const std::string& text :
         {refusal([&] { (void)constant.load(layer); }), refusal([&] { (void)constant.entropy(layer); }),
          refusal([&] { (void)constant.terms(layer); }), refusal([&] { (void)constant.max_over_mean(layer); }),
          refusal([&] { (void)statistics.view().load(layer); }),
          refusal([&] { (void)statistics.view().terms(layer); })})
      EXPECT_NE(text.find(sentence), std::string::npos) << text;
  }
}

TEST(RoutingStatistics, APassThatCountsNothingHasNowhereToCount) {
  const guild::RoutingCounts none;
  EXPECT_EQ(none.load(5).data, nullptr);
  EXPECT_EQ(none.terms(5).data, nullptr);
}

}  // namespace routing_statistics_test
