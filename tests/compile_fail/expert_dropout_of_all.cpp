// expect: ExpertDropout: experts.dropout must be in [0, 1)
#include <guild/models/spec.hpp>

struct Spec : guild::SpecDefaults {
#if defined(GUILD_FIXED)
  static constexpr guild::ExpertConfig experts = {.dropout = 0.4};
#else
  static constexpr guild::ExpertConfig experts = {.dropout = 1.0};
#endif
};
static_assert(guild::ExpertDropout<Spec>::probability >= 0.0);
