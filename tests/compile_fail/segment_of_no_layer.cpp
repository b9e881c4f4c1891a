// expect: Segment: its layers need nested Weights<Store>, Saved<Real> and Cache, a static visit and chosen_experts
#include <guild/models/presets.hpp>
#include <guild/modules/segment.hpp>

#if defined(GUILD_FIXED)
guild::Segment<guild::MiniR1Spec::DenseLayer<guild::MiniR1Spec>, 2> segment;
#else
guild::Segment<guild::Mla<guild::MiniR1Spec>, 2> segment;  // a mixer alone is no layer: nobody says how many experts it takes
#endif
