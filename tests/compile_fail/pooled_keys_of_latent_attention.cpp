// expect: Compressed: pooled rows are keys of SharedKv, whose rows are key and value at once
#include <guild/models/presets.hpp>
#include <guild/modules/compressed_keys.hpp>

using Mixer = guild::Local<guild::Mla<guild::MiniR1Spec>, 8>;
#if defined(GUILD_FIXED)
Mixer::Weights<guild::Published> weights;
#else
guild::Compressed<Mixer, guild::Pooled<4> >::Weights<guild::Published> weights;
#endif
