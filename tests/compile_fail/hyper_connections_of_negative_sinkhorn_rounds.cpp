// expect: HyperConnections: sinkhorn_rounds must be at least 1
#include <guild/models/presets.hpp>
#include <guild/modules/hyper_connections.hpp>

struct S : guild::MiniR1Spec {
#if defined(GUILD_FIXED)
  static constexpr guild::HyperConfig hyper = {};
#else
  static constexpr guild::HyperConfig hyper = {.sinkhorn_rounds = -1};
#endif
};
constexpr guild::Index width = guild::HyperConnections<S>::width;
