// expect: MatchSpan: slots of a whole sequence are neither smoothed nor weighed by novelty
#include <guild/models/spec.hpp>
#include <guild/modules/match_span.hpp>
#include <guild/modules/weighted_keys.hpp>

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {.vocab = 7, .hidden = 16, .layers = 1, .context = 32};
  static constexpr guild::MlaConfig attention = {
      .heads = 2, .query_rank = 8, .latent_rank = 8, .nope_dim = 4, .rope_dim = 4, .value_dim = 4};
  static constexpr guild::DenseConfig dense = {.hidden = 16, .layers = 1};
};
#if defined(GUILD_FIXED)
using Policy = guild::MatchedInflation;
#else
using Policy = guild::DefaultInflation;
#endif
using Layer = guild::Block<Spec, guild::Weighted<guild::Mla<Spec>>, guild::DenseFeedForward<Spec>>;
static_assert(
    guild::MatchSpan<guild::Segment<Layer, 1>, guild::DefaultMatching, guild::TokenInflation<Spec, Policy>>::layers ==
    1);
