// expect: Block: Spec::Mixer was made for a model of another width than this Spec's config.hidden
#include <guild/models/presets.hpp>

struct Narrow : guild::MiniR1Spec {
  static constexpr guild::TrunkConfig config = {.vocab = 64, .hidden = 32, .layers = 2};
};
#if defined(GUILD_FIXED)
using Mixer = guild::Mla<Narrow>;
#else
using Mixer = guild::Mla<guild::MiniR1Spec>;
#endif
constexpr guild::Index chosen = guild::Block<Narrow, Mixer, guild::Moe<Narrow>>::chosen_experts;
