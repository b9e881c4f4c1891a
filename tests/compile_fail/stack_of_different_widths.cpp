// expect: Stack: its parts take rows of different widths
#include <guild/models/presets.hpp>
#include <guild/modules/streams.hpp>

struct S : guild::MiniR1Spec {
  static constexpr guild::HyperConfig hyper = {};
};
using Plain = guild::Block<S, guild::Mla<S>, guild::Moe<S>>;
using Hyper = guild::Block<S, guild::Mla<S>, guild::Moe<S>, guild::HyperConnections<S>>;
#if defined(GUILD_FIXED)
using Second = guild::Streams<S, guild::Segment<Hyper, 1>>;
#else
using Second = guild::Segment<Hyper, 1>;
#endif
constexpr int layers = guild::Stack<guild::Segment<Plain, 1>, Second>::layers;
