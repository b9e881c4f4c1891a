// expect: RunningMerge: merged keys are all of a sequence: neither a window, nor chosen, weighted or pooled
#include <guild/models/presets.hpp>
#include <guild/modules/running_keys.hpp>

using Mixer = guild::Mla<guild::MiniR1Spec>;
#if defined(GUILD_FIXED)
guild::RunningMerge<Mixer>::Weights<guild::Published> weights;
#else
guild::RunningMerge<guild::Local<Mixer, 8> >::Weights<guild::Published> weights;
#endif
