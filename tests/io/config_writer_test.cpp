#include <guild/io/config_writer.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <string_view>

#include <guild/core/random.hpp>
#include <guild/io/config.hpp>
#include <guild/models/deepseek_v4.hpp>
#include <guild/models/presets.hpp>

#include "test_files.hpp"

namespace guild::test {
namespace config_writer_test {

using Family = DeepSeekFamily;
using Config = Family::Config;

void expect_round_trip(const Config& config, const ConfigWriteOptions& options = {}) {
  const auto read = parse_config<Family>(config_json<Family>(config, options));
  EXPECT_EQ(read.model, canonical(config))
      << differences(canonical(config), read.model) << config_json<Family>(config, options);
  EXPECT_EQ(read.bos, options.bos);
  EXPECT_EQ(read.eos, options.eos);
  EXPECT_EQ(read.pad, options.pad);
  EXPECT_EQ(read.dtype, options.dtype);
}

TEST(ConfigWriter, GivesBackEveryPreset) {
  expect_round_trip(config_of<DeepSeekR1Spec>, {.bos = 0, .eos = {1}});
  expect_round_trip(config_of<DeepSeekV2LiteSpec>, {.dtype = DType::f16, .bos = 100000, .eos = {100001, 7}, .pad = 3});
  expect_round_trip(config_of<MoonlightSpec>, {.dtype = DType::f32});
  expect_round_trip(config_of<KimiK2Spec>, {.model_type = "kimi_k2"});
  expect_round_trip(config_of<MiniR1Spec>);
  EXPECT_EQ(parse_config<Family>(config_json<Family>(config_of<DeepSeekV2LiteSpec>)).model_type, "deepseek_v2");
  EXPECT_EQ(parse_config<Family>(config_json<Family>(config_of<DeepSeekR1Spec>)).model_type, "deepseek_v3");
  EXPECT_EQ(parse_config<Family>(config_json<Family>(config_of<KimiK2Spec>, {.model_type = "kimi_k2"})).model_type,
            "kimi_k2");
}

template <class Spec>
void expect_round_trip_of(std::string_view type) {
  using SpecFamily = typename Spec::Family;
  const auto read = parse_config<SpecFamily>(config_json<SpecFamily>(config_of<Spec>, {.dtype = DType::f32}));
  EXPECT_EQ(read.model, canonical(config_of<Spec>))
      << differences<SpecFamily>(canonical(config_of<Spec>), read.model) << config_json<SpecFamily>(config_of<Spec>);
  EXPECT_EQ(read.model_type, type);
  EXPECT_EQ(read.dtype, DType::f32);
}

/// A file of this family that says nothing of scaling means YaRN.
struct GptOssWithoutScaling : GptOssDefaults {
  static constexpr GqaConfig attention = [] {
    GqaConfig plain = GptOssDefaults::attention;
    plain.rope = {.base = 7.0, .pairs = RopePairs::halves};
    return plain;
  }();
};

TEST(ConfigWriter, GivesBackThePresetsOfOtherFamilies) {
  expect_round_trip_of<Llama31_8BSpec>("llama");
  expect_round_trip_of<R1DistillQwen7BSpec>("qwen2");
  expect_round_trip_of<Qwen3_8BSpec>("qwen3");
  expect_round_trip_of<Mixtral8x7BSpec>("mixtral");
  expect_round_trip_of<Qwen3_30B_A3BSpec>("qwen3_moe");
  expect_round_trip_of<Qwen2_57B_A14BSpec>("qwen2_moe");
  expect_round_trip_of<Olmoe1B_7BSpec>("olmoe");
  expect_round_trip_of<Glm45Spec>("glm4_moe");
  expect_round_trip_of<DotsLlm1Spec>("dots1");
  expect_round_trip_of<Gemma3_1BSpec>("gemma3_text");
  expect_round_trip_of<DeepSeekV32Spec>("deepseek_v32");
  expect_round_trip_of<Glm5Spec>("glm_moe_dsa");
  expect_round_trip_of<DeepSeekV4FlashSpec>("deepseek_v4");
  expect_round_trip_of<DeepSeekV4ProSpec>("deepseek_v4");
  expect_round_trip_of<GptOss20BSpec>("gpt_oss");
  expect_round_trip_of<GptOssWithoutScaling>("gpt_oss");
}

struct BiasesAndNorms : LlamaDefaults {
  static constexpr GqaConfig attention = {.bias = true, .query_key_norm = true};
};

struct Gelu : LlamaDefaults {
  static constexpr DenseConfig dense = {.activation = {.kind = Activation::gelu_tanh}};
};
struct GptOssWithoutBiases : GptOssDefaults {
  static constexpr ExpertConfig experts = {.hidden = 2880, .shared = 0, .activation = {.alpha = 1.702, .limit = 7.0}};
};
struct LimitedExperts : MixtralDefaults {
  static constexpr ExpertConfig experts = {.shared = 0, .activation = {.limit = 7.0}};
};

TEST(ConfigWriter, RefusesWhatNoFileOfTheFamilyCanSay) {
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, config_json<LlamaFamily>(config_of<Gelu>));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, config_json<MixtralFamily>(config_of<LimitedExperts>));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, config_json<GptOssFamily>(config_of<GptOssWithoutBiases>));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, config_json<LlamaFamily>(config_of<BiasesAndNorms>));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument,
                     config_json<LlamaFamily>(config_of<Qwen3_8BSpec>, {.model_type = "llama"}));
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
    Config c;
    auto& [trunk, attention, dense, routing, experts] = c;
    trunk = {.vocab = 1 + below(200000), .hidden = 1 + below(10000), .layers = 1 + below(70), .mtp_layers = below(3)};
    trunk.context = 1 + below(200000);
    trunk.tied_embeddings = coin();
    trunk.norm.epsilon = coin() ? 1e-6 : real(1e-9, 1e-3);
    dense = {.hidden = 1 + below(20000), .layers = below(trunk.layers + 1)};
    attention = {1 + below(200), coin() ? 0 : 1 + below(2000), 1 + below(600),
                 1 + below(200), 2 * (1 + below(64)),          1 + below(200)};
    routing.groups = 1 + below(8);
    routing.experts = below(5) == 0 ? 0 : routing.groups * (1 + below(40));
    routing.top_groups = 1 + below(routing.groups);
    routing.top_k = 1 + below(8);
    experts = {.hidden = 1 + below(3000), .shared = below(4)};
    routing.scoring = static_cast<Scoring>(below(3));
    routing.selection = static_cast<Selection>(below(3));
    routing.normalize = coin();
    routing.scale = coin() ? 1.0 : real(0.1, 20.0);
    attention.rope.base = coin() ? 10000.0 : real(2.0, 1e7);
    if (coin())
      attention.rope = {attention.rope.base, real(1.0, 50.0), real(5.0, 40.0), real(0.1, 5.0),
                        real(0.0, 2.0),      real(0.0, 2.0),  1 + below(9000)};
    if (find_config_problem(c)) {
      EXPECT_THROW((void)config_json<Family>(c), Error);
      continue;
    }
    ++possible;
    without_experts += routing.experts == 0 ? 1 : 0;
    yarn += attention.rope.factor > 1.0 ? 1 : 0;
    expect_round_trip(c);
  }
  EXPECT_GT(possible, 1000);
  EXPECT_GT(without_experts, 100);
  EXPECT_GT(yarn, 400);
}

struct NoExperts : SpecDefaults {
  static constexpr TrunkConfig config = {.layers = 3};
  static constexpr DenseConfig dense = {.layers = 1};
  static constexpr TopKConfig routing = {.experts = 0, .top_k = 3};
};

TEST(ConfigWriter, ASpecWithoutExpertsAcceptsItsOwnFile) {
  EXPECT_NO_THROW(check_config<NoExperts>(parse_config<Family>(config_json<Family>(config_of<NoExperts>))));
  Config other = config_of<NoExperts>;
  std::get<TrunkConfig>(other).layers = 4;
  EXPECT_GUILD_ERROR(ErrorCode::cf_static_mismatch,
                     (check_config<NoExperts>(parse_config<Family>(config_json<Family>(other))), 0));
}

TEST(ConfigWriter, RefusesWhatTheReaderWouldRefuse) {
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, config_json<Family>(config_of<MiniR1Spec>, {.model_type = "llama"}));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, config_json<Family>(config_of<MiniR1Spec>, {.dtype = DType::i8}));
  const auto with_rope = [](const RopeConfig& rope) {
    Config config = config_of<MiniR1Spec>;
    std::get<MlaConfig>(config).rope = rope;
    return config;
  };
  EXPECT_GUILD_ERROR(ErrorCode::op_argument, config_json<Family>(with_rope({.pairs = RopePairs::halves})));
  EXPECT_GUILD_ERROR(ErrorCode::op_argument,
                     config_json<Family>(with_rope({.factor = 8, .scaling = RopeScaling::llama3})));
  Config impossible;
  std::get<TrunkConfig>(impossible).hidden = 0;
  EXPECT_GUILD_ERROR(ErrorCode::cf_range, config_json<Family>(impossible));
}

}  // namespace config_writer_test
}  // namespace guild::test
