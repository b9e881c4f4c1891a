// expect: Stack: each part is a Segment, a Stack, a Repeat or another LayerStack
#include <guild/models/presets.hpp>
#include <guild/modules/stack.hpp>

using Layer = guild::MiniR1Spec::DenseLayer<guild::MiniR1Spec>;
#if defined(GUILD_FIXED)
guild::Stack<guild::Segment<Layer, 1>, guild::Segment<Layer, 2>> layers;
#else
guild::Stack<guild::Segment<Layer, 1>, Layer> layers;
#endif
