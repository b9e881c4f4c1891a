#include <gtest/gtest.h>

#include <algorithm>
#include <guild/device/cpu.hpp>
#include <guild/ops/route/route.hpp>
#include <limits>
#include <numeric>

#include "../ops_test_support.hpp"

namespace router_test {
using namespace guild_test;
using guild::Scoring;
using guild::Selection;

struct Routes {
  Matrix<std::int32_t> indices;
  Matrix<float> weights;
};

Routes run(const guild::TopKConfig& config, const Matrix<float>& logits, const std::vector<float>& bias,
           int threads = 2) {
  guild::Cpu device({.threads = threads});
  Routes out{Matrix<std::int32_t>(logits.rows, config.top_k, config.top_k + 1),
             Matrix<float>(logits.rows, config.top_k, config.top_k + 2)};
  guild::route(device, config, logits.view(), view_of(bias), out.indices.view(), out.weights.view());
  EXPECT_TRUE(out.indices.padding_is_untouched());
  EXPECT_TRUE(out.weights.padding_is_untouched());
  return out;
}

/// The contract of `route` in another way: full sorts of (value, index), in double.
void expect_contract(const guild::TopKConfig& config, const Matrix<float>& logits, const std::vector<float>& bias) {
  const Routes got = run(config, logits, bias);
  const auto experts = static_cast<std::size_t>(config.experts);
  const std::size_t size = experts / static_cast<std::size_t>(config.groups);
  for (Index t = 0; t < logits.rows; ++t) {
    std::vector<double> score(experts), choice(experts);
    double total = 0;
    for (std::size_t e = 0; e < experts; ++e) total += std::exp(double(logits(t, Index(e))));
    for (std::size_t e = 0; e < experts; ++e) {
      const double x = logits(t, Index(e));
      // In double: the logits and biases of the tests leave no two choices within float error.
      score[e] = config.scoring == Scoring::softmax   ? std::exp(x) / total
                 : config.scoring == Scoring::sigmoid ? 1.0 / (1.0 + std::exp(-x))
                                                      : std::sqrt(std::log(1.0 + std::exp(x)));
      choice[e] = score[e] + (bias.empty() ? 0.0 : double(bias[e]));
    }
    std::vector<std::size_t> kept(experts);
    std::iota(kept.begin(), kept.end(), std::size_t{0});
    if (config.selection != Selection::greedy) {
      std::vector<std::pair<double, int>> groups;
      for (int g = 0; g < config.groups; ++g) {
        std::vector<double> members(choice.begin() + std::ptrdiff_t(size) * g,
                                    choice.begin() + std::ptrdiff_t(size) * (g + 1));
        std::sort(members.rbegin(), members.rend());
        const double rank =
            config.selection == Selection::noaux_tc ? members[0] + (size > 1 ? members[1] : 0.0) : members[0];
        groups.emplace_back(-rank, g);
      }
      std::sort(groups.begin(), groups.end());
      groups.resize(static_cast<std::size_t>(config.top_groups));
      std::erase_if(kept, [&](std::size_t e) {
        return std::none_of(groups.begin(), groups.end(), [&](auto& g) { return g.second == int(e / size); });
      });
    }
    std::sort(kept.begin(), kept.end(),
              [&](std::size_t a, std::size_t b) { return std::pair(-choice[a], a) < std::pair(-choice[b], b); });
    double sum = 1e-20;
    for (int k = 0; k < config.top_k; ++k) sum += score[kept[std::size_t(k)]];
    for (int k = 0; k < config.top_k; ++k) {
      ASSERT_EQ(got.indices(t, k), std::int32_t(kept[std::size_t(k)])) << "token " << t << " choice " << k;
      const double weight = score[kept[std::size_t(k)]] / (config.normalize ? sum : 1.0) * config.scale;
      ASSERT_NEAR(got.weights(t, k), weight, 3e-6 * weight + 1e-12) << "token " << t << " choice " << k;
    }
  }
}

/// Logits on a grid coarse enough that no two different choices are closer than float error.
Matrix<float> logits_of(Index tokens, Index experts, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_int_distribution<int> step(-40, 40);
  Matrix<float> logits(tokens, experts, experts + 3);
  for (Index t = 0; t < tokens; ++t)
    for (Index e = 0; e < experts; ++e) logits(t, e) = float(step(random)) / 16.0f;
  return logits;
}
std::vector<float> bias_of(Index experts, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> step(-2.0f, 0.3f);  // mostly negative: a mask of 0 instead of -infinity shows
  std::vector<float> bias(static_cast<std::size_t>(experts));
  for (auto& b : bias) b = step(random);
  return bias;
}

TEST(Router, FollowsTheContractOfR1) {
  guild::TopKConfig config{.experts = 256, .top_k = 8, .groups = 8, .top_groups = 4, .scale = 2.5};
  expect_contract(config, logits_of(50, 256, 1), bias_of(256, 2));
  expect_contract(config, logits_of(50, 256, 3), {});
}

TEST(Router, FollowsTheContractForManyShapes) {
  unsigned seed = 10;
  for (Scoring scoring : {Scoring::sigmoid, Scoring::softmax, Scoring::sqrt_softplus})
    for (Selection selection : {Selection::greedy, Selection::group_limited_greedy, Selection::noaux_tc})
      for (bool normalize : {false, true})
        for (auto [experts, top_k, groups, top_groups] :
             {std::array{4, 1, 1, 1}, std::array{6, 6, 1, 1}, std::array{16, 4, 4, 2}, std::array{24, 5, 3, 3},
              std::array{64, 6, 1, 1}, std::array{30, 4, 5, 1}, std::array{160, 6, 8, 3}}) {
          ++seed;
          guild::TopKConfig config{.experts = experts,
                                   .top_k = top_k,
                                   .groups = groups,
                                   .top_groups = top_groups,
                                   .scoring = scoring,
                                   .selection = selection,
                                   .normalize = normalize,
                                   .scale = 1.5};
          expect_contract(config, logits_of(9, experts, seed),
                          seed % 3 == 0 ? std::vector<float>{} : bias_of(experts, seed));
        }
}

// Logits in sixteenths, biases, and what DeepseekV3TopkRouter and DeepseekV2TopkRouter of transformers 5.23 make of
// them; the chosen experts are in ascending order, because theirs is not defined.
constexpr int published_logits[3][16] = {{39, -8, 5, 27, -37, 19, -9, -34, -20, -26, 7, 20, -9, 8, 29, -27},
                                         {33, -9, -39, -13, 12, -5, -17, 9, -20, -31, -23, 39, 39, 16, -24, -24},
                                         {-40, -40, -14, -13, -19, -19, -3, 0, -15, 29, 40, -14, -17, -15, 9, -2}};
const std::vector<float> published_bias = {-0.876f, -0.444f, 0.129f,  -0.61f,  -0.535f, -0.001f, -0.255f, -0.244f,
                                           -0.122f, -0.827f, -0.509f, -0.563f, -0.134f, -0.697f, -0.38f,  -0.706f};

void expect_published(const guild::TopKConfig& config, const std::vector<float>& bias,
                      const std::vector<std::vector<std::pair<int, double>>>& expected) {
  Matrix<float> logits(3, 16);
  for (Index t = 0; t < 3; ++t)
    for (Index e = 0; e < 16; ++e) logits(t, e) = float(published_logits[t][e]) / 16.0f;
  const Routes got = run(config, logits, bias);
  for (Index t = 0; t < 3; ++t) {
    std::vector<std::pair<int, double>> chosen;
    for (int k = 0; k < config.top_k; ++k) chosen.emplace_back(got.indices(t, k), got.weights(t, k));
    std::sort(chosen.begin(), chosen.end());
    for (std::size_t k = 0; k < chosen.size(); ++k) {
      EXPECT_EQ(chosen[k].first, expected[std::size_t(t)][k].first) << "token " << t;
      EXPECT_NEAR(chosen[k].second, expected[std::size_t(t)][k].second, 2e-6) << "token " << t;
    }
  }
}

TEST(Router, ChoosesAndWeighsAsTransformersDoesForV3) {
  expect_published({.experts = 16, .top_k = 4, .groups = 4, .top_groups = 2, .scale = 2.5}, published_bias,
                   {{{2, 0.566026926}, {3, 0.827136278}, {5, 0.751075864}, {6, 0.355761021}},
                    {{4, 0.638720453}, {5, 0.397336304}, {7, 0.599083245}, {12, 0.864860058}},
                    {{5, 0.276757658}, {6, 0.536757648}, {7, 0.592105508}, {10, 1.09437895}}});
}

TEST(Router, ChoosesAndWeighsAsTransformersDoesForV2) {
  expect_published({.experts = 16,
                    .top_k = 3,
                    .groups = 4,
                    .top_groups = 2,
                    .scoring = Scoring::softmax,
                    .selection = Selection::group_limited_greedy,
                    .normalize = false,
                    .scale = 16.0},
                   {},
                   {{{0, 4.95661259}, {3, 2.34133792}, {14, 2.65308356}},
                    {{11, 4.50597715}, {12, 4.50597715}, {13, 1.07026339}},
                    {{9, 3.77619076}, {10, 7.50985193}, {14, 1.08189678}}});
  expect_published(
      {.experts = 16, .top_k = 3, .scoring = Scoring::softmax, .selection = Selection::greedy, .normalize = false}, {},
      {{{0, 0.309788287}, {3, 0.14633362}, {14, 0.165817723}},
       {{0, 0.19355686}, {11, 0.281623572}, {12, 0.281623572}},
       {{9, 0.236011922}, {10, 0.469365746}, {14, 0.0676185489}}});
}

TEST(Router, BreaksTiesOfExpertsAndGroupsByTheLowerIndex) {
  guild::TopKConfig config{.experts = 12, .top_k = 4, .groups = 4, .top_groups = 2};
  Matrix<float> logits(1, 12);
  for (Index e = 0; e < 12; ++e) logits(0, e) = 0.5f;
  auto got = run(config, logits, {});
  for (int k = 0; k < 4; ++k) EXPECT_EQ(got.indices(0, k), k);
  for (Index e = 0; e < 3; ++e) logits(0, e) = 0.25f;  // group 0 falls behind: groups 1 and 2 remain
  got = run(config, logits, {});
  for (int k = 0; k < 4; ++k) EXPECT_EQ(got.indices(0, k), 3 + k);
}

TEST(Router, TheBiasChoosesButDoesNotWeigh) {
  guild::TopKConfig config{.experts = 3, .top_k = 1, .normalize = false};
  Matrix<float> logits(1, 3);
  logits(0, 0) = 2, logits(0, 1) = 0, logits(0, 2) = 1;
  const auto got = run(config, logits, {0.0f, 5.0f, 0.0f});
  EXPECT_EQ(got.indices(0, 0), 1);
  EXPECT_FLOAT_EQ(got.weights(0, 0), 0.5f);
}

TEST(Router, SurvivesLogitsOfAnyFiniteSize) {
  guild::TopKConfig config{.experts = 4, .top_k = 2};
  Matrix<float> logits(1, 4);
  logits(0, 0) = -3e38f, logits(0, 1) = 3e38f, logits(0, 2) = -200.0f, logits(0, 3) = 200.0f;
  for (Scoring scoring : {Scoring::sigmoid, Scoring::softmax, Scoring::sqrt_softplus}) {
    config.scoring = scoring;
    const auto got = run(config, logits, {});
    EXPECT_EQ(got.indices(0, 0), 1);
    EXPECT_NEAR(got.weights(0, 0) + got.weights(0, 1), 1.0f, 1e-6f);
  }
  for (Index e = 0; e < 4; ++e) logits(0, e) = -3e38f;  // all scores are 0: 0 / 1e-20, not NaN
  config.scoring = Scoring::sigmoid;
  EXPECT_EQ(run(config, logits, {}).weights(0, 1), 0.0f);
}

TEST(Router, RefusesLogitsThatAreNotFinite) {
  guild::TopKConfig config{.experts = 40, .top_k = 2};
  for (float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                    -std::numeric_limits<float>::infinity()})
    for (Index where : {0, 17, 39}) {
      Matrix<float> logits = logits_of(5, 40, 7);
      logits(3, where) = bad;
      try {
        (void)run(config, logits, {});
        FAIL() << bad;
      } catch (const guild::Error& error) {
        EXPECT_EQ(error.code(), guild::ErrorCode::op_nonfinite);
        EXPECT_NE(error.message().find("token 3"), std::string::npos) << error.what();
      }
    }
}

TEST(Router, RefusesConfigsAndShapesThatDoNotFit) {
  const auto code = [](guild::TopKConfig config, Index cols, Index bias_size) {
    return code_of([&] { (void)run(config, logits_of(2, cols, 1), std::vector<float>(std::size_t(bias_size))); });
  };
  using guild::ErrorCode;
  EXPECT_EQ(code({.experts = 8, .top_k = 2}, 8, 8), ErrorCode::count_);
  EXPECT_EQ(code({.experts = 8, .top_k = 2}, 7, 8), ErrorCode::op_shape);
  EXPECT_EQ(code({.experts = 8, .top_k = 2}, 8, 7), ErrorCode::op_shape);
  EXPECT_EQ(code({.experts = 8, .top_k = 9}, 8, 8), ErrorCode::op_argument);
  EXPECT_EQ(code({.experts = 8, .top_k = 2, .groups = 3}, 8, 8), ErrorCode::op_argument);
  EXPECT_EQ(code({.experts = 8, .top_k = 5, .groups = 2, .top_groups = 1}, 8, 8), ErrorCode::op_argument);
  EXPECT_EQ(code({.experts = 8, .top_k = 2, .groups = 8, .top_groups = 4}, 8, 8), ErrorCode::op_argument);
}

TEST(Router, GivesTheSameBitsForAnyThreadCount) {
  guild::TopKConfig config{.experts = 64, .top_k = 6, .groups = 8, .top_groups = 4};
  const auto logits = logits_of(300, 64, 4);
  const auto bias = bias_of(64, 5);
  const auto one = run(config, logits, bias, 1), four = run(config, logits, bias, 4);
  EXPECT_EQ(one.indices.data, four.indices.data);
  EXPECT_EQ(one.weights.data, four.weights.data);
}

}  // namespace router_test
