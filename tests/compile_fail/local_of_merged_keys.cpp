// expect: Local, SparseTopK: of keys that are neither merged nor weighted; Weighted<...> is outermost
#include <guild/models/mini_r1.hpp>
#include <guild/modules/keys.hpp>
#include <guild/modules/mla.hpp>
#include <guild/modules/running_keys.hpp>

#if defined(GUILD_FIXED)
using Mixer = guild::Mla<guild::MiniR1Spec>;
#else
using Mixer = guild::RunningMerge<guild::Mla<guild::MiniR1Spec>>;
#endif
static_assert(sizeof(guild::Local<Mixer, 8>) > 0);
