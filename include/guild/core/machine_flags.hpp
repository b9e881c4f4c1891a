// Units of one program that were compiled for different instruction sets do not link.
#pragma once

#if defined(__FAST_MATH__)
#error "guild needs IEEE arithmetic: -ffast-math removes its NaN and infinity checks. Compile without it."
#endif

// Inline functions exist in every unit, and the linker keeps one of each: if a unit compiled with -mavx512f brought the
// one that is kept, the whole program would need such a processor. guild chooses its kernels at run time and needs no
// such flags; if they are used, then for all units alike. Each unit defines one absolute symbol whose value has a bit
// for each instruction set it may use. Linkers (GNU ld, gold, lld) accept several definitions of the same value and
// refuse different ones. Link-time optimization by GCC does not look at such symbols.
#if defined(__ELF__) && defined(__x86_64__) && !defined(__CUDA_ARCH__) && !defined(__CUDACC_RTC__)
namespace guild {
inline namespace v1 {
namespace detail {

inline constexpr unsigned machine_flags = 0U
#if defined(__SSE3__)
                                          + (1U << 0)
#endif
#if defined(__SSSE3__)
                                          + (1U << 1)
#endif
#if defined(__SSE4_1__)
                                          + (1U << 2)
#endif
#if defined(__SSE4_2__)
                                          + (1U << 3)
#endif
#if defined(__POPCNT__)
                                          + (1U << 4)
#endif
#if defined(__LZCNT__)
                                          + (1U << 5)
#endif
#if defined(__MOVBE__)
                                          + (1U << 6)
#endif
#if defined(__BMI__)
                                          + (1U << 7)
#endif
#if defined(__BMI2__)
                                          + (1U << 8)
#endif
#if defined(__AVX__)
                                          + (1U << 9)
#endif
#if defined(__F16C__)
                                          + (1U << 10)
#endif
#if defined(__FMA__)
                                          + (1U << 11)
#endif
#if defined(__AVX2__)
                                          + (1U << 12)
#endif
#if defined(__AVXVNNI__)
                                          + (1U << 13)
#endif
#if defined(__AVX512F__)
                                          + (1U << 14)
#endif
#if defined(__AVX512CD__)
                                          + (1U << 15)
#endif
#if defined(__AVX512BW__)
                                          + (1U << 16)
#endif
#if defined(__AVX512DQ__)
                                          + (1U << 17)
#endif
#if defined(__AVX512VL__)
                                          + (1U << 18)
#endif
#if defined(__AVX512IFMA__)
                                          + (1U << 19)
#endif
#if defined(__AVX512VBMI__)
                                          + (1U << 20)
#endif
#if defined(__AVX512VBMI2__)
                                          + (1U << 21)
#endif
#if defined(__AVX512VNNI__)
                                          + (1U << 22)
#endif
#if defined(__AVX512BITALG__)
                                          + (1U << 23)
#endif
#if defined(__AVX512VPOPCNTDQ__)
                                          + (1U << 24)
#endif
#if defined(__AVX512BF16__)
                                          + (1U << 25)
#endif
#if defined(__AVX512FP16__)
                                          + (1U << 26)
#endif
    ;

[[gnu::used]] static void define_machine_flags() {
  __asm__(
      ".globl guild_units_have_the_same_machine_flags\n"
      ".hidden guild_units_have_the_same_machine_flags\n"
      ".set guild_units_have_the_same_machine_flags, %c0"
      :
      : "i"(machine_flags));
}

}  // namespace detail
}  // namespace v1
}  // namespace guild
#endif
