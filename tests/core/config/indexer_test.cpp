// The index of sparse attention as numbers of a model: from files and into files, printed, compared, checked, counted.
#include <guild/core/config/indexer.hpp>

#include <gtest/gtest.h>

#include <string>
#include <tuple>

#include <guild/core/config_check.hpp>
#include <guild/core/model_size.hpp>
#include <guild/io/config.hpp>
#include <guild/io/config_writer.hpp>
#include <guild/models/deepseek_r1.hpp>

namespace indexer_test {

using guild::ErrorCode;
using guild::IndexerConfig;
using guild::MlaConfig;
using guild::TrunkConfig;

/// A family with an index in every layer.
struct IndexedFamily : guild::DeepSeekFamily {
  static constexpr std::string_view model_types[] = {"indexed"};
  using Config = guild::ModelConfig<TrunkConfig, MlaConfig, IndexerConfig, guild::DenseConfig>;
  static constexpr Config defaults(std::string_view) { return {}; }
  static constexpr guild::KeyRule keys[] = {
      {"first_k_dense_replace", ""}, {"hidden_act", ""}, {"swiglu_limit", ""}, {"swiglu_alpha", ""}};
  static constexpr guild::Absent absent(const guild::ConfigField& field, const Config&, std::string_view) {
    return field.absent;
  }
  template <class File>
  static void complete(Config&, const File&) {}
  template <class Put>
  static void complete_file(const Config&, Put&&) {}
  static std::string_view model_type(const Config&) { return "indexed"; }
  static std::string_view architecture(std::string_view) { return "IndexedForCausalLM"; }
};

constexpr IndexedFamily::Config config = {
    {.vocab = 97, .hidden = 48, .layers = 3, .context = 192},
    {.heads = 4, .query_rank = 24, .latent_rank = 16, .nope_dim = 12, .rope_dim = 8, .value_dim = 10},
    {.heads = 8, .dim = 14, .top_k = 6},
    {.hidden = 56, .layers = 3}};
static_assert(guild::config_problem(config) == nullptr);

IndexedFamily::Config with(IndexerConfig indexer, int query_rank = 24) {
  IndexedFamily::Config other = config;
  std::get<IndexerConfig>(other) = indexer;
  std::get<MlaConfig>(other).query_rank = query_rank;
  return other;
}

TEST(IndexerConfig, IsWrittenReadComparedAndPrinted) {
  const std::string text = guild::config_json<IndexedFamily>(config);
  EXPECT_NE(text.find("\"index_head_dim\": 14,\n  \"index_n_heads\": 8,\n  \"index_topk\": 6,\n"), std::string::npos)
      << text;
  EXPECT_EQ(guild::parse_config<IndexedFamily>(text).model, canonical(config)) << text;
  EXPECT_EQ(guild::differences(config, with({.heads = 8, .dim = 14, .top_k = 7})), "index_topk: compiled 6, file 7\n");
  EXPECT_NE(guild::describe(config).find("index_n_heads: 8\nindex_head_dim: 14\nindex_topk: 6\npairs: halves\n"),
            std::string::npos);
}

TEST(IndexerConfig, MustBeInTheFile) {
  for (const char* key : {"index_n_heads", "index_head_dim", "index_topk"}) {
    std::string text = guild::config_json<IndexedFamily>(config);
    text.replace(text.find(key), 5, "other");
    try {
      (void)guild::parse_config<IndexedFamily>(text);
      ADD_FAILURE() << "accepted without " << key;
    } catch (const guild::Error& error) {
      EXPECT_EQ(guild::name(error.code()), guild::name(ErrorCode::cf_missing)) << error.what();
      EXPECT_EQ(error.key(), key);
    }
  }
}

TEST(IndexerConfig, RefusesNumbersThatCannotBe) {
  const auto expect = [](const IndexedFamily::Config& broken, ErrorCode code, const std::string& key) {
    const auto problem = guild::find_config_problem(broken);
    ASSERT_TRUE(problem) << key;
    EXPECT_EQ(guild::name(problem->code), guild::name(code)) << problem->rule;
    EXPECT_EQ(problem->key, key) << problem->rule;
  };
  expect(with({.heads = 0}), ErrorCode::cf_range, "index_n_heads");
  expect(with({.heads = 5000}), ErrorCode::cf_limit, "index_n_heads");
  expect(with({.dim = 0}), ErrorCode::cf_range, "index_head_dim");
  expect(with({.dim = 5000}), ErrorCode::cf_limit, "index_head_dim");
  expect(with({.top_k = 0}), ErrorCode::cf_range, "index_topk");
  expect(with({.top_k = (1 << 28) + 1}), ErrorCode::cf_limit, "index_topk");
  expect(with({.dim = 7}), ErrorCode::cf_rope, "index_head_dim");
  expect(with({}, 0), ErrorCode::cf_range, "q_lora_rank");
  EXPECT_EQ(guild::config_problem(with({.dim = 8})), nullptr);
}

TEST(IndexerConfig, CountsItsParametersAndTheKeyInTheCache) {
  // Queries of 8 heads from the latent, the key, weight and bias of its LayerNorm, a weight of each head.
  const std::int64_t layer = 8 * 14 * 24 + 14 * 48 + 2 * 14 + 8 * 48;
  const guild::ModelConfig<TrunkConfig, MlaConfig, guild::DenseConfig> without = {
      std::get<TrunkConfig>(config), std::get<MlaConfig>(config), std::get<guild::DenseConfig>(config)};
  EXPECT_EQ(guild::parameter_count(config).total, guild::parameter_count(without).total + 3 * layer);
  EXPECT_EQ(guild::parameter_count(config).active, guild::parameter_count(without).active + 3 * layer);
  EXPECT_EQ(guild::cache_bytes_per_token(config), 3 * (16 + 8 + 14) * 2);
}

}  // namespace indexer_test
