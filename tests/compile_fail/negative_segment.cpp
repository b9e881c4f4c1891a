// expect: Segment: the number of layers must not be negative
#include <guild/modules/stack.hpp>

#if defined(GUILD_FIXED)
guild::Segment<int, 1> segment;
#else
guild::Segment<int, -1> segment;
#endif
