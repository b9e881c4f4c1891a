// expect: Transformer: Spec::config is no possible model
#include <guild/models/transformer.hpp>

struct Spec : guild::SpecDefaults {
#if defined(GUILD_FIXED)
  static constexpr guild::ModelConfig config = {.moe = {.experts = 64, .groups = 8, .top_groups = 4}};
#else
  static constexpr guild::ModelConfig config = {.moe = {.experts = 60, .groups = 8, .top_groups = 4}};
#endif
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
