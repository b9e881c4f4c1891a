// expect: Local: Window must be positive; a token sees itself
#include <guild/models/presets.hpp>
#include <guild/modules/keys.hpp>

#if defined(GUILD_FIXED)
guild::Local<guild::Mla<guild::MiniR1Spec>, 1>::Cache cache;
#else
guild::Local<guild::Mla<guild::MiniR1Spec>, 0>::Cache cache;
#endif
