#include <guild/cpu.hpp>
#include <guild/inference/sampling.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <guild/io/file.hpp>
#include <guild/io/json.hpp>

namespace sampling_test {

using guild::ErrorCode;
using guild::Index;
using guild::Sampler;
using guild::SamplingOptions;

constexpr float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();

guild::View<const float> view(const std::vector<float>& logits) {
  return {logits.data(), static_cast<Index>(logits.size())};
}
Sampler sampler(const SamplingOptions& options, std::size_t vocab) { return {options, std::vector<bool>(vocab, true)}; }
int greedy(const std::vector<float>& logits) { return sampler({}, logits.size()).sample(view(logits)); }

/// How often each token comes in `draws` draws.
std::vector<int> histogram(const SamplingOptions& options, const std::vector<float>& logits,
                           const std::vector<int>& seen, int draws) {
  Sampler s = sampler(options, logits.size());
  for (const int token : seen) s.observe(token);
  std::vector<int> count(logits.size());
  for (int i = 0; i < draws; ++i) ++count[static_cast<std::size_t>(s.sample(view(logits)))];
  return count;
}

/// Draws against probabilities: nothing that cannot come comes, and the frequencies fit (Pearson's chi-square).
void expect_distribution(const std::vector<int>& count, const std::vector<double>& probability,
                         const std::string& what) {
  int draws = 0;
  for (const int n : count) draws += n;
  double chi_square = 0.0, rest = 0.0, rest_seen = 0.0;
  int cells = 0;
  for (std::size_t i = 0; i < count.size(); ++i) {
    EXPECT_TRUE(probability[i] > 0.0 || count[i] == 0) << what << ": token " << i << " came " << count[i] << " times";
    const double wanted = draws * probability[i];
    if (wanted < 8.0) {  // rare ones together
      rest += wanted;
      rest_seen += count[i];
      continue;
    }
    chi_square += (count[i] - wanted) * (count[i] - wanted) / wanted;
    ++cells;
  }
  if (rest >= 8.0) chi_square += (rest_seen - rest) * (rest_seen - rest) / rest, ++cells;
  const double freedom = std::max(0, cells - 1);
  EXPECT_LT(chi_square, freedom + 4.0 * std::sqrt(2.0 * freedom) + 1e-3)
      << what;  // about 1 in 3000 by chance; the seed is fixed
}

TEST(Sampler, GreedyTakesTheLargestLogitAndTheLowerIdOnTies) {
  EXPECT_EQ(greedy({1, 5, 2}), 1);
  EXPECT_EQ(greedy({1, 5, 5, 5}), 1);
  EXPECT_EQ(greedy({0, 0, 0}), 0);
  EXPECT_EQ(greedy({-3, -2, -2}), 1);
  EXPECT_EQ(greedy({-infinity, -7, -infinity}), 1);
  EXPECT_EQ(greedy({-0.0f, 0.0f}), 0);
}

TEST(Sampler, FiltersAsTransformersDoes) {
  const std::string path = GUILD_SOURCE_DIR "/tests/fixtures/sampling.json";
  const auto file = guild::Json::parse(guild::read_text(path, 1 << 22), {.path = path});
  int cases = 0;
  file["cases"].for_each_element([&](const guild::Json& c) {
    const auto number = [&](const char* key) { return static_cast<float>(c[key].number()); };
    const SamplingOptions options{.temperature = number("temperature"),
                                  .top_k = static_cast<int>(c["top_k"].integer()),
                                  .top_p = number("top_p"),
                                  .min_p = number("min_p"),
                                  .repetition_penalty = number("repetition_penalty"),
                                  .seed = static_cast<std::uint64_t>(cases)};
    std::vector<float> logits;
    std::vector<int> seen;
    std::vector<double> probability;
    c["logits"].for_each_element([&](const guild::Json& x) { logits.push_back(static_cast<float>(x.number())); });
    c["seen"].for_each_element([&](const guild::Json& x) { seen.push_back(static_cast<int>(x.integer())); });
    c["probabilities"].for_each_element([&](const guild::Json& x) { probability.push_back(x.number()); });
    expect_distribution(histogram(options, logits, seen, 8000), probability, "case " + std::to_string(cases));
    ++cases;
  });
  EXPECT_GE(cases, 50);
}

// A filter keeps at least the best token; with ties, the lower ids.
TEST(Sampler, TopKKeepsExactlyKAndTheLowerIdsOnTies) {
  const auto count = histogram({.temperature = 1.0f, .top_k = 3}, {2, 1, 2, 2, 2, 0}, {}, 3000);
  expect_distribution(count, {1.0 / 3, 0, 1.0 / 3, 1.0 / 3, 0, 0}, "ties");
}
TEST(Sampler, TheSmallestTopPKeepsTheBestToken) {
  EXPECT_EQ(histogram({.temperature = 1.0f, .top_p = 1e-30f}, {1, 1.1f, 1}, {}, 100), (std::vector<int>{0, 100, 0}));
  EXPECT_EQ(histogram({.temperature = 1.0f, .min_p = 1.0f}, {1, 1.1f, 1}, {}, 100), (std::vector<int>{0, 100, 0}));
  EXPECT_EQ(histogram({.temperature = 1.0f, .top_k = 1}, {1, 1.1f, 1}, {}, 100), (std::vector<int>{0, 100, 0}));
}
TEST(Sampler, ATinyTemperatureIsGreedyAndAHugeOneUniform) {
  EXPECT_EQ(histogram({.temperature = 1e-38f}, {1, 1.1f, 1}, {}, 100), (std::vector<int>{0, 100, 0}));
  expect_distribution(histogram({.temperature = 1e30f}, {-50, 100, 3}, {}, 3000), {1.0 / 3, 1.0 / 3, 1.0 / 3}, "huge");
}

TEST(Sampler, DrawsFromTheSoftmax) {
  std::vector<float> logits(300);
  std::vector<double> probability(300);
  double total = 0.0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    logits[i] = static_cast<float>(std::sin(static_cast<double>(i)) * 3.0);
    total += probability[i] = std::exp(static_cast<double>(logits[i]));
  }
  for (double& p : probability) p /= total;
  expect_distribution(histogram({.temperature = 1.0f, .seed = 5}, logits, {}, 50000), probability, "softmax");
}

TEST(Sampler, TheRepetitionPenaltyActsOnceOnEachTokenSeen) {
  Sampler s = sampler({.repetition_penalty = 2.0f}, 3);
  const std::vector<float> logits = {4, 3, 1};
  s.observe(0);
  s.observe(0);  // a second time changes nothing: 4 / 2 = 2
  EXPECT_EQ(s.sample(view(logits)), 1);
  const std::vector<float> negative = {-1, -1.5f, -9};
  EXPECT_EQ(s.sample(view(negative)), 1);  // -1 * 2: below zero the penalty multiplies
  s.observe(1);                            // 3 / 2
  EXPECT_EQ(s.sample(view(logits)), 0);
  s.observe(2);
  s.observe(-1);  // what is not in the vocabulary is nothing
  s.observe(3);
  EXPECT_EQ(s.sample(view(negative)), 0);
}

TEST(Sampler, NeverDrawsAMaskedToken) {
  for (const float temperature : {0.0f, 1.0f, 100.0f}) {
    Sampler s({.temperature = temperature, .top_k = 3}, {true, false, true, false});
    const std::vector<float> logits = {0, 9, 1, nan};
    const std::vector<float> fine = {0, 9, 1, 9};
    for (int i = 0; i < 200; ++i) EXPECT_EQ(s.sample(view(fine)) % 2, 0);
    EXPECT_THROW((void)s.sample(view(logits)), guild::Error);  // a NaN anywhere is a broken model
  }
}

TEST(Sampler, RefusesLogitsWithoutAnAnswer) {
  const auto code = [](std::vector<float> logits, float temperature, std::string says) {
    try {
      (void)sampler({.temperature = temperature}, logits.size()).sample(view(logits));
    } catch (const guild::Error& error) {
      EXPECT_NE(std::string(error.what()).find(says), std::string::npos) << error.what();
      return error.code();
    }
    return ErrorCode::count_;
  };
  for (const float temperature : {0.0f, 1.0f}) {
    EXPECT_EQ(code({1, 2, nan}, temperature, "logit 2 is NaN"), ErrorCode::op_nonfinite);
    EXPECT_EQ(code({-infinity, -infinity}, temperature, "no token has a finite logit"), ErrorCode::op_nonfinite);
    EXPECT_EQ(code({1, infinity}, temperature, "the logit of token 1 is infinite"), ErrorCode::op_nonfinite);
  }
  Sampler none({}, {false, false});
  const std::vector<float> two = {1, 2}, three = {1, 2, 3};
  EXPECT_THROW((void)none.sample(view(two)), guild::Error);
  try {
    (void)none.sample(view(three));
    ADD_FAILURE() << "no error";
  } catch (const guild::Error& error) { EXPECT_EQ(error.code(), ErrorCode::op_shape); }
}

TEST(Sampler, MinusInfinityIsNeverDrawn) {
  const auto count = histogram({.temperature = 10.0f, .top_p = 0.999f}, {-infinity, 1, -infinity, 2}, {0}, 1000);
  EXPECT_EQ(count[0] + count[2], 0);
  EXPECT_GT(count[1], 0);
}

TEST(Sampler, TheSameSeedDrawsTheSame) {
  const auto draw = [](std::uint64_t seed) {
    Sampler s = sampler({.temperature = 1.0f, .seed = seed}, 50);
    const std::vector<float> logits(50, 0.0f);
    std::vector<int> out;
    for (int i = 0; i < 20; ++i) out.push_back(s.sample(view(logits)));
    return out;
  };
  EXPECT_EQ(draw(0), draw(0));
  EXPECT_EQ(draw(std::numeric_limits<std::uint64_t>::max()), draw(std::numeric_limits<std::uint64_t>::max()));
  EXPECT_NE(draw(0), draw(1));
  EXPECT_NE(draw(1), draw(std::uint64_t{1} << 32 | 1));
}

}  // namespace sampling_test
