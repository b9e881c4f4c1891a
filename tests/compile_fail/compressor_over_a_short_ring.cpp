// expect: Compressor: its sources lie in Compressor::Sources, a ring of two windows where they overlap
#include <guild/cpu.hpp>
#include <guild/modules/compressor.hpp>

using Csa = guild::Compressor<16, 8, 4, guild::PoolWindows::overlapping>;
#if defined(GUILD_FIXED)
using Sources = Csa::Sources<5>;
#else
using Sources = guild::RingCache<float, 32, 7, 0, 5>;
#endif
void append(const guild::Pass<guild::Cpu>& pass, const Csa::Weights<guild::Published>& weights,
            guild::Caches<Sources> sources, guild::Caches<Csa::Pooled<float>> pooled, guild::Arena::Frame& memory) {
  Csa::append(pass, weights, 1e-6, guild::RopeTable({}, 4), {1, 8, 4}, sources, pooled, {}, memory);
}
