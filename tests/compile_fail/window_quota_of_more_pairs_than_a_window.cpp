// expect: WindowQuota: R must be above 0 and at most W / 2, the pairs of a window
#include <guild/modules/merge_window.hpp>

#if defined(GUILD_FIXED)
constexpr guild::Index pairs = 3;
#else
constexpr guild::Index pairs = 4;
#endif
static_assert(guild::WindowQuota<7, pairs>::max_slots(7) == 4);
