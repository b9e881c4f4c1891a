// expect: ShortcutBlock: has norms before its parts alone
#include <guild/models/longcat_flash.hpp>
#include <guild/models/transformer.hpp>

struct Spec : guild::LongcatFlashDefaults {
#if defined(GUILD_FIXED)
  static constexpr guild::TrunkConfig config = {};
#else
  static constexpr guild::TrunkConfig config = {.norm = {.place = guild::NormPlace::before_and_after}};
#endif
};
guild::Transformer<Spec>::Weights<guild::Published> weights;
