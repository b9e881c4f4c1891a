// expect: SparseTopK: keys that an index chooses have no gate
#include <guild/models/presets.hpp>
#include <guild/modules/gates.hpp>
#include <guild/modules/indexer.hpp>
#include <guild/modules/keys.hpp>

struct Spec : guild::MiniR1Spec {
  static constexpr guild::MlaConfig attention = {.query_rank = 32, .rope_dim = 16};
  static constexpr guild::IndexerConfig indexer = {.heads = 8, .dim = 32, .top_k = 64};
};
using Sparse = guild::SparseTopK<guild::Mla<Spec>, guild::Indexer<Spec>>;
#if defined(GUILD_FIXED)
Sparse::Cache cache;
#else
guild::Gated<Sparse, guild::FarBiasGate<64>>::Cache cache;
#endif
