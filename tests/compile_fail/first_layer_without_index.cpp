// expect: indexer.types must begin with f: there is no index before the first layer
#include <guild/models/glm5.hpp>

struct Two : guild::Glm5Defaults {
#if defined(GUILD_FIXED)
  static constexpr guild::IndexerConfig indexer = {.types = guild::IndexerTypes("fs")};
#else
  static constexpr guild::IndexerConfig indexer = {.types = guild::IndexerTypes("sf")};
#endif
  static constexpr guild::TrunkConfig config = {.layers = 2};
};
using Layers = Two::Layers<Two>;
static_assert(Layers::layers == 2);
