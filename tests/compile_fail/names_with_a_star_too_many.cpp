// expect: Names: a rule needs a name on both sides, with as many stars in both
#include <guild/models/name_rule.hpp>

struct Names {
#if defined(GUILD_FIXED)
  static constexpr guild::NameRule rules[] = {{"layers.*.experts.*", "model.layers.*.experts.*"}};
#else
  static constexpr guild::NameRule rules[] = {{"layers.*.experts", "model.layers.*.experts.*"}};
#endif
  static constexpr std::string_view scale_suffix = "_scale_inv";
};
const std::string name = guild::published_name<Names>(guild::Path() / "layers");
