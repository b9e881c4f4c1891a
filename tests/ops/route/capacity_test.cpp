// Who is dropped where experts have a capacity: the published rules, frozen by tests/oracle/make_capacity_fixture.py.
#include <guild/ops/route/capacity.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <guild/core/random.hpp>
#include <guild/cpu.hpp>
#include <guild/device/host_team.hpp>

#include "../../core/code_of.hpp"
#include "../../support/frozen_tensors.hpp"

namespace capacity_test {

using guild::CapacityRounding;
using guild::DropOrder;
using guild::ErrorCode;
using guild::Index;
using guild_test::code_of;
using Choices = std::vector<std::int32_t>;

constexpr std::pair<DropOrder, const char*> orders[] = {{DropOrder::position, "position"},
                                                        {DropOrder::choice, "choice"},
                                                        {DropOrder::probability, "probability"},
                                                        {DropOrder::prioritized, "prioritized"}};

template <class Device, class Real>
Choices drop(Device& device, DropOrder order, Index experts, Index capacity, const std::vector<Real>& weights,
             Choices chosen, Index top_k) {
  const auto tokens = static_cast<Index>(chosen.size()) / top_k;
  guild::drop_over_capacity(device, order, experts, capacity,
                            guild::View<const Real, 2>{weights.data(), tokens, top_k, top_k},
                            {chosen.data(), tokens, top_k});
  return chosen;
}

TEST(Capacity, DropsWhomThePublishedRulesDrop) {
  const guild_test::FrozenTensors frozen("capacity");
  const std::vector<float> weights = frozen.floats("orders.weights");
  guild::Cpu device({.threads = 2});
  for (const auto& [order, name] : orders)
    EXPECT_EQ(drop(device, order, 5, 11, weights, frozen.integers("orders.chosen"), 2),
              frozen.integers(std::string("orders.") + name))
        << name;
}

TEST(Capacity, IsRoundedAsPublished) {
  const guild_test::FrozenTensors frozen("capacity");
  const Choices rules = frozen.integers("counts.rules");
  const std::vector<float> factors = frozen.floats("counts.factors");
  for (std::size_t i = 0; i < factors.size(); ++i) {
    const std::int32_t* const row = &rules[6 * i];
    const auto expect = [&](CapacityRounding rounding, std::int32_t published) {
      const auto factor = std::round(double(factors[i]) * 100.0) / 100.0;  // as it was before it became a float
      const Index most = std::max(1, std::min(published, row[0]));         // never above the tokens, never none
      EXPECT_EQ(guild::expert_capacity(rounding, factor, row[0], row[1], row[2]), most) << i;
    };
    expect(CapacityRounding::up, row[3]);
    expect(CapacityRounding::down, row[4]);
    expect(CapacityRounding::per_choice, row[5]);
  }
  static_assert(guild::expert_capacity(CapacityRounding::up, 1e300, 7, 2, 3) == 7);
}

/// Sorts every expert's tokens, as the definition says.
Choices by_sorting(DropOrder order, Index experts, Index capacity, const std::vector<double>& weights, Choices chosen,
                   Index top_k) {
  const auto tokens = static_cast<Index>(chosen.size()) / top_k;
  for (std::int32_t e = 0; e < experts; ++e) {
    std::vector<std::tuple<Index, float, Index, std::size_t>> first;
    for (Index t = 0; t < tokens; ++t)
      for (Index k = 0; k < top_k; ++k) {
        const auto i = static_cast<std::size_t>(t * top_k + k);
        if (chosen[i] != e) continue;
        const double* const own = &weights[static_cast<std::size_t>(t * top_k)];
        const double key = order == DropOrder::probability   ? own[k]
                           : order == DropOrder::prioritized ? *std::max_element(own, own + top_k)
                                                             : 0.0;
        const bool by_choice = order == DropOrder::choice || order == DropOrder::prioritized;
        first.emplace_back(by_choice ? k : 0, -static_cast<float>(key), t, i);
      }
    std::sort(first.begin(), first.end());
    for (std::size_t n = static_cast<std::size_t>(capacity); n < first.size(); ++n)
      chosen[std::get<3>(first[n])] = ~chosen[std::get<3>(first[n])];
  }
  return chosen;
}

TEST(Capacity, KeepsTheFirstOfEachOrderOnOneThreadAndByTeams) {
  guild::Cpu device({.threads = 3});
  for (const auto& [tokens, top_k, experts, capacity] :
       {std::tuple{Index{1}, 2, 4, 1}, {70, 1, 3, 9}, {33, 3, 5, 7}, {50, 2, 2, 49}}) {
    guild::Random random(3, static_cast<std::uint64_t>(tokens));
    std::vector<double> weights;
    Choices chosen;
    for (Index t = 0; t < tokens; ++t) {
      const auto first = Index(random.uniform() * 1.7);  // crowded
      for (Index k = 0; k < top_k; ++k) {
        weights.push_back(std::floor(random.uniform() * 9.0 - 3.0));  // ties, and signs
        const auto e = static_cast<std::int32_t>((first + k) % experts);
        chosen.push_back(random.uniform() < 0.1 ? (random.uniform() < 0.5 ? ~e : guild::no_expert) : e);
      }
    }
    for (const auto& [order, name] : orders) {
      const Choices expected = by_sorting(order, experts, capacity, weights, chosen, top_k);
      EXPECT_EQ(drop(device, order, experts, capacity, weights, chosen, top_k), expected) << name << tokens;
      for (const int size : {2, 3}) {
        guild::HostTeams teams(size);
        EXPECT_EQ(drop(teams, order, experts, capacity, weights, chosen, top_k), expected) << name << tokens;
      }
    }
  }
}

TEST(Capacity, WhatWasDroppedCanBeUndone) {
  const Choices chosen{2, ~1, -1, 3}, wanted{2, 1, 0, 3};
  for (const int size : {1, 3}) {
    guild::HostTeams teams(size);
    Choices found(4);
    guild::undrop(teams, {chosen.data(), 2, 2}, {found.data(), 2, 2});
    EXPECT_EQ(found, wanted);
  }
}

TEST(Capacity, RefusesShapesThatDoNotFit) {
  guild::Cpu device({.threads = 1});
  EXPECT_EQ(code_of([&] {
              drop(device, DropOrder::position, 3, 1, std::vector<float>(4), {0, 1, 2, 2}, 2);
            }),
            ErrorCode::count_);
  EXPECT_EQ(code_of([&] {
              drop(device, DropOrder::position, 3, 0, std::vector<float>(4), {0, 1, 2, 2}, 2);
            }),
            ErrorCode::op_argument);
  EXPECT_EQ(code_of([&] {
              drop(device, DropOrder::position, 3, 1, std::vector<float>(4), {0, 1, 3, 2}, 2);
            }),
            ErrorCode::op_argument);
  Choices three(3), four(4);
  EXPECT_EQ(code_of([&] { guild::undrop(device, {three.data(), 1, 3}, {four.data(), 2, 2}); }), ErrorCode::op_shape);
}

}  // namespace capacity_test
