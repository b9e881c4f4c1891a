// expect: Reserve: R must be above 0 and below the bucket's Burst: else nothing is left for novel tokens
#include <guild/modules/merge_budget.hpp>

#if defined(GUILD_FIXED)
constexpr guild::Index reserve = 3;
#else
constexpr guild::Index reserve = 4;
#endif
constexpr guild::Index longest = guild::Reserve<guild::TokenBucket<1, 2, 4, 8>, reserve>::longest;
