// AdamW on the CPU: the row kernel, or a variant for the processor's instruction set.
#pragma once

#include <guild/device/cpu.hpp>
#include <guild/ops/optimizer/cpu/adamw_avx2.hpp>

namespace guild {
inline namespace v1 {

/// The CPU's side of `adamw`; sizes are checked by the front door.
inline void run_adamw(Cpu& device, std::span<const AdamWJob<float>> jobs) {
#if defined(__x86_64__)
  if (device.isa() != Isa::baseline) {
    auto scratch = device.scratch();
    const View wide = scratch.take<cpu::avx2::AdamWJob8>(static_cast<Index>(jobs.size()));
    for (Index i = 0; i < wide.size; ++i) wide[i] = {jobs[static_cast<std::size_t>(i)]};
    return for_each_piece(device, std::span<const cpu::avx2::AdamWJob8>(wide.data, jobs.size()));
  }
#endif
  for_each_piece(device, jobs);
}

}  // namespace v1
}  // namespace guild
