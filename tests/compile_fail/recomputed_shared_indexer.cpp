// expect: Recompute: a layer that sees the choice of another layer's index cannot be computed again alone
#include <guild/models/glm5.hpp>
#include <guild/modules/recompute.hpp>

struct Two : guild::Glm5Defaults {
#if defined(GUILD_FIXED)
  static constexpr guild::IndexerConfig indexer = {.types = guild::IndexerTypes("ff")};
#else
  static constexpr guild::IndexerConfig indexer = {.types = guild::IndexerTypes("fs")};
#endif
  static constexpr guild::TrunkConfig config = {.layers = 2};
};
using Layers = guild::Recompute<Two::Layers<Two>>;
static_assert(sizeof(Layers::Cache) > 0);
