// expect: BipartiteSoftMatch: Num / Den must be from 0 to 1 / 2
#include <guild/modules/match_policies.hpp>

#if defined(GUILD_FIXED)
constexpr guild::Index share = 1;
#else
constexpr guild::Index share = 2;
#endif
constexpr guild::Index merged = guild::BipartiteSoftMatch<share, 3>::merged(9, 9);
