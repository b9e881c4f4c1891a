// expect: MergeSpan: a span of no layers merges for nothing
#include <guild/models/spec.hpp>
#include <guild/modules/merge_span.hpp>
#include <guild/modules/weighted_keys.hpp>

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 7, .hidden = 16, .layers = 1, .context = 32};
  static constexpr guild::MlaConfig attention = {
      .heads = 2, .query_rank = 8, .latent_rank = 8, .nope_dim = 4, .rope_dim = 4, .value_dim = 4};
  static constexpr guild::DenseConfig dense = {.hidden = 16, .layers = 1};
};
#if defined(GUILD_FIXED)
constexpr int count = 1;
#else
constexpr int count = 0;
#endif
using Layer = guild::Block<Spec, guild::Weighted<guild::Mla<Spec>>, guild::DenseFeedForward<Spec>>;
using Span = guild::MergeSpan<guild::Segment<Layer, count>, guild::SoftTokenMerging<Spec>, guild::TokenInflation<Spec>>;
static_assert(Span::layers == count);
