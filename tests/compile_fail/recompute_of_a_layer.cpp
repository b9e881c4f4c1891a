// expect: Recompute: takes a Segment, a Stack, a Repeat or a MergeSpan of such
#include <guild/models/presets.hpp>
#include <guild/modules/recompute.hpp>

using Layer = guild::MiniR1Spec::DenseLayer<guild::MiniR1Spec>;
#if defined(GUILD_FIXED)
guild::Recompute<guild::Segment<Layer, 1>> layers;
#else
guild::Recompute<Layer> layers;
#endif
