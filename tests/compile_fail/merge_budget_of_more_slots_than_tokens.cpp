// expect: TokenBucket: Num / Den must be above 0 and not above 1
#include <guild/modules/merge_budget.hpp>

#if defined(GUILD_FIXED)
constexpr guild::Index num = 2;
#else
constexpr guild::Index num = 3;
#endif
constexpr guild::Index slots = guild::TokenBucket<num, 2, 2, 8>::max_slots(8);
