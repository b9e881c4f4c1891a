// expect: layers_of_a_set_are_from_0_to_1023
#include <guild/core/config/layer_set.hpp>

#if defined(GUILD_FIXED)
inline constexpr guild::LayerSet dense = {0, 2};
#else
inline constexpr guild::LayerSet dense = {0, -2};
#endif
