// expect: Repeat: a pattern stands at least once
#include <guild/models/presets.hpp>
#include <guild/modules/repeat.hpp>

using Pattern = guild::Segment<guild::MiniR1Spec::DenseLayer<guild::MiniR1Spec>, 1>;
#if defined(GUILD_FIXED)
guild::Repeat<Pattern, 1> layers;
#else
guild::Repeat<Pattern, 0> layers;
#endif
