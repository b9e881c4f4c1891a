// expect: GumbelChoice: its router does not choose by logits alone; take it around a TopKRouter
#include <guild/models/transformer.hpp>
#include <guild/modules/gumbel_choice.hpp>
#include <guild/modules/hash_router.hpp>

#if defined(GUILD_FIXED)
using Router = guild::TopKRouter<guild::SpecDefaults>;
#else
using Router = guild::HashRouter<guild::SpecDefaults>;
#endif
guild::GumbelChoice<Router>::Weights<guild::Published> weights;
