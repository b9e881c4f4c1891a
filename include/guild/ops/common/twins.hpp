// Twins: where an operation needs more than rows, a device has a kernel of its own for it, `run_<operation>(device,
// ...)`, which the front door finds by argument-dependent lookup. Front doors do not include them: guild/cpu.hpp brings
// all of the CPU, guild/cuda.cuh those of CUDA.
#pragma once

namespace guild {
inline namespace v1 {
namespace detail {

/// Refuses a unit that runs an operation without having the twins of its device. The device says which type stands for
/// them, and their header defines it; so units agree on what runs where an operation has a general body too.
template <class Device>
constexpr void require_twins() {
  if constexpr (requires { typename Device::Twins; })
    static_assert(
        requires { sizeof(typename Device::Twins); },
        "this unit runs operations on guild::Cpu without its kernels: include guild/cpu.hpp or guild/guild.hpp");
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
