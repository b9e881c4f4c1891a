// A Spec whose numbers are no possible model is refused where it is first compared with a file.
// expect: Spec::config is no possible model: see core/config_check.hpp
#include <guild/io/config.hpp>

struct OddRotary {
#ifdef GUILD_FIXED
  static constexpr guild::ModelConfig config = {.attention = {.rope_dim = 64}};
#else
  static constexpr guild::ModelConfig config = {.attention = {.rope_dim = 63}};
#endif
};

void f(const guild::PublishedConfig& published) { guild::check_config<OddRotary>(published); }
