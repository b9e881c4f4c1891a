// expect: layer_types_are_letters_f_s_c_or_h_and_at_most_128
#include <guild/core/config.hpp>

#if defined(GUILD_FIXED)
inline constexpr guild::LayerTypes types("ssf");
#else
inline constexpr guild::LayerTypes types("ssg");
#endif
static_assert(types.size() == 3);
