// expect: Transformer: routing.groups must divide routing.experts
#include <guild/models/transformer.hpp>

struct Spec : guild::SpecDefaults {
#if defined(GUILD_FIXED)
  static constexpr guild::TrunkConfig config = {};
  static constexpr guild::TopKConfig routing = {.experts = 64, .groups = 8, .top_groups = 4};
#else
  static constexpr guild::TrunkConfig config = {};
  static constexpr guild::TopKConfig routing = {.experts = 60, .groups = 8, .top_groups = 4};
#endif
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
