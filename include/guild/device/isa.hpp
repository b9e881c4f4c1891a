// The instruction sets for which the CPU kernels are written, and which of them this machine runs.
#pragma once

#include <cstdint>
#include <string_view>

namespace guild {
inline namespace v1 {

/// Kernel variants, each a superset of the one before. Programs are compiled with plain flags; the variant is chosen at
/// run time. `avx512` means F, BW, DQ, VL and VBMI (Ice Lake, Zen 4 and newer); older 512-bit machines run `avx2`.
enum class Isa : std::uint8_t { baseline, avx2, avx512, avx512_bf16 };

[[nodiscard]] constexpr std::string_view name(Isa isa) noexcept {
  constexpr std::string_view names[] = {"baseline", "avx2", "avx512", "avx512_bf16"};
  return names[static_cast<std::size_t>(isa)];
}

/// Whether this machine (processor and operating system) runs the variant.
[[nodiscard]] inline bool runs_here(Isa isa) {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512vbmi");
  switch (isa) {
    case Isa::baseline:
      return true;
    case Isa::avx2:
      return avx2;
    case Isa::avx512:
      return avx512;
    case Isa::avx512_bf16:
      return avx512 && __builtin_cpu_supports("avx512bf16");
  }
  return false;
#else
  return isa == Isa::baseline;
#endif
}

/// The best variant this machine runs. Its `avx512_bf16` rounds activations to bf16 in products of many rows.
[[nodiscard]] inline Isa best_isa() {
  static const Isa best = [] {
    for (const Isa isa : {Isa::avx512_bf16, Isa::avx512, Isa::avx2})
      if (runs_here(isa)) return isa;
    return Isa::baseline;
  }();
  return best;
}

/// The best variant whose products keep activations in float: what a `Cpu` runs unless it is told otherwise.
[[nodiscard]] inline Isa best_float_isa() { return best_isa() == Isa::avx512_bf16 ? Isa::avx512 : best_isa(); }

}  // namespace v1
}  // namespace guild
