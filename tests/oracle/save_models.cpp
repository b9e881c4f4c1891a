// Loads tiny models of tests/fixtures/models as float masters and saves each again, for check_saved_models.py.
//
//   g++ -std=c++20 -O1 -Iinclude tests/oracle/save_models.cpp -ljansson -lpcre2-8 -lxxhash -pthread -o save_models
//   ./save_models tests/fixtures/models OUT
#include <cstdio>
#include <exception>
#include <string>

#include <guild/models/transformer.hpp>
#include <guild/training/load_dense.hpp>
#include <guild/training/save_model.hpp>

namespace {

using guild::ModelConfig;

constexpr ModelConfig small_config = {
    .vocab = 67,
    .hidden = 28,
    .layers = 2,
    .dense_layers = 1,
    .dense_hidden = 37,
    .context = 64,
    .attention = {.heads = 3, .query_rank = 18, .latent_rank = 17, .nope_dim = 10, .rope_dim = 8, .value_dim = 9},
    .moe = {.experts = 8, .top_k = 3, .hidden = 11, .shared_experts = 1, .groups = 4, .top_groups = 2, .scale = 2.5},
};
template <class Change>
constexpr ModelConfig with(ModelConfig config, Change change) {
  change(config);
  return config;
}

struct Base : guild::SpecDefaults {
  static constexpr ModelConfig config = with(small_config, [](ModelConfig& c) {
    c.vocab = 101;
    c.hidden = 40;
    c.layers = 3;
    c.dense_hidden = 52;
    c.attention.latent_rank = 20;
  });
};
struct Yarn : guild::SpecDefaults {
  static constexpr ModelConfig config = with(small_config, [](ModelConfig& c) {
    c.attention.rope_dim = 12;
    c.rope = {.factor = 4.0, .mscale_all_dim = 1.0, .original_context = 16};
  });
};
struct YarnRatio : guild::SpecDefaults {
  static constexpr ModelConfig config = with(small_config, [](ModelConfig& c) {
    c.dense_layers = 2;
    c.attention.rope_dim = 16;
    c.rope = {.base = 100.0,
              .factor = 4.0,
              .beta_fast = 2.0,
              .beta_slow = 0.1,
              .mscale = 1.3,
              .mscale_all_dim = 0.6,
              .original_context = 16};
  });
};
struct Tied : guild::SpecDefaults {
  static constexpr ModelConfig config = with(small_config, [](ModelConfig& c) {
    c.dense_layers = 0;
    c.tied_embeddings = true;
    c.norm_epsilon = 1e-4;
  });
};
struct NoQueryLatent : guild::SpecDefaults {
  static constexpr ModelConfig config = with(small_config, [](ModelConfig& c) { c.attention.query_rank = 0; });
};
struct Mtp : guild::SpecDefaults {
  static constexpr ModelConfig config = with(small_config, [](ModelConfig& c) { c.mtp_layers = 1; });
};
struct NotNormalized : guild::SpecDefaults {
  static constexpr ModelConfig config = with(small_config, [](ModelConfig& c) {
    c.moe.normalize = false;
    c.moe.scale = 1.7;
  });
};
constexpr ModelConfig v2_config = with(small_config, [](ModelConfig& c) {
  c.hidden = 27;
  c.attention.latent_rank = 18;
  c.moe.shared_experts = 2;
  c.moe.scoring = guild::Scoring::softmax;
  c.moe.normalize = false;
});
struct V2Lite : guild::SpecDefaults {
  static constexpr ModelConfig config = with(v2_config, [](ModelConfig& c) {
    c.attention.query_rank = 0;
    c.moe.selection = guild::Selection::greedy;
    c.moe.groups = 1;
    c.moe.top_groups = 1;
    c.rope = {.factor = 40.0, .mscale = 0.707, .mscale_all_dim = 0.707, .original_context = 16};
  });
};
struct V2Grouped : guild::SpecDefaults {
  static constexpr ModelConfig config = with(v2_config, [](ModelConfig& c) {
    c.moe.selection = guild::Selection::group_limited_greedy;
    c.moe.scale = 16.0;
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
  } catch (const std::exception& error) {
    std::puts(error.what());
    return 1;
  }
}
