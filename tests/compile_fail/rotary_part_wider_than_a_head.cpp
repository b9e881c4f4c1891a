// expect: SharedKv: attention.rope_dim must be even and no wider than attention.head_dim
#include <guild/models/transformer.hpp>
#include <guild/modules/shared_kv.hpp>

struct Spec : guild::SpecDefaults {
#if defined(GUILD_FIXED)
  static constexpr guild::SharedKvConfig attention = {.head_dim = 32, .rope_dim = 32};
#else
  static constexpr guild::SharedKvConfig attention = {.head_dim = 32, .rope_dim = 64};
#endif
};
guild::SharedKv<Spec>::Weights<guild::Published> weights;
