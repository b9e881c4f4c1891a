#include <gtest/gtest.h>

#include <guild/device/cpu.hpp>
#include <guild/ops/rope/rope.hpp>

#include "../gradient_check.hpp"

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

// From ROPE_INIT_FUNCTIONS["llama3"] of transformers.modeling_rope_utils 5.23 for LlamaConfigs of that head_dim.
TEST(RopeTable, HasTheFrequenciesOfTransformersForLlama3) {
  const auto llama3 = [](double base, double factor, double low, double high, int context) {
    return guild::RopeConfig{.base = base,
                             .factor = factor,
                             .original_context = context,
                             .scaling = guild::RopeScaling::llama3,
                             .low_frequency_factor = low,
                             .high_frequency_factor = high};
  };
  expect_frequencies(llama3(500000, 32, 1, 4, 8192), {1.0,
                                                      0.663601279,
                                                      0.440366626,
                                                      0.292227834,
                                                      0.193922758,
                                                      0.128687382,
                                                      0.0853971019,
                                                      0.0566696189,
                                                      0.0376060307,
                                                      0.0249554086,
                                                      0.0165604409,
                                                      0.0109895291,
                                                      0.00729266508,
                                                      0.00483942125,
                                                      0.00321144611,
                                                      0.00129054801,
                                                      0.000429556705,
                                                      9.70828623e-05,
                                                      1.94616387e-05,
                                                      1.29147675e-05,
                                                      8.57025589e-06,
                                                      5.68723226e-06,
                                                      3.77405445e-06,
                                                      2.50446715e-06,
                                                      1.66196742e-06,
                                                      1.10288363e-06,
                                                      7.31874934e-07,
                                                      4.85673127e-07,
                                                      3.22293289e-07,
                                                      2.1387423e-07,
                                                      1.41927202e-07,
                                                      9.41830649e-08});
  expect_frequencies(llama3(10000, 4, 1, 4, 64), {1.0, 0.254647911, 0.0254647899, 0.00790569466, 0.00249999994,
                                                  0.000790569466, 0.000250000012, 7.90569466e-05});
  expect_frequencies(llama3(10000, 2.5, 1.5, 6, 100),
                     {1.0, 0.141586244, 0.0185663532, 0.00399999972, 0.000861773733, 0.000185663579});
  expect_frequencies(llama3(10000, 1, 1, 4, 64), {1.0, 0.316227764, 0.100000001, 0.0316227786, 0.00999999978,
                                                  0.00316227786, 0.00100000005, 0.000316227786});
}

TEST(RopeTable, DividesEveryFrequencyAndNothingElseInLinearInterpolation) {
  const guild::RopeConfig config{.base = 100, .factor = 8, .mscale = 0, .scaling = guild::RopeScaling::linear};
  const guild::RopeTable table(config, 10), plain({.base = 100}, 10);
  for (Index i = 0; i < 5; ++i)
    EXPECT_NEAR(table.inverse_frequency(i), plain.inverse_frequency(i) / 8, 1e-15) << "pair " << i;
  EXPECT_EQ(table.magnitude(), 1.0);
}

TEST(RopeTable, WithoutPositionNothingTurns) {
  const guild::RopeTable table({.pairs = guild::RopePairs::none}, 10);
  EXPECT_EQ(table.pairs(), 0);
  guild::Cpu device({.threads = 1});
  const std::vector<std::int32_t> positions = {7, 9};
  Matrix<float> x(2, 10);
  for (Index i = 0; i < 10; ++i) x(0, i) = x(1, i) = static_cast<float>(i);
  const auto before = x;
  guild::rope(device, table, view_of(positions), x.view(), {.heads = 1, .head_stride = 10});
  guild::rope_backward(device, table, view_of(positions), x.view(), {.heads = 1, .head_stride = 10});
  EXPECT_EQ(x.data, before.data);
}

TEST(RopeTable, ScalesNeitherCosinesNorTheSoftmaxForLlama3) {
  const guild::RopeConfig config{.factor = 8, .mscale_all_dim = 1, .scaling = guild::RopeScaling::llama3};
  EXPECT_EQ(guild::rope_magnitude(config), 1.0);
  EXPECT_EQ(guild::RopeTable(config, 8).magnitude(), 1.0);
  EXPECT_NEAR(guild::softmax_scale({.nope_dim = 128, .rope_dim = 64, .rope = config}), 0.07216878364870322, 1e-8);
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
void expect_turned(guild::RopePairs pairs, Index heads, Index nope, int rope_dim, double tolerance) {
  guild::RopeConfig config = r1;
  config.pairs = pairs;
  const guild::RopeTable table(config, rope_dim);
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
        const bool halves = pairs == guild::RopePairs::halves;
        const Index half = rope_dim / 2, i = halves ? (c - nope) % half : (c - nope) / 2;
        const Index one = nope + (halves ? i : 2 * i), other = one + (halves ? half : 1);
        const long double angle =
            static_cast<long double>(positions[std::size_t(t)]) * static_cast<long double>(table.inverse_frequency(i));
        const auto real = static_cast<long double>(before(t, h * stride + one));
        const auto imaginary = static_cast<long double>(before(t, h * stride + other));
        const long double expected = c == one ? real * std::cos(angle) - imaginary * std::sin(angle)
                                              : real * std::sin(angle) + imaginary * std::cos(angle);
        ASSERT_NEAR(static_cast<double>(x(t, column)), static_cast<double>(expected), tolerance)
            << "position " << positions[std::size_t(t)] << " head " << h << " column " << c;
      }
}

TEST(Rope, TurnsInterleavedPairsOfEveryHeadAndNothingElse) {
  const auto pairs = guild::RopePairs::interleaved;
  expect_turned<float>(pairs, 1, 0, 64, 1e-6);
  expect_turned<float>(pairs, 5, 128, 64, 1e-6);
  expect_turned<float>(pairs, 3, 33, 16, 1e-6);
  expect_turned<double>(pairs, 3, 32, 16, 1e-9);  // position 163840 costs 163840 * 2^-53 radians
}

TEST(Rope, TurnsHalvesOfEveryHeadAndNothingElse) {
  const auto pairs = guild::RopePairs::halves;
  expect_turned<float>(pairs, 5, 0, 128, 1e-6);
  expect_turned<float>(pairs, 2, 128, 64, 1e-6);
  for (const int dim : {2, 6, 16, 18, 70}) {
    expect_turned<float>(pairs, 3, 5, dim, 1e-6);
    expect_turned<double>(pairs, 3, 5, dim, 1e-9);
  }
}

// From LlamaRotaryEmbedding and apply_rotary_pos_emb of transformers 5.23, x[t, c] = ((12 t + c) mod 7 - 3) / 2. Its
// angles are products of floats: at position 100 they are off by up to 100 * 2^-24 radians.
TEST(Rope, TurnsHalvesAsTransformersDoesForLlama3) {
  const double expected[4][12] = {{-1.5, -1, -0.5, 0, 0.5, 1, 1.5, -1.5, -1, -0.5, 0, 0.5},
                                  {0.11956686, 1.3716122, -1.5173045, -0.99624693, -0.49946132, 5.8019868e-05,
                                   1.1116221, 1.1699059, 1.4824935, -1.5024953, -1.0002692, -0.5},
                                  {-0.47946215, 0.41519603, 0.96932364, 1.4873831, -1.504034, -0.99912953, -0.1418311,
                                   0.27858976, 0.55714595, 1.0186714, 1.495955, -1.50058},
                                  {-1.6218674, -1.0461733, 0.45848081, 0.48445621, 0.97163248, 1.4882952, -0.78711259,
                                   -0.39436203, -0.19948775, 0.12370198, 0.55310977, 1.0173383}};
  const guild::RopeConfig config{
      .factor = 4, .original_context = 64, .pairs = guild::RopePairs::halves, .scaling = guild::RopeScaling::llama3};
  guild::Cpu device({.threads = 1});
  const std::vector<std::int32_t> positions = {0, 1, 5, 100};
  Matrix<double> x(4, 12);
  for (Index i = 0; i < 48; ++i) x(i / 12, i % 12) = static_cast<double>(i % 7 - 3) * 0.5;
  guild::rope(device, guild::RopeTable(config, 12), view_of(positions), x.view(), {.heads = 1, .head_stride = 12});
  for (Index t = 0; t < 4; ++t)
    for (Index c = 0; c < 12; ++c) EXPECT_NEAR(x(t, c), expected[t][c], 1e-5) << t << ", " << c;
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

void expect_transpose(guild::RopePairs pairs) {
  guild::Cpu device({.threads = 2});
  const guild::RopeTable table(
      {.base = 100, .factor = 4, .mscale = 1, .mscale_all_dim = 0, .original_context = 64, .pairs = pairs}, 6);
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

TEST(Rope, BackwardIsTheTransposeOfForward) {
  expect_transpose(guild::RopePairs::interleaved);
  expect_transpose(guild::RopePairs::halves);
}

}  // namespace rope_test
