// expect: Transformer: routing.top_k must be in [1, routing.experts]
#include <guild/models/transformer.hpp>

struct Spec : guild::SpecDefaults {
#if defined(GUILD_FIXED)
  static constexpr guild::TrunkConfig config = {};
  static constexpr guild::TopKConfig routing = {.experts = 4, .top_k = 4};
#else
  static constexpr guild::TrunkConfig config = {};
  static constexpr guild::TopKConfig routing = {.experts = 4, .top_k = 5};
#endif
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
