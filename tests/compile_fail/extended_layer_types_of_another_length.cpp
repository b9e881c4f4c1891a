// expect: DeepSeekR1Extended: windows.types must name config.layers layers, or none
#include <guild/models/deepseek_r1_extended.hpp>

struct S : guild::DeepSeekR1ExtendedDefaults<guild::DeepSeekR1Spec> {
#if defined(GUILD_FIXED)
  static constexpr guild::WindowConfig windows = {.types = guild::LayerTypes::every(6, 61)};
#else
  static constexpr guild::WindowConfig windows = {.types = guild::LayerTypes::every(6, 60)};
#endif
};
constexpr int layers = S::Layers<S>::layers;
