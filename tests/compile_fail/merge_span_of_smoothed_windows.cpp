// expect: MergeSpan: slots of a window have no tokens of their own whose novelty counts
#include <guild/models/spec.hpp>
#include <guild/modules/merge_references.hpp>
#include <guild/modules/merge_span.hpp>
#include <guild/modules/weighted_keys.hpp>

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 7, .hidden = 16, .layers = 1, .context = 32};
  static constexpr guild::MlaConfig attention = {
      .heads = 2, .query_rank = 8, .latent_rank = 8, .nope_dim = 4, .rope_dim = 4, .value_dim = 4};
  static constexpr guild::DenseConfig dense = {.hidden = 16, .layers = 1};
};
#if defined(GUILD_FIXED)
using Inflation = guild::CopyUnmerge;
#else
using Inflation = guild::DefaultInflation;
#endif
using Layer = guild::Block<Spec, guild::Weighted<guild::Mla<Spec>>, guild::DenseFeedForward<Spec>>;
using Merging = guild::SoftTokenMerging<Spec, guild::ToMeMerging<8, 3>>;
static_assert(guild::MergeSpan<guild::Segment<Layer, 1>, Merging, guild::TokenInflation<Spec, Inflation>>::layers == 1);
