// expect: DeepSeekR1Extended: span must be layers of the model, 0 <= span.begin <= span.end <= config.layers
#include <guild/models/deepseek_r1_extended.hpp>

struct S : guild::DeepSeekR1ExtendedDefaults<guild::DeepSeekR1Spec> {
#if defined(GUILD_FIXED)
  static constexpr guild::LayerSpan span = {4, 57};
#else
  static constexpr guild::LayerSpan span = {4, 62};
#endif
};
constexpr int layers = S::Layers<S>::layers;
