// expect: TokenBucket: Burst must be at least 1: the first token closes a group
#include <guild/modules/merge_budget.hpp>

#if defined(GUILD_FIXED)
constexpr guild::Index burst = 1;
#else
constexpr guild::Index burst = 0;
#endif
constexpr guild::Index slots = guild::TokenBucket<1, 2, burst, 8>::max_slots(8);
