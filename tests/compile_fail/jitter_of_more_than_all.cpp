// expect: so Amount must be above 0 and below 1
#include <guild/models/transformer.hpp>
#include <guild/modules/jittered.hpp>

#if defined(GUILD_FIXED)
constexpr double amount = 0.1;
#else
constexpr double amount = 1.1;
#endif
guild::Jittered<guild::TopKRouter<guild::SpecDefaults>, amount>::Weights<guild::Published> weights;
