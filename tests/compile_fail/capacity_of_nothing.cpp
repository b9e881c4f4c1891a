// expect: Capped: the capacity factor must be above 0; a router without Capped drops nobody
#include <guild/models/transformer.hpp>
#include <guild/modules/capped.hpp>

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {};
#if defined(GUILD_FIXED)
  static constexpr guild::Capacity capacity = {.factor = 1.25};
#else
  static constexpr guild::Capacity capacity = {.factor = 0.0};
#endif
  template <class S>
  using Router = guild::Capped<guild::TopKRouter<S>, S::capacity>;
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
