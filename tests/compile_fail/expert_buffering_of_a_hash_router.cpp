// expect: ExpertBuffering: its router does not choose by scores, so no expert can be blocked
#include <guild/models/transformer.hpp>
#include <guild/modules/expert_buffering.hpp>
#include <guild/modules/hash_router.hpp>

struct Spec : guild::SpecDefaults {
  static constexpr guild::TopKConfig routing = {.experts = 16, .top_k = 2};
};
#if defined(GUILD_FIXED)
using Router = guild::TopKRouter<Spec>;
#else
using Router = guild::HashRouter<Spec>;
#endif
guild::ExpertBuffering<Router>::Weights<guild::Published> weights;
