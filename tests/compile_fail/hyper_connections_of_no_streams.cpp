// expect: HyperConnections: streams must be from 1 to 16
#include <guild/models/presets.hpp>
#include <guild/modules/hyper_connections.hpp>

struct S : guild::MiniR1Spec {
#if defined(GUILD_FIXED)
  static constexpr guild::HyperConfig hyper = {};
#else
  static constexpr guild::HyperConfig hyper = {.streams = 0};
#endif
};
constexpr guild::Index width = guild::HyperConnections<S>::width;
