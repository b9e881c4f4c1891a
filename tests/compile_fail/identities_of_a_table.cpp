// expect: Moe: this router does not choose among routing.identities, experts that give their input
#include <guild/models/transformer.hpp>
#include <guild/modules/hash_router.hpp>

struct Spec : guild::SpecDefaults {
  static constexpr guild::TrunkConfig config = {};
#if defined(GUILD_FIXED)
  static constexpr guild::TopKConfig routing = {.experts = 4, .top_k = 2};
#else
  static constexpr guild::TopKConfig routing = {.experts = 4, .top_k = 2, .identities = 2};
#endif
};
guild::Moe<Spec, guild::HashRouter<Spec>>::Weights<guild::Published> weights;
