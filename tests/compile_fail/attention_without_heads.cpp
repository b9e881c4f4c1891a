// expect: Mla: attention.heads, attention.latent_rank and attention.value_dim must be positive
#include <guild/models/transformer.hpp>

struct Spec : guild::SpecDefaults {
#if defined(GUILD_FIXED)
  static constexpr guild::TrunkConfig config = {};
  static constexpr guild::MlaConfig attention = {.heads = 1};
#else
  static constexpr guild::TrunkConfig config = {};
  static constexpr guild::MlaConfig attention = {.heads = 0};
#endif
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
