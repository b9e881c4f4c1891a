// expect: an indexer reads the query latent
#include <guild/models/presets.hpp>
#include <guild/modules/indexer.hpp>
#include <guild/modules/keys.hpp>

struct Spec : guild::MiniR1Spec {
#if defined(GUILD_FIXED)
  static constexpr guild::MlaConfig attention = {.query_rank = 32, .rope_dim = 16};
#else
  static constexpr guild::MlaConfig attention = {.query_rank = 0, .rope_dim = 16};
#endif
  static constexpr guild::IndexerConfig indexer = {.heads = 8, .dim = 32, .top_k = 64};
};
guild::SparseTopK<guild::Mla<Spec>, guild::Indexer<Spec>>::Cache cache;
