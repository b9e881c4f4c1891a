// expect: Num * G >= Den: a budget that cannot hold
#include <guild/modules/merge_budget.hpp>

#if defined(GUILD_FIXED)
constexpr guild::Index longest = 4;
#else
constexpr guild::Index longest = 3;
#endif
constexpr guild::Index slots = guild::TokenBucket<1, 4, 2, longest>::max_slots(8);
