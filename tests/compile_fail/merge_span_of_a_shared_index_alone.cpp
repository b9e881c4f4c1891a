// expect: a layer without an index needs one with an index before it, inside the span
#include <guild/models/spec.hpp>
#include <guild/modules/block.hpp>
#include <guild/modules/indexer.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/merge_span.hpp>
#include <guild/modules/shared_indexer.hpp>
#include <guild/modules/weighted_keys.hpp>

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 7, .hidden = 16, .layers = 2, .context = 32};
  static constexpr guild::MlaConfig attention = {
      .heads = 2, .query_rank = 8, .latent_rank = 8, .nope_dim = 4, .rope_dim = 4, .value_dim = 4};
  static constexpr guild::DenseConfig dense = {.hidden = 16, .layers = 2};
  static constexpr guild::IndexerConfig indexer = {.heads = 2, .dim = 8, .top_k = 4};
};
template <class Index>
using One = guild::Segment<
    guild::Block<Spec, guild::Weighted<guild::SparseTopK<guild::Mla<Spec>, Index>>, guild::DenseFeedForward<Spec>>, 1>;
using Shared = One<guild::SharedIndexer<Spec>>;
#if defined(GUILD_FIXED)
using Inner = guild::Stack<One<guild::Indexer<Spec>>, Shared>;
#else
using Inner = guild::Stack<Shared, One<guild::Indexer<Spec>>>;
#endif
static_assert(guild::MergeSpan<Inner, guild::SoftTokenMerging<Spec>, guild::TokenInflation<Spec>>::layers == 2);
