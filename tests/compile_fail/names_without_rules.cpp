// expect: Names: needs `static constexpr NameRule rules[]` and a `scale_suffix`
#include <guild/models/name_rule.hpp>

struct Names {
#if defined(GUILD_FIXED)
  static constexpr guild::NameRule rules[] = {{"embedding", "model.embed_tokens"}};
#endif
  static constexpr std::string_view scale_suffix = "_scale_inv";
};
const std::string name = guild::published_name<Names>(guild::Path() / "embedding");
