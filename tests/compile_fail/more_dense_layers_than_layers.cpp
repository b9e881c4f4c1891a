// expect: Transformer: dense.layers must be in [0, config.layers]
#include <guild/models/transformer.hpp>

struct Spec : guild::SpecDefaults {
#if defined(GUILD_FIXED)
  static constexpr guild::TrunkConfig config = {.layers = 2};
  static constexpr guild::DenseConfig dense = {.layers = 2};
#else
  static constexpr guild::TrunkConfig config = {.layers = 2};
  static constexpr guild::DenseConfig dense = {.layers = 3};
#endif
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
