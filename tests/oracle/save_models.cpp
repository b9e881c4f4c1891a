// Loads tiny models of tests/fixtures/models as float masters and saves each again, for check_saved_models.py.
//
//   g++ -std=c++20 -O1 -Iinclude tests/oracle/save_models.cpp -ljansson -lpcre2-8 -lxxhash -lutf8proc -pthread -o saver
//   ./saver tests/fixtures/models OUT
#include <cstdio>
#include <exception>
#include <string>

#include <guild/checkpoint/load_dense.hpp>
#include <guild/checkpoint/save_model.hpp>
#include <guild/models/transformer.hpp>

#include "../support/family_specs.hpp"

namespace {

using guild::DenseConfig;
using guild::ExpertConfig;
using guild::MlaConfig;
using guild::TopKConfig;
using guild::TrunkConfig;

struct SmallSpec : guild::SpecDefaults {
  static constexpr TrunkConfig config = {.vocab = 67, .hidden = 28, .layers = 2, .context = 64};
  static constexpr MlaConfig attention = {
      .heads = 3, .query_rank = 18, .latent_rank = 17, .nope_dim = 10, .rope_dim = 8, .value_dim = 9};
  static constexpr DenseConfig dense = {.hidden = 37, .layers = 1};
  static constexpr TopKConfig routing = {.experts = 8, .top_k = 3, .groups = 4, .top_groups = 2, .scale = 2.5};
  static constexpr ExpertConfig experts = {.hidden = 11, .shared = 1};
};
template <class Part, class Change>
constexpr Part with(Part part, Change change) {
  change(part);
  return part;
}

struct Base : SmallSpec {
  static constexpr TrunkConfig config = with(SmallSpec::config, [](TrunkConfig& c) {
    c.vocab = 101;
    c.hidden = 40;
    c.layers = 3;
  });
  static constexpr DenseConfig dense = with(SmallSpec::dense, [](DenseConfig& c) { c.hidden = 52; });
  static constexpr MlaConfig attention = with(SmallSpec::attention, [](MlaConfig& c) { c.latent_rank = 20; });
};
struct Yarn : SmallSpec {
  static constexpr MlaConfig attention = with(SmallSpec::attention, [](MlaConfig& c) {
    c.rope_dim = 12;
    c.rope = {.factor = 4.0, .mscale_all_dim = 1.0, .original_context = 16};
  });
};
struct YarnRatio : SmallSpec {
  static constexpr DenseConfig dense = with(SmallSpec::dense, [](DenseConfig& c) { c.layers = 2; });
  static constexpr MlaConfig attention = with(SmallSpec::attention, [](MlaConfig& c) {
    c.rope_dim = 16;
    c.rope = {.base = 100.0,
              .factor = 4.0,
              .beta_fast = 2.0,
              .beta_slow = 0.1,
              .mscale = 1.3,
              .mscale_all_dim = 0.6,
              .original_context = 16};
  });
};
struct Tied : SmallSpec {
  static constexpr DenseConfig dense = with(SmallSpec::dense, [](DenseConfig& c) { c.layers = 0; });
  static constexpr TrunkConfig config = with(SmallSpec::config, [](TrunkConfig& c) {
    c.tied_embeddings = true;
    c.norm.epsilon = 1e-4;
  });
};
struct NoQueryLatent : SmallSpec {
  static constexpr MlaConfig attention = with(SmallSpec::attention, [](MlaConfig& c) { c.query_rank = 0; });
};
struct Mtp : SmallSpec {
  static constexpr TrunkConfig config = with(SmallSpec::config, [](TrunkConfig& c) { c.mtp_layers = 1; });
};
struct NotNormalized : SmallSpec {
  static constexpr TopKConfig routing = with(SmallSpec::routing, [](TopKConfig& c) {
    c.normalize = false;
    c.scale = 1.7;
  });
};
struct V2Spec : SmallSpec {
  static constexpr TrunkConfig config = with(SmallSpec::config, [](TrunkConfig& c) { c.hidden = 27; });
  static constexpr MlaConfig attention = with(SmallSpec::attention, [](MlaConfig& c) { c.latent_rank = 18; });
  static constexpr TopKConfig routing = with(SmallSpec::routing, [](TopKConfig& c) {
    c.scoring = guild::Scoring::softmax;
    c.normalize = false;
  });
  static constexpr ExpertConfig experts = with(SmallSpec::experts, [](ExpertConfig& c) { c.shared = 2; });
};
struct V2Lite : V2Spec {
  static constexpr MlaConfig attention = with(V2Spec::attention, [](MlaConfig& c) {
    c.query_rank = 0;
    c.rope = {.factor = 40.0, .mscale = 0.707, .mscale_all_dim = 0.707, .original_context = 16};
  });
  static constexpr TopKConfig routing = with(V2Spec::routing, [](TopKConfig& c) {
    c.selection = guild::Selection::greedy;
    c.groups = 1;
    c.top_groups = 1;
  });
};
struct V2Grouped : V2Spec {
  static constexpr TopKConfig routing = with(V2Spec::routing, [](TopKConfig& c) {
    c.selection = guild::Selection::group_limited_greedy;
    c.scale = 16.0;
  });
};

template <class Spec>
void save(const std::string& fixtures, const std::string& out, const std::string& name, std::uint64_t shard) {
  using Model = guild::Transformer<Spec>;
  const auto weights = guild::load_dense<Model>(fixtures + "/" + name, {.mtp = true});
  guild::save_model<Model>(out + "/" + name, weights, {.dtype = guild::DType::f32, .max_shard_bytes = shard});
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return std::puts("save_models FIXTURES OUT"), 2;
  try {
    const std::string from = argv[1], to = argv[2];
    constexpr std::uint64_t whole = 5'000'000'000, shards = 30'000;
    save<Base>(from, to, "v3_base", shards);
    save<Yarn>(from, to, "v3_yarn", whole);
    save<YarnRatio>(from, to, "v3_yarn_ratio", whole);
    save<Tied>(from, to, "v3_moe_only_tied", shards);
    save<NoQueryLatent>(from, to, "v3_no_q_lora", whole);
    save<Mtp>(from, to, "v3_mtp", whole);
    save<NotNormalized>(from, to, "v3_no_norm_topk", whole);
    save<V2Lite>(from, to, "v2_lite", shards);
    save<V2Grouped>(from, to, "v2_grouped", whole);
    save<guild_test::Llama>(from, to, "llama", whole);
    save<guild_test::LlamaTied>(from, to, "llama_tied", whole);
    save<guild_test::Qwen2>(from, to, "qwen2", shards);
    save<guild_test::Qwen3>(from, to, "qwen3", whole);
    save<guild_test::Qwen3Tied>(from, to, "qwen3_tied", whole);
    save<guild_test::Mixtral>(from, to, "mixtral", shards);
    save<guild_test::Qwen3Moe>(from, to, "qwen3_moe", whole);
    save<guild_test::Qwen2Moe>(from, to, "qwen2_moe", whole);
    save<guild_test::Olmoe>(from, to, "olmoe", whole);
    save<guild_test::Glm4Moe>(from, to, "glm4_moe", whole);
    save<guild_test::Dots1>(from, to, "dots1", whole);
    save<guild_test::Gemma3>(from, to, "gemma3", whole);
    save<guild_test::GptOss>(from, to, "gpt_oss", whole);
    save<guild_test::DeepSeekV32>(from, to, "v32", shards);
    save<guild_test::DeepSeekV32Mtp>(from, to, "v32_mtp", whole);
    save<guild_test::Glm5Full>(from, to, "glm5_full", whole);
    save<guild_test::DeepSeekV4Sliding>(from, to, "v4_sliding", shards);
    save<guild_test::DeepSeekV4Published>(from, to, "v4_published", whole);
  } catch (const std::exception& error) {
    std::puts(error.what());
    return 1;
  }
}
