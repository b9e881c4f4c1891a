// expect: Transformer: config.layers must be positive
#include <guild/models/transformer.hpp>

struct Spec : guild::SpecDefaults {
#if defined(GUILD_FIXED)
  static constexpr guild::ModelConfig config = {.layers = 1, .dense_layers = 0};
#else
  static constexpr guild::ModelConfig config = {.layers = 0, .dense_layers = 0};
#endif
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
