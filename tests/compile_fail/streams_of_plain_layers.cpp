// expect: Streams: its layers take rows of another width than all streams together
#include <guild/models/presets.hpp>
#include <guild/modules/streams.hpp>

struct S : guild::MiniR1Spec {
  static constexpr guild::HyperConfig hyper = {};
};
#if defined(GUILD_FIXED)
using Layer = guild::Block<S, guild::Mla<S>, guild::Moe<S>, guild::HyperConnections<S>>;
#else
using Layer = guild::Block<S, guild::Mla<S>, guild::Moe<S>>;
#endif
constexpr int layers = guild::Streams<S, guild::Segment<Layer, 2>>::layers;
