// expect: Segment: the number of layers must not be negative
#include <guild/models/presets.hpp>
#include <guild/modules/segment.hpp>

#if defined(GUILD_FIXED)
guild::Segment<guild::MiniR1Spec::DenseLayer<guild::MiniR1Spec>, 1> segment;
#else
guild::Segment<guild::MiniR1Spec::DenseLayer<guild::MiniR1Spec>, -1> segment;
#endif
