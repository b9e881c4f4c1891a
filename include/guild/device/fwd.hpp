// Declares the public types of device/, for headers that only name them. Written by tests/rules/update_umbrella.sh.
#pragma once

#include <guild/core/fwd.hpp>

namespace guild {
inline namespace v1 {

// guild/device/arena.hpp
template <class Slab> class BasicArena;

// guild/device/cpu.hpp
class Cpu;
struct CpuOptions;
struct CpuTwins;

// guild/device/host_team.hpp
class HostTeam;
class HostTeams;

// guild/device/isa.hpp
enum class Isa : std::uint8_t;

// guild/device/staged.hpp
template <class Device, class Job> class Staged;

// guild/device/team.hpp
struct SerialTeam;

// guild/device/thread_pool.hpp
class ThreadPool;

// guild/device/transfer.hpp
template <class Device, class T, int Rank> class Download;

// guild/device/tuning.hpp
enum class LatentForm : std::uint8_t;
struct Tuning;

}  // namespace v1
}  // namespace guild
