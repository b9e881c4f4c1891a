// expect: Block: its residual was made for a model of another width than this Spec's config.hidden
#include <guild/models/presets.hpp>
#include <guild/modules/hyper_connections.hpp>

struct S : guild::MiniR1Spec {
  static constexpr guild::HyperConfig hyper = {};
};
struct Narrow : S {
  static constexpr guild::TrunkConfig config = {.vocab = 64, .hidden = 32, .layers = 2};
};
#if defined(GUILD_FIXED)
using Residual = guild::HyperConnections<S>;
#else
using Residual = guild::HyperConnections<Narrow>;
#endif
constexpr guild::Index width = guild::Block<S, guild::Mla<S>, guild::Moe<S>, Residual>::width;
