// A Spec whose numbers are no possible model is refused where it is first compared with a file.
// expect: the numbers of this Spec are no possible model: see core/config_check.hpp
#include <guild/io/config.hpp>
#include <guild/models/spec.hpp>

struct OddRotary : guild::SpecDefaults {
#ifdef GUILD_FIXED
  static constexpr guild::MlaConfig attention = {.rope_dim = 64};
#else
  static constexpr guild::MlaConfig attention = {.rope_dim = 63};
#endif
};

void f(const guild::PublishedModel<guild::DeepSeekFamily>& published) { guild::check_config<OddRotary>(published); }
