#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <string>
#include <vector>

#include <guild/cpu.hpp>
#include <guild/device/host_team.hpp>
#include <guild/ops/common/fault.hpp>
#include <guild/ops/experts/assignment.hpp>
#include <guild/ops/head/cross_entropy.hpp>
#include <guild/ops/head/embedding.hpp>
#include <guild/ops/route/route.hpp>

#include "../core/code_of.hpp"

namespace fault_test {

using guild::ErrorCode;
using guild::Index;
using guild::View;
using guild_test::code_of;

/// Teams of host threads that flag faults, as a GPU does.
class FlaggingTeams : public guild::HostTeams {
 public:
  using HostTeams::HostTeams;
  guild::DeviceView<std::uint32_t> faults() { return {words_.data(), static_cast<Index>(words_.size())}; }

 private:
  std::array<std::uint32_t, 16> words_{};
};
template <class T>
void copy_to_host(FlaggingTeams&, View<const std::type_identity_t<T>> from, View<T> to) {
  std::copy(from.begin(), from.end(), to.begin());
}
template <class T>
void copy_to_device(FlaggingTeams&, View<const std::type_identity_t<T>> from, guild::DeviceView<T> to) {
  std::copy(from.begin(), from.end(), to.data);
}

class Faults : public ::testing::Test {
 protected:
  /// The step's only error comes at its end, and once.
  ErrorCode of_step(auto&& queue) {
    EXPECT_EQ(code_of(queue), ErrorCode::count_) << "an operation waited";
    const ErrorCode code = code_of([&] { guild::raise_faults(teams_); });
    EXPECT_EQ(code_of([&] { guild::raise_faults(teams_); }), ErrorCode::count_) << "a fault is reported twice";
    return code;
  }
  ErrorCode of_route(std::vector<float> logits, guild::Choice choice = guild::Choice::made, std::int32_t given = 0) {
    const guild::TopKConfig config{.experts = 4, .top_k = 2};
    std::vector<std::int32_t> experts(6, given);
    std::vector<float> weights(6);
    return of_step([&] {
      guild::route(teams_, config, View<const float, 2>{logits.data(), 3, 4, 4}, {},
                   View<std::int32_t, 2>{experts.data(), 3, 2, 2}, View<float, 2>{weights.data(), 3, 2, 2}, choice);
    });
  }
  ErrorCode of_embed(std::vector<std::int32_t> ids) {
    std::vector<float> table(5 * 3, 1.0f), y(ids.size() * 3);
    const auto tokens = static_cast<Index>(ids.size());
    guild::WeightView weight;
    weight.data = table.data();
    weight.rows = 5;
    weight.cols = 3;
    weight.format = guild::DType::f32;
    return of_step([&] {
      guild::embed(teams_, weight, View<const std::int32_t>(ids.data(), tokens),
                   View<float, 2>{y.data(), tokens, 3, 3});
    });
  }
  ErrorCode of_loss(std::vector<std::int32_t> targets) {
    std::vector<float> logits(targets.size() * 5, 1.0f);
    std::vector<double> loss(targets.size()), square(targets.size());
    std::vector<std::int32_t> correct(targets.size());
    const auto tokens = static_cast<Index>(targets.size());
    return of_step([&] {
      guild::cross_entropy(teams_, View<float, 2>{logits.data(), tokens, 5, 5},
                           View<const std::int32_t>(targets.data(), tokens), {}, guild::LossWork::gradient,
                           {{loss.data(), tokens}, {square.data(), tokens}, {correct.data(), tokens}});
    });
  }

  FlaggingTeams teams_{3};
};

TEST_F(Faults, AreReportedOnceAtTheEndOfAStep) {
  std::vector<float> logits(12, 0.5f);
  EXPECT_EQ(of_route(logits), ErrorCode::count_);
  logits[9] = std::nanf("");
  EXPECT_EQ(of_route(logits), ErrorCode::op_nonfinite);
}

TEST_F(Faults, CoverGivenExperts) {
  const std::vector<float> logits(12, 0.5f);
  EXPECT_EQ(of_route(logits, guild::Choice::given, 3), ErrorCode::count_);
  EXPECT_EQ(of_route(logits, guild::Choice::given, 4), ErrorCode::op_argument);
}

TEST_F(Faults, CoverIdsAndTargets) {
  EXPECT_EQ(of_embed({0, 4, 2}), ErrorCode::count_);
  EXPECT_EQ(of_embed({0, 5, 2}), ErrorCode::in_token);
  EXPECT_EQ(of_embed({0, 4, -1}), ErrorCode::in_token);
  EXPECT_EQ(of_loss({0, 4, -1}), ErrorCode::count_);
  EXPECT_EQ(of_loss({0, 4, -2}), ErrorCode::in_token);
  EXPECT_EQ(of_loss({5, 4, -1}), ErrorCode::in_token);
}

TEST_F(Faults, OfARouterLeaveAllSlotsInsideOfTheirMemory) {
  std::vector<std::int32_t> chosen{2, -1, 0, 3, 1, 2}, offsets(4, 99), token(6, 99), slots(6, 99);
  const guild::Assignment assignment{{offsets.data(), 4}, {token.data(), 6}, {slots.data(), 3, 2, 2}};
  EXPECT_EQ(of_step([&] {
              guild::assign_experts(teams_, View<const std::int32_t, 2>{chosen.data(), 3, 2, 2}, assignment);
            }),
            ErrorCode::op_argument);
  EXPECT_EQ(offsets, (std::vector<std::int32_t>{0, 1, 2, 4}));
  EXPECT_EQ(token, (std::vector<std::int32_t>{1, 2, 0, 2, 0, 0}));
  EXPECT_EQ(slots, (std::vector<std::int32_t>{2, -1, 0, -1, 1, 3}));
}

TEST_F(Faults, OfAChoiceWithoutASlotIsADroppedToken) {
  std::vector<std::int32_t> chosen{1, 0, 1, 1}, offsets(3, 99), token(3, 99), slots(4, 99);
  guild::assign_experts(teams_, View<const std::int32_t, 2>{chosen.data(), 4, 1, 1},
                        {{offsets.data(), 3}, {token.data(), 3}, {slots.data(), 4, 1, 1}});
  EXPECT_EQ(offsets, (std::vector<std::int32_t>{0, 1, 3}));
  EXPECT_EQ(slots, (std::vector<std::int32_t>{1, 0, 2, -1}));
}

TEST_F(Faults, NameTheToken) {
  try {
    const std::vector<std::int32_t> ids{0, 0, 7};
    guild::detail::flag_outside(teams_, guild::Fault::unknown_id, View<const std::int32_t>(ids.data(), 3), 0, 5);
    guild::raise_faults(teams_);
    FAIL();
  } catch (const guild::Error& error) {
    EXPECT_NE(std::string(error.what()).find("token 2 of a batch"), std::string::npos) << error.what();
  }
}

TEST_F(Faults, AreThrownAtOnceWhereTheHostReadsTheMemory) {
  guild::HostTeams teams(2);
  static_assert(!guild::FlagsFaults<guild::HostTeams> && guild::FlagsFaults<FlaggingTeams>);
  const std::vector<std::int32_t> ids{9};
  EXPECT_EQ(code_of([&] { guild::detail::refuse_unknown_ids(teams, View<const std::int32_t>(ids.data(), 1), 5); }),
            ErrorCode::in_token);
  guild::raise_faults(teams);
}

}  // namespace fault_test
