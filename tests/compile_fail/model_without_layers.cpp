// expect: Transformer: config.layers must be positive
#include <guild/models/transformer.hpp>

struct Spec : guild::SpecDefaults {
#if defined(GUILD_FIXED)
  static constexpr guild::TrunkConfig config = {.layers = 1};
  static constexpr guild::DenseConfig dense = {.layers = 0};
#else
  static constexpr guild::TrunkConfig config = {.layers = 0};
  static constexpr guild::DenseConfig dense = {.layers = 0};
#endif
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
