// expect: layer_kinds: windows.types must name config.layers layers
#include <guild/core/config.hpp>
#include <guild/modules/layer_list.hpp>

struct S {
  static constexpr guild::TrunkConfig config = {.layers = 4};
#if defined(GUILD_FIXED)
  static constexpr guild::WindowConfig windows = {.types = guild::LayerTypes("ssfs")};
#else
  static constexpr guild::WindowConfig windows = {.types = guild::LayerTypes("ssf")};
#endif
};
static_assert(guild::layer_kinds<S>[2] == 0);
