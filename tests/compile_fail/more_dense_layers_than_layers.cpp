// expect: Transformer: config.dense_layers must be in [0, config.layers]
#include <guild/models/transformer.hpp>

struct Spec : guild::SpecDefaults {
#if defined(GUILD_FIXED)
  static constexpr guild::ModelConfig config = {.layers = 2, .dense_layers = 2};
#else
  static constexpr guild::ModelConfig config = {.layers = 2, .dense_layers = 3};
#endif
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
