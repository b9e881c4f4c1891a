// expect: this unit runs operations on guild::Cpu without its kernels: include guild/cpu.hpp or guild/guild.hpp
#include <guild/device/cpu.hpp>
#include <guild/ops/optimizer/adamw.hpp>
#ifdef GUILD_FIXED
#include <guild/cpu.hpp>
#endif

// AdamW has a general body too, which another unit with the kernels would not run.
void step(guild::Cpu& device, std::span<const guild::AdamWJob<float>> jobs) { guild::adamw(device, jobs); }
