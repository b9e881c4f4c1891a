// expect: Mla: attention.rope_dim must be even
#include <guild/models/transformer.hpp>

struct Spec : guild::SpecDefaults {
#if defined(GUILD_FIXED)
  static constexpr guild::TrunkConfig config = {};
  static constexpr guild::MlaConfig attention = {.rope_dim = 62};
#else
  static constexpr guild::TrunkConfig config = {};
  static constexpr guild::MlaConfig attention = {.rope_dim = 63};
#endif
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
