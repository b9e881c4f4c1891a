// expect: SparseTopK: an indexer reads the query latent of Mla; Gqa has none
#include <guild/models/llama.hpp>
#include <guild/models/transformer.hpp>
#include <guild/modules/indexer.hpp>

struct Spec : guild::LlamaDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 64, .hidden = 32, .layers = 1, .context = 128};
  static constexpr guild::GqaConfig attention = {.heads = 2, .key_heads = 1, .head_dim = 16};
  static constexpr guild::MlaConfig latent = {
      .heads = 2, .query_rank = 8, .latent_rank = 8, .nope_dim = 8, .rope_dim = 8};
  static constexpr guild::IndexerConfig indexer = {.heads = 8, .dim = 16, .top_k = 4};
};
#if defined(GUILD_FIXED)
guild::Gqa<Spec>::Weights<guild::Published> weights;
#else
guild::SparseTopK<guild::Gqa<Spec>, guild::Indexer<Spec, Spec::indexer, Spec::latent> >::Weights<guild::Published>
    weights;
#endif
