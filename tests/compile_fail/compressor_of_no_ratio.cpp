// expect: Compressor: Ratio must be positive: so many tokens make a row
#include <guild/modules/compressor.hpp>

#if defined(GUILD_FIXED)
constexpr guild::Index ratio = 4;
#else
constexpr guild::Index ratio = 0;
#endif
constexpr guild::Index width = guild::Compressor<16, 8, ratio, guild::PoolWindows::apart>::width;
