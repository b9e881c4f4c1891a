// expect: SharedKv: attention.output_groups must divide attention.heads
#include <guild/models/transformer.hpp>
#include <guild/modules/shared_kv.hpp>

struct Spec : guild::SpecDefaults {
#if defined(GUILD_FIXED)
  static constexpr guild::SharedKvConfig attention = {.heads = 8, .output_groups = 4};
#else
  static constexpr guild::SharedKvConfig attention = {.heads = 8, .output_groups = 3};
#endif
};
guild::SharedKv<Spec>::Weights<guild::Published> weights;
