#include <gtest/gtest.h>

#include <guild/device/cpu.hpp>
#include <guild/ops/rope.hpp>

#include "gradient_check.hpp"

namespace rope_test {
using namespace guild_test;

const guild::RopeConfig r1{.base = 10000,
                           .factor = 40,
                           .beta_fast = 32,
                           .beta_slow = 1,
                           .mscale = 1,
                           .mscale_all_dim = 1,
                           .original_context = 4096};

void expect_frequencies(const guild::RopeConfig& config, const std::vector<double>& expected) {
  const guild::RopeTable table(config, 2 * static_cast<int>(expected.size()));
  for (std::size_t i = 0; i < expected.size(); ++i)
    EXPECT_NEAR(table.inverse_frequency(static_cast<Index>(i)) / expected[i], 1.0, 4e-7) << i;
}

// The numbers in the next tests come from DeepseekV3RotaryEmbedding and yarn_apply_mscale of transformers 5.23.
TEST(RopeTable, HasTheFrequenciesOfTransformersForR1) {
  expect_frequencies(r1, {1.0,
                          0.749894202,
                          0.562341332,
                          0.421696514,
                          0.316227764,
                          0.237137362,
                          0.177827939,
                          0.133352146,
                          0.100000001,
                          0.0749894157,
                          0.0562341288,
                          0.0390069261,
                          0.0268793609,
                          0.0183781441,
                          0.012447956,
                          0.0083345091,
                          0.00550000044,
                          0.00356199732,
                          0.00224936521,
                          0.00137051346,
                          0.000790569407,
                          0.000414990413,
                          0.00017782794,
                          3.3338034e-05,
                          2.49999994e-05,
                          1.87473543e-05,
                          1.40585325e-05,
                          1.05424124e-05,
                          7.90569447e-06,
                          5.92843435e-06,
                          4.44569832e-06,
                          3.33380353e-06});
}

TEST(RopeTable, HasTheFrequenciesOfTransformersForKimiK2WhoseRampIsOneStep) {
  expect_frequencies({.base = 50000,
                      .factor = 32,
                      .beta_fast = 1,
                      .beta_slow = 1,
                      .mscale = 1,
                      .mscale_all_dim = 1,
                      .original_context = 4096},
                     {1.0,
                      0.713111103,
                      0.508527458,
                      0.362636536,
                      0.258600146,
                      0.184410617,
                      0.131505266,
                      0.0937778577,
                      0.0668740347,
                      0.0476886146,
                      0.0340072773,
                      0.0242509674,
                      0.0172936339,
                      0.0123322811,
                      0.00879428629,
                      0.00627130363,
                      0.00447213603,
                      0.00318912975,
                      0.00227420381,
                      0.00162175996,
                      3.61404673e-05,
                      2.57721676e-05,
                      1.83784196e-05,
                      1.31058541e-05,
                      9.34593027e-06,
                      6.66468623e-06,
                      4.75266143e-06,
                      3.38917562e-06,
                      2.41685871e-06,
                      1.72348882e-06,
                      1.22903896e-06,
                      8.76441277e-07});
}

TEST(RopeTable, HasTheFrequenciesOfTransformersForASmallHead) {
  expect_frequencies(
      {.base = 10000, .factor = 4, .original_context = 64},
      {1.0, 0.237170815, 0.049999997, 0.00790569466, 0.00249999994, 0.000790569466, 0.000250000012, 7.90569466e-05});
}

TEST(RopeTable, WithoutAFactorIsThePlainEmbedding) {
  expect_frequencies(
      {.base = 10000, .factor = 1, .original_context = 64},
      {1.0, 0.316227764, 0.100000001, 0.0316227786, 0.00999999978, 0.00316227786, 0.00100000005, 0.000316227786});
}

TEST(RopeTable, ScalesCosinesAndTheSoftmaxAsTransformersDoes) {
  struct Case {
    double factor, mscale, mscale_all_dim, magnitude, softmax;
  };
  for (const Case& c :
       {Case{40, 1, 1, 1.0, 0.1352337788608801},                 // R1
        Case{40, 0.707, 0.707, 1.0, 0.1147213867929261},         // V2-Lite
        Case{8, 2, 0, 1.2079441541679836, 0.07216878364870322},  // no mscale_all_dim: m(s, 1)
        Case{8, 0, 2, 1.2079441541679836, 0.14467962580268923},  // no mscale: m(s, 1), softmax corrected
        Case{8, 0, 0, 1.2079441541679836, 0.07216878364870322}, Case{1, 1, 2, 1.0, 0.07216878364870322}}) {
    guild::RopeConfig config{.factor = c.factor, .mscale = c.mscale, .mscale_all_dim = c.mscale_all_dim};
    EXPECT_NEAR(guild::rope_magnitude(config), c.magnitude, 1e-12);
    EXPECT_NEAR(guild::softmax_scale({.nope_dim = 128, .rope_dim = 64, .rope = config}), c.softmax, 1e-8);
  }
  const guild::RopeConfig ratio{.factor = 4, .mscale = 1, .mscale_all_dim = 0.5};
  EXPECT_NEAR(guild::rope_magnitude(ratio), 1.0648216253695715, 1e-12);
  EXPECT_NEAR(guild::softmax_scale({.nope_dim = 128, .rope_dim = 16, .rope = ratio}), 0.09528616385426425, 1e-8);
}

TEST(Rope, AnglesAreExactAtEveryPosition) {
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> turn(-3e8, 3e8);
  for (int i = 0; i < 20000; ++i) {
    const double turns = i < 400 ? (i - 200) / 16.0 : turn(random);
    double c, s;
    guild::detail::cos_sin_of_turns(turns, c, s);
    const long double rest = (turns - std::nearbyint(turns)) * 6.283185307179586476925286766559L;
    ASSERT_NEAR(c, static_cast<double>(std::cos(rest)), 2e-14) << turns;
    ASSERT_NEAR(s, static_cast<double>(std::sin(rest)), 2e-14) << turns;
  }
}

template <class Real>
void expect_turned(Index heads, Index nope, int rope_dim, double tolerance) {
  const guild::RopeTable table(r1, rope_dim);
  guild::Cpu device({.threads = 2});
  std::mt19937 random(5);
  const std::vector<std::int32_t> positions = {0, 1, 5, 4095, 4096, 163839, 163840};
  const Index tokens = static_cast<Index>(positions.size()), stride = nope + rope_dim;
  Matrix<Real> x(tokens, heads * stride, heads * stride + 4);
  x.fill_normal(random);
  const Matrix<Real> before = x;
  guild::rope(device, table, view_of(positions), x.view(), {.heads = heads, .head_stride = stride, .offset = nope});
  EXPECT_TRUE(x.padding_is_untouched());
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < heads; ++h)
      for (Index c = 0; c < stride; ++c) {
        const Index column = h * stride + c;
        if (c < nope) {
          ASSERT_EQ(x(t, column), before(t, column));
          continue;
        }
        const Index i = (c - nope) / 2;
        const long double angle =
            static_cast<long double>(positions[std::size_t(t)]) * static_cast<long double>(table.inverse_frequency(i));
        const auto real = static_cast<long double>(before(t, h * stride + nope + 2 * i));
        const auto imaginary = static_cast<long double>(before(t, h * stride + nope + 2 * i + 1));
        const long double expected = (c - nope) % 2 == 0 ? real * std::cos(angle) - imaginary * std::sin(angle)
                                                         : real * std::sin(angle) + imaginary * std::cos(angle);
        ASSERT_NEAR(static_cast<double>(x(t, column)), static_cast<double>(expected), tolerance)
            << "position " << positions[std::size_t(t)] << " head " << h << " column " << c;
      }
}

TEST(Rope, TurnsInterleavedPairsOfEveryHeadAndNothingElse) {
  expect_turned<float>(1, 0, 64, 1e-6);
  expect_turned<float>(5, 128, 64, 1e-6);
  expect_turned<float>(3, 33, 16, 1e-6);
  expect_turned<double>(3, 32, 16, 1e-9);  // position 163840 costs 163840 * 2^-53 radians
}

TEST(Rope, MultipliesByTheMagnitude) {
  const guild::RopeTable table({.factor = 8, .mscale = 0, .mscale_all_dim = 0}, 2);
  guild::Cpu device({.threads = 1});
  const std::vector<std::int32_t> positions = {0};
  Matrix<double> x(1, 2);
  x(0, 0) = 3;
  x(0, 1) = -4;
  guild::rope(device, table, view_of(positions), x.view(), {.heads = 1, .head_stride = 2, .offset = 0});
  EXPECT_NEAR(x(0, 0), 3 * 1.2079441541679836, 1e-12);
  EXPECT_NEAR(x(0, 1), -4 * 1.2079441541679836, 1e-12);
}

TEST(Rope, RefusesHeadsThatLeaveTheRowOrOverlap) {
  const guild::RopeTable table(r1, 8);
  guild::Cpu device({.threads = 1});
  const std::vector<std::int32_t> positions = {0, 1}, three = {0, 1, 2};
  Matrix<float> x(2, 24);
  const auto code = [&](const std::vector<std::int32_t>& p, guild::RopeHeads at) {
    return code_of([&] { guild::rope(device, table, view_of(p), x.view(), at); });
  };
  EXPECT_EQ(code(positions, {.heads = 2, .head_stride = 12, .offset = 4}), guild::ErrorCode::count_);
  EXPECT_EQ(code(positions, {.heads = 2, .head_stride = 12, .offset = 5}), guild::ErrorCode::op_shape);
  EXPECT_EQ(code(positions, {.heads = 3, .head_stride = 12, .offset = 0}), guild::ErrorCode::op_shape);
  EXPECT_EQ(code(positions, {.heads = 2, .head_stride = 7, .offset = 0}), guild::ErrorCode::op_shape);
  EXPECT_EQ(code(positions, {.heads = 1, .head_stride = 8, .offset = -1}), guild::ErrorCode::op_shape);
  EXPECT_EQ(code(three, {.heads = 1, .head_stride = 8, .offset = 0}), guild::ErrorCode::op_shape);
}

TEST(Rope, BackwardIsTheTransposeOfForward) {
  guild::Cpu device({.threads = 2});
  const guild::RopeTable table({.base = 100, .factor = 4, .mscale = 1, .mscale_all_dim = 0, .original_context = 64}, 6);
  ASSERT_NE(table.magnitude(), 1.0);
  const std::vector<std::int32_t> positions = {0, 5, 1000};
  const guild::RopeHeads at{.heads = 2, .head_stride = 9, .offset = 2};
  std::mt19937 random(1);
  Matrix<double> x(3, 18, 20), dy(3, 18);
  x.fill_normal(random);
  dy.fill_normal(random);
  auto dx = dy;
  guild::rope_backward(device, table, view_of(positions), dx.view(), at);
  expect_gradient(
      x, dx,
      [&] {
        auto y = x;
        guild::rope(device, table, view_of(positions), y.view(), at);
        return dot(y, dy);
      },
      "x");
  auto dx_f = cast<float>(dy);
  guild::rope_backward(device, table, view_of(positions), dx_f.view(), at);
  expect_near(dx_f, dx, 1e-6);
  EXPECT_EQ(code_of([&] {
              guild::rope_backward(device, table, view_of(positions), dx.view(), {.heads = 2, .head_stride = 18});
            }),
            guild::ErrorCode::op_shape);
}

}  // namespace rope_test
