#include <guild/io/config_writer.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

#include <guild/core/random.hpp>
#include <guild/io/config.hpp>
#include <guild/models/presets.hpp>

#include "test_files.hpp"

namespace guild::test {
namespace config_writer_test {

void expect_round_trip(const ModelConfig& config, const ConfigWriteOptions& options = {}) {
  const PublishedConfig read = parse_config(config_json(config, options));
  EXPECT_EQ(read.model, canonical(config))
      << differences(canonical(config), read.model) << config_json(config, options);
  EXPECT_EQ(read.bos, options.bos);
  EXPECT_EQ(read.eos, options.eos);
  EXPECT_EQ(read.pad, options.pad);
  EXPECT_EQ(read.dtype, options.dtype);
}

TEST(ConfigWriter, GivesBackEveryPreset) {
  expect_round_trip(DeepSeekR1Spec::config, {.bos = 0, .eos = {1}});
  expect_round_trip(DeepSeekV2LiteSpec::config, {.dtype = DType::f16, .bos = 100000, .eos = {100001, 7}, .pad = 3});
  expect_round_trip(MoonlightSpec::config, {.dtype = DType::f32});
  expect_round_trip(KimiK2Spec::config, {.model_type = "kimi_k2"});
  expect_round_trip(MiniR1Spec::config);
  EXPECT_EQ(parse_config(config_json(DeepSeekV2LiteSpec::config)).model_type, "deepseek_v2");
  EXPECT_EQ(parse_config(config_json(DeepSeekR1Spec::config)).model_type, "deepseek_v3");
  EXPECT_EQ(parse_config(config_json(KimiK2Spec::config, {.model_type = "kimi_k2"})).model_type, "kimi_k2");
}

/// Random configs, the impossible ones left out.
TEST(ConfigWriter, GivesBackEveryPossibleConfig) {
  Random random(3, 14);
  const auto below = [&](int n) { return static_cast<int>(random.uniform() * n); };
  // Any double, not only those with short decimal texts.
  const auto real = [&](double low, double high) { return low + (high - low) * random.uniform(); };
  const auto coin = [&] { return below(2) == 0; };
  int possible = 0, without_experts = 0, yarn = 0;
  for (int i = 0; i < 3000; ++i) {
    ModelConfig c;
    c.vocab = 1 + below(200000);
    c.hidden = 1 + below(10000);
    c.layers = 1 + below(70);
    c.dense_layers = below(c.layers + 1);
    c.dense_hidden = 1 + below(20000);
    c.mtp_layers = below(3);
    c.context = 1 + below(200000);
    c.norm_epsilon = coin() ? 1e-6 : real(1e-9, 1e-3);
    c.tied_embeddings = coin();
    c.attention = {1 + below(200), coin() ? 0 : 1 + below(2000), 1 + below(600),
                   1 + below(200), 2 * (1 + below(64)),          1 + below(200)};
    c.moe.groups = 1 + below(8);
    c.moe.experts = below(5) == 0 ? 0 : c.moe.groups * (1 + below(40));
    c.moe.top_groups = 1 + below(c.moe.groups);
    c.moe.top_k = 1 + below(8);
    c.moe.hidden = 1 + below(3000);
    c.moe.shared_experts = below(4);
    c.moe.scoring = coin() ? Scoring::sigmoid : Scoring::softmax;
    c.moe.selection = static_cast<Selection>(below(3));
    c.moe.normalize = coin();
    c.moe.scale = coin() ? 1.0 : real(0.1, 20.0);
    c.rope.base = coin() ? 10000.0 : real(2.0, 1e7);
    if (coin())
      c.rope = {c.rope.base,    real(1.0, 50.0), real(5.0, 40.0), real(0.1, 5.0),
                real(0.0, 2.0), real(0.0, 2.0),  1 + below(9000)};
    if (find_config_problem(c)) {
      EXPECT_THROW((void)config_json(c), Error);
      continue;
    }
    ++possible;
    without_experts += c.moe.experts == 0 ? 1 : 0;
    yarn += c.rope.factor > 1.0 ? 1 : 0;
    expect_round_trip(c);
  }
  EXPECT_GT(possible, 1000);
  EXPECT_GT(without_experts, 100);
  EXPECT_GT(yarn, 400);
}

struct NoExperts : SpecDefaults {
  static constexpr ModelConfig config = {.layers = 3, .dense_layers = 1, .moe = {.experts = 0, .top_k = 3}};
};

TEST(ConfigWriter, ASpecWithoutExpertsAcceptsItsOwnFile) {
  EXPECT_NO_THROW(check_config<NoExperts>(parse_config(config_json(NoExperts::config))));
  ModelConfig other = NoExperts::config;
  other.layers = 4;
  EXPECT_GUILD_ERROR(ErrorCode::cf_static_mismatch, (check_config<NoExperts>(parse_config(config_json(other))), 0));
}

TEST(ConfigWriter, RefusesWhatTheReaderWouldRefuse) {
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, config_json(MiniR1Spec::config, {.model_type = "llama"}));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, config_json(MiniR1Spec::config, {.dtype = DType::i8}));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, config_json({.rope = {.pairs = RopePairs::halves}}));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, config_json({.rope = {.factor = 8, .scaling = RopeScaling::llama3}}));
  ModelConfig impossible;
  impossible.hidden = 0;
  EXPECT_GUILD_ERROR(ErrorCode::cf_range, config_json(impossible));
}

}  // namespace config_writer_test
}  // namespace guild::test
