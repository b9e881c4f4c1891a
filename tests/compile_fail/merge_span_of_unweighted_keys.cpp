// expect: attention inside a span weighs a slot by its mass: make it Weighted<...>, outermost
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
using Mixer = guild::Weighted<guild::Mla<Spec>>;
#else
using Mixer = guild::Mla<Spec>;
#endif
using Layer = guild::Block<Spec, Mixer, guild::DenseFeedForward<Spec>>;
static_assert(
    guild::MergeSpan<guild::Segment<Layer, 1>, guild::SoftTokenMerging<Spec>, guild::TokenInflation<Spec>>::layers ==
    1);
