// expect: CausalEnergy: W must be positive: a token is compared with the W before it
#include <guild/modules/merge_budget.hpp>

#if defined(GUILD_FIXED)
constexpr guild::Index before = 6;
#else
constexpr guild::Index before = 0;
#endif
constexpr guild::Index window = guild::CausalEnergy<before>::window;
