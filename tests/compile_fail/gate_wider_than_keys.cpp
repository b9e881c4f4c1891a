// expect: Gated: the gate's window must be within that of the keys; there is nothing far otherwise
#include <guild/models/presets.hpp>
#include <guild/modules/gates.hpp>
#include <guild/modules/keys.hpp>

template <class A>
using Far = guild::Gated<A, guild::FarBiasGate<64>>;
#if defined(GUILD_FIXED)
constexpr int branches = Far<guild::Local<guild::Mla<guild::MiniR1Spec>, 65>>::Branches::branches;
#else
constexpr int branches = Far<guild::Local<guild::Mla<guild::MiniR1Spec>, 64>>::Branches::branches;
#endif
