// Schedules against their formulas and against what no schedule is. torch's are in adamw_test.cpp.
#include <guild/cpu.hpp>
#include <guild/training/schedule.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "optimizer_support.hpp"

namespace schedule_test {

using guild::Course;
using guild::ErrorCode;
using guild::Schedule;
using guild_test::code_of;

TEST(Schedule, ConstantIsOne) {
  for (const Schedule& schedule : {Schedule{}, Schedule::constant(), Schedule::piecewise({})})
    for (guild::Index step : {0, 1, 1000000}) EXPECT_EQ(schedule(step), 1.0);
}

TEST(Schedule, WarmUpWastesNoStepAndCosineEndsWhereItShould) {
  const auto schedule = Schedule::warmup_cosine(4, 14, 0.2);
  EXPECT_DOUBLE_EQ(schedule(0), 0.25);
  EXPECT_DOUBLE_EQ(schedule(3), 1.0);
  // torch's CosineAnnealingLR in closed form, T_max = 10, eta_min = 0.2
  for (guild::Index t = 0; t <= 10; ++t)
    EXPECT_NEAR(schedule(4 + t), 0.2 + 0.8 * (1.0 + std::cos(M_PI * static_cast<double>(t) / 10.0)) / 2.0, 1e-15);
  EXPECT_NEAR(schedule(9), 0.6, 1e-15);
  EXPECT_EQ(schedule(14), 0.2);
  EXPECT_EQ(schedule(1000), 0.2);
  EXPECT_EQ(schedule.steps(), 14);
}

TEST(Schedule, WarmUpStableDecay) {
  const auto schedule = Schedule::warmup_stable_decay(2, 3, 4, 0.1);
  const double expected[] = {0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.775, 0.55, 0.325, 0.1, 0.1};
  for (guild::Index step = 0; step < 11; ++step) EXPECT_NEAR(schedule(step), expected[step], 1e-15) << step;
}

TEST(Schedule, PiecesOfDeepSeekV3) {
  const auto schedule = Schedule::piecewise({{2000, Course::linear, 0.0, 1.0},
                                             {10000, Course::constant, 1.0, 1.0},
                                             {4300, Course::cosine, 1.0, 0.1},
                                             {333, Course::constant, 0.1, 0.1},
                                             {167, Course::constant, 0.0332, 0.0332}});
  EXPECT_DOUBLE_EQ(schedule(999), 0.5);
  EXPECT_EQ(schedule(1999), 1.0);
  EXPECT_EQ(schedule(11999), 1.0);
  EXPECT_EQ(schedule(12000), 1.0);
  EXPECT_NEAR(schedule(12000 + 2150), 0.55, 1e-12);
  EXPECT_EQ(schedule(16300), 0.1);
  EXPECT_EQ(schedule(16632), 0.1);
  EXPECT_EQ(schedule(16633), 0.0332);
  EXPECT_EQ(schedule(99999), 0.0332);
}

TEST(Schedule, PiecesWithoutStepsAreSkipped) {
  const auto schedule = Schedule::warmup_cosine(0, 10, 0.0);
  EXPECT_EQ(schedule(0), 1.0);
  EXPECT_EQ(schedule(10), 0.0);
  EXPECT_EQ(Schedule::warmup_stable_decay(0, 0, 0, 0.5)(0), 0.5);
}

TEST(Schedule, RefusesWhatIsNone) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(code_of([] { (void)Schedule::warmup_cosine(10, 5); }), ErrorCode::op_argument);
  EXPECT_EQ(code_of([] { (void)Schedule::warmup_cosine(-1, 5); }), ErrorCode::op_argument);
  EXPECT_EQ(code_of([] { (void)Schedule::warmup_cosine(1, 5, -0.5); }), ErrorCode::op_argument);
  EXPECT_EQ(code_of([&] { (void)Schedule::warmup_cosine(1, 5, nan); }), ErrorCode::op_argument);
  EXPECT_EQ(code_of([] { (void)Schedule::warmup_stable_decay(1, -5, 1); }), ErrorCode::op_argument);
  EXPECT_EQ(code_of([] { (void)Schedule::piecewise({{3, Course::constant, 1.0, 0.5}}); }), ErrorCode::op_argument);
  EXPECT_EQ(code_of([] { (void)Schedule::piecewise({{3, Course::linear, INFINITY, 0.5}}); }), ErrorCode::op_argument);
  EXPECT_EQ(code_of([] { (void)Schedule()(-1); }), ErrorCode::op_argument);
}

}  // namespace schedule_test
