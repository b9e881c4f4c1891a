// expect: LayerList: the list names a kind of layer that is not there
#include <array>
#include <guild/models/presets.hpp>
#include <guild/modules/layer_list.hpp>

using Dense = guild::MiniR1Spec::DenseLayer<guild::MiniR1Spec>;
using Sparse = guild::MiniR1Spec::ExpertLayer<guild::MiniR1Spec>;
#if defined(GUILD_FIXED)
inline constexpr std::array<int, 3> kinds = {0, 1, 1};
#else
inline constexpr std::array<int, 3> kinds = {0, 1, 2};
#endif
using Layers = guild::LayerList<kinds, Dense, Sparse>;
static_assert(sizeof(Layers) > 0);
